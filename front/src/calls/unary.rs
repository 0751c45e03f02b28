//! One message each way, where it could not be answered at once.

use std::sync::Arc;

use super::{Call, Ended};
use crate::answer::Answer;
use crate::framing::{Item, Message};
use crate::limits::{Held, Place, SMALL_ANSWER, Slot};
use crate::pool::Tally;

/// Waits for the message, unless `first` is what was read already, then answers it.
pub(super) async fn wait_message(mut call: Call, first: Option<Result<Option<Item>, Ended>>) {
    let tally = Arc::new(Tally::new(&call.route, call.began));
    let mut held = Held::new(&call.caller.shared.load);
    let answer = match call.only_message(&mut held, first).await {
        Ok(message) => {
            drop(held);
            match call.answer_nowait(&message) {
                Some(answer) => Ok(answer),
                None => of_pool(&mut call, message, &tally).await,
            }
        }
        Err(ended) => Err(ended),
    };
    end(call, answer, &tally).await;
}

/// Answers a message that the method would not answer at once.
pub(super) async fn wait_answer(mut call: Call, message: Message) {
    let tally = Arc::new(Tally::new(&call.route, call.began));
    let answer = of_pool(&mut call, message, &tally).await;
    end(call, answer, &tally).await;
}

async fn of_pool(call: &mut Call, message: Message, tally: &Arc<Tally>) -> Result<Answer, Ended> {
    let shared = &call.caller.shared;
    let Some(slot) = Slot::take(&shared.load, Place::Call, &shared.limits) else {
        return Ok(call.too_many_calls());
    };
    let held = Held::new(&shared.load);
    call.answer(message, Arc::new(slot), held, tally).await
}

/// Sends an answer that needed no waiting but may need it now.
pub(super) async fn send_large(call: Call, answer: Answer) {
    let tally = Arc::new(Tally::new(&call.route, call.began));
    end(call, Ok(answer), &tally).await;
}

async fn end(mut call: Call, answer: Result<Answer, Ended>, tally: &Tally) {
    match answer {
        Ok(answer) if answer.frame.len() > SMALL_ANSWER => {
            let last = Answer {
                trailing: answer.trailing.clone(),
                ..Answer::default()
            };
            match call.send(answer).await {
                Ok(()) => tally.ended(call.finish(last)),
                Err(Ended::Status(answer)) => tally.ended(call.finish(answer)),
                Err(Ended::Gone) => (),
            }
        }
        Ok(answer) | Err(Ended::Status(answer)) => tally.ended(call.send_only(answer)),
        Err(Ended::Gone) => (),
    }
}
