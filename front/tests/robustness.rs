//! What a connection does with peers that stall, and with methods that panic. No test waits: the clock jumps.

mod common;

use std::io;
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use h2::client::{self, SendRequest};
use h2::{Reason, RecvStream};
use http::{HeaderMap, Request};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use _front::limits::{HANDSHAKE, KEEPALIVE, KEEPALIVE_ANSWER, Limits, MESSAGE, STALLED, TURN_BYTES};
use _front::server::{Phase, Shared};

use common::{
    LIMITS, PREFACE, call_head, connect, connect_through, http2, message, runtime, serve, shared, shared_within,
};

/// The clock of the tests has a grain.
const GRAIN: Duration = Duration::from_millis(20);

/// How long a connection lives whose peer sends this and then nothing, not even an end.
fn lifetime(sent: &[u8]) -> Duration {
    runtime().block_on(async {
        let began = Instant::now();
        let (mut peer, carried) = connect(&shared());
        peer.write_all(sent).await.unwrap();
        carried.await.unwrap();
        began.elapsed()
    })
}

#[test]
fn a_peer_that_does_not_finish_what_it_began_is_let_go() {
    let greeting = [PREFACE, &http2(4, 0, 0, b"")].concat();
    let call = http2(1, 4, 1, &call_head("/a.B/Unary"));
    let silence = KEEPALIVE + KEEPALIVE_ANSWER;
    for (what, sent, patience) in [
        ("nothing", &b""[..], HANDSHAKE),
        ("half a preface", &PREFACE[..10], HANDSHAKE),
        ("no settings", PREFACE, silence),
        ("half a frame", &[&greeting, &call[..20]].concat(), silence),
        (
            "a call without its message",
            &[greeting.clone(), call].concat(),
            silence,
        ),
        ("a greeting", &greeting, silence),
    ] {
        let lived = lifetime(sent);
        assert!(lived <= patience + GRAIN, "{what}: {lived:?}");
    }
}

/// A client that answers pings; its connection is carried until this ends.
async fn client(shared: &Arc<Shared>, window: u32) -> SendRequest<Bytes> {
    let (peer, _) = connect(shared);
    client_over(peer, window).await
}

async fn client_over(peer: DuplexStream, window: u32) -> SendRequest<Bytes> {
    let (client, connection) = client::Builder::new()
        .initial_window_size(window)
        .handshake(peer)
        .await
        .unwrap();
    tokio::spawn(connection);
    client.ready().await.unwrap()
}

fn head(path: &str) -> Request<()> {
    Request::post(format!("http://front{path}"))
        .header("content-type", "application/grpc")
        .body(())
        .unwrap()
}

/// The status of a call, and how it ended where it has none.
async fn status(body: &mut RecvStream, headers: &HeaderMap) -> Result<HeaderMap, h2::Error> {
    if headers.contains_key("grpc-status") {
        return Ok(headers.clone());
    }
    while let Some(chunk) = body.data().await {
        let _ = body.flow_control().release_capacity(chunk?.len());
    }
    Ok(body.trailers().await?.unwrap_or_default())
}

#[test]
fn a_connection_that_answers_pings_lives_on() {
    runtime().block_on(async {
        let shared = shared();
        let mut client = client(&shared, 65_535).await;
        sleep(10 * (KEEPALIVE + KEEPALIVE_ANSWER)).await;
        let (answer, mut body) = client.send_request(head("/a.B/Unary"), false).unwrap();
        body.send_data(message(b"hello"), true).unwrap();
        let (parts, mut body) = answer.await.unwrap().into_parts();
        assert_eq!(status(&mut body, &parts.headers).await.unwrap()["grpc-status"], "0");
    });
}

#[test]
fn a_message_that_does_not_come_whole_gives_its_bytes_back() {
    for path in ["/a.B/Unary", "/a.B/Stream", "/a.B/Watch"] {
        runtime().block_on(async {
            let shared = shared();
            let mut client = client(&shared, 65_535).await;
            let (answer, mut sending) = client.send_request(head(path), false).unwrap();
            sending.send_data(message(&[0; 30_000]).slice(..20_000), false).unwrap();
            sleep(MESSAGE / 2).await;
            assert!(shared.load.bytes() > 19_000, "{path}");
            let began = Instant::now();
            let (parts, mut body) = answer.await.unwrap().into_parts();
            let told = status(&mut body, &parts.headers).await.unwrap();
            assert_eq!(told["grpc-status"], "4", "{path}");
            assert!(began.elapsed() <= MESSAGE, "{path}");
            assert_eq!(shared.load.bytes(), 0, "{path}");
        });
    }
}

