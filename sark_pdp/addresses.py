"""Network addresses as settings write them and listeners and clients use them."""

import ipaddress
import re
from pathlib import Path
from typing import TypeAlias

from msgspec import Struct

MAX_UNIX_PATH_BYTES = 107
"""What `sun_path` of Linux holds, less the terminating zero (unix(7))."""

_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_.])?")
_PORT = re.compile(r"[0-9]{1,5}")


class TcpAddress(Struct, frozen=True):
    """A host and a port; port 0 stands for any free one. `str()` gives `host:port` or `[v6]:port`."""

    host: str
    """A name or an address, without brackets."""
    port: int

    @property
    def loopback(self) -> bool:
        """Whether only this machine reaches it; a name other than `localhost` counts as reachable by others."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class UnixAddress(Struct, frozen=True):
    """A Unix domain socket. `str()` gives `unix:///path`, which gRPC takes as a target."""

    path: Path
    """Absolute."""

    def __str__(self) -> str:
        return f"unix://{self.path}"


Address: TypeAlias = TcpAddress | UnixAddress


def parse_address(text: str) -> Address:
    """From `host:port`, `[v6]:port` or `unix:///path`; raises ValueError with what is wrong, as a sentence's end."""
    if text.startswith("unix:"):
        return _parse_unix(text)
    return parse_tcp(text)


def parse_tcp(text: str) -> TcpAddress:
    """From `host:port` or `[v6]:port`; raises ValueError with what is wrong, as a sentence's end."""
    host, colon, port = text.rpartition(":")
    if not colon or not _PORT.fullmatch(port):
        raise ValueError("has no port")
    if int(port) > 65535:
        raise ValueError("has a port above 65535")
    if host.startswith("[") and host.endswith("]"):
        return TcpAddress(_ipv6(host[1:-1]), int(port))
    if ":" in host:
        raise ValueError("is an IPv6 address without brackets")
    if not _NAME.fullmatch(host):
        raise ValueError("has no valid host")
    if re.fullmatch(r"[0-9.]+", host):
        _ipv4(host)
    return TcpAddress(host, int(port))


def _parse_unix(text: str) -> UnixAddress:
    path = text.removeprefix("unix://")
    if path == text or not path.startswith("/"):
        raise ValueError("has no absolute path")
    if "\0" in path or path.endswith("/"):
        raise ValueError("does not name a socket file")
    if len(path.encode()) > MAX_UNIX_PATH_BYTES:
        raise ValueError(f"has a path of more than {MAX_UNIX_PATH_BYTES} bytes, which no Unix socket can have")
    return UnixAddress(Path(path))


def _ipv6(host: str) -> str:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        raise ValueError("has no valid IPv6 address in its brackets") from None
    return host


def _ipv4(host: str) -> None:
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        raise ValueError("has no valid IPv4 address") from None
