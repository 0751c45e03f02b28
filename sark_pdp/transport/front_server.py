"""Carries the calls with the front: native code on a thread of its own, which calls methods with bytes."""

import logging
import resource
import socket
import threading
from collections.abc import Sequence
from functools import partial
from typing import Final

import msgspec

from sark_pdp._front import Front
from sark_pdp.addresses import Address, TcpAddress, UnixAddress
from sark_pdp.errors import StartError
from sark_pdp.model import NO_DEADLINE, Origin, Seconds
from sark_pdp.observability.metrics import CALL_BUCKETS, FrontReadings, Metrics
from sark_pdp.transport.carrier import Limits
from sark_pdp.transport.handler import Metadata, Method, Methods, Refusal, Status, wants_pairs
from sark_pdp.transport.sockets import give_away, require_free
from sark_pdp.transport.tls import FOREIGN_PEER, Tls, peer_identity

_THREADS: Final = 4
"""They answer what may wait: a cache or a database, a policy that takes long."""
_OTHER_FILES: Final = 256
"""What the rest of the process may open besides connections: without it the spool would fail before a caller does."""
_MAX_CONNECTION_AGE: Final = 3600.0
"""Seconds; then a client connects anew, and finds certificates and addresses as they are by then."""
_LEAVE_SECONDS: Final = 1.0
"""For the front's thread to end, beyond the grace that calls have."""

_log = logging.getLogger(__name__)


class FrontServer:
    """One server on any number of addresses."""

    def __init__(self, methods: Methods, limits: Limits, metrics: Metrics, tls: Tls | None = None) -> None:
        """`tls` holds for TCP; a Unix socket is guarded by its permissions."""
        self._tls = tls
        self._sockets: list[UnixAddress] = []
        self._front = Front(
            [
                (name, method.kind.name, wants_pairs(method), method, _refusals(method))
                for name, method in methods.items()
            ],
            {
                "metadata": Metadata,
                "no_deadline": NO_DEADLINE,
                "ok": Status.OK,
                "origin": partial(_origin, tls),
                "foreign_peer": FOREIGN_PEER,
                "failed": _failed,
                "reloaded": _reloaded,
                "refused": partial(_refused, tls),
            },
            {
                "max_concurrent": limits.max_concurrent,
                "in_flight_bytes": limits.in_flight_bytes,
                "max_message_bytes": limits.max_message_bytes,
                "max_connections": _max_connections(limits.max_connections),
                "max_connection_age": _MAX_CONNECTION_AGE,
            },
            CALL_BUCKETS,
        )
        self._threads = [threading.Thread(target=self._front.run, name="front", daemon=True)]
        self._threads += [
            threading.Thread(target=self._front.work, name=f"call_{number}", daemon=True) for number in range(_THREADS)
        ]
        self._metrics = metrics
        kinds = {name: method.kind.value for name, method in methods.items()}
        metrics.read_before_scrape(_Reading(self._front, metrics, kinds))

    def listen(
        self, address: Address, setting: str, socket_mode: int = 0o600, socket_owner: str | None = None
    ) -> Address:
        """Binds an address before the start; returns it with its real port. Raises StartError."""
        require_free(address, setting)
        self._metrics.read_front(setting.removeprefix("listen."), self._readings)
        try:
            match address:
                case UnixAddress(path):
                    self._front.listen_unix(path, socket_mode)
                    self._sockets.append(address)
                    give_away(path, socket_owner)
                    return address
                case TcpAddress(host, port):
                    return TcpAddress(host, self._listen_tcp(host, port))
        except OSError as error:
            reason = error.strerror or str(error)
            raise StartError(f"{setting}: cannot listen on {address}: {reason}; set another address") from error

    def start(self) -> None:
        """Calls are answered from now on."""
        for thread in self._threads:
            thread.start()

    def stop(self, grace: Seconds) -> None:
        """Takes no more calls, lets those that are being answered finish within `grace`, then cuts the rest.

        A stream on which nothing is being answered is not waited for; a watch ends by itself.
        """
        self._front.drain(grace)
        carrying, *_ = self._threads
        if carrying.ident is not None:
            carrying.join(grace + _LEAVE_SECONDS)
        # A thread that is still answering ends with its answer, which nobody waits for.
        self._front.close()
        for address in self._sockets:
            address.path.unlink(missing_ok=True)

    def _readings(self) -> FrontReadings:
        return msgspec.convert(self._front.statistics(), FrontReadings)

    def _listen_tcp(self, host: str, port: int) -> int:
        """A name may stand for several addresses; with port 0 all get the one that the first was given."""
        tls = None
        if self._tls is not None:
            self._tls.require_usable()
            tls = (self._tls.cert_file, self._tls.key_file, self._tls.client_ca_file)
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        for ip in dict.fromkeys(str(where[0]) for *_, where in found):
            port = self._front.listen_tcp(ip, port, tls)
        return port


class _Reading:
    """Brings what the front counted into the instruments, each time by what was added since."""

    def __init__(self, front: Front, metrics: Metrics, kinds: dict[str, str]) -> None:
        self._front = front
        self._metrics = metrics
        self._kinds = kinds
        self._shed = 0
        self._known: dict[str, tuple[list[int], list[int], float]] = {}

    def __call__(self) -> None:
        shed = self._front.statistics()["shed"]
        self._metrics.shed.value += shed - self._shed
        self._shed = shed
        for name, codes, buckets, seconds in self._front.calls():
            known_codes, known_buckets, known_seconds = self._known.get(name, ([0] * len(codes), [0] * len(buckets), 0))
            counted = self._metrics.calls(name, self._kinds[name]) if name else self._metrics.other_calls()
            counted.add(_difference(codes, known_codes), _difference(buckets, known_buckets), seconds - known_seconds)
            self._known[name] = (codes, buckets, seconds)


def _difference(now: list[int], then: list[int]) -> list[int]:
    return [new - old for new, old in zip(now, then, strict=True)]


def _max_connections(limit: int) -> int:
    open_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if open_files == resource.RLIM_INFINITY:
        return limit
    return min(limit, max(open_files - _OTHER_FILES, open_files // 2))


def _refusals(method: Method) -> dict[str, object]:
    return {reason.name: method.refusal(reason) for reason in Refusal}


def _origin(
    tls: Tls | None, address: str, user_agent: str, names: Sequence[str] | None, uid: int | None
) -> Origin | None:
    """Called once for a connection and a user agent; None where the certificate's names are not allowed."""
    identity = "" if names is None or tls is None else peer_identity(names, tls, address)
    return None if identity is None else Origin(address, user_agent, identity, uid)


def _reloaded(problem: str | None) -> None:
    if problem is None:
        _log.info("new certificates are in use")
    else:
        _log.error("new certificates cannot be used; those from before stay", extra={"reason": problem})


def _refused(tls: Tls | None, address: str, reason: str) -> None:
    if tls is not None and tls.on_refusal is not None:
        tls.on_refusal(address, (), f"the client has no certificate of tls.client_ca_file: {reason}")


def _failed(name: str, error: BaseException) -> None:
    _log.error("a call failed", extra={"method": name}, exc_info=error)
