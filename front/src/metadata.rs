//! The metadata of answers: how it is written in HTTP/2.
//!
//! <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>

use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::header::{ALLOW, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use percent_encoding::{AsciiSet, CONTROLS, percent_encode};

use crate::answer::{Answer, Pair, code};
use crate::request::Encoding;

/// The content type.
pub const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// How a message is compressed.
pub const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
/// What may be used to compress.
pub const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const OK: HeaderValue = HeaderValue::from_static("0");
const GZIP: HeaderValue = HeaderValue::from_static("gzip");
const ENCODINGS: HeaderValue = HeaderValue::from_static("identity,gzip");

/// Names that no method may use: the front's, and those of HTTP/1, which HTTP/2 forbids.
const OWN: [&str; 12] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "grpc-encoding",
    "grpc-message",
    "grpc-status",
    "keep-alive",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// All but printable ASCII without `%`.
const ENCODED: &AsciiSet = &CONTROLS.add(b'%');

/// Peers may pad or not.
pub const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A pair as HTTP/2 carries it; None where it cannot, or where the front itself says what the name means.
pub fn pair(name: &str, value: &[u8]) -> Option<Pair> {
    let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
    if OWN.contains(&name.as_str()) {
        return None;
    }
    let value = if name.as_str().ends_with("-bin") {
        HeaderValue::try_from(BASE64.encode(value)).ok()?
    } else {
        HeaderValue::from_bytes(value).ok()?
    };
    Some((name, value))
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
    let status = match answer.status {
        code::OK => OK,
        status => u16::from(status).into(),
    };
    headers.insert(GRPC_STATUS, status);
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
        assert!(pair("grpc-status", b"0").is_none());
    }
}