#[test]
fn a_stream_may_be_silent_between_messages() {
    runtime().block_on(async {
        let shared = shared();
        let mut client = client(&shared, 65_535).await;
        let (answer, mut sending) = client.send_request(head("/a.B/Stream"), false).unwrap();
        sleep(10 * MESSAGE).await;
        sending.send_data(message(b"late"), true).unwrap();
        let (parts, mut body) = answer.await.unwrap().into_parts();
        assert_eq!(status(&mut body, &parts.headers).await.unwrap()["grpc-status"], "0");
    });
}

#[test]
fn a_message_in_parts_counts_once() {
    for path in ["/a.B/Unary", "/a.B/Stream"] {
        runtime().block_on(async {
            let shared = shared_within(Limits {
                in_flight_bytes: 20_000,
                ..LIMITS
            });
            // Another one, so that this is not alone.
            let mut other = client(&shared, 65_535).await;
            let (_answer, mut waiting) = other.send_request(head("/a.B/Unary"), false).unwrap();
            waiting.send_data(message(&[0; 1000]).slice(..500), false).unwrap();
            let mut client = client(&shared, 65_535).await;
            let (answer, mut sending) = client.send_request(head(path), false).unwrap();
            let whole = message(&[0; 15_000]);
            sending.send_data(whole.slice(..10_000), false).unwrap();
            sleep(GRAIN).await;
            sending.send_data(whole.slice(10_000..), true).unwrap();
            let (parts, mut body) = answer.await.unwrap().into_parts();
            assert_eq!(
                status(&mut body, &parts.headers).await.unwrap()["grpc-status"],
                "0",
                "{path}"
            );
        });
    }
}

#[test]
fn what_calls_keep_of_large_heads_counts_as_long_as_they_last() {
    for path in ["/a.B/Unary", "/a.B/Stream", "/a.B/Watch"] {
        runtime().block_on(async {
            let shared = shared();
            let mut client = client(&shared, 65_535).await;
            let mut large = head(path);
            large
                .headers_mut()
                .insert("tracestate", "x".repeat(30_000).parse().unwrap());
            let kept = large.clone();
            large
                .headers_mut()
                .insert("user-agent", "x".repeat(30_000).parse().unwrap());
            let mut calls = Vec::new();
            for request in [&kept, &large, &large, &kept] {
                let mut ready = client.ready().await.unwrap();
                calls.push(ready.send_request(request.clone(), false).unwrap());
                client = ready;
            }
            sleep(GRAIN).await;
            assert_eq!(shared.load.bytes(), 60_000, "{path}");
            let (answer, _) = client.send_request(large, false).unwrap();
            let (parts, mut body) = answer.await.unwrap().into_parts();
            let told = status(&mut body, &parts.headers).await.unwrap();
            assert_eq!(told["grpc-message"], "too many bytes", "{path}");
            drop(calls);
            sleep(GRAIN).await;
            assert_eq!(shared.load.bytes(), 0, "{path}");
        });
    }
}

#[test]
fn what_a_caller_left_in_the_queue_keeps_its_place() {
    for path in ["/a.B/Unary", "/a.B/Stream"] {
        runtime().block_on(async {
            let shared = shared_within(Limits {
                max_concurrent: 1,
                ..LIMITS
            });
            let mut client = client(&shared, 65_535).await;
            // No thread takes it.
            let (answer, mut sending) = client.send_request(head(path), false).unwrap();
            sending.send_data(message(b"later"), false).unwrap();
            if path == "/a.B/Unary" {
                sending.send_data(Bytes::new(), true).unwrap();
            }
            sleep(GRAIN).await;
            assert_eq!(shared.pool.depth(), 1, "{path}");
            sending.send_reset(Reason::CANCEL);
            drop(answer);
            sleep(GRAIN).await;
            for expected in ["13", "0"] {
                let mut ready = client.ready().await.unwrap();
                let (answer, mut sending) = ready.send_request(head(path), false).unwrap();
                client = ready;
                sending.send_data(message(b"hello"), true).unwrap();
                let (parts, mut body) = answer.await.unwrap().into_parts();
                let told = status(&mut body, &parts.headers).await.unwrap();
                assert_eq!(told["grpc-status"], expected, "{path}");
                shared.pool.close();
            }
        });
    }
}

