//! What the head of a call says.
//!
//! <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>

use std::time::Duration;

use base64::Engine;
use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, TE, USER_AGENT};

use crate::metadata::{BASE64, GRPC, GRPC_ACCEPT_ENCODING, GRPC_ENCODING};

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Version, trace, parent and flags. <https://www.w3.org/TR/trace-context/>
const TRACE_BYTES: usize = 55;

/// How the messages of a call are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Not.
    Identity,
    /// With gzip, those that say so.
    Gzip,
}

/// A header is not what gRPC says it must be.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

/// Of the head what the front itself goes by.
#[derive(Debug, PartialEq, Eq)]
pub struct Head<'a> {
    /// Whether the content type is gRPC's, with or without a format.
    pub grpc: bool,
    /// How long the caller waits, None where it does not say.
    pub timeout: Result<Option<Duration>, Malformed>,
    /// Malformed where it is none of ours.
    pub encoding: Result<Encoding, Malformed>,
    /// As the caller names itself.
    pub user_agent: Option<&'a HeaderValue>,
    /// The trace that the call belongs to.
    pub traceparent: Option<&'a HeaderValue>,
}

impl<'a> Head<'a> {
    /// Looks at each header once: that takes a third of what looking each up would. Of equal names the first counts.
    pub fn read(headers: &'a HeaderMap) -> Self {
        let mut content_type = None;
        let mut timeout = None;
        let mut encoding = None;
        let mut user_agent = None;
        let mut traceparent = None;
        for (name, value) in headers {
            let place = if *name == CONTENT_TYPE {
                &mut content_type
            } else if *name == USER_AGENT {
                &mut user_agent
            } else if *name == GRPC_TIMEOUT {
                &mut timeout
            } else if *name == GRPC_ENCODING {
                &mut encoding
            } else if *name == TRACEPARENT {
                &mut traceparent
            } else {
                continue;
            };
            place.get_or_insert(value);
        }
        Self {
            grpc: content_type.is_some_and(|value| is_grpc(value.as_bytes())),
            timeout: timeout.map(|value| parse_timeout(value.as_bytes())).transpose(),
            encoding: match encoding.map(HeaderValue::as_bytes) {
                None | Some(b"identity") => Ok(Encoding::Identity),
                Some(b"gzip") => Ok(Encoding::Gzip),
                Some(_) => Err(Malformed),
            },
            user_agent,
            traceparent,
        }
    }
}

fn is_grpc(content_type: &[u8]) -> bool {
    let rest = content_type.strip_prefix(GRPC.as_bytes());
    matches!(rest.map(<[u8]>::first), Some(None | Some(b'+' | b';')))
}

fn parse_timeout(value: &[u8]) -> Result<Duration, Malformed> {
    let (unit, digits) = value.split_last().ok_or(Malformed)?;
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Malformed);
    }
    let number = digits
        .iter()
        .fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
    Ok(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return Err(Malformed),
    })
}

/// Whether the caller reads gzip.
pub fn accepts_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(GRPC_ACCEPT_ENCODING);
    values
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(','))
        .any(|one| one.trim() == "gzip")
}

/// What a pair of metadata says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Printable ASCII.
    Text(String),
    /// Of a name that ends in `-bin`.
    Binary(Bytes),
}

/// The trace alone, for a method that reads nothing else; without what a later version of its format would add.
pub fn trace(traceparent: &HeaderValue) -> Option<(String, Value)> {
    let text = traceparent.to_str().ok()?;
    // Whether it is well-formed shows in the byte behind what is read.
    let read = text.get(..=TRACE_BYTES).unwrap_or(text);
    Some((TRACEPARENT.as_str().to_owned(), Value::Text(read.to_owned())))
}

/// The bytes that pairs take, about.
pub fn size(pairs: &[(String, Value)]) -> usize {
    let each = pairs.iter().map(|(name, value)| {
        let value = match value {
            Value::Text(text) => text.len(),
            Value::Binary(bytes) => bytes.len(),
        };
        size_of::<(String, Value)>() + name.len() + value
    });
    each.sum()
}

