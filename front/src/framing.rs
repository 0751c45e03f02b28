//! Messages from the bytes of a body and back: a byte that says whether it is compressed, four of length, the message.

use bytes::{BufMut, Bytes, BytesMut};

/// Bytes in front of a message.
pub const PREFIX: usize = 5;
/// A length that was only announced is not given memory beyond this.
const TRUSTED: usize = 64 * 1024;

/// Why the front does not hand a message on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Larger than one message may be.
    TooLarge,
    /// Together with others larger than what may be in flight.
    TooManyBytes,
}

/// One message as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Whether `bytes` are compressed.
    pub compressed: bool,
    /// Without the prefix.
    pub bytes: Bytes,
}

/// What comes next in a body.
#[derive(Debug, PartialEq, Eq)]
pub enum Item {
    /// A message.
    Message(Message),
    /// A message that was skipped.
    Refused(Refused),
}

/// The prefix is none.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

#[derive(Debug)]
enum Body {
    Kept {
        compressed: bool,
        length: usize,
        buffer: BytesMut,
    },
    Skipped {
        left: usize,
        reason: Refused,
    },
}

/// Cuts a body, which comes in chunks, into messages. A message within one chunk is not copied.
#[derive(Debug)]
pub struct Decoder {
    limit: usize,
    chunk: Bytes,
    prefix: [u8; PREFIX],
    prefix_length: usize,
    body: Option<Body>,
}

impl Decoder {
    /// Skips messages of more than `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            chunk: Bytes::new(),
            prefix: [0; PREFIX],
            prefix_length: 0,
            body: None,
        }
    }

    /// Adds a chunk; `next_item` must have returned None before.
    pub fn push(&mut self, chunk: Bytes) {
        debug_assert!(self.chunk.is_empty());
        self.chunk = chunk;
    }

    /// The next message; None: push another chunk.
    pub fn next_item(&mut self) -> Result<Option<Item>, Malformed> {
        if self.body.is_none() && !self.begin()? {
            return Ok(None);
        }
        let item = match self.body.as_mut() {
            Some(Body::Kept {
                compressed,
                length,
                buffer,
            }) => {
                let missing = *length - buffer.len();
                if buffer.is_empty() && self.chunk.len() >= missing {
                    let bytes = self.chunk.split_to(missing);
                    Item::Message(Message {
                        compressed: *compressed,
                        bytes,
                    })
                } else {
                    let taken = missing.min(self.chunk.len());
                    buffer.put(self.chunk.split_to(taken));
                    if taken < missing {
                        return Ok(None);
                    }
                    Item::Message(Message {
                        compressed: *compressed,
                        bytes: std::mem::take(buffer).freeze(),
                    })
                }
            }
            Some(Body::Skipped { left, reason }) => {
                let taken = (*left).min(self.chunk.len());
                *left -= taken;
                let _ = self.chunk.split_to(taken);
                if *left > 0 {
                    return Ok(None);
                }
                Item::Refused(*reason)
            }
            None => return Ok(None),
        };
        self.body = None;
        Ok(Some(item))
    }

    /// Bytes of an unfinished message that are kept.
    pub fn buffered(&self) -> usize {
        match &self.body {
            Some(Body::Kept { buffer, .. }) => buffer.len(),
            _ => 0,
        }
    }

    /// Why the message that is on its way will not be handed on; known as soon as its prefix is.
    pub fn refused(&self) -> Option<Refused> {
        match &self.body {
            Some(Body::Skipped { reason, .. }) => Some(*reason),
            _ => None,
        }
    }

    /// Forgets what was kept of an unfinished message, and skips the rest.
    pub fn refuse(&mut self, reason: Refused) {
        if let Some(Body::Kept { length, buffer, .. }) = &self.body {
            self.body = Some(Body::Skipped {
                left: *length - buffer.len(),
                reason,
            });
        }
    }

    /// Whether a message has begun and is not complete.
    pub fn unfinished(&self) -> bool {
        self.body.is_some() || self.prefix_length > 0 || !self.chunk.is_empty()
    }

    /// Reads a prefix; false where it is not complete.
    fn begin(&mut self) -> Result<bool, Malformed> {
        let taken = (PREFIX - self.prefix_length).min(self.chunk.len());
        let end = self.prefix_length + taken;
        self.prefix[self.prefix_length..end].copy_from_slice(&self.chunk.split_to(taken));
        self.prefix_length = end;
        if end < PREFIX {
            return Ok(false);
        }
        self.prefix_length = 0;
        let [flag, a, b, c, d] = self.prefix;
        if flag > 1 {
            return Err(Malformed);
        }
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        self.body = Some(if length > self.limit {
            Body::Skipped {
                left: length,
                reason: Refused::TooLarge,
            }
        } else {
            let expected = if self.chunk.len() >= length {
                0
            } else {
                length.min(TRUSTED)
            };
            Body::Kept {
                compressed: flag == 1,
                length,
                buffer: BytesMut::with_capacity(expected),
            }
        });
        Ok(true)
    }
}

