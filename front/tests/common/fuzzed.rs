//! Feeds a connection what a stranger may send, and sees that it ends and leaves nothing behind.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, split};
use tokio::time::{sleep, timeout};

use super::common::{PREFACE, call_head, connect, http2, message, runtime, shared_and_calm};

/// Longer than any patience of the front, shorter than the age of a connection.
const PATIENCE: Duration = Duration::from_secs(1800);
/// Until nothing happens any more but waiting.
const SETTLED: Duration = Duration::from_millis(5);
/// What the front may say to one input.
const MOST: usize = 64 * 1024 * 1024;

/// Plays one input; panics where the front breaks a promise. Tells how many calls began.
pub fn play(input: &[u8]) -> u64 {
    let sent = script(input);
    let shared = shared_and_calm();
    let runtime = runtime();
    runtime.block_on(async {
        let (peer, carried) = connect(&shared);
        let (mut reading, mut writing) = split(peer);
        let read = tokio::spawn(async move {
            let (mut heard, mut buffer) = (0, vec![0; 4096]);
            while let Ok(length @ 1..) = reading.read(&mut buffer).await {
                heard += length;
                assert!(heard < MOST, "the front does not stop talking");
            }
        });
        let _ = timeout(PATIENCE, writing.write_all(&sent)).await;
        // What has not been looked at when a peer leaves, never will be.
        sleep(SETTLED).await;
        let _ = writing.shutdown().await;
        let ended = timeout(PATIENCE, carried).await.expect("the connection ends");
        ended.expect("carrying it does not panic");
        drop(writing);
        read.await.expect("the front says no more than it should");
    });
    shared.pool.close();
    drop(runtime);
    assert_eq!((shared.load.calls(), shared.load.bytes()), (0, 0), "all is given back");
    shared.metrics.calls_begun.load(Relaxed)
}

/// Turns bytes into a conversation, most of it well-formed, so that what is behind the framing is reached too.
fn script(input: &[u8]) -> Vec<u8> {
    let mut sent = Vec::new();
    let mut rest = input;
    if input.first().is_none_or(|first| first % 16 != 15) {
        sent.extend_from_slice(PREFACE);
        sent.extend(http2(4, 0, 0, b""));
    }
    let mut newest = 0;
    while let Some((&what, after)) = rest.split_first() {
        let (length, after) = after
            .split_first()
            .map_or((0, after), |(length, after)| (usize::from(*length), after));
        let (bytes, after) = after.split_at(length.min(after.len()));
        rest = after;
        let last = what >> 7;
        let stream = u32::max(1, newest - u32::min(newest, 2 * u32::from(what >> 4 & 7)));
        let path = ["/a.B/Unary", "/a.B/Stream", "/a.B/Watch", "/a.B/Nothing"][length % 4];
        // Nonsense, which ends a connection, is rarer than what a call is made of.
        let nonsense = length < 32;
        match what & 0x0f {
            0 => sent.extend(http2(0, last, stream, &message(bytes))),
            1 => sent.extend(http2(0, last, stream, bytes)),
            2 => sent.extend(http2(3, 0, stream, &[0, 0, 0, 8])),
            3 => sent.extend(http2(8, 0, stream, &[0, 1, 0, 0])),
            4 => sent.extend(http2(6, last, 0, &[0; 8])),
            5 => sent.extend(http2(4, 0, 0, &bytes[..bytes.len() / 6 * 6])),
            6 if nonsense => sent.extend(http2(1, bytes.first().copied().unwrap_or(5), stream, bytes)),
            7 if nonsense => sent.extend(http2(9, 4 * last, stream, bytes)),
            8 if nonsense => {
                if let [kind, flags, id, payload @ ..] = bytes {
                    sent.extend(http2(*kind, *flags, u32::from(*id), payload));
                }
            }
            9 if nonsense => sent.extend_from_slice(bytes),
            _ => {
                newest += if newest == 0 { 1 } else { 2 };
                let more = if nonsense { bytes } else { b"" };
                sent.extend(http2(1, 4, newest, &[&call_head(path), more].concat()));
                sent.extend(http2(0, last, newest, &message(bytes)));
            }
        }
    }
    sent
}