/// The metadata that the caller added, in its order; what neither ASCII nor base64 makes sense of is left out.
pub fn pairs(headers: &HeaderMap) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for (name, value) in headers {
        if is_reserved(name) {
            continue;
        }
        let Ok(text) = value.to_str() else { continue };
        let name = name.as_str();
        if name.ends_with("-bin") {
            // Several values of one name may have been joined on the way.
            let values = text.split(',').filter_map(|part| BASE64.decode(part.trim()).ok());
            found.extend(values.map(|bytes| (name.to_owned(), Value::Binary(bytes.into()))));
        } else {
            found.push((name.to_owned(), Value::Text(text.to_owned())));
        }
    }
    found
}

fn is_reserved(name: &HeaderName) -> bool {
    [CONTENT_TYPE, TE, ACCEPT, ACCEPT_ENCODING].contains(name) || name.as_str().starts_with("grpc-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn a_timeout_has_up_to_eight_digits_and_a_unit() {
        for (text, expected) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("99999999S", Some(Duration::from_secs(99_999_999))),
            ("0m", Some(Duration::ZERO)),
            ("20u", Some(Duration::from_micros(20))),
            ("7n", Some(Duration::from_nanos(7))),
            ("S", None),
            ("123456789S", None),
            ("-1S", None),
            ("1s", None),
            ("1", None),
            ("1.5S", None),
            ("", None),
        ] {
            assert_eq!(
                Head::read(&headers("grpc-timeout", text)).timeout,
                expected.map(Some).ok_or(Malformed),
                "{text}"
            );
        }
        assert_eq!(Head::read(&HeaderMap::new()).timeout, Ok(None));
    }

    #[test]
    fn grpc_is_told_by_its_content_type() {
        for (text, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;charset=utf-8", true),
            ("application/grpc-web", false),
            ("application/json", false),
            ("", false),
        ] {
            assert_eq!(Head::read(&headers("content-type", text)).grpc, expected, "{text}");
        }
        assert!(!Head::read(&HeaderMap::new()).grpc);
    }

    #[test]
    fn of_equal_names_the_first_counts() {
        let mut twice = headers("grpc-timeout", "1S");
        twice.append("grpc-timeout", HeaderValue::from_static("2S"));
        assert_eq!(Head::read(&twice).timeout, Ok(Some(Duration::from_secs(1))));
    }

    #[test]
    fn compressions_other_than_gzip_are_not_known() {
        for (text, expected) in [
            ("gzip", Ok(Encoding::Gzip)),
            ("identity", Ok(Encoding::Identity)),
            ("br", Err(Malformed)),
        ] {
            assert_eq!(Head::read(&headers("grpc-encoding", text)).encoding, expected);
        }
        assert_eq!(Head::read(&HeaderMap::new()).encoding, Ok(Encoding::Identity));
        assert!(accepts_gzip(&headers(
            "grpc-accept-encoding",
            "identity, deflate, gzip"
        )));
        assert!(!accepts_gzip(&headers("grpc-accept-encoding", "identity")));
    }

    #[test]
    fn of_a_trace_no_more_is_kept_than_is_read() {
        let long = format!("00-{}", "1".repeat(100));
        for (sent, kept) in [("00-1", "00-1"), (long.as_str(), &long[..56])] {
            let (name, value) = trace(&HeaderValue::from_str(sent).unwrap()).unwrap();
            assert_eq!((name.as_str(), value), ("traceparent", Value::Text(kept.to_owned())));
        }
    }

    #[test]
    fn pairs_are_what_the_caller_added() {
        let mut sent = HeaderMap::new();
        for (name, value) in [
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("grpc-timeout", "1S"),
            ("a", "1"),
            ("a", "2"),
            ("b-bin", "/wA,/wA=,!"),
            ("c", "\u{fc}"),
            ("user-agent", "me"),
        ] {
            sent.append(
                HeaderName::from_static(name),
                HeaderValue::from_bytes(value.as_bytes()).unwrap(),
            );
        }
        let text = |name: &str, value: &str| (name.to_owned(), Value::Text(value.to_owned()));
        let binary = || ("b-bin".to_owned(), Value::Binary(Bytes::from_static(&[0xff, 0])));
        assert_eq!(
            pairs(&sent),
            [
                text("a", "1"),
                text("a", "2"),
                binary(),
                binary(),
                text("user-agent", "me")
            ]
        );
    }
}
