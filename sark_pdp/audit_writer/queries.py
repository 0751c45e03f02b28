"""`AuditQuery`: questions about the stored trail, for those who may ask. Belongs to one event loop."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc
import psycopg
from google.protobuf.message import DecodeError
from msgspec import Struct
from psycopg_pool import PoolClosed, PoolTimeout, TooManyRequests

from sark_pdp._proto import audit_pb2
from sark_pdp.audit_writer.metrics import WriterMetrics
from sark_pdp.audit_writer.peers import is_one_of, names_of
from sark_pdp.audit_writer.questions import Asked, Questions, TooManyError
from sark_pdp.audit_writer.tail import Commit, Listener, News, Turn
from sark_pdp.errors import InvalidRequestError

SERVICE: Final = "sark.audit.v1.AuditQuery"
_MOST_TAILS: Final = 64
"""Open calls, those of slow readers included."""
_MOST_QUESTIONS: Final = 64
"""That wait for the database, or for their turn."""


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
        self._tails = 0
        self._waiting = 0

    async def search(self, message: bytes, context: Any) -> bytes:
        """One page of events."""
        return await self._answered("search", audit_pb2.SearchRequest, self._questions.search, message, context)

    async def hourly_counts(self, message: bytes, context: Any) -> bytes:
        """Counts by hour, user and event type."""
        return await self._answered("hourly", audit_pb2.Filter, self._questions.hourly_counts, message, context)

    async def tail(self, message: bytes, context: Any) -> None:
        """Events as they are committed, by whichever writer, until the client has enough."""
        wanted = await self._asked(audit_pb2.Filter, message, context)
        if self._tails >= _MOST_TAILS:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many calls of Tail are open on this writer")
        self._tails += 1
        self._metrics.tails.set(self._tails)
        try:
            with self._listener.subscribed() as news:
                await self._follow(wanted, news, context)
        finally:
            self._tails -= 1
            self._metrics.tails.set(self._tails)
        await context.abort(
            grpc.StatusCode.UNAVAILABLE, "some commits were missed, or cannot be followed now; search, and call again"
        )

    async def _follow(self, wanted: Any, news: News, context: Any) -> None:
        """Until something is missed: a client that does not read misses what is more than its queue."""
        while (told := await news.get()) is not Turn.LOST:
            if isinstance(told, Commit):
                await self._send(wanted, told, context)
            else:
                # Tells the client that it misses nothing from here on.
                await context.send_initial_metadata(())

    async def _send(self, wanted: Any, commit: Commit, context: Any) -> None:
        after = None
        while True:
            events, after = await self._ask("tail", self._questions.committed, (wanted, commit, after), context)
            for event in events:
                await context.write(event.SerializeToString())
            if after is None:
                return

    async def _answered(
        self, operation: str, kind: Any, question: Callable[..., Any], message: bytes, context: Any
    ) -> bytes:
        request = await self._asked(kind, message, context)
        if self._waiting >= _MOST_QUESTIONS:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "too many questions wait on this writer; try again")
        self._waiting += 1
        try:
            answer = await self._ask(operation, question, (request,), context)
        finally:
            self._waiting -= 1
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
        asked = Asked()
        try:
            return await self._in_thread(question, asked, *arguments)
        except asyncio.CancelledError:
            # The client has gone, or its time is over: neither a thread nor the database works on for it.
            asyncio.get_running_loop().run_in_executor(None, asked.give_up)
            raise
        except InvalidRequestError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except TooManyError as error:
            await context.abort(grpc.StatusCode.OUT_OF_RANGE, str(error))
        except psycopg.errors.QueryCanceled:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "the database took too long; ask for a shorter time")
        except (PoolTimeout, PoolClosed, TooManyRequests, psycopg.Error):
            # What the driver says is for the log of whoever runs this.
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the database does not answer; try again")
        finally:
            self._metrics.query(operation, time.monotonic() - began)
