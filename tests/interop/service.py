"""`grpc.testing.TestService` as far as our methods can carry it.

StreamingInputCall is missing of it, but for its beginning: it answers many messages with one, which no method of ours
does.
"""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from sark_pdp.model import NO_DEADLINE
from sark_pdp.transport.handler import Kind, Metadata, Methods, Pairs, Refusal, Reply, Status
from tests.interop.messages import message_types

ECHOED_FIRST, ECHOED_LAST = "x-grpc-test-echo-initial", "x-grpc-test-echo-trailing-bin"
SERVICE = "/grpc.testing.TestService/"


class Answering:
    """A method made of a function, which may wait; `inline` says that it does not."""

    wants_pairs = True

    def __init__(self, kind: Kind, answer: Callable[[Metadata, bytes], Iterator[Reply]], *, inline: bool) -> None:
        self.kind = kind
        self._answer = answer
        self._inline = inline

    def answer_nowait(self, metadata: Metadata, message: bytes) -> Reply | None:
        """See `Method`."""
        return self.answer(metadata, message) if self._inline else None

    def answer(self, metadata: Metadata, message: bytes) -> Reply:
        """See `Method`."""
        return next(self._answer(metadata, message))

    def watch(self, metadata: Metadata, message: bytes) -> Iterator[Reply | None]:
        """See `Method`."""
        yield from self._answer(metadata, message)

    def refusal(self, reason: Refusal) -> Reply:
        """See `Method`."""
        internal = reason is Refusal.INTERNAL
        return Reply(status=Status.INTERNAL if internal else Status.RESOURCE_EXHAUSTED, details=reason.name)


class Denying(Answering):
    """What it cannot answer it denies, with a status that is OK, as ext_authz does."""

    def refusal(self, reason: Refusal) -> Reply:
        """See `Method`."""
        return Reply(reason.name.encode())


class Service:
    """The methods, and what they share."""

    def __init__(self) -> None:
        self._types = message_types()

    def methods(self) -> Methods:
        """By full name."""
        return {
            f"{SERVICE}EmptyCall": Answering(Kind.UNARY, self._empty, inline=True),
            f"{SERVICE}UnaryCall": Answering(Kind.UNARY, self._unary, inline=True),
            f"{SERVICE}StreamingOutputCall": Answering(Kind.WATCH, self._stream, inline=False),
            f"{SERVICE}StreamingInputCall": Answering(Kind.STREAM, self._empty, inline=True),
            f"{SERVICE}FullDuplexCall": Answering(Kind.STREAM, self._stream, inline=False),
            "/robust.Echo/Now": Answering(Kind.UNARY, _echo, inline=True),
            "/robust.Echo/Later": Answering(Kind.UNARY, _echo, inline=False),
            "/robust.Echo/Stream": Answering(Kind.STREAM, _echo, inline=False),
            "/robust.Echo/Raise": Answering(Kind.UNARY, _fail, inline=True),
            "/robust.Echo/RaiseLater": Answering(Kind.UNARY, _fail, inline=False),
            "/robust.Echo/RaiseStream": Answering(Kind.STREAM, _fail, inline=False),
            "/robust.Echo/Deny": Denying(Kind.UNARY, _fail, inline=True),
            "/robust.Echo/DenyLater": Denying(Kind.UNARY, _fail, inline=False),
            "/robust.Echo/RaiseWatch": Answering(Kind.WATCH, _fail, inline=False),
        }

    def _empty(self, _metadata: Metadata, _message: bytes) -> Iterator[Reply]:
        yield Reply()

    def _unary(self, metadata: Metadata, message: bytes) -> Iterator[Reply]:
        request = self._types["SimpleRequest"].FromString(message)
        if request.response_status.code:
            yield _status(request)
            return
        answer = self._types["SimpleResponse"](payload={"body": bytes(request.response_size)})
        if request.fill_server_id:
            answer.server_id = "here"
        yield Reply(
            answer.SerializeToString(), initial=_echoed(metadata, ECHOED_FIRST), trailing=_echoed(metadata, ECHOED_LAST)
        )

    def _stream(self, metadata: Metadata, message: bytes) -> Iterator[Reply]:
        request = self._types["StreamingOutputCallRequest"].FromString(message)
        if request.response_status.code:
            yield _status(request)
            return
        if not request.response_parameters and metadata.deadline != NO_DEADLINE:
            # What the client that sets a deadline waits for.
            threading.Event().wait(max(0.0, metadata.deadline - time.monotonic()))
            yield Reply(status=Status.DEADLINE_EXCEEDED)
        for wanted in request.response_parameters:
            answer = self._types["StreamingOutputCallResponse"](payload={"body": bytes(wanted.size)})
            yield Reply(
                answer.SerializeToString(),
                initial=_echoed(metadata, ECHOED_FIRST),
                trailing=_echoed(metadata, ECHOED_LAST),
            )


def _echo(_metadata: Metadata, message: bytes) -> Iterator[Reply]:
    yield Reply(message)


def _fail(_metadata: Metadata, _message: bytes) -> Iterator[Reply]:
    yield from ()
    raise ValueError("the method fails, as it was asked to")


def _status(request: Any) -> Reply:
    return Reply(status=Status(request.response_status.code), details=request.response_status.message)


def _echoed(metadata: Metadata, name: str) -> Pairs:
    return tuple(pair for pair in metadata.pairs if pair[0] == name)