#[test]
fn answers_that_nobody_takes_count_and_end() {
    for path in ["/a.B/Unary", "/a.B/Stream"] {
        runtime().block_on(async {
            let shared = shared();
            let mut client = client(&shared, 0).await;
            let mut calls = Vec::new();
            for _ in 0..4 {
                let (answer, mut sending) = client
                    .clone()
                    .ready()
                    .await
                    .unwrap()
                    .send_request(head(path), false)
                    .unwrap();
                sending.send_data(message(&[0; 15_000]), true).unwrap();
                calls.push((answer, sending));
            }
            sleep(STALLED / 2).await;
            assert_eq!(shared.load.bytes(), 4 * 15_005, "{path}");
            // A fifth would be too much, and is told so.
            let (answer, mut sending) = client.send_request(head(path), false).unwrap();
            sending.send_data(message(&[0; 15_000]), true).unwrap();
            let (parts, mut body) = answer.await.unwrap().into_parts();
            let told = status(&mut body, &parts.headers).await.unwrap();
            assert_eq!(told["grpc-message"], "too many bytes", "{path}");
            for (answer, _sending) in calls {
                let (parts, mut body) = answer.await.unwrap().into_parts();
                let reset = status(&mut body, &parts.headers).await.unwrap_err();
                assert_eq!(reset.reason(), Some(Reason::CANCEL), "{path}");
            }
            assert_eq!(shared.load.bytes(), 0, "{path}");
        });
    }
}

#[test]
fn more_than_the_window_goes_out_as_it_is_taken() {
    runtime().block_on(async {
        let shared = shared();
        let mut client = client(&shared, 1000).await;
        let (answer, mut sending) = client.send_request(head("/a.B/Unary"), false).unwrap();
        sending.send_data(message(&[7; 15_000]), true).unwrap();
        let mut body = answer.await.unwrap().into_body();
        let mut received = Vec::new();
        while let Some(chunk) = body.data().await {
            let chunk = chunk.unwrap();
            // Slowly, but never so slowly that it counts as nothing.
            sleep(STALLED / 2).await;
            body.flow_control().release_capacity(chunk.len()).unwrap();
            received.extend(chunk);
        }
        assert_eq!(received, message(&[7; 15_000]));
        assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "0");
        assert_eq!(shared.load.bytes(), 0);
    });
}

#[test]
fn a_panic_of_a_method_ends_one_call() {
    let shared = shared();
    let working = Arc::clone(&shared);
    let thread = std::thread::spawn(move || working.pool.work(&working.metrics));
    for path in ["/a.B/Unary", "/a.B/Stream", "/a.B/Watch"] {
        for text in [&b"panic"[..], b"later panic"] {
            // A clock that jumps would not wait for the threads.
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .unwrap();
            runtime.block_on(async {
                let mut client = client(&shared, 65_535).await;
                for (body, expected) in [(text, ("13", "the method failed")), (b"hello", ("0", ""))] {
                    let mut ready = client.ready().await.unwrap();
                    let (answer, mut sending) = ready.send_request(head(path), false).unwrap();
                    client = ready;
                    sending.send_data(message(body), true).unwrap();
                    let (parts, mut body) = answer.await.unwrap().into_parts();
                    let told = status(&mut body, &parts.headers).await.unwrap();
                    let details = told.get("grpc-message").map_or("", |value| value.to_str().unwrap());
                    assert_eq!((told["grpc-status"].to_str().unwrap(), details), expected, "{path}");
                }
            });
        }
    }
    shared.pool.close();
    thread.join().unwrap();
    assert_eq!((shared.load.calls(), shared.load.bytes()), (0, 0));
    assert!(shared.metrics.pooled.load(Relaxed) >= 2);
}

#[test]
fn who_resets_what_was_not_looked_at_is_sent_away() {
    runtime().block_on(async {
        let (mut peer, carried) = connect(&shared());
        let mut sent = [PREFACE, &http2(4, 0, 0, b"")].concat();
        for stream in (1..400).step_by(2) {
            sent.extend(http2(1, 4, stream, &call_head("/a.B/Unary")));
            sent.extend(http2(3, 0, stream, &[0, 0, 0, 8]));
        }
        let _ = peer.write_all(&sent).await;
        let mut said = Vec::new();
        let _ = peer.read_to_end(&mut said).await;
        carried.await.unwrap();
        let calm = [0, 0, 0, 11];
        assert!(
            said.windows(9 + 8).any(|frame| frame[3] == 7 && frame[13..17] == calm),
            "no GOAWAY with ENHANCE_YOUR_CALM"
        );
    });
}

