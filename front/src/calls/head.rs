//! The head of a call: which method it asks, who asks, and until when.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderValue, Method as Verb, Request, Response, StatusCode};

use super::{Body, Call, foreign};
use crate::answer::{Answer, Origin, Pairs, Question, code};
use crate::connection::Caller;
use crate::framing::{Decoder, Refused};
use crate::limits::{Held, SMALL_HEAD};
use crate::metadata;
use crate::metrics::inc;
use crate::request::{self, Encoding, Head};
use crate::server::Route;

/// A caller is told this much of a method that is unknown: who reads no answers is not kept more for.
const NAME_CHARS: usize = 256;

/// What a connection's last call asked: the next one mostly asks the same. Owned by the connection's task.
pub struct Recent {
    /// Whose connection it is.
    pub caller: Arc<Caller>,
    route: Option<Arc<Route>>,
    origin: Option<(Option<HeaderValue>, Option<Origin>)>,
}

impl Recent {
    /// Of a connection without calls.
    pub fn new(caller: Caller) -> Self {
        Self {
            caller: Arc::new(caller),
            route: None,
            origin: None,
        }
    }

    fn route(&mut self, path: &str) -> Option<Arc<Route>> {
        match &self.route {
            Some(route) if route.name == path => (),
            _ => self.route = Some(Arc::clone(self.caller.shared.routes.get(path)?)),
        }
        self.route.clone()
    }

    /// Who calls with this user agent; None where the peer may not.
    fn origin(&mut self, user_agent: Option<&HeaderValue>) -> Option<Origin> {
        if let Some((agent, origin)) = &self.origin {
            if agent.as_ref() == user_agent {
                return origin.clone();
            }
        }
        let text = user_agent.map_or("".into(), |value| String::from_utf8_lossy(value.as_bytes()));
        let origin = self.caller.shared.host.origin(&self.caller.peer, &text);
        self.origin = Some((user_agent.cloned(), origin.clone()));
        origin
    }
}

/// None where the call was refused by its head.
pub(super) fn open(
    recent: &mut Recent,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    began: Instant,
) -> Option<Call> {
    let (parts, body) = request.into_parts();
    let shared = Arc::clone(&recent.caller.shared);
    let head = Head::read(&parts.headers);
    if parts.method != Verb::POST || !head.grpc {
        inc(&shared.metrics.not_grpc);
        let status = match parts.method {
            Verb::POST => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            _ => StatusCode::METHOD_NOT_ALLOWED,
        };
        foreign::refuse(body, respond, status);
        return None;
    }
    // A caller that has gone needs no answer.
    let mut end = |response: Response<()>| drop(respond.send_response(response, true));
    let path = parts.uri.path();
    let Some(route) = recent.route(path) else {
        let named: String = path.chars().take(NAME_CHARS).collect();
        let answer = Answer::status(code::UNIMPLEMENTED, format!("there is no method {named}"));
        shared.unknown.handled(answer.status, began.elapsed());
        end(metadata::trailers_only(&answer));
        return None;
    };
    let mut refuse = |answer: &Answer, response: Response<()>| {
        route.metrics.handled(answer.status, began.elapsed());
        end(response);
    };
    let Ok(encoding) = head.encoding else {
        let answer = Answer::status(code::UNIMPLEMENTED, "messages may be compressed with gzip only");
        refuse(&answer, metadata::unknown_encoding(&answer));
        return None;
    };
    let Ok(timeout) = head.timeout else {
        let answer = Answer::status(code::INTERNAL, "grpc-timeout is malformed");
        refuse(&answer, metadata::trailers_only(&answer));
        return None;
    };
    let Some(origin) = recent.origin(head.user_agent) else {
        let answer = &shared.foreign_peer;
        refuse(answer, metadata::trailers_only(answer));
        return None;
    };
    let pairs = if route.wants_pairs {
        Some(Pairs::from(request::pairs(&parts.headers)))
    } else {
        head.traceparent
            .and_then(request::trace)
            .map(|pair| Pairs::from([pair]))
    };
    let kept = head.user_agent.map_or(0, HeaderValue::len) + pairs.as_deref().map_or(0, request::size);
    let mut call = Call {
        question: Question {
            origin,
            deadline: timeout.and_then(|timeout| began.checked_add(timeout)),
            pairs,
            held: None,
        },
        packs: encoding == Encoding::Gzip && request::accepts_gzip(&parts.headers),
        caller: Arc::clone(&recent.caller),
        route,
        encoding,
        body: Body::new(body),
        decoder: Decoder::new(shared.limits.max_message_bytes),
        respond,
        sending: None,
        began,
    };
    if kept > SMALL_HEAD {
        let mut held = Held::new(&shared.load);
        if !held.resize(kept, &shared.limits) {
            let answer = call.refusal(Refused::TooManyBytes);
            let status = call.send_only(answer);
            call.route.metrics.handled(status, began.elapsed());
            return None;
        }
        call.question.held = Some(Arc::new(held));
    }
    Some(call)
}
