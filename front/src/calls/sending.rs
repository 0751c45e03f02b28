//! The answers of a call, as they leave.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use tokio::time::sleep;

use super::{Call, Ended, deadline_exceeded, expiry};
use crate::answer::{Answer, Code, code};
use crate::framing::Refused;
use crate::limits::{Held, SMALL_ANSWER, STALLED};
use crate::metadata;
use crate::request::Encoding;

impl Call {
    /// Sends a message, as fast as the caller takes it; what follows it is for `finish`.
    pub(super) async fn send(&mut self, answer: Answer) -> Result<(), Ended> {
        let deadline = self.question.deadline;
        let mut held = Held::new(&self.caller.shared.load);
        if answer.frame.len() > SMALL_ANSWER && !held.resize(answer.frame.len(), &self.caller.shared.limits) {
            return Err(self.refused(Refused::TooManyBytes));
        }
        let stream = match &mut self.sending {
            Some(stream) => stream,
            None => {
                let encoding = if self.packs { Encoding::Gzip } else { Encoding::Identity };
                let head = metadata::head(&answer.initial, encoding);
                self.sending.insert(self.respond.send_response(head, false)?)
            }
        };
        let mut expired = pin!(expiry(deadline));
        let mut data = answer.frame;
        while !data.is_empty() {
            stream.reserve_capacity(data.len());
            if stream.capacity() == 0 {
                let mut stalled = pin!(sleep(STALLED));
                let granted = poll_fn(|cx| {
                    self.body.poll_ahead(cx);
                    match stream.poll_capacity(cx) {
                        Poll::Ready(granted) => Poll::Ready(granted.ok_or(Ended::Gone)),
                        Poll::Pending if stalled.as_mut().poll(cx).is_ready() => Poll::Ready(Err(Ended::Gone)),
                        Poll::Pending => expired.as_mut().poll(cx).map(|()| Err(deadline_exceeded())),
                    }
                });
                granted.await??;
                continue;
            }
            let sent = data.split_to(stream.capacity().min(data.len()));
            stream.send_data(sent, false)?;
        }
        Ok(())
    }

    /// Sends the status, behind what was sent already; says what the call ended with.
    pub(super) fn finish(&mut self, answer: Answer) -> Code {
        match &mut self.sending {
            Some(stream) => match stream.send_trailers(metadata::trailers(&answer)) {
                Ok(()) => answer.status,
                Err(_) => code::CANCELLED,
            },
            None => self.send_only(answer),
        }
    }

    /// Sends head, message and status, or the status alone; says what the call ended with.
    pub(super) fn send_only(&mut self, answer: Answer) -> Code {
        let status = answer.status;
        if self.try_send_only(answer).is_ok() {
            status
        } else {
            code::CANCELLED
        }
    }

    fn try_send_only(&mut self, answer: Answer) -> Result<(), h2::Error> {
        if answer.frame.is_empty() {
            return self
                .respond
                .send_response(metadata::trailers_only(&answer), true)
                .map(drop);
        }
        let encoding = if answer.frame[0] == 1 {
            Encoding::Gzip
        } else {
            Encoding::Identity
        };
        let mut stream = self
            .respond
            .send_response(metadata::head(&answer.initial, encoding), false)?;
        let trailers = metadata::trailers(&answer);
        stream.send_data(answer.frame, false)?;
        stream.send_trailers(trailers)
    }
}
