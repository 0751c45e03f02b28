//! One message each way, where it could not be answered at once.

use std::sync::Arc;

use super::{Call, Ended};
use crate::answer::Answer;
use crate::framing::{Item, Message};
use crate::limits::{Held, Place, Slot};
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
    end(call, answer, &tally);
}

/// Answers a message that the method would not answer at once.
pub(super) async fn wait_answer(mut call: Call, message: Message) {
    let tally = Arc::new(Tally::new(&call.route, call.began));
    let answer = of_pool(&mut call, message, &tally).await;
    end(call, answer, &tally);
}

async fn of_pool(call: &mut Call, message: Message, tally: &Arc<Tally>) -> Result<Answer, Ended> {
    let shared = &call.caller.shared;
    let Some(slot) = Slot::take(&shared.load, Place::Call, &shared.limits) else {
        return Ok(call.too_many_calls());
    };
    let held = Held::new(&shared.load);
    call.answer(message, Some(slot), held, tally).await
}

fn end(mut call: Call, answer: Result<Answer, Ended>, tally: &Tally) {
    match answer {
        Ok(answer) | Err(Ended::Status(answer)) => tally.ended(call.send_only(answer)),
        Err(Ended::Gone) => (),
    }
}
