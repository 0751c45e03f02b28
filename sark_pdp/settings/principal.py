"""The settings of who a request is from, as far as it can be proven."""

import os
import re
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from msgspec import Meta, Struct

from sark_pdp.model import Seconds

_HEADER: Final = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")
_PEER_BY_UID: Final = re.compile(r"uid:[0-9]{1,10}")
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")

Algorithm = Literal["ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512", "EdDSA"]
"""Of signatures with a public key (RFC 7518, RFC 8037): a verifier holds nothing that could sign."""


class JwtSettings(Struct, frozen=True, kw_only=True):
    """Tokens that name the principal."""

    issuer: Annotated[str | None, Meta(description="The claim `iss` that a token must have. Turns tokens on.")] = None
    audience: Annotated[
        tuple[str, ...], Meta(description="The claim `aud`: a token must be for one of these. Needed.")
    ] = ()
    algorithms: Annotated[tuple[Algorithm, ...], Meta(description="How a token may be signed.")] = ("ES256", "RS256")
    jwks_file: Annotated[
        Path | None, Meta(description="The issuer's keys, a JSON Web Key Set. Read again every `jwks_interval`.")
    ] = None
    jwks_url: Annotated[
        str | None,
        Meta(description="Where the issuer has its keys, `https:`, or `http:` on loopback. One of the two is needed."),
    ] = None
    jwks_ca_file: Annotated[Path | None, Meta(description="Authorities of that server, PEM.")] = None
    jwks_interval: Annotated[
        Seconds,
        Meta(
            description="How often the keys are read again; earlier for a token with an unknown key, not within 10s.",
            ge=1,
        ),
    ] = Seconds(300.0)
    header: Annotated[
        str, Meta(description="Where the token is: `authorization`, after `Bearer`, or a header of its own.")
    ] = "authorization"
    user_claim: Annotated[str, Meta(description="The claim that becomes `input.user.id`.")] = "sub"
    user_attributes: Annotated[
        tuple[str, ...], Meta(description="Claims that become fields of `input.user`, by the same names.")
    ] = ("email", "roles", "teams")
    leeway: Annotated[
        Seconds, Meta(description="By which the issuer's clock may differ from this one.", ge=0, le=300)
    ] = Seconds(30.0)


class PrincipalSettings(Struct, frozen=True, kw_only=True):
    """Who a request is from. Where one of these is set, nothing else names the user of a request through Envoy."""

    jwt: JwtSettings = JwtSettings()
    trusted_header: Annotated[
        str | None,
        Meta(description="A header that Envoy sets with the user's id; counts from `trusted_peers` alone."),
    ] = None
    mtls: Annotated[
        bool,
        Meta(
            description="Takes the name in the client's certificate, as Envoy reports it; from `trusted_peers` alone."
        ),
    ] = False
    trusted_peers: Annotated[
        tuple[str, ...],
        Meta(
            description="Who may say so: names in certificates of those who call, or `uid:1000` for a user who calls"
            " over a Unix socket (with the front)."
        ),
    ] = ()

    @property
    def used(self) -> bool:
        """Whether principals are proven at all."""
        return self.jwt.issuer is not None or self.trusted_header is not None or self.mtls


class PrincipalProblem(Struct, frozen=True):
    """The first thing that is wrong."""

    key: str
    """Below `principal`."""
    text: str
    """The end of a sentence."""


def problem_of(principal: PrincipalSettings) -> PrincipalProblem | None:
    """None where all is well."""
    if problem := _of_jwt(principal.jwt):
        return problem
    header = principal.trusted_header
    if header is not None and not _HEADER.fullmatch(header):
        return PrincipalProblem("trusted_header", "is no name of a header; expected lower case, as in x-user")
    if header is not None and principal.jwt.issuer is not None and header == principal.jwt.header:
        return PrincipalProblem("trusted_header", "is where the token is; expected another header")
    for key, value in (("trusted_header", header), ("mtls", principal.mtls)):
        if value and not principal.trusted_peers:
            return PrincipalProblem(key, "is of no use alone; name who may say so in principal.trusted_peers")
    if principal.trusted_peers and not (header or principal.mtls):
        return PrincipalProblem("trusted_peers", "is of no use alone; set principal.trusted_header or principal.mtls")
    odd = next((peer for peer in principal.trusted_peers if peer.startswith("uid:") and not _is_uid(peer)), None)
    return PrincipalProblem("trusted_peers", f"has {odd!r} in it; expected uid: and a number") if odd else None


def _of_jwt(jwt: JwtSettings) -> PrincipalProblem | None:
    if jwt.issuer is None:
        given = next((key for key in ("audience", "jwks_file", "jwks_url") if getattr(jwt, key)), None)
        return PrincipalProblem(f"jwt.{given}", "is of no use alone; set principal.jwt.issuer too") if given else None
    if not jwt.audience:
        return PrincipalProblem(
            "jwt.issuer", "needs principal.jwt.audience: a token for somebody else proves nothing here"
        )
    if (jwt.jwks_file is None) == (jwt.jwks_url is None):
        return PrincipalProblem("jwt.issuer", "needs its keys: set one of principal.jwt.jwks_file and jwks_url")
    for key in ("jwks_file", "jwks_ca_file"):
        file: Path | None = getattr(jwt, key)
        if file is not None and not (file.is_file() and os.access(file, os.R_OK)):
            return PrincipalProblem(f"jwt.{key}", "cannot be read; expected a file that this process may read")
    if jwt.jwks_url is not None and not _is_safe(jwt.jwks_url):
        return PrincipalProblem("jwt.jwks_url", "cannot be trusted; expected https:, or http: on loopback")
    if not jwt.algorithms:
        return PrincipalProblem("jwt.algorithms", "is empty; expected at least one, as in ES256")
    if not _HEADER.fullmatch(jwt.header):
        return PrincipalProblem("jwt.header", "is no name of a header; expected lower case, as in authorization")
    return None


def _is_safe(text: str) -> bool:
    try:
        url = urlsplit(text)
        host = url.hostname
    except ValueError:
        return False
    if url.username is not None or not host or not text.isprintable() or " " in text:
        return False
    return url.scheme == "https" or (url.scheme == "http" and host in _LOOPBACK)


def _is_uid(peer: str) -> bool:
    return _PEER_BY_UID.fullmatch(peer) is not None
