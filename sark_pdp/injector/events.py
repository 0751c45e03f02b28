"""Tells the cluster of pods that got no sidecar: Events, which `kubectl get events` shows.

A thread sends them; the answer to the API server never waits for it. What does not fit into the queue is counted.
"""

import http.client
import logging
import queue
import threading
import time
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

from sark_pdp.injector.admission import Outcome, Verdict
from sark_pdp.injector.api import Api, RefusedError, ask
from sark_pdp.injector.metrics import InjectorMetrics
from sark_pdp.injector.review import Pod

_REPORTER: Final = "sark-pdp-injector"
_CAPACITY: Final = 256
_QUIET: Final = 60.0
"""Seconds in which the same is told once: a controller whose pods are refused tries again and again."""
_MOST_REMEMBERED: Final = 1000
_LONGEST_MESSAGE: Final = 1000
"""Characters; the API server takes 1,024 bytes of reason and note."""
_REASONS: Final = {Outcome.REFUSED: "SidecarRefused", Outcome.ADMITTED: "SidecarNotInjected"}

_log = logging.getLogger(__name__)


class Events:
    """Bounded; `tell` is called by the event loop, the rest by a thread of its own."""

    def __init__(self, api: Api, metrics: InjectorMetrics) -> None:
        self._api = api
        self._metrics = metrics
        self._waiting: queue.Queue[tuple[str, dict[str, Any]] | None] = queue.Queue(_CAPACITY)
        self._told: dict[tuple[str, ...], float] = {}
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)

    def start(self) -> None:
        """Once."""
        self._thread.start()

    def close(self, grace: float) -> None:
        """Sends what waits, for so many seconds."""
        try:
            self._waiting.put(None, timeout=grace)
        except queue.Full:
            return
        self._thread.join(grace)

    def tell(self, verdict: Verdict, namespace: str) -> None:
        """At once; a verdict that nobody need hear of is passed over."""
        if verdict.outcome not in _REASONS or verdict.pod is None:
            return
        event = event_of(verdict, verdict.pod, namespace)
        involved = event["involvedObject"]
        key = (namespace, involved["kind"], involved["name"], event["reason"], event["message"])
        now = time.monotonic()
        if self._told.get(key, now - _QUIET) > now - _QUIET:
            self._metrics.events.labels("repeated").inc()
            return
        if len(self._told) >= _MOST_REMEMBERED:
            self._told = {key: when for key, when in self._told.items() if when > now - _QUIET}
        if len(self._told) < _MOST_REMEMBERED:
            self._told[key] = now
        try:
            self._waiting.put_nowait((namespace, event))
        except queue.Full:
            self._metrics.events.labels("dropped").inc()

    def _run(self) -> None:
        while (item := self._waiting.get()) is not None:
            try:
                self._send(*item)
            except (OSError, http.client.HTTPException, ValueError, RefusedError) as error:
                self._metrics.events.labels("failed").inc()
                _log.warning("the cluster cannot be told of a pod without a sidecar: %s", error)
            else:
                self._metrics.events.labels("sent").inc()

    def _send(self, namespace: str, event: dict[str, Any]) -> None:
        """Raises OSError, HTTPException, ValueError or RefusedError."""
        ask(self._api, "POST", f"/api/v1/namespaces/{quote(namespace)}/events", event, _REPORTER)


def event_of(verdict: Verdict, pod: Pod, namespace: str) -> dict[str, Any]:
    """A core/v1 Event. A pod that a controller made is known by that: it has no name of its own yet."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    metadata = pod.metadata
    owner = next((each for each in metadata.owner_references or () if each.controller), None)
    if owner is not None:
        involved = {"apiVersion": owner.api_version, "kind": owner.kind, "name": owner.name, "uid": owner.uid}
    else:
        name = metadata.name or f"{metadata.generate_name or ''}(new)"
        involved = {"apiVersion": "v1", "kind": "Pod", "name": name}
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": "sark-pdp-", "namespace": namespace},
        "involvedObject": {**involved, "namespace": namespace},
        "reason": _REASONS[verdict.outcome],
        "message": verdict.problem[:_LONGEST_MESSAGE],
        "type": "Warning",
        "source": {"component": _REPORTER},
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
