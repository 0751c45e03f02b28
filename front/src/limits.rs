//! How much the front takes on at a time, and what it has on its hands.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// Messages from this size on are not answered where nothing may wait.
pub const INLINE_BYTES: usize = 16 * 1024;
/// Watches that may be open at a time; each holds a thread.
pub const MAX_WATCHES: usize = 64;
/// What is known of a call before its message, in bytes, as HTTP/2 counts them and as peers are told in SETTINGS.
///
/// Envoy copies headers of its own clients into a call (`tracestate`, where it traces): up to 60 KiB unless
/// `max_request_headers_kb` says otherwise. Had they no room here, a client could make the question about itself fail,
/// and with `failure_mode_allow` pass. A connection reads one head at a time, in up to four times its size where fields
/// are short; of what a call keeps, more than `SMALL_HEAD` counts as in flight.
pub const MAX_HEADER_BYTES: u32 = 256 * 1024;
/// Calls keep this much of their heads uncounted.
pub const SMALL_HEAD: usize = 4 * 1024;
/// What one call may send ahead of being read.
pub const STREAM_WINDOW: u32 = 256 * 1024;
/// What one connection may.
pub const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Answers up to this size are given away at once; larger ones as the caller takes them, and count until then.
pub const SMALL_ANSWER: usize = 4 * 1024;
/// What one stream may keep of answers that the network does not take.
pub const SEND_BUFFER: usize = 32 * 1024;
/// How long a message may take to come whole.
pub const MESSAGE: Duration = Duration::from_secs(30);
/// How long a caller may take nothing of an answer.
pub const STALLED: Duration = Duration::from_secs(30);
/// How long a peer may take until its calls can begin.
pub const HANDSHAKE: Duration = Duration::from_secs(10);
/// After so long a connection is asked whether it still lives.
pub const KEEPALIVE: Duration = Duration::from_secs(60);
/// It has so long to say so.
pub const KEEPALIVE_ANSWER: Duration = Duration::from_secs(20);
/// Calls that one connection begins before others have their turn.
pub const BATCH: usize = 64;
/// Bytes that are read of one connection before others have their turn: thousands of the smallest frames.
pub const TURN_BYTES: usize = 32 * 1024;

/// What an operator sets.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Calls that wait for an answer, or streams that are open.
    pub max_concurrent: usize,
    /// Bytes of the messages that are being received or answered, and of large answers that are being sent.
    pub in_flight_bytes: usize,
    /// Bytes of one message.
    pub max_message_bytes: usize,
    /// Connections.
    pub max_connections: usize,
    /// After so long a connection takes no more calls.
    pub max_connection_age: Duration,
}

/// What is on the front's hands now.
#[derive(Debug, Default)]
pub struct Load {
    calls: AtomicUsize,
    open: AtomicUsize,
    watches: AtomicUsize,
    bytes: AtomicUsize,
}

impl Load {
    /// Bytes of messages that are being received or answered.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }

    /// Calls that wait for an answer.
    pub fn calls(&self) -> usize {
        self.calls.load(Relaxed)
    }

    /// Streams and watches that are open.
    pub fn streams(&self) -> usize {
        self.open.load(Relaxed) + self.watches.load(Relaxed)
    }

    /// Whether a message of this size may be answered now. One that comes alone may, whatever its size.
    pub fn has_room(&self, size: usize, limits: &Limits) -> bool {
        let others = self.bytes();
        others == 0 || others + size <= limits.in_flight_bytes
    }
}

/// What is counted while it lasts.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// A call of one message each way.
    Call,
    /// A stream.
    Stream,
    /// A watch.
    Watch,
}

/// A place that is given back when it is dropped.
#[derive(Debug)]
pub struct Slot {
    load: Arc<Load>,
    place: Place,
}

impl Slot {
    /// None where all are taken.
    pub fn take(load: &Arc<Load>, place: Place, limits: &Limits) -> Option<Self> {
        let (counter, most) = load.counter(place, limits);
        if counter.load(Relaxed) >= most {
            return None;
        }
        counter.fetch_add(1, Relaxed);
        Some(Self {
            load: Arc::clone(load),
            place,
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let counter = match self.place {
            Place::Call => &self.load.calls,
            Place::Stream => &self.load.open,
            Place::Watch => &self.load.watches,
        };
        counter.fetch_sub(1, Relaxed);
    }
}

impl Load {
    fn counter(&self, place: Place, limits: &Limits) -> (&AtomicUsize, usize) {
        match place {
            Place::Call => (&self.calls, limits.max_concurrent),
            Place::Stream => (&self.open, limits.max_concurrent),
            Place::Watch => (&self.watches, limits.max_concurrent.min(MAX_WATCHES)),
        }
    }
}

/// Bytes that are given back when it is dropped.
#[derive(Debug)]
pub struct Held {
    load: Arc<Load>,
    size: usize,
}

impl Held {
    /// Nothing yet.
    pub fn new(load: &Arc<Load>) -> Self {
        Self {
            load: Arc::clone(load),
            size: 0,
        }
    }

    /// Whether it may be this size now; it stays what it was where it may not.
    pub fn resize(&mut self, size: usize, limits: &Limits) -> bool {
        if size > self.size {
            let others = self.load.bytes() - self.size;
            if others > 0 && others + size > limits.in_flight_bytes {
                return false;
            }
            self.load.bytes.fetch_add(size - self.size, Relaxed);
        } else {
            self.load.bytes.fetch_sub(self.size - size, Relaxed);
        }
        self.size = size;
        true
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.load.bytes.fetch_sub(self.size, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        max_concurrent: 2,
        in_flight_bytes: 10,
        max_message_bytes: 100,
        max_connections: 1,
        max_connection_age: Duration::MAX,
    };

    #[test]
    fn places_are_given_back() {
        let load = Arc::new(Load::default());
        let taken = [Place::Call, Place::Call].map(|place| Slot::take(&load, place, &LIMITS).unwrap());
        assert!(Slot::take(&load, Place::Call, &LIMITS).is_none());
        assert!(Slot::take(&load, Place::Stream, &LIMITS).is_some());
        drop(taken);
        assert!(Slot::take(&load, Place::Call, &LIMITS).is_some());
    }

    #[test]
    fn bytes_are_bounded_together_but_not_for_one_alone() {
        let load = Arc::new(Load::default());
        let mut large = Held::new(&load);
        assert!(large.resize(50, &LIMITS));
        let mut other = Held::new(&load);
        assert!(!other.resize(1, &LIMITS));
        assert!(!load.has_room(1, &LIMITS));
        assert!(large.resize(6, &LIMITS));
        assert!(other.resize(4, &LIMITS));
        assert!(!other.resize(5, &LIMITS));
        drop((large, other));
        assert_eq!(load.bytes(), 0);
    }
}
