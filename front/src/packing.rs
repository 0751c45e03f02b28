//! Messages that are compressed with gzip.

use std::io::{Read, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

use crate::framing::PREFIX;

/// The same message, compressed; as it was where that would not make it shorter.
pub fn compress(framed: Bytes) -> Bytes {
    let mut encoder = GzEncoder::new(vec![0; PREFIX], Compression::fast());
    let written = framed.get(PREFIX..).and_then(|message| encoder.write_all(message).ok());
    let Some(mut packed) = written.and_then(|()| encoder.finish().ok()) else {
        return framed;
    };
    if packed.len() >= framed.len() {
        return framed;
    }
    let length = u32::try_from(packed.len() - PREFIX).expect("shorter than what was framed");
    packed[0] = 1;
    packed[1..PREFIX].copy_from_slice(&length.to_be_bytes());
    packed.into()
}

/// Why a compressed message cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub enum Undecodable {
    /// It holds more than a message may have.
    TooLarge,
    /// It is not gzip.
    Corrupt,
}

/// What gzip packed, at most `limit` bytes.
pub fn decompress(packed: &[u8], limit: usize) -> Result<Bytes, Undecodable> {
    let mut plain = Vec::with_capacity(packed.len().saturating_mul(2).min(limit));
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    GzDecoder::new(packed)
        .take(most)
        .read_to_end(&mut plain)
        .map_err(|_| Undecodable::Corrupt)?;
    if plain.len() > limit {
        Err(Undecodable::TooLarge)
    } else {
        Ok(plain.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framing::{Decoder, Item, Message, frame};

    #[test]
    fn what_is_compressed_is_the_same_when_it_was_decompressed() {
        let message = b"again and again and again and again and again and again and again".as_slice();
        let framed = compress(frame(message));
        assert!(framed.len() < message.len());
        let mut decoder = Decoder::new(1000);
        decoder.push(framed);
        let Ok(Some(Item::Message(Message {
            compressed: true,
            bytes,
        }))) = decoder.next_item()
        else {
            panic!("{decoder:?}")
        };
        assert_eq!(decompress(&bytes, message.len()).unwrap(), message);
        assert_eq!(decompress(&bytes, message.len() - 1), Err(Undecodable::TooLarge));
        assert_eq!(decompress(&bytes[..10], 1000), Err(Undecodable::Corrupt));
    }

    #[test]
    fn what_would_not_get_shorter_is_left_alone() {
        assert_eq!(compress(frame(b"x")), frame(b"x"));
    }
}
