//! A front without sockets: connections over memory, a clock that jumps, and a method that does what a message says.
#![allow(dead_code, reason = "each test program uses a part")]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use _front::answer::{Answer, Host, Kind, Method, Origin, Peer, Question, Refusals, Taker, code};
use _front::connection;
use _front::framing::frame;
use _front::limits::{Limits, Load};
use _front::metrics::{MethodMetrics, Metrics};
use _front::pool::Pool;
use _front::server::{Phase, Route, Shared};

/// What comes before the first frame.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Small, so that an input of a few KB can reach them.
pub const LIMITS: Limits = Limits {
    max_concurrent: 8,
    in_flight_bytes: 64 * 1024,
    max_message_bytes: 32 * 1024,
    max_connections: 4,
    max_connection_age: Duration::from_secs(3600),
};

/// Answers with the message; `later` in front of it has a thread of the pool answer, `panic` at its end panics where
/// `panics` allows it.
struct Echo {
    panics: bool,
}

impl Method for Echo {
    fn answer_nowait(&self, question: &Question, message: &[u8]) -> Option<Answer> {
        if message.starts_with(b"later") {
            None
        } else {
            Some(self.answer(question, message))
        }
    }

    fn answer(&self, _: &Question, message: &[u8]) -> Answer {
        assert!(!self.panics || !message.ends_with(b"panic"), "as asked for");
        Answer {
            frame: frame(message),
            ..Answer::default()
        }
    }

    fn watch(&self, question: &Question, message: &[u8], send: &mut Taker<'_>) {
        send(Some(self.answer(question, message)));
    }
}

struct Anybody;

impl Host for Anybody {
    fn origin(&self, _: &Peer, _: &str) -> Option<Origin> {
        Some(Arc::new(()))
    }

    fn refused(&self, _: &str, _: &str) {}

    fn in_a_row(&self, asking: &mut dyn FnMut()) {
        asking();
    }
}

fn refused(details: &str) -> Answer {
    Answer::status(code::INTERNAL, details)
}

/// What connections share: `/a.B/Unary`, `/a.B/Stream` and `/a.B/Watch`.
pub fn shared() -> Arc<Shared> {
    shared_by(true)
}

/// The same, with other limits.
pub fn shared_within(limits: Limits) -> Arc<Shared> {
    let mut shared = shared();
    Arc::get_mut(&mut shared).expect("nobody has it yet").limits = limits;
    shared
}

/// The same as `shared`; with methods that never panic, whatever is sent.
pub fn shared_and_calm() -> Arc<Shared> {
    shared_by(false)
}

fn shared_by(panics: bool) -> Arc<Shared> {
    let kinds = [("Unary", Kind::Unary), ("Stream", Kind::Stream), ("Watch", Kind::Watch)];
    let routes = kinds.map(|(name, kind)| {
        let name = format!("/a.B/{name}");
        let route = Route {
            name: name.clone(),
            kind,
            wants_pairs: false,
            method: Box::new(Echo { panics }),
            refusals: Refusals {
                too_many_calls: refused("too many calls"),
                too_many_bytes: refused("too many bytes"),
                too_large: refused("too large"),
                internal: refused("the method failed"),
            },
            metrics: MethodMetrics::new(&[0.01]),
        };
        (name, Arc::new(route))
    });
    Arc::new(Shared {
        routes: HashMap::from(routes),
        unknown: MethodMetrics::new(&[0.01]),
        host: Box::new(Anybody),
        foreign_peer: Answer::default(),
        limits: LIMITS,
        load: Arc::new(Load::default()),
        pool: Pool::default(),
        metrics: Metrics::default(),
    })
}

/// Time passes in it only while nothing else can happen, and then at once.
pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O")
}

/// One connection, and what carries it; call it in a runtime.
pub fn connect(shared: &Arc<Shared>) -> (DuplexStream, JoinHandle<()>) {
    connect_through(shared, 64 * 1024)
}

/// The same; this many bytes may be on their way.
pub fn connect_through(shared: &Arc<Shared>, size: usize) -> (DuplexStream, JoinHandle<()>) {
    let (ours, theirs) = tokio::io::duplex(size);
    (ours, serve(theirs, shared, &watch::Sender::new(Phase::Running)))
}

/// Carries a connection over what is given; call it in a runtime.
pub fn serve<T>(io: T, shared: &Arc<Shared>, phase: &watch::Sender<Phase>) -> JoinHandle<()>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let shared = Arc::clone(shared);
    let phase = phase.clone();
    tokio::spawn(async move {
        // A sender lives as long as the connection: where there is none, nothing ends.
        connection::serve(io, Peer::default(), shared, phase.subscribe()).await;
    })
}

/// A frame of HTTP/2.
pub fn http2(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The headers of a call, as literals of HPACK.
pub fn call_head(path: &str) -> Vec<u8> {
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "front"),
        ("content-type", "application/grpc"),
    ];
    fields.iter().fold(Vec::new(), |mut block, (name, value)| {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).expect("a short text"));
            block.extend_from_slice(text.as_bytes());
        }
        block
    })
}

/// A message as gRPC frames it.
pub fn message(body: &[u8]) -> Bytes {
    frame(body)
}