/// The message behind its prefix.
pub fn frame(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(PREFIX + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).expect("a message is shorter than 4 GiB"));
    framed.put_slice(message);
    framed.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(decoder: &mut Decoder, body: &[u8], step: usize) -> Result<Vec<Item>, Malformed> {
        let mut found = Vec::new();
        for chunk in body.chunks(step) {
            decoder.push(Bytes::copy_from_slice(chunk));
            while let Some(item) = decoder.next_item()? {
                found.push(item);
            }
        }
        Ok(found)
    }

    fn plain(bytes: &'static [u8]) -> Item {
        Item::Message(Message {
            compressed: false,
            bytes: Bytes::from_static(bytes),
        })
    }

    #[test]
    fn messages_are_the_same_however_the_body_is_cut() {
        let body = [
            frame(b"one"),
            frame(b""),
            frame(b"longer than the limit"),
            frame(b"three"),
        ]
        .concat();
        for step in 1..=body.len() {
            let mut decoder = Decoder::new(10);
            let found = items(&mut decoder, &body, step).unwrap();
            assert_eq!(
                found,
                [
                    plain(b"one"),
                    plain(b""),
                    Item::Refused(Refused::TooLarge),
                    plain(b"three")
                ]
            );
            assert!(!decoder.unfinished());
        }
    }

    #[test]
    fn a_message_that_ends_early_is_unfinished() {
        let body = frame(b"message");
        for end in 1..body.len() {
            let mut decoder = Decoder::new(10);
            assert_eq!(items(&mut decoder, &body[..end], end), Ok(vec![]));
            assert!(decoder.unfinished());
        }
    }

    #[test]
    fn a_refused_message_is_skipped_and_the_next_one_read() {
        let body = [frame(b"refused"), frame(b"read")].concat();
        let mut decoder = Decoder::new(10);
        assert_eq!(items(&mut decoder, &body[..8], 8), Ok(vec![]));
        assert_eq!(decoder.buffered(), 3);
        decoder.refuse(Refused::TooManyBytes);
        assert_eq!(decoder.refused(), Some(Refused::TooManyBytes));
        assert_eq!(decoder.buffered(), 0);
        assert_eq!(
            items(&mut decoder, &body[8..], 4),
            Ok(vec![Item::Refused(Refused::TooManyBytes), plain(b"read")])
        );
    }

    #[test]
    fn a_prefix_with_an_unknown_flag_is_malformed() {
        assert_eq!(items(&mut Decoder::new(10), &[2, 0, 0, 0, 0], 5), Err(Malformed));
    }

    #[test]
    fn an_announced_length_costs_no_memory() {
        let mut decoder = Decoder::new(usize::MAX);
        assert_eq!(items(&mut decoder, &[0, 0xff, 0xff, 0xff, 0xff, 1], 6), Ok(vec![]));
        let Some(Body::Kept { buffer, .. }) = &decoder.body else {
            panic!("{decoder:?}")
        };
        assert!(buffer.capacity() <= 2 * TRUSTED);
    }
}
