"""What Envoy is told of calls that get no decision."""

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

from envoy.service.auth.v3.external_auth_pb2 import CheckResponse, OkHttpResponse
from google.rpc.status_pb2 import Status as RpcStatus

from sark_pdp.errors import (
    DeadlineExceededError,
    EntrypointNotAllowedError,
    InvalidRequestError,
    NotReadyError,
    OverloadedError,
    RequestError,
    UnauthenticatedError,
    UnknownEntrypointError,
)
from sark_pdp.transport.ext_authz.answers import denied
from sark_pdp.transport.handler import Refusal, Reply, Status, status_of

OnFailure: TypeAlias = Literal["deny", "error"]

_NO_POLICY: Final = "no policy that could authorize requests is active"
_TOO_LARGE: Final = "the request is too large to be authorized"


class Refusals:
    """Denies, with what a client may know; what only tells of this process's inside stays in the status, for Envoy.

    With `on_failure` "error", what is not the client's doing is an `error_response` instead: Envoy counts it as a
    failure, and lets the request through where `failure_mode_allow` is on. In a dry run everything is let through.
    """

    def __init__(self, on_failure: OnFailure = "deny", *, dry_run: bool = False) -> None:
        self._as_errors = on_failure == "error"
        self._dry_run = dry_run
        self.too_large: Final = self._refused(413, Status.PERMISSION_DENIED, _TOO_LARGE)
        """For a message above `limits.max_input_bytes`."""

    def of(self, error: RequestError) -> Reply:
        """For a call that was looked into."""
        code, reason = status_of(error), str(error)
        match error:
            case InvalidRequestError():
                return self._refused(400, Status.PERMISSION_DENIED, reason)
            case UnauthenticatedError():
                return self._refused(401, code, reason, headers={"www-authenticate": 'Bearer error="invalid_token"'})
            case OverloadedError():
                text = "too many requests are being authorized; try again"
                return self._failed(429, code, text, reason, headers={"retry-after": "1"})
            case DeadlineExceededError():
                return self._failed(504, code, "the request was not authorized in time", reason)
            case UnknownEntrypointError() | EntrypointNotAllowedError():
                # Never a failure that lets through: the entrypoint that a route names might be laxer, or be stricter.
                return self._refused(503, code, _NO_POLICY, reason)
            case NotReadyError():
                return self._failed(503, code, _NO_POLICY, reason)
            case _:
                return self._failed(500, code, "the request could not be authorized", reason)

    def unread(self, reason: Refusal) -> Reply:
        """For a call that was not looked into."""
        match reason:
            case Refusal.INTERNAL:
                return self._failed(500, Status.INTERNAL, "the request could not be authorized", reason.value)
            case Refusal.TOO_LARGE:
                return self.too_large
            case _:
                return self.of(OverloadedError(reason.value))

    def _failed(
        self, http_status: int, code: Status, body: str, reason: str, headers: Mapping[str, str] | None = None
    ) -> Reply:
        if not self._as_errors or self._dry_run:
            return self._refused(http_status, code, body, reason, headers)
        refused = denied(http_status, code, body, reason, headers)
        return _reply(CheckResponse(status=refused.status, error_response=refused.denied_response))

    def _refused(
        self,
        http_status: int,
        code: Status,
        body: str,
        reason: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        if self._dry_run:
            through = CheckResponse(status=RpcStatus(code=Status.OK), ok_response=OkHttpResponse())
            through.dynamic_metadata.fields["dry_run"].string_value = f"no decision: {reason or body}"
            return _reply(through)
        return _reply(denied(http_status, code, body, reason, headers))


def _reply(response: CheckResponse) -> Reply:
    return Reply(message=response.SerializeToString())
