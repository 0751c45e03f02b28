//! Lets clients in that name a Unix socket by its path.
//!
//! gRPC's C core, grpcio among others, puts the percent-encoded path of the socket into `:authority`, which `h2` refuses
//! as no authority (<https://github.com/hyperium/h2/issues/442>). So what is read is looked through before `h2` sees
//! it, and such characters become dots. Lengths stay as they are, for the sake of frames and of the header table.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const PREFACE: usize = 24;
const FRAME_HEAD: usize = 9;
const HEADERS: u8 = 1;
/// The name as a literal: its length, then itself. The C core writes it so, without Huffman's code.
const NAME: &[u8] = b"\x0a:authority";

/// Where in the stream of frames the next byte is.
#[derive(Debug)]
enum Place {
    Preface(usize),
    Head([u8; FRAME_HEAD], usize),
    Payload { left: usize, headers: bool },
}

/// Looks for the authority in a block of headers.
#[derive(Debug, Clone, Copy)]
enum Search {
    /// So many bytes of the name have matched.
    Name(usize),
    Length,
    Value(usize),
}

#[derive(Debug)]
struct Mender {
    place: Place,
    search: Search,
}

impl Mender {
    fn mend(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            let used = match &mut self.place {
                Place::Preface(left) => {
                    let used = bytes.len().min(*left);
                    *left -= used;
                    if *left == 0 {
                        self.place = Place::Head([0; FRAME_HEAD], 0);
                    }
                    used
                }
                Place::Head(head, length) => {
                    let used = bytes.len().min(FRAME_HEAD - *length);
                    head[*length..*length + used].copy_from_slice(&bytes[..used]);
                    *length += used;
                    if *length == FRAME_HEAD {
                        let left = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                        let headers = head[3] == HEADERS;
                        self.search = Search::Name(0);
                        self.place = if left == 0 {
                            Place::Head([0; FRAME_HEAD], 0)
                        } else {
                            Place::Payload { left, headers }
                        };
                    }
                    used
                }
                Place::Payload { left, headers } => {
                    let used = bytes.len().min(*left);
                    *left -= used;
                    let (headers, done) = (*headers, *left == 0);
                    if headers {
                        bytes[..used]
                            .iter_mut()
                            .for_each(|byte| self.search = self.search.step(byte));
                    }
                    if done {
                        self.place = Place::Head([0; FRAME_HEAD], 0);
                    }
                    used
                }
            };
            bytes = &mut bytes[used..];
        }
    }
}

impl Search {
    fn step(self, byte: &mut u8) -> Self {
        match self {
            Self::Name(matched) if *byte == NAME[matched] => {
                if matched + 1 == NAME.len() {
                    Self::Length
                } else {
                    Self::Name(matched + 1)
                }
            }
            Self::Name(_) => Self::Name(usize::from(*byte == NAME[0])),
            // The first bit tells of Huffman's code; seven ones, of a length that goes on.
            Self::Length if *byte < 127 => Self::Value(usize::from(*byte)),
            Self::Value(left) if left > 0 => {
                if matches!(*byte, b'%' | b'/') {
                    *byte = b'.';
                }
                Self::Value(left - 1)
            }
            Self::Length | Self::Value(_) => Self::Name(usize::from(*byte == NAME[0])),
        }
    }
}

/// A connection whose authorities `h2` takes.
pub struct Mended<T> {
    io: T,
    mender: Mender,
}

impl<T> Mended<T> {
    /// At the very beginning.
    pub fn new(io: T) -> Self {
        Self {
            io,
            mender: Mender {
                place: Place::Preface(PREFACE),
                search: Search::Name(0),
            },
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Mended<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        self.mender.mend(&mut buf.filled_mut()[before..]);
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Mended<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        [&[0, 0, length, kind, 0, 0, 0, 0, 1], payload].concat()
    }

    fn read(authority: &str, message: &str) -> Vec<u8> {
        let literal = |value: &str| {
            let length = u8::try_from(value.len()).unwrap();
            [
                b"@\x05:path\x02/%@".as_slice(),
                NAME,
                &[length],
                value.as_bytes(),
                b"@\x01a\x01%",
            ]
            .concat()
        };
        let named = [NAME, b"\x04", message.as_bytes()].concat();
        [
            vec![b' '; PREFACE],
            frame(4, b""),
            frame(HEADERS, &literal(authority)),
            frame(0, &named),
        ]
        .concat()
    }

    #[test]
    fn only_the_authority_changes_however_the_bytes_come() {
        let (sent, expected) = (read("tmp%2Fpdp.sock", "%/%/"), read("tmp.2Fpdp.sock", "%/%/"));
        for step in 1..=sent.len() {
            let mut mender = Mender {
                place: Place::Preface(PREFACE),
                search: Search::Name(0),
            };
            let mut bytes = sent.clone();
            bytes.chunks_mut(step).for_each(|chunk| mender.mend(chunk));
            assert_eq!(bytes, expected);
        }
    }
}
