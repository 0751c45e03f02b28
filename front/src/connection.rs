//! One HTTP/2 connection: takes its calls, sees that it lives, lets it go.

use std::future::{pending, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Connection, SendResponse};
use h2::{Ping, PingPong, RecvStream};
use http::{HeaderValue, Request};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::answer::{Origin, Peer};
use crate::calls;
use crate::limits::{
    BATCH, CONNECTION_WINDOW, HANDSHAKE, KEEPALIVE, KEEPALIVE_ANSWER, MAX_HEADER_BYTES, SEND_BUFFER, STREAM_WINDOW,
};
use crate::metrics::{add, inc};
use crate::server::{Phase, Shared};

type Accepted = Option<Result<(Request<RecvStream>, SendResponse<Bytes>), h2::Error>>;

/// What the calls of one connection share.
pub struct Caller {
    /// Of the front.
    pub shared: Arc<Shared>,
    /// Tells of the end.
    pub phase: watch::Receiver<Phase>,
    peer: Peer,
    known: Mutex<Option<(Option<HeaderValue>, Option<Origin>)>>,
}

impl Caller {
    /// Who calls with this user agent; None where the peer may not.
    pub fn origin(&self, user_agent: Option<&HeaderValue>) -> Option<Origin> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((agent, origin)) = &*known {
            if agent.as_ref() == user_agent {
                return origin.clone();
            }
        }
        let text = user_agent.map_or("".into(), |value| String::from_utf8_lossy(value.as_bytes()));
        let origin = self.shared.identify.origin(&self.peer, &text);
        *known = Some((user_agent.cloned(), origin.clone()));
        origin
    }
}

/// Serves a connection until it ends.
pub async fn serve<T>(io: T, peer: Peer, shared: Arc<Shared>, phase: watch::Receiver<Phase>)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let io = Metered {
        io,
        shared: Arc::clone(&shared),
    };
    // More than may be answered, so that those who send too much are told.
    let streams = shared.limits.max_concurrent.saturating_add(100);
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MAX_HEADER_BYTES)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_streams(u32::try_from(streams).unwrap_or(u32::MAX));
    let Ok(Ok(connection)) = timeout(HANDSHAKE, builder.handshake(io)).await else {
        inc(&shared.metrics.connections_refused);
        return;
    };
    let age = shared.limits.max_connection_age;
    let caller = Arc::new(Caller {
        shared,
        phase,
        peer,
        known: Mutex::default(),
    });
    carry(connection, caller, age).await;
}

async fn carry<T>(mut connection: Connection<T, Bytes>, caller: Arc<Caller>, age: Duration)
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
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        tokio::select! {
            biased;
            accepted = connection.accept() => match accepted {
                Some(Ok(call)) => batch.push(call),
                // The peer has gone, or broke the protocol: the connection has told it so.
                Some(Err(_)) | None => return,
            },
            () = &mut leaving, if !left => {
                left = true;
                connection.graceful_shutdown();
                continue;
            }
            () = &mut alive => return,
        }
        // All that have come are taken before one is answered, so that the answers leave together.
        while batch.len() < BATCH {
            match poll_fn(|cx| Poll::Ready(accept_now(&mut connection, cx))).await {
                Some(Some(Ok(call))) => batch.push(call),
                _ => break,
            }
        }
        let full = batch.len() == BATCH;
        poll_fn(|cx| {
            for (request, respond) in batch.drain(..) {
                calls::begin(&caller, request, respond, cx);
            }
            Poll::Ready(())
        })
        .await;
        if full {
            tokio::task::yield_now().await;
        }
    }
}

/// None where there is no call now.
fn accept_now<T>(connection: &mut Connection<T, Bytes>, cx: &mut Context<'_>) -> Option<Accepted>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    match connection.poll_accept(cx) {
        Poll::Ready(accepted) => Some(accepted),
        Poll::Pending => None,
    }
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

/// Counts the bytes that pass.
struct Metered<T> {
    io: T,
    shared: Arc<Shared>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Metered<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        add(&self.shared.metrics.bytes_in, buf.filled().len() - before);
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Metered<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        self.written(&polled);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.written(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl<T> Metered<T> {
    fn written(&self, polled: &Poll<std::io::Result<usize>>) {
        if let Poll::Ready(Ok(number)) = polled {
            add(&self.shared.metrics.bytes_out, *number);
        }
    }
}
