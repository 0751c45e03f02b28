//! Requests that are not gRPC: whoever sent one is told what listens here.

use std::future::poll_fn;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::StatusCode;
use tokio::time::timeout;

use crate::limits::MESSAGE;
use crate::metadata;

/// Answers once the request has come whole, as web servers do: if it breaks HTTP/2 further on, that is what it is told.
pub(super) fn refuse(mut body: RecvStream, respond: SendResponse<Bytes>, status: StatusCode) {
    if body.is_end_stream() {
        return answer(respond, status);
    }
    tokio::spawn(async move {
        if let Ok(true) = timeout(MESSAGE, skip(&mut body)).await {
            answer(respond, status);
        }
    });
}

/// Whether it ends as it should.
async fn skip(body: &mut RecvStream) -> bool {
    while let Some(chunk) = poll_fn(|cx| body.poll_data(cx)).await {
        let Ok(chunk) = chunk else { return false };
        if body.flow_control().release_capacity(chunk.len()).is_err() {
            return false;
        }
    }
    poll_fn(|cx| body.poll_trailers(cx)).await.is_ok()
}

fn answer(mut respond: SendResponse<Bytes>, status: StatusCode) {
    // A caller that has gone needs no answer.
    if let Ok(mut stream) = respond.send_response(metadata::not_grpc(status), false) {
        let _ = stream.send_data(Bytes::from_static(metadata::NOT_GRPC), true);
    }
}
