"""The synchronous client."""

import os
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Self, TypeVar

import grpc

from sark_pdp.client import failures, messages
from sark_pdp.client.answers import Answer, CheckBatch, Filter
from sark_pdp.client.connection import DEFAULT_ADDRESS, DEFAULT_TIMEOUT, Tls, checked_count, checked_timeout, connection
from sark_pdp.client.failures import Failure
from sark_pdp.client.messages import Exchange, Method
from sark_pdp.client.question import Question
from sark_pdp.client.reuse import Reuse
from sark_pdp.client.tracing import current_context
from sark_pdp.model import Json

T = TypeVar("T")


class Client:
    """Asks one decision point over one connection, which it opens with the first question and keeps.

    Thread-safe: share one client among all threads of a process. It does not survive a fork: fork before the first
    question, or make the client in the child.

    What goes wrong on the way denies: `check` and its sisters raise for arguments that cannot be sent
    (InvalidRequestError), never for a decision point that is absent, slow, overloaded or broken.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        tls: Tls | None = None,
        reuse: int = 0,
        trace: bool = True,
    ) -> None:
        """`address` is `host:port` or `unix:///path`; `timeout`, in seconds, is that of calls that give none.

        Up to `reuse` answers of `check` and `check_input` are given again within their `cache_ttl`, unseen by audit and
        invalidation. With `trace`, calls belong to the current span of OpenTelemetry, where there is one.

        No environment variable is read: an application with settings of its own passes the address. Raises
        SettingsError for an address or a TLS file that cannot be used. Nothing is connected yet.
        """
        self._connection = connection(address, tls)
        self._timeout = checked_timeout(timeout)
        self._reuse = Reuse(checked_count("reuse", reuse, 0))
        self._trace = trace
        self._lock = threading.Lock()
        self._closed = False
        self._channel: grpc.Channel | None = None
        self._calls: dict[Method, grpc.UnaryUnaryMultiCallable[bytes, bytes]] = {}
        self._pid = 0

    def check(
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
        """May this principal do this? The parts are those of `Question.about`; `timeout` is in seconds."""
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
        return self._check(question, timeout)

    def check_input(
        self,
        document: Mapping[str, Json],
        *,
        policy: str = "",
        max_age: float | None = None,
        request_id: str = "",
        timeout: float | None = None,
    ) -> Answer:
        """The same for any JSON object as `input`."""
        return self._check(Question(document, policy, max_age, request_id), timeout)

    def check_many(self, questions: Iterable[Question], *, timeout: float | None = None) -> CheckBatch:
        """Asks all in one call, of one policy revision; a question that cannot be decided denies alone."""
        return self._ask(messages.check_many(questions), timeout)

    def filter(
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
        """Which of these may this principal see or use? Each takes the place of `resource_field`."""
        template = Question.about(
            action=action,
            user=user,
            server=server,
            context=context,
            policy=policy,
            max_age=max_age,
            request_id=request_id,
        )
        return self._ask(messages.filter_resources(template, resource_field, resources), timeout)

    def close(self) -> None:
        """Closes the connection; calls under way and later ones deny. May be called more than once."""
        if self._unusable() is failures.FORKED:
            # The connection is the parent's to close, and its lock may have been taken when it forked.
            self._closed = True
            return
        with self._lock:
            self._closed = True
            if self._channel is not None:
                self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check(self, question: Question, timeout: float | None) -> Answer:
        seconds = self._timeout if timeout is None else checked_timeout(timeout)
        check = messages.check(question)
        known = self._reuse.get(check) if self._unusable() is None else None
        if known is not None:
            return known
        asked = time.monotonic()
        answer = self._ask(check, seconds)
        self._reuse.put(check, answer, asked)
        return answer

    def _ask(self, exchange: Exchange[T], timeout: float | None) -> T:
        seconds = self._timeout if timeout is None else checked_timeout(timeout)
        failure = self._unusable()
        if failure is not None:
            return exchange.refuse(failure)
        call = self._calls.get(exchange.method) or self._connect(exchange.method)
        try:
            reply = call(exchange.message, timeout=seconds, metadata=current_context() if self._trace else None)
        except grpc.RpcError as error:
            return exchange.refuse(failures.of_status(error.code(), error.details()))
        except ValueError:
            # grpcio's word for a channel that was closed in the meantime.
            return exchange.refuse(failures.CLOSED)
        return exchange.read(reply)

    def _connect(self, method: Method) -> "grpc.UnaryUnaryMultiCallable[bytes, bytes]":
        with self._lock:
            if self._channel is None:
                # Before the channel: whoever sees one must see whose it is.
                self._pid = os.getpid()
                made = self._connection
                if made.credentials is None:
                    self._channel = grpc.insecure_channel(made.target, made.options)
                else:
                    self._channel = grpc.secure_channel(made.target, made.credentials, made.options)
                if self._closed:
                    self._channel.close()
            call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(method)
            self._calls[method] = call
            return call

    def _unusable(self) -> Failure | None:
        """Why no question can be asked with this client, here and now."""
        if self._closed:
            return failures.CLOSED
        if self._channel is not None and self._pid != os.getpid():
            return failures.FORKED
        return None
