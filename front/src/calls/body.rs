//! The messages of a call, as they come.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use tokio::time::sleep;

use super::{Call, Ended, deadline_exceeded, expiry, failed};
use crate::answer::{Answer, Kind, code};
use crate::framing::{Item, Message, Refused};
use crate::limits::{Held, MESSAGE};

/// The bytes of a call. Its trailers mean nothing here, and are dropped as they come.
pub(super) struct Body {
    stream: RecvStream,
    /// Read before their turn; the caller has no credit for more yet.
    ahead: VecDeque<Bytes>,
    ended: bool,
}

impl Body {
    /// Nothing is read yet.
    pub(super) fn new(stream: RecvStream) -> Self {
        Self {
            stream,
            ahead: VecDeque::new(),
            ended: false,
        }
    }

    fn has_ended(&self) -> bool {
        self.ahead.is_empty() && (self.ended || self.stream.is_end_stream())
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, h2::Error>>> {
        let chunk = match self.ahead.pop_front() {
            Some(chunk) => chunk,
            None => match ready!(self.poll_next(cx)) {
                Some(chunk) => chunk?,
                None => return Poll::Ready(None),
            },
        };
        self.stream.flow_control().release_capacity(chunk.len())?;
        Poll::Ready(Some(Ok(chunk)))
    }

    /// Reads what has come while nobody asks for it: trailers behind it would be kept as long as the call.
    pub(super) fn poll_ahead(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(Ok(chunk))) = self.poll_next(cx) {
            self.ahead.push_back(chunk);
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, h2::Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let next = ready!(self.stream.poll_data(cx));
        if next.is_none() {
            self.ended = true;
            let _ = self.stream.poll_trailers(cx);
        }
        Poll::Ready(next)
    }
}

impl Call {
    /// The next message; None at the end of the body.
    pub(super) fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Item>, Ended>> {
        loop {
            match self.decoder.next_item() {
                Ok(Some(item)) => return Poll::Ready(Ok(Some(item))),
                Ok(None) => (),
                Err(_) => return Poll::Ready(Err(failed("a message has a prefix that gRPC does not know"))),
            }
            match self.body.poll_data(cx) {
                Poll::Ready(Some(Ok(chunk))) => self.decoder.push(chunk),
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Err(Ended::Gone)),
                Poll::Ready(None) if self.decoder.unfinished() => {
                    return Poll::Ready(Err(failed("the last message is not complete")));
                }
                Poll::Ready(None) => return Poll::Ready(Ok(None)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Whether nothing follows the message that was read.
    pub(super) fn is_last(&self) -> bool {
        self.body.has_ended() && !self.decoder.unfinished()
    }

    /// The next message, waited for until the deadline; `held` is what the bytes of an incomplete one take.
    pub(super) async fn message(&mut self, held: &mut Held) -> Result<Option<Item>, Ended> {
        let deadline = self.question.deadline;
        let unary = self.route.kind != Kind::Stream;
        let mut expired = pin!(expiry(deadline));
        let mut late = pin!(sleep(MESSAGE));
        // A stream may be silent between its messages.
        let mut due = unary;
        poll_fn(|cx| {
            let polled = self.poll_message(cx);
            if polled.is_pending() {
                if expired.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Err(deadline_exceeded()));
                }
                if !due && self.decoder.unfinished() {
                    due = true;
                    late.as_mut().reset(tokio::time::Instant::now() + MESSAGE);
                }
                // Otherwise the bytes that are there would count for as long as the caller likes.
                if due && late.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Err(Ended::Status(Answer::status(
                        code::DEADLINE_EXCEEDED,
                        "the message did not come whole within 30 s",
                    ))));
                }
                if !held.resize(self.decoder.buffered(), &self.caller.shared.limits) {
                    self.decoder.refuse(Refused::TooManyBytes);
                    held.resize(0, &self.caller.shared.limits);
                }
                // What a stream skips it must skip to the end, to read the next one.
                if let (true, Some(reason)) = (unary, self.decoder.refused()) {
                    return Poll::Ready(Ok(Some(Item::Refused(reason))));
                }
            }
            polled
        })
        .await
    }

    /// The only message of a call that has one.
    pub(super) async fn only_message(
        &mut self,
        held: &mut Held,
        first: Option<Result<Option<Item>, Ended>>,
    ) -> Result<Message, Ended> {
        let item = match first {
            Some(item) => item,
            None => self.message(held).await,
        };
        match item? {
            Some(Item::Message(message)) => {
                if !self.is_last() {
                    if !held.resize(message.bytes.len(), &self.caller.shared.limits) {
                        return Err(self.refused(Refused::TooManyBytes));
                    }
                    let mut rest = Held::new(&self.caller.shared.load);
                    if self.message(&mut rest).await?.is_some() {
                        return Err(Ended::Status(Answer::status(
                            code::UNIMPLEMENTED,
                            "the method takes one message",
                        )));
                    }
                }
                Ok(message)
            }
            Some(Item::Refused(reason)) => Err(self.refused(reason)),
            None => Err(Ended::Status(Answer::status(
                code::UNIMPLEMENTED,
                "the method takes one message",
            ))),
        }
    }
}
