//! The queue of the answers that may wait, and what its threads do. Whoever owns the threads calls `work` on each.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicU8;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::answer::{Answer, Code, Question, code};
use crate::framing::Message;
use crate::limits::{Held, Slot};
use crate::metrics::{Metrics, add, inc};
use crate::packing::{Undecodable, compress, decompress};
use crate::server::Route;

/// Counts a call when the last who works for it is done: the caller may be gone before the method returns.
#[derive(Debug)]
pub struct Tally {
    route: Arc<Route>,
    began: Instant,
    code: AtomicU8,
}

impl Tally {
    /// A call that was cancelled, until somebody knows better.
    pub fn new(route: &Arc<Route>, began: Instant) -> Self {
        Self {
            route: Arc::clone(route),
            began,
            code: AtomicU8::new(code::CANCELLED),
        }
    }

    /// How it ended.
    pub fn ended(&self, code: Code) {
        self.code.store(code, std::sync::atomic::Ordering::Relaxed);
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.route.metrics.handled(*self.code.get_mut(), self.began.elapsed());
    }
}

/// One message to be answered.
pub struct Job {
    /// Of this method.
    pub route: Arc<Route>,
    /// What came with the call.
    pub question: Question,
    /// What came.
    pub message: Message,
    /// Whether the answer shall be compressed.
    pub compress: bool,
    /// Where the answer goes; closed when nobody waits any more.
    pub done: oneshot::Sender<Answer>,
    /// Since when it waits.
    pub queued: Instant,
    /// Bytes a message may have when it is decompressed.
    pub max_message_bytes: usize,
    /// Given back when the work is done, whether somebody waits for it or not.
    pub held: (Arc<Slot>, Held, Arc<Tally>),
}

/// Jobs that wait for a thread. The number is bounded by the places that calls take.
#[derive(Default)]
pub struct Pool {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
}

impl Pool {
    /// Adds a job at the end.
    pub fn push(&self, job: Job) {
        self.lock().jobs.push_back(job);
        self.changed.notify_one();
    }

    /// Jobs that wait.
    pub fn depth(&self) -> usize {
        self.lock().jobs.len()
    }

    /// Threads end when they are done with what they do; what waits is dropped.
    pub fn close(&self) {
        let mut queue = self.lock();
        queue.closed = true;
        queue.jobs.clear();
        drop(queue);
        self.changed.notify_all();
    }

    /// Answers jobs on this thread until the pool is closed.
    pub fn work(&self, metrics: &Metrics) {
        while let Some(job) = self.wait_job() {
            let Job {
                route,
                question,
                message,
                compress,
                done,
                queued,
                max_message_bytes,
                held,
            } = job;
            if done.is_closed() {
                continue;
            }
            inc(&metrics.pooled);
            add(&metrics.pool_waited, queued.elapsed().as_nanos() as usize);
            let answer = answer(&route, &question, message, max_message_bytes, compress);
            drop(held);
            // Whoever asked may be gone.
            let _ = done.send(answer);
        }
    }

    fn wait_job(&self) -> Option<Job> {
        let mut queue = self.lock();
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                return Some(job);
            }
            if queue.closed {
                return None;
            }
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn answer(route: &Route, question: &Question, message: Message, limit: usize, compressed: bool) -> Answer {
    if question.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
        return Answer::status(
            code::DEADLINE_EXCEEDED,
            "the deadline had passed before the call was looked at",
        );
    }
    let bytes = match plain(route, message, limit) {
        Ok(bytes) => bytes,
        Err(refusal) => return refusal,
    };
    let mut answer = catch_unwind(AssertUnwindSafe(|| route.method.answer(question, &bytes)))
        .unwrap_or_else(|_| route.refusals.internal.clone());
    if compressed && !answer.frame.is_empty() {
        answer.frame = compress(answer.frame);
    }
    answer
}

/// The bytes of a message, decompressed; or what to say where they are too many or none.
pub fn plain(route: &Route, message: Message, limit: usize) -> Result<Bytes, Answer> {
    if !message.compressed {
        return Ok(message.bytes);
    }
    decompress(&message.bytes, limit).map_err(|error| match error {
        Undecodable::TooLarge => route.refusals.too_large.clone(),
        Undecodable::Corrupt => Answer::status(code::INTERNAL, "the message is not gzip"),
    })
}