#[test]
fn a_flood_leaves_others_their_turns() {
    runtime().block_on(async {
        let shared = shared();
        let flood = [PREFACE, &http2(4, 0, 0, b""), &http2(0x77, 0, 0, b"").repeat(100_000)].concat();
        let (mut peer, _carried) = connect_through(&shared, flood.len());
        peer.write_all(&flood).await.unwrap();
        let mut before = 0;
        while before < flood.len() as u64 {
            tokio::task::yield_now().await;
            let read = shared.metrics.bytes_in.load(Relaxed);
            assert!(
                read - before <= 2 * TURN_BYTES as u64,
                "{} bytes at once",
                read - before
            );
            before = read;
        }
    });
}

/// A peer that never stops talking, until it was told to go or has said this many bytes.
struct Talker {
    greeting: Bytes,
    left: usize,
    told: Arc<Mutex<Vec<u8>>>,
}

/// The head of a GOAWAY without debug data.
const GOAWAY: [u8; 9] = [0, 0, 8, 7, 0, 0, 0, 0, 0];

impl AsyncRead for Talker {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let nonsense = http2(0x77, 0, 0, b"");
        let greeted = buf.remaining().min(self.greeting.len());
        buf.put_slice(&self.greeting.split_to(greeted));
        while buf.remaining() >= nonsense.len() && self.left >= nonsense.len() {
            self.left -= nonsense.len();
            buf.put_slice(&nonsense);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Talker {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.told.lock().unwrap().extend(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[test]
fn a_flood_is_told_to_go_when_the_end_begins() {
    runtime().block_on(async {
        let told = Arc::default();
        let phase = watch::Sender::new(Phase::Running);
        let talker = Talker {
            greeting: [PREFACE, &http2(4, 0, 0, b"")].concat().into(),
            left: 100 * TURN_BYTES,
            told: Arc::clone(&told),
        };
        let _carried = serve(talker, &shared(), &phase);
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        phase.send_replace(Phase::Draining(Duration::ZERO));
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert!(told.lock().unwrap().windows(GOAWAY.len()).any(|head| head == GOAWAY));
    });
}

#[test]
fn a_handshake_does_not_hold_up_the_end() {
    runtime().block_on(async {
        let phase = watch::Sender::new(Phase::Running);
        let (_silent, theirs) = tokio::io::duplex(1024);
        let carried = serve(theirs, &shared(), &phase);
        tokio::task::yield_now().await;
        let began = Instant::now();
        phase.send_replace(Phase::Draining(HANDSHAKE));
        carried.await.unwrap();
        assert!(began.elapsed() <= GRAIN);
    });
}

/// Keeps what is written until it is flushed, as TLS may where the network takes nothing.
struct Keeper {
    io: DuplexStream,
    kept: BytesMut,
}

impl AsyncRead for Keeper {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Keeper {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.kept.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { io, kept } = &mut *self;
        while !kept.is_empty() {
            let written = ready!(Pin::new(&mut *io).poll_write(cx, kept))?;
            kept.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[test]
fn what_tls_keeps_leaves_as_soon_as_the_network_takes_it() {
    for size in [4000, 15_000] {
        runtime().block_on(async {
            let (peer, theirs) = tokio::io::duplex(1000);
            let io = Keeper {
                io: theirs,
                kept: BytesMut::new(),
            };
            serve(io, &shared(), &watch::Sender::new(Phase::Running));
            let mut client = client_over(peer, 65_535).await;
            let began = Instant::now();
            let (answer, mut sending) = client.send_request(head("/a.B/Unary"), false).unwrap();
            sending.send_data(message(&vec![0; size]), true).unwrap();
            let (parts, mut body) = answer.await.unwrap().into_parts();
            assert_eq!(status(&mut body, &parts.headers).await.unwrap()["grpc-status"], "0");
            // Sooner than something else is sent, a ping for example.
            assert!(began.elapsed() <= GRAIN, "{size}");
        });
    }
}
