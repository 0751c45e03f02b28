//! One call: unary, stream or watch. What can be answered at once is; the rest gets a task of its own.

mod body;
mod foreign;
mod head;
mod sending;
mod streams;
mod unary;

use std::future::{Future, pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::Request;
use tokio::sync::oneshot;

use crate::answer::{Answer, Kind, Question, code};
use crate::connection::Caller;
use crate::framing::{Decoder, Item, Message, Refused};
use crate::limits::{Held, INLINE_BYTES, SMALL_ANSWER, Slot};
use crate::metrics::inc;
use crate::pool::{Job, Tally};
use crate::request::Encoding;
use crate::server::Route;

use body::Body;
pub use head::Recent;

/// Why a call ends before it was answered.
#[derive(Debug)]
enum Ended {
    /// The caller, or its connection, has gone.
    Gone,
    /// With a status.
    Status(Answer),
}

impl From<h2::Error> for Ended {
    fn from(_: h2::Error) -> Self {
        Self::Gone
    }
}

fn deadline_exceeded() -> Ended {
    Ended::Status(Answer::status(code::DEADLINE_EXCEEDED, "the deadline has passed"))
}

fn failed(details: &str) -> Ended {
    Ended::Status(Answer::status(code::INTERNAL, details))
}

/// A call whose method is known.
struct Call {
    caller: Arc<Caller>,
    route: Arc<Route>,
    question: Question,
    /// Whether answers to compressed messages are compressed too.
    packs: bool,
    encoding: Encoding,
    body: Body,
    decoder: Decoder,
    respond: SendResponse<Bytes>,
    /// Once the head of the answer was sent.
    sending: Option<SendStream<Bytes>>,
    began: Instant,
}

/// Answers a call, or begins to; `cx` is the connection's.
pub fn begin(
    recent: &mut Recent,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    began: Instant,
    cx: &mut Context<'_>,
) {
    inc(&recent.caller.shared.metrics.calls_begun);
    let Some(mut call) = head::open(recent, request, respond, began) else {
        return;
    };
    match call.route.kind {
        Kind::Unary => match call.poll_message(cx) {
            Poll::Ready(Ok(Some(Item::Message(message)))) if call.is_last() => match call.answer_nowait(&message) {
                Some(answer) if answer.frame.len() <= SMALL_ANSWER => {
                    let ended = call.send_only(answer);
                    call.route.metrics.handled(ended, call.began.elapsed());
                }
                Some(answer) => drop(tokio::spawn(unary::send_large(call, answer))),
                None => drop(tokio::spawn(unary::wait_answer(call, message))),
            },
            Poll::Ready(item) => drop(tokio::spawn(unary::wait_message(call, Some(item)))),
            Poll::Pending => drop(tokio::spawn(unary::wait_message(call, None))),
        },
        Kind::Stream => drop(tokio::spawn(streams::stream(call))),
        Kind::Watch => drop(tokio::spawn(streams::watch(call))),
    }
}

impl Call {
    fn refused(&self, reason: Refused) -> Ended {
        Ended::Status(self.refusal(reason))
    }

    fn refusal(&self, reason: Refused) -> Answer {
        match reason {
            Refused::TooLarge => self.route.refusals.too_large.clone(),
            Refused::TooManyBytes => {
                inc(&self.caller.shared.metrics.shed);
                self.route.refusals.too_many_bytes.clone()
            }
        }
    }

    fn too_many_calls(&self) -> Answer {
        inc(&self.caller.shared.metrics.shed);
        self.route.refusals.too_many_calls.clone()
    }

    /// The answer of a method that need not wait, or the refusal to ask it.
    fn answer_nowait(&self, message: &Message) -> Option<Answer> {
        let shared = &self.caller.shared;
        let size = message.bytes.len();
        if self.route.kind == Kind::Unary && shared.load.calls() >= shared.limits.max_concurrent {
            return Some(self.too_many_calls());
        }
        if !shared.load.has_room(size, &shared.limits) {
            return Some(self.refusal(Refused::TooManyBytes));
        }
        if message.compressed && self.encoding == Encoding::Identity {
            return Some(Answer::status(
                code::INTERNAL,
                "a message is compressed, and grpc-encoding does not say how",
            ));
        }
        if message.compressed || size >= INLINE_BYTES {
            return None;
        }
        if self
            .question
            .deadline
            .is_some_and(|deadline| deadline <= Instant::now())
        {
            return Some(Answer::status(code::DEADLINE_EXCEEDED, "the deadline has passed"));
        }
        let ask = || self.route.method.answer_nowait(&self.question, &message.bytes);
        let answer = catch_unwind(AssertUnwindSafe(ask)).unwrap_or_else(|_| Some(self.route.refusals.internal.clone()));
        if answer.is_some() {
            inc(&shared.metrics.inline);
        }
        answer
    }

    /// The answer of a thread that may wait.
    async fn answer(
        &mut self,
        message: Message,
        slot: Arc<Slot>,
        mut held: Held,
        tally: &Arc<Tally>,
    ) -> Result<Answer, Ended> {
        let caller = Arc::clone(&self.caller);
        let shared = &caller.shared;
        if !held.resize(message.bytes.len(), &shared.limits) {
            return Ok(self.refusal(Refused::TooManyBytes));
        }
        let (done, mut answered) = oneshot::channel();
        shared.pool.push(Job {
            route: Arc::clone(&self.route),
            question: self.question.clone(),
            compress: self.packs && message.compressed,
            message,
            done,
            queued: Instant::now(),
            max_message_bytes: shared.limits.max_message_bytes,
            held: (slot, held, Arc::clone(tally)),
        });
        let mut expired = pin!(expiry(self.question.deadline));
        poll_fn(|cx| {
            if let Poll::Ready(answer) = Pin::new(&mut answered).poll(cx) {
                // The pool was closed.
                return Poll::Ready(answer.map_err(|_| Ended::Gone));
            }
            if self.poll_gone(cx).is_ready() {
                return Poll::Ready(Err(Ended::Gone));
            }
            self.body.poll_ahead(cx);
            expired.as_mut().poll(cx).map(|()| Err(deadline_exceeded()))
        })
        .await
    }

    /// Ready when the caller has cancelled, or its connection is lost.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.sending {
            Some(stream) => stream.poll_reset(cx).map(drop),
            None => self.respond.poll_reset(cx).map(drop),
        }
    }
}

async fn expiry(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => pending().await,
    }
}
