//! gRPC's headers: how they are written in HTTP/2.
//!
//! <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>

use std::time::Duration;

use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::header::{ALLOW, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use percent_encoding::{AsciiSet, CONTROLS, percent_encode};

use crate::answer::{Answer, Pair};

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// How a message is compressed.
pub const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
/// What may be used to compress.
pub const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const GZIP: HeaderValue = HeaderValue::from_static("gzip");
const ENCODINGS: HeaderValue = HeaderValue::from_static("identity,gzip");

/// All but printable ASCII without `%`.
const ENCODED: &AsciiSet = &CONTROLS.add(b'%');

/// Peers may pad or not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A pair as HTTP/2 carries it; None where it cannot.
pub fn pair(name: &str, value: &[u8]) -> Option<Pair> {
    let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
    let value = if name.as_str().ends_with("-bin") {
        HeaderValue::try_from(BASE64.encode(value)).ok()?
    } else {
        HeaderValue::from_bytes(value).ok()?
    };
    Some((name, value))
}

/// Whether the content type is gRPC's, with or without a format.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE) else {
        return false;
    };
    let rest = value.as_bytes().strip_prefix(GRPC.as_bytes());
    matches!(rest.map(<[u8]>::first), Some(None | Some(b'+' | b';')))
}

/// A header is not what gRPC says it must be.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

/// How long the caller waits, None where it does not say.
pub fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, Malformed> {
    headers
        .get(GRPC_TIMEOUT)
        .map(|value| parse_timeout(value.as_bytes()))
        .transpose()
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

/// How the messages of a call are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Not.
    Identity,
    /// With gzip, those that say so.
    Gzip,
}

/// Malformed where it is none of ours.
pub fn encoding(headers: &HeaderMap) -> Result<Encoding, Malformed> {
    match headers.get(GRPC_ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"identity") => Ok(Encoding::Identity),
        Some(b"gzip") => Ok(Encoding::Gzip),
        Some(_) => Err(Malformed),
    }
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

/// The head of an answer that has messages.
pub fn head(initial: &[Pair], encoding: Encoding) -> Response<()> {
    let mut response = Response::new(());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, GRPC);
    if encoding == Encoding::Gzip {
        headers.insert(GRPC_ENCODING, GZIP);
    }
    append(headers, initial);
    response
}

/// What ends an answer that had messages.
pub fn trailers(answer: &Answer) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(2);
    end(&mut headers, answer);
    headers
}

/// An answer without messages: head and end in one.
pub fn trailers_only(answer: &Answer) -> Response<()> {
    let mut response = Response::new(());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, GRPC);
    append(headers, &answer.initial);
    end(headers, answer);
    response
}

/// The same to a call whose compression is not known here: it says which are.
pub fn unknown_encoding(answer: &Answer) -> Response<()> {
    let mut response = trailers_only(answer);
    response.headers_mut().insert(GRPC_ACCEPT_ENCODING, ENCODINGS);
    response
}

/// What a request that is not gRPC is told.
pub const NOT_GRPC: &[u8] = b"This port speaks gRPC over HTTP/2: POST, with content-type application/grpc.\n";

/// The head of the answer to such a request.
pub fn not_grpc(status: StatusCode) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(ALLOW, HeaderValue::from_static("POST"));
    response
}

fn end(headers: &mut HeaderMap, answer: &Answer) {
    headers.insert(GRPC_STATUS, HeaderValue::from(u16::from(answer.status)));
    if !answer.details.is_empty() {
        let encoded = percent_encode(answer.details.as_bytes(), ENCODED).to_string();
        if let Ok(value) = HeaderValue::try_from(encoded) {
            headers.insert(GRPC_MESSAGE, value);
        }
    }
    append(headers, &answer.trailing);
}

fn append(headers: &mut HeaderMap, pairs: &[Pair]) {
    for (name, value) in pairs {
        headers.append(name.clone(), value.clone());
    }
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
                timeout(&headers("grpc-timeout", text)),
                expected.map(Some).ok_or(Malformed),
                "{text}"
            );
        }
        assert_eq!(timeout(&HeaderMap::new()), Ok(None));
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
            assert_eq!(is_grpc(&headers("content-type", text)), expected, "{text}");
        }
        assert!(!is_grpc(&HeaderMap::new()));
    }

    #[test]
    fn details_are_percent_encoded() {
        let told = trailers(&Answer::status(13, "50 % \u{fc}\n\u{1f600}~"));
        assert_eq!(told["grpc-status"], "13");
        assert_eq!(told["grpc-message"], "50 %25 %C3%BC%0A%F0%9F%98%80~");
    }

    #[test]
    fn binary_values_travel_in_base64() {
        assert_eq!(pair("a-bin", &[0xff, 0]).unwrap().1, "/wA");
        assert_eq!(pair("a", b"text").unwrap().1, "text");
        assert!(pair("a", b"two\nlines").is_none());
        assert!(pair("not a name", b"").is_none());
    }

    #[test]
    fn compressions_other_than_gzip_are_not_known() {
        assert_eq!(encoding(&HeaderMap::new()), Ok(Encoding::Identity));
        assert_eq!(encoding(&headers("grpc-encoding", "gzip")), Ok(Encoding::Gzip));
        assert_eq!(encoding(&headers("grpc-encoding", "br")), Err(Malformed));
        assert!(accepts_gzip(&headers(
            "grpc-accept-encoding",
            "identity, deflate, gzip"
        )));
        assert!(!accepts_gzip(&headers("grpc-accept-encoding", "identity")));
    }
}
