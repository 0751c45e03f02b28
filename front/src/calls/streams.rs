//! Calls that stay open: streams of questions, and watches.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use tokio::sync::mpsc;

use super::{Call, Ended, deadline_exceeded, expiry};
use crate::answer::{Answer, Code, code};
use crate::framing::{Item, Message};
use crate::limits::{Held, Place, Slot};
use crate::pool::{Tally, plain};
use crate::server::Phase;

/// Answers message after message; the next is read when the answer to the last was taken.
pub(super) async fn stream(mut call: Call) {
    let tally = Arc::new(Tally::new(&call.route, call.began));
    let shared = &call.caller.shared;
    let ended = match Slot::take(&shared.load, Place::Stream, &shared.limits) {
        Some(slot) => exchange(&mut call, &Arc::new(slot), &tally).await,
        None => Ended::Status(call.too_many_calls()),
    };
    finish(call, ended, &tally);
}

/// The place is shared with what waits for a thread: a caller who goes leaves that behind.
async fn exchange(call: &mut Call, slot: &Arc<Slot>, tally: &Arc<Tally>) -> Ended {
    let mut phase = call.caller.phase.clone();
    // Metadata of the last answer leaves with the status.
    let mut last = Answer::default();
    loop {
        let mut held = Held::new(&call.caller.shared.load);
        let next = tokio::select! {
            biased;
            next = call.message(&mut held) => next,
            _ = phase.wait_for(|now| *now != Phase::Running) => Err(Ended::Status(Answer::status(
                code::UNAVAILABLE, "the process is going down"
            ))),
        };
        let answer = match next {
            Ok(Some(Item::Message(message))) => {
                // What was kept of the message is the message, and would count twice.
                drop(held);
                match call.answer_nowait(&message) {
                    Some(answer) => Ok(answer),
                    None => {
                        let held = Held::new(&call.caller.shared.load);
                        call.answer(message, Arc::clone(slot), held, tally).await
                    }
                }
            }
            Ok(Some(Item::Refused(reason))) => Ok(call.refusal(reason)),
            Ok(None) => return Ended::Status(last),
            Err(ended) => Err(ended),
        };
        let sent = match answer {
            Ok(mut answer) if answer.status == code::OK => {
                keep_trailing(&mut last, &mut answer);
                call.send(answer).await
            }
            Ok(answer) => Err(Ended::Status(answer)),
            Err(ended) => Err(ended),
        };
        if let Err(ended) = sent {
            return ended;
        }
        // A caller who always has a next message is not alone.
        tokio::task::coop::consume_budget().await;
    }
}

/// Answers one message with many; a thread of its own waits for them.
pub(super) async fn watch(mut call: Call) {
    let tally = Arc::new(Tally::new(&call.route, call.began));
    let shared = &call.caller.shared;
    let ended = match Slot::take(&shared.load, Place::Watch, &shared.limits) {
        Some(slot) => watched(&mut call, slot, &tally).await.unwrap_or_else(|ended| ended),
        None => Ended::Status(call.too_many_calls()),
    };
    finish(call, ended, &tally);
}

async fn watched(call: &mut Call, slot: Slot, tally: &Arc<Tally>) -> Result<Ended, Ended> {
    let mut held = Held::new(&call.caller.shared.load);
    let message = call.only_message(&mut held, None).await?;
    // One at a time: the next is asked for when the last was taken.
    let (sender, mut answers) = mpsc::channel(1);
    if start(call, message, (slot, held, Arc::clone(tally)), sender).is_err() {
        return Ok(Ended::Status(call.route.refusals.internal.clone()));
    }
    let mut expired = pin!(expiry(call.question.deadline));
    let mut last = Answer::default();
    loop {
        let next = poll_fn(|cx| {
            if let Poll::Ready(answer) = answers.poll_recv(cx) {
                return Poll::Ready(Ok(answer));
            }
            if call.poll_gone(cx).is_ready() {
                return Poll::Ready(Err(Ended::Gone));
            }
            expired.as_mut().poll(cx).map(|()| Err(deadline_exceeded()))
        });
        match next.await? {
            Some(mut answer) if answer.status == code::OK => {
                keep_trailing(&mut last, &mut answer);
                call.send(answer).await?;
            }
            Some(answer) => return Ok(Ended::Status(answer)),
            None => return Ok(Ended::Status(last)),
        }
    }
}

fn keep_trailing(last: &mut Answer, answer: &mut Answer) {
    if !answer.trailing.is_empty() {
        last.trailing = std::mem::take(&mut answer.trailing);
    }
}

fn start(
    call: &Call,
    message: Message,
    held: (Slot, Held, Arc<Tally>),
    answers: mpsc::Sender<Answer>,
) -> std::io::Result<()> {
    let route = Arc::clone(&call.route);
    let question = call.question.clone();
    let limit = call.caller.shared.limits.max_message_bytes;
    let run = move || {
        let _held = held;
        let mut send = |answer: Option<Answer>| match answer {
            Some(answer) => answers.blocking_send(answer).is_ok(),
            None => !answers.is_closed(),
        };
        match plain(&route, message, limit) {
            Ok(message) => {
                if catch_unwind(AssertUnwindSafe(|| route.method.watch(&question, &message, &mut send))).is_err() {
                    send(Some(route.refusals.internal.clone()));
                }
            }
            Err(refusal) => drop(send(Some(refusal))),
        }
    };
    std::thread::Builder::new()
        .name("watch".to_owned())
        .spawn(run)
        .map(drop)
}

fn finish(mut call: Call, ended: Ended, tally: &Tally) {
    if let Ended::Status(answer) = ended {
        let code: Code = call.finish(answer);
        tally.ended(code);
    }
}
