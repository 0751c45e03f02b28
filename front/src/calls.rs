//! One call: unary, stream or watch. What can be answered at once is; the rest gets a task of its own.

mod foreign;
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
use http::header::USER_AGENT;
use http::{Method as Verb, Request, Response, StatusCode};
use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::answer::{Answer, Code, Kind, Question, code};
use crate::connection::Caller;
use crate::framing::{Decoder, Item, Message, Refused};
use crate::limits::{Held, INLINE_BYTES, MESSAGE, SMALL_ANSWER, STALLED, Slot};
use crate::metadata::{self, Encoding};
use crate::metrics::inc;
use crate::pool::{Job, Tally};
use crate::server::Route;

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
    body: RecvStream,
    decoder: Decoder,
    respond: SendResponse<Bytes>,
    /// Once the head of the answer was sent.
    sending: Option<SendStream<Bytes>>,
    began: Instant,
}

/// Answers a call, or begins to; `cx` is the connection's.
pub fn begin(caller: &Arc<Caller>, request: Request<RecvStream>, respond: SendResponse<Bytes>, cx: &mut Context<'_>) {
    inc(&caller.shared.metrics.calls_begun);
    let Some(mut call) = opened(caller, request, respond) else {
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

/// None where the call was refused by its head.
fn opened(caller: &Arc<Caller>, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) -> Option<Call> {
    let began = Instant::now();
    let (head, body) = request.into_parts();
    if head.method != Verb::POST {
        foreign::refuse(body, respond, StatusCode::METHOD_NOT_ALLOWED);
        return None;
    }
    if !metadata::is_grpc(&head.headers) {
        foreign::refuse(body, respond, StatusCode::UNSUPPORTED_MEDIA_TYPE);
        return None;
    }
    // A caller that has gone needs no answer.
    let mut end = |response: Response<()>| drop(respond.send_response(response, true));
    let Some(route) = caller.shared.routes.get(head.uri.path()) else {
        let details = format!("there is no method {}", head.uri.path());
        end(metadata::trailers_only(&Answer::status(code::UNIMPLEMENTED, details)));
        return None;
    };
    let mut refuse = |answer: &Answer, response: Response<()>| {
        route.metrics.handled(answer.status, began.elapsed());
        end(response);
    };
    let Ok(encoding) = metadata::encoding(&head.headers) else {
        let answer = Answer::status(code::UNIMPLEMENTED, "messages may be compressed with gzip only");
        refuse(&answer, metadata::unknown_encoding(&answer));
        return None;
    };
    let Ok(timeout) = metadata::timeout(&head.headers) else {
        let answer = Answer::status(code::INTERNAL, "grpc-timeout is malformed");
        refuse(&answer, metadata::trailers_only(&answer));
        return None;
    };
    let Some(origin) = caller.origin(head.headers.get(USER_AGENT)) else {
        let answer = &caller.shared.foreign_peer;
        refuse(answer, metadata::trailers_only(answer));
        return None;
    };
    let deadline = timeout.and_then(|timeout| began.checked_add(timeout));
    Some(Call {
        caller: Arc::clone(caller),
        route: Arc::clone(route),
        question: Question { origin, deadline },
        packs: encoding == Encoding::Gzip && metadata::accepts_gzip(&head.headers),
        encoding,
        body,
        decoder: Decoder::new(caller.shared.limits.max_message_bytes),
        respond,
        sending: None,
        began,
    })
}

impl Call {
    /// The next message; None at the end of the body.
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Item>, Ended>> {
        loop {
            match self.decoder.next_item() {
                Ok(Some(item)) => return Poll::Ready(Ok(Some(item))),
                Ok(None) => (),
                Err(_) => return Poll::Ready(Err(failed("a message has a prefix that gRPC does not know"))),
            }
            match self.body.poll_data(cx) {
                Poll::Ready(Some(Ok(chunk))) => {
                    self.body.flow_control().release_capacity(chunk.len())?;
                    self.decoder.push(chunk);
                }
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
    fn is_last(&self) -> bool {
        self.body.is_end_stream() && !self.decoder.unfinished()
    }

    /// The next message, waited for until the deadline; `held` is what the bytes of an incomplete one take.
    async fn message(&mut self, held: &mut Held) -> Result<Option<Item>, Ended> {
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
    async fn only_message(
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
        slot: Option<Slot>,
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

    /// Sends a message, as fast as the caller takes it; what follows it is for `finish`.
    async fn send(&mut self, answer: Answer) -> Result<(), Ended> {
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
                let granted = poll_fn(|cx| match stream.poll_capacity(cx) {
                    Poll::Ready(granted) => Poll::Ready(granted.ok_or(Ended::Gone)),
                    Poll::Pending if stalled.as_mut().poll(cx).is_ready() => Poll::Ready(Err(Ended::Gone)),
                    Poll::Pending => expired.as_mut().poll(cx).map(|()| Err(deadline_exceeded())),
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
    fn finish(&mut self, answer: Answer) -> Code {
        match &mut self.sending {
            Some(stream) => match stream.send_trailers(metadata::trailers(&answer)) {
                Ok(()) => answer.status,
                Err(_) => code::CANCELLED,
            },
            None => self.send_only(answer),
        }
    }

    /// Sends head, message and status, or the status alone; says what the call ended with.
    fn send_only(&mut self, answer: Answer) -> Code {
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

async fn expiry(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => pending().await,
    }
}
