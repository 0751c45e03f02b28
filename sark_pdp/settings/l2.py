"""The settings of the cache in Redis, and what of them only makes sense together."""

import os
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import SplitResult, urlsplit

from msgspec import Meta, Struct

from sark_pdp.model import Seconds

_FILES: Final = ("username_file", "password_file", "ca_file", "client_cert_file", "client_key_file")
_OF_TLS: Final = ("ca_file", "client_cert_file", "client_key_file")
_UNREADABLE: Final = "cannot be read; expected a file that this process may read"
_EXPECTED: Final = "expected redis://host:port/db, rediss://host:port/db or unix:///path"


class RedisSettings(Struct, frozen=True, kw_only=True):
    """Where Redis is, for every process that shares it."""

    url: Annotated[
        str | None,
        Meta(description="`redis://host:port/db`, `rediss://host:port/db` or `unix:///path`. Without it: L1 alone."),
    ] = None
    prefix: Annotated[
        str, Meta(description="What all keys in Redis begin with: those who trust one another use the same.")
    ] = "sark"
    username_file: Annotated[Path | None, Meta(description="The user's name, read for each connection.")] = None
    password_file: Annotated[Path | None, Meta(description="The user's password, read for each connection.")] = None
    ca_file: Annotated[Path | None, Meta(description="Authorities of a server that is reached over TLS, PEM.")] = None
    client_cert_file: Annotated[Path | None, Meta(description="This client's certificate chain, PEM.")] = None
    client_key_file: Annotated[Path | None, Meta(description="Its private key, PEM.")] = None


class L2Settings(RedisSettings, frozen=True, kw_only=True):
    """The cache that sidecars share, in Redis."""

    ttl: Annotated[Seconds, Meta(description="The longest that a verdict is shared; 0 shares none.", ge=0, le=3600)] = (
        Seconds(60.0)
    )
    mode: Annotated[
        Literal["always", "auto", "off"],
        Meta(
            description="Whether verdicts are looked for in Redis: `always`, never (`off`), or where that takes less"
            " time than evaluating (`auto`). Invalidations and attributes are shared in any case."
        ),
    ] = "always"
    timeout: Annotated[
        Seconds, Meta(description="The longest that a request waits for Redis each time.", ge=0.0005, le=1)
    ] = Seconds(0.005)
    mac_key_file: Annotated[
        Path | None,
        Meta(
            description="Keys that values in Redis are signed with, one on each line: the first signs, all verify."
            " Read again when it changes. Needed with `cache.l2.url`."
        ),
    ] = None


class L2Problem(Struct, frozen=True):
    """The first thing that is wrong."""

    key: str
    """Below `cache.l2`."""
    text: str
    """The end of a sentence."""


def problem_of(l2: L2Settings) -> L2Problem | None:
    """None where all is well."""
    if not _is_readable(l2.mac_key_file):
        return L2Problem("mac_key_file", _UNREADABLE)
    if problem := problem_of_server(l2):
        return problem
    if l2.url is not None and l2.mac_key_file is None:
        return L2Problem(
            "url",
            "needs cache.l2.mac_key_file: without a key, whoever can write to Redis could grant anything; make one with"
            " `openssl rand -hex 32`",
        )
    return None


def problem_of_server(l2: RedisSettings) -> L2Problem | None:
    """The same of what every process has; whether there is a URL at all is not looked at."""
    for key in _FILES:
        if not _is_readable(getattr(l2, key)):
            return L2Problem(key, _UNREADABLE)
    if not l2.prefix.isascii() or not l2.prefix.isprintable() or set(l2.prefix) & set(" :"):
        return L2Problem("prefix", "cannot begin a key; expected ASCII letters, digits and marks, without : and spaces")
    if (l2.client_cert_file is None) != (l2.client_key_file is None):
        key = "client_key_file" if l2.client_cert_file is None else "client_cert_file"
        return L2Problem(key, "is of no use alone; set cache.l2.client_cert_file and cache.l2.client_key_file")
    return None if l2.url is None else _of_url(l2, l2.url)


def _is_readable(file: Path | None) -> bool:
    return file is None or (file.is_file() and os.access(file, os.R_OK))


def _of_url(l2: RedisSettings, text: str) -> L2Problem | None:
    try:
        url = urlsplit(text)
        port_is_one = url.port is None or url.port > 0
    except ValueError:
        return L2Problem("url", f"is no URL; {_EXPECTED}")
    if url.username is not None or url.password is not None:
        return L2Problem(
            "url",
            "has a user or a password in it, where others could read it; set cache.l2.username_file and"
            " cache.l2.password_file instead",
        )
    if not (_leads_somewhere(url) and port_is_one and text.isprintable() and " " not in text):
        return L2Problem("url", f"is no URL of Redis; {_EXPECTED}")
    if url.query or url.fragment:
        return L2Problem("url", f"has a query or a fragment; {_EXPECTED}")
    if url.scheme != "rediss" and any(getattr(l2, key) for key in _OF_TLS):
        return L2Problem("url", "is not reached over TLS, and has a ca_file or a client_cert_file; expected rediss://")
    return None


def _leads_somewhere(url: SplitResult) -> bool:
    if url.scheme == "unix":
        return not url.netloc and len(url.path) > 1
    database = url.path.removeprefix("/")
    return url.scheme in {"redis", "rediss"} and bool(url.hostname) and (not database or database.isdecimal())
