"""The client for asyncio."""

import asyncio
import os
import time
from collections.abc import Iterable, Mapping
from typing import Self, TypeVar

import grpc
import grpc.aio

from sark_pdp.client import failures, messages
from sark_pdp.client.answers import Answer, CheckBatch, Filter
from sark_pdp.client.coalescing import Coalescing
from sark_pdp.client.connection import (
    DEFAULT_ADDRESS,
    DEFAULT_TIMEOUT,
    Tls,
    checked_count,
    checked_timeout,
    checked_window,
    connection,
)
from sark_pdp.client.failures import Failure
from sark_pdp.client.messages import Exchange, Method
from sark_pdp.client.question import Question
from sark_pdp.client.reuse import Reuse
from sark_pdp.client.tracing import Context, current_context
from sark_pdp.model import Json

T = TypeVar("T")


class AsyncClient:
    """`Client` for asyncio: the same questions, answers and denials, awaited.

    Share one client among all tasks of an event loop; it belongs to the loop of its first question, and not to threads.
    Cancelling a task cancels its question, and raises CancelledError as everywhere. Questions of `check` and
    `check_input` that are asked at the same time travel together; each has its own deadline all the same.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        tls: Tls | None = None,
        coalesce: int = 100,
        window: float = 0.0,
        reuse: int = 0,
        trace: bool = True,
    ) -> None:
        """As of `Client`; needs no running event loop.

        At most `coalesce` questions travel together; 1: none do. `window`, in seconds, is how long the first of them
        waits for more; 0: only what waits already goes with it.
        """
        self._connection = connection(address, tls)
        self._timeout = checked_timeout(timeout)
        self._coalescing = Coalescing(self._call, checked_count("coalesce", coalesce, 1), checked_window(window))
        self._reuse = Reuse(checked_count("reuse", reuse, 0))
        self._trace = trace
        self._closed = False
        self._channel: grpc.aio.Channel | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._calls: dict[Method, grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]] = {}
        self._pid = 0

    async def check(
        self,
        *,
        action: str,
        user: Mapping[str, Json] | None = None,
        tool: Mapping[str, Json] | None = None,
        server: Mapping[str, Json] | None = None,
        parameters: Mapping[str, Json] | None = None,
        context: Mapping[str, Json] | None = None,
        source_agent: Mapping[str, Json] | None = None,
        target_agent: Mapping[str, Json] | None = None,
        policy: str = "",
        max_age: float | None = None,
        request_id: str = "",
        timeout: float | None = None,
    ) -> Answer:
        """As `Client.check`."""
        question = Question.about(
            action=action,
            user=user,
            tool=tool,
            server=server,
            parameters=parameters,
            context=context,
            source_agent=source_agent,
            target_agent=target_agent,
            policy=policy,
            max_age=max_age,
            request_id=request_id,
        )
        return await self._check(question, timeout)

    async def check_input(
        self,
        document: Mapping[str, Json],
        *,
        policy: str = "",
        max_age: float | None = None,
        request_id: str = "",
        timeout: float | None = None,
    ) -> Answer:
        """As `Client.check_input`."""
        return await self._check(Question(document, policy, max_age, request_id), timeout)

    async def check_many(self, questions: Iterable[Question], *, timeout: float | None = None) -> CheckBatch:
        """As `Client.check_many`."""
        return await self._ask(messages.check_many(questions), timeout)

    async def filter(
        self,
        *,
        action: str,
        resources: Iterable[Mapping[str, Json]],
        resource_field: str = "tool",
        user: Mapping[str, Json] | None = None,
        server: Mapping[str, Json] | None = None,
        context: Mapping[str, Json] | None = None,
        policy: str = "",
        max_age: float | None = None,
        request_id: str = "",
        timeout: float | None = None,
    ) -> Filter:
        """As `Client.filter`."""
        template = Question.about(
            action=action,
            user=user,
            server=server,
            context=context,
            policy=policy,
            max_age=max_age,
            request_id=request_id,
        )
        return await self._ask(messages.filter_resources(template, resource_field, resources), timeout)

    async def close(self) -> None:
        """As `Client.close`."""
        usable = self._unusable() is None
        self._closed = True
        if self._channel is not None and usable:
            await self._channel.close()
            await self._coalescing.finish()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _check(self, question: Question, timeout: float | None) -> Answer:
        seconds = self._timeout if timeout is None else checked_timeout(timeout)
        check = messages.check(question)
        failure = self._unusable()
        if failure is not None:
            return check.refuse(failure)
        known = self._reuse.get(check)
        if known is not None:
            return known
        asked = time.monotonic()
        answer = await self._coalescing.ask(check, seconds, current_context() if self._trace else ())
        self._reuse.put(check, answer, asked)
        return answer

    async def _ask(self, exchange: Exchange[T], timeout: float | None) -> T:
        seconds = self._timeout if timeout is None else checked_timeout(timeout)
        return await self._call(exchange, seconds, current_context() if self._trace else ())

    async def _call(self, exchange: Exchange[T], seconds: float, context: Context) -> T:
        failure = self._unusable()
        if failure is not None:
            return exchange.refuse(failure)
        multi = self._calls.get(exchange.method) or self._connect(exchange.method)
        try:
            reply = await multi(exchange.message, timeout=seconds, metadata=context)
        except grpc.aio.AioRpcError as error:
            return exchange.refuse(failures.of_status(error.code(), error.details()))
        except grpc.aio.UsageError:
            # grpcio's word for a channel that was closed in the meantime.
            return exchange.refuse(failures.CLOSED)
        except asyncio.CancelledError:
            # Closing the channel cancels its calls, which looks like the cancellation of the task.
            if self._unusable() is failures.CLOSED and not _cancelled():
                return exchange.refuse(failures.CLOSED)
            raise
        return exchange.read(reply)

    def _connect(self, method: Method) -> "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]":
        if self._channel is None:
            made = self._connection
            if made.credentials is None:
                self._channel = grpc.aio.insecure_channel(made.target, made.options)
            else:
                self._channel = grpc.aio.secure_channel(made.target, made.credentials, made.options)
            self._loop = asyncio.get_running_loop()
            self._pid = os.getpid()
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(method)
        self._calls[method] = call
        return call

    def _unusable(self) -> Failure | None:
        """Why no question can be asked with this client, here and now."""
        if self._closed:
            return failures.CLOSED
        if self._channel is None:
            return None
        if self._pid != os.getpid():
            return failures.FORKED
        if self._loop is not asyncio.get_running_loop():
            return failures.OTHER_LOOP
        return None


def _cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
