//! The bytes of a connection: counted, and what is written held back until all that is ready can leave together.
//!
//! `h2` flushes after each larger message: a system call for each answer, where one would do for all that were made in
//! one turn.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::limits::TURN_BYTES;
use crate::metrics::add;
use crate::server::Shared;

/// Bytes that are held back at most; what comes on top is written at once.
const HELD: usize = 64 * 1024;
/// A buffer of at most this capacity is kept while nothing is to be written.
const KEPT: usize = 4 * 1024;

struct State<T> {
    io: T,
    shared: Arc<Shared>,
    held: BytesMut,
    /// Whether bytes were written that may not have left: TLS keeps what the network does not take.
    unflushed: bool,
    /// Bytes that may still be read in this turn.
    readable: usize,
}

/// One connection, shared by the protocol and by who says when a turn ends; both are in one task.
pub struct Wire<T> {
    state: Arc<Mutex<State<T>>>,
    /// Whether flushing is left to `poll_send`.
    holding: Arc<AtomicBool>,
}

impl<T> Clone for Wire<T> {
    fn clone(&self) -> Self {
        Self {
            state: Arc::clone(&self.state),
            holding: Arc::clone(&self.holding),
        }
    }
}

impl<T> Wire<T> {
    /// Holds nothing back until `hold`.
    pub fn new(io: T, shared: Arc<Shared>) -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                io,
                shared,
                held: BytesMut::new(),
                unflushed: false,
                readable: usize::MAX,
            })),
            holding: Arc::default(),
        }
    }

    /// From now on a flush waits for `poll_send`.
    pub fn hold(&self) {
        self.holding.store(true, Relaxed);
    }

    /// From now on no more than `TURN_BYTES` are read until this is called again.
    pub fn begin_turn(&self) {
        self.lock().readable = TURN_BYTES;
    }

    /// Whether reading stopped for the others' sake. Nobody is woken when it may go on.
    pub fn is_spent(&self) -> bool {
        self.lock().readable == 0
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Wire<T> {
    /// Writes all that was held back.
    pub fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.lock().poll_send(cx)
    }
}

impl<T: AsyncWrite + Unpin> State<T> {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.held))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.wrote(written);
            self.held.advance(written);
        }
        if self.held.capacity() > KEPT {
            self.held = BytesMut::new();
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn wrote(&mut self, size: usize) {
        add(&self.shared.metrics.bytes_out, size);
        self.unflushed = true;
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let size = parts.iter().map(|part| part.len()).sum::<usize>();
        if self.held.len() + size > HELD {
            ready!(self.poll_send(cx))?;
        }
        if size > HELD {
            let written = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, parts))?;
            self.wrote(written);
            return Poll::Ready(Ok(written));
        }
        for part in parts {
            self.held.extend_from_slice(part);
        }
        Poll::Ready(Ok(size))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Wire<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = self.lock();
        if state.readable == 0 {
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut state.io).poll_read(cx, buf);
        let read = buf.filled().len() - before;
        add(&state.shared.metrics.bytes_in, read);
        state.readable = state.readable.saturating_sub(read);
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Wire<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.lock().poll_write(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.lock().poll_write(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.holding.load(Relaxed) {
            return Poll::Ready(Ok(()));
        }
        self.lock().poll_send(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.lock();
        ready!(state.poll_send(cx))?;
        Pin::new(&mut state.io).poll_shutdown(cx)
    }
}
