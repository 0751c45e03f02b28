//! What the front asks of a method, and what a method answers.

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use crate::limits::Held;
use crate::request::Value;

/// A gRPC status code, from 0 to 16.
pub type Code = u8;

/// The codes that the front itself answers with.
pub mod code {
    use super::Code;

    /// No failure.
    pub const OK: Code = 0;
    /// The caller went away.
    pub const CANCELLED: Code = 1;
    /// The deadline passed.
    pub const DEADLINE_EXCEEDED: Code = 4;
    /// No such method, or not this many messages, or this compression.
    pub const UNIMPLEMENTED: Code = 12;
    /// The call is not gRPC as the specification has it.
    pub const INTERNAL: Code = 13;
    /// The process is going down.
    pub const UNAVAILABLE: Code = 14;
}

/// A header as HTTP/2 carries it: binary values are in base64 already.
pub type Pair = (HeaderName, HeaderValue);

/// One message, or a status that is not OK.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The message behind its prefix of five bytes; empty where the status is not OK.
    pub frame: Bytes,
    /// The status.
    pub status: Code,
    /// What `grpc-message` says, not encoded yet.
    pub details: String,
    /// Sent with the first message.
    pub initial: Vec<Pair>,
    /// Sent with the status.
    pub trailing: Vec<Pair>,
}

impl Answer {
    /// A status without a message.
    pub fn status(status: Code, details: impl Into<String>) -> Self {
        Self {
            status,
            details: details.into(),
            ..Self::default()
        }
    }
}

/// How many messages travel each way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One, and one.
    Unary,
    /// A sequence, each answered, in order.
    Stream,
    /// One, answered with many.
    Watch,
}

/// Who called, in the words of whoever implements the methods; made once for a connection and a user agent.
pub type Origin = Arc<dyn Any + Send + Sync>;

/// What a connection tells of its peer.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// The IP address; empty on a Unix socket.
    pub address: String,
    /// Subject alternative names of the verified certificate; none where no certificate is asked for.
    pub names: Option<Vec<String>>,
    /// Of a Unix socket: whose process connected, as the kernel tells.
    pub uid: Option<u32>,
}

/// Where methods live.
pub trait Host: Send + Sync {
    /// Who calls; None where the peer may not.
    fn origin(&self, peer: &Peer, user_agent: &str) -> Option<Origin>;

    /// A client at this address has no certificate of the authority, and gets no connection.
    fn refused(&self, address: &str, reason: &str);

    /// Runs what asks several methods one after the other: what that takes to begin and to end is done once.
    fn in_a_row(&self, asking: &mut dyn FnMut());
}

/// Metadata that a caller added.
pub type Pairs = Arc<[(String, Value)]>;

/// What a call brings besides its message.
#[derive(Clone)]
pub struct Question {
    /// Who called.
    pub origin: Origin,
    /// When the caller stops waiting.
    pub deadline: Option<Instant>,
    /// All where the method reads them, else the trace alone; None where there is none.
    pub pairs: Option<Pairs>,
    /// Counts them as long as they are kept; None where they are small.
    pub held: Option<Arc<Held>>,
}

/// Takes one answer of many, or None; false where nobody wants more. May wait for the caller.
pub type Taker<'a> = dyn FnMut(Option<Answer>) -> bool + Send + 'a;

/// Answers messages. Never panics on purpose: what fails is an answer too.
pub trait Method: Send + Sync {
    /// The answer where it can be given without waiting.
    fn answer_nowait(&self, question: &Question, message: &[u8]) -> Option<Answer>;

    /// The answer.
    fn answer(&self, question: &Question, message: &[u8]) -> Answer;

    /// Hands over each answer as it comes, None now and then, until there are no more or `send` returns false.
    fn watch(&self, question: &Question, message: &[u8], send: &mut Taker<'_>);
}

/// What to say without looking at a message; made at start.
#[derive(Clone, Debug, Default)]
pub struct Refusals {
    /// Too many calls are being answered.
    pub too_many_calls: Answer,
    /// Too many bytes are.
    pub too_many_bytes: Answer,
    /// The message is too large.
    pub too_large: Answer,
    /// The method failed.
    pub internal: Answer,
}
