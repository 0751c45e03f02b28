"""`AuditQuery`: questions about the stored trail, for those who may ask. Belongs to one event loop."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import grpc
import psycopg
from google.protobuf.message import DecodeError
from msgspec import Struct
from psycopg_pool import PoolClosed, PoolTimeout, TooManyRequests

from sark_pdp._proto import audit_pb2
from sark_pdp.audit_writer.metrics import WriterMetrics
from sark_pdp.audit_writer.peers import is_one_of, names_of
from sark_pdp.audit_writer.questions import Questions
from sark_pdp.audit_writer.tail import Listener
from sark_pdp.errors import InvalidRequestError

SERVICE: Final = "sark.audit.v1.AuditQuery"
_MOST_TAILS: Final = 64


class Readers(Struct, frozen=True):
    """Whose certificates may ask."""

    required: bool = False
    """Whether a client has one at all: then it needs one of these names."""
    allowed: tuple[str, ...] = ()


class Queries:
    """The methods."""

    def __init__(
        self,
        questions: Questions,
        listener: Listener,
        in_thread: Callable[..., Awaitable[Any]],
        metrics: WriterMetrics,
        readers: Readers,
    ) -> None:
        """`in_thread(function, *arguments)` runs a function that waits for the database."""
        self._questions = questions
        self._listener = listener
        self._in_thread = in_thread
        self._metrics = metrics
        self._readers = readers

    async def search(self, message: bytes, context: Any) -> bytes:
        """One page of events."""
        return await self._answered("search", audit_pb2.SearchRequest, self._questions.search, message, context)

    async def hourly_counts(self, message: bytes, context: Any) -> bytes:
        """Counts by hour, user and event type."""
        return await self._answered("hourly", audit_pb2.Filter, self._questions.hourly_counts, message, context)

    async def tail(self, message: bytes, context: Any) -> AsyncIterator[bytes]:
        """Events as they are committed, by whichever writer, until the client has enough."""
        wanted = await self._asked(audit_pb2.Filter, message, context)
        if self._listener.calls >= _MOST_TAILS:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many calls of Tail are open on this writer")
        with self._listener.subscribed() as commits:
            self._metrics.tails.set(self._listener.calls)
            try:
                await self._listener.wait_ready()
                # Tells the client that it misses nothing from here on.
                await context.send_initial_metadata(())
                while (commit := await commits.get()) is not None:
                    arguments = (wanted, commit.transaction, commit.first, commit.last)
                    for event in await self._ask("tail", self._questions.committed, arguments, context):
                        yield event.SerializeToString()
            finally:
                self._metrics.tails.set(self._listener.calls - 1)
        await context.abort(grpc.StatusCode.UNAVAILABLE, "some commits were missed; search for them and call again")

    async def _answered(
        self, operation: str, kind: Any, question: Callable[[Any], Any], message: bytes, context: Any
    ) -> bytes:
        request = await self._asked(kind, message, context)
        answer = await self._ask(operation, question, (request,), context)
        return bytes(answer.SerializeToString())

    async def _asked(self, kind: Any, message: bytes, context: Any) -> Any:
        """The request of somebody who may ask."""
        if self._readers.required and not is_one_of(names_of(context), self._readers.allowed):
            self._metrics.refused.labels("reader").inc()
            await context.abort(
                grpc.StatusCode.PERMISSION_DENIED,
                "the client's certificate has none of the names in query.allowed_sans",
            )
        try:
            return kind.FromString(message)
        except DecodeError:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"the message is no {kind.DESCRIPTOR.name}")

    async def _ask(self, operation: str, question: Callable[..., Any], arguments: tuple[Any, ...], context: Any) -> Any:
        began = time.monotonic()
        try:
            return await self._in_thread(question, *arguments)
        except InvalidRequestError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except psycopg.errors.QueryCanceled:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "the database took too long; ask for a shorter time")
        except (PoolTimeout, PoolClosed, TooManyRequests, psycopg.Error):
            # What the driver says is for the log of whoever runs this.
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the database does not answer; try again")
        finally:
            self._metrics.query(operation, time.monotonic() - began)
