//! What strangers may send, made from fixed seeds; `make fuzz` goes on where this ends.

mod common;
#[path = "common/fuzzed.rs"]
mod fuzzed;

use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// A generator of SplitMix64, <https://prng.di.unimi.it/splitmix64.c>.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[test]
fn whatever_is_sent_a_connection_ends_and_gives_all_back() {
    // A task that panics takes nobody along: it would go unseen.
    let panics = Arc::new(AtomicUsize::new(0));
    let (counter, shown) = (Arc::clone(&panics), panic::take_hook());
    panic::set_hook(Box::new(move |info| {
        counter.fetch_add(1, Relaxed);
        shown(info);
    }));
    let mut calls = 0;
    for seed in 0..2000 {
        let mut state = seed;
        let length = next(&mut state) % 600;
        let input: Vec<u8> = (0..length)
            .map(|_| next(&mut state).to_le_bytes()[0] >> (seed % 4))
            .collect();
        calls += fuzzed::play(&input);
        assert_eq!(panics.load(Relaxed), 0, "seed {seed}");
    }
    assert!(calls > 500, "most of it is refused as HTTP/2: {calls} calls");
}
