//! What is counted; whoever wants to know reads it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::answer::Code;

const CODES: usize = 17;

/// The calls of one method.
#[derive(Debug)]
pub struct MethodMetrics {
    codes: [AtomicU64; CODES],
    /// Upper bounds in nanoseconds, ascending.
    bounds: Vec<u64>,
    buckets: Vec<AtomicU64>,
    nanoseconds: AtomicU64,
}

impl MethodMetrics {
    /// `bounds` are upper bounds of the time that calls take, ascending, in seconds.
    pub fn new(bounds: &[f64]) -> Self {
        let bounds: Vec<u64> = bounds
            .iter()
            .map(|&bound| Duration::from_secs_f64(bound).as_nanos() as u64)
            .collect();
        let buckets = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self {
            codes: [const { AtomicU64::new(0) }; CODES],
            bounds,
            buckets,
            nanoseconds: AtomicU64::new(0),
        }
    }

    /// One call ended.
    pub fn handled(&self, code: Code, took: Duration) {
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = self.bounds.partition_point(|&bound| bound < nanoseconds);
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.nanoseconds.fetch_add(nanoseconds, Relaxed);
        self.codes[usize::from(code).min(CODES - 1)].fetch_add(1, Relaxed);
    }

    /// How many ended with each code, how many fell into each bucket, and the seconds of all.
    pub fn read(&self) -> (Vec<u64>, Vec<u64>, f64) {
        // The sum first: one that is read in between has fewer calls in it, never more.
        let seconds = self.nanoseconds.load(Relaxed) as f64 / 1e9;
        let values = |counters: &[AtomicU64]| counters.iter().map(|counter| counter.load(Relaxed)).collect();
        (values(&self.codes), values(&self.buckets), seconds)
    }
}

/// What one front did, and what it has on its hands.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Connections that were taken.
    pub connections_accepted: AtomicU64,
    /// Connections that were turned away: too many, or no handshake.
    pub connections_refused: AtomicU64,
    /// Connections that are open.
    pub connections: AtomicU64,
    /// Calls that have begun.
    pub calls_begun: AtomicU64,
    /// Requests that were no gRPC calls.
    pub not_grpc: AtomicU64,
    /// Calls refused because a limit was reached.
    pub shed: AtomicU64,
    /// Bytes read, TLS taken off.
    pub bytes_in: AtomicU64,
    /// Bytes written, TLS taken off.
    pub bytes_out: AtomicU64,
    /// Messages that were answered without waiting.
    pub inline: AtomicU64,
    /// Messages that a thread of the pool took.
    pub pooled: AtomicU64,
    /// How long they waited for it, in nanoseconds.
    pub pool_waited: AtomicU64,
}

/// Adds one.
pub fn inc(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

/// Takes one away.
pub fn dec(counter: &AtomicU64) {
    counter.fetch_sub(1, Relaxed);
}

/// Adds so many.
pub fn add(counter: &AtomicU64, number: usize) {
    counter.fetch_add(number as u64, Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let metrics = MethodMetrics::new(&[0.001, 0.01]);
        for (code, micros) in [(0, 1), (0, 1000), (4, 1001), (255, 10_001)] {
            metrics.handled(code, Duration::from_micros(micros));
        }
        let (codes, buckets, seconds) = metrics.read();
        assert_eq!((codes[0], codes[4], codes[16]), (2, 1, 1));
        assert_eq!(buckets, [2, 1, 1]);
        assert!((seconds - 0.012_003).abs() < 1e-9);
    }
}
