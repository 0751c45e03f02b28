//! One HTTP/2 connection: takes its calls, sees that it lives, lets it go.

use std::future::{pending, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::server::{Connection, SendResponse};
use h2::{Ping, PingPong, RecvStream};
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::answer::Peer;
use crate::calls::{self, Recent};
use crate::limits::{
    BATCH, CONNECTION_WINDOW, HANDSHAKE, KEEPALIVE, KEEPALIVE_ANSWER, MAX_HEADER_BYTES, SEND_BUFFER, STREAM_WINDOW,
};
use crate::metrics::inc;
use crate::server::{Phase, Shared};
use crate::wire::Wire;

/// What the calls of one connection share.
pub struct Caller {
    /// Of the front.
    pub shared: Arc<Shared>,
    /// Tells of the end.
    pub phase: watch::Receiver<Phase>,
    /// Who is at the other end.
    pub peer: Peer,
}

type Accepted = (Request<RecvStream>, SendResponse<Bytes>);

/// Serves a connection until it ends.
pub async fn serve<T>(io: T, peer: Peer, shared: Arc<Shared>, mut phase: watch::Receiver<Phase>)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let wire = Wire::new(io, Arc::clone(&shared));
    // More than may be answered, so that those who send too much are told.
    let streams = shared.limits.max_concurrent.saturating_add(100);
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MAX_HEADER_BYTES)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_streams(u32::try_from(streams).unwrap_or(u32::MAX));
    let Some(connection) = shaken(builder.handshake(wire.clone()), &mut phase).await else {
        inc(&shared.metrics.connections_refused);
        return;
    };
    let age = shared.limits.max_connection_age;
    wire.hold();
    carry(connection, wire, Caller { shared, phase, peer }, age).await;
}

/// What a handshake led to; None where it failed, took too long, or was not over when the end began.
pub async fn shaken<T, E>(
    handshake: impl Future<Output = Result<T, E>>,
    phase: &mut watch::Receiver<Phase>,
) -> Option<T> {
    tokio::select! {
        biased;
        shaken = timeout(HANDSHAKE, handshake) => shaken.ok()?.ok(),
        _ = phase.wait_for(|now| *now != Phase::Running) => None,
    }
}

async fn carry<T>(mut connection: Connection<Wire<T>, Bytes>, wire: Wire<T>, caller: Caller, age: Duration)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut alive = pin!(wait_dead(connection.ping_pong()));
    let mut phase = caller.phase.clone();
    let mut leaving = pin!(async move {
        tokio::select! {
            _ = phase.wait_for(|now| *now != Phase::Running) => (),
            () = sleep(age) => (),
        }
    });
    let mut left = false;
    let mut recent = Recent::new(caller);
    let mut batch = Vec::new();
    loop {
        tokio::select! {
            biased;
            // First, for a peer may always have more to say.
            () = &mut leaving, if !left => {
                left = true;
                connection.graceful_shutdown();
            }
            turn = poll_fn(|cx| poll_turn(&mut connection, &wire, &mut recent, &mut batch, cx)) => match turn {
                Turn::Full => tokio::task::yield_now().await,
                Turn::Ended => return,
            },
            () = &mut alive => return,
        }
    }
}

/// How a turn ended that did not end with waiting for the peer.
enum Turn {
    /// More may have come.
    Full,
    /// The peer has gone, or broke the protocol: the connection has told it so.
    Ended,
}

/// Begins the calls that have come and sends the answers that are ready, until there is neither; others have their
/// turn after `BATCH` calls or `TURN_BYTES`.
fn poll_turn<T>(
    connection: &mut Connection<Wire<T>, Bytes>,
    wire: &Wire<T>,
    recent: &mut Recent,
    batch: &mut Vec<Accepted>,
    cx: &mut Context<'_>,
) -> Poll<Turn>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut taken = 0;
    wire.begin_turn();
    while taken < BATCH {
        while batch.len() < BATCH {
            let polled = connection.poll_accept(cx);
            // By now the answers to those before are written: they leave together.
            if batch.is_empty() && matches!(wire.poll_send(cx), Poll::Ready(Err(_))) {
                return Poll::Ready(Turn::Ended);
            }
            match polled {
                Poll::Ready(Some(Ok(call))) => batch.push(call),
                Poll::Ready(_) => return Poll::Ready(Turn::Ended),
                Poll::Pending => break,
            }
        }
        if batch.is_empty() {
            return if wire.is_spent() {
                Poll::Ready(Turn::Full)
            } else {
                Poll::Pending
            };
        }
        taken += batch.len();
        let began = Instant::now();
        let shared = Arc::clone(&recent.caller.shared);
        shared.host.in_a_row(&mut || {
            for (request, respond) in batch.drain(..) {
                calls::begin(recent, request, respond, began, cx);
            }
        });
    }
    Poll::Ready(Turn::Full)
}

/// Returns when the peer does not answer any more.
async fn wait_dead(ping_pong: Option<PingPong>) {
    let Some(mut ping_pong) = ping_pong else {
        return pending().await;
    };
    loop {
        sleep(KEEPALIVE).await;
        if !matches!(
            timeout(KEEPALIVE_ANSWER, ping_pong.ping(Ping::opaque())).await,
            Ok(Ok(_))
        ) {
            return;
        }
    }
}
