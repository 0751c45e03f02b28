"""Finds the principal of a request, and puts it into the document."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal

from msgspec import Struct

from sark_pdp.errors import UnauthenticatedError
from sark_pdp.model import Document, Origin
from sark_pdp.transport.handler import Metadata
from sark_pdp.transport.principal.tokens import Claims, Tokens

_LONGEST_ID: Final = 512
_BEARER: Final = "bearer "
_AUTHORIZATION: Final = "authorization"

OnRefusal = Callable[[str, Sequence[str], str], None]
"""Told the address of who sent a bad token, no names, and why; must not wait."""


class Principal(Struct, frozen=True):
    """Who asks."""

    id: str
    method: Literal["jwt", "header", "mtls"]
    """How it was proven."""
    user: Document
    """What becomes `input.user`: the id, and what a token says besides."""
    claims: Claims

    def imposed_on(self, document: Document) -> Document:
        """The document with this user and `input.principal`; what it said of its user, by whatever name, is gone."""
        principal = {"id": self.id, "method": self.method, "claims": self.claims}
        imposed = {**document, "user": self.user, "principal": principal}
        if "user_id" in document:
            imposed["user_id"] = self.id
        if "subject" in document:
            imposed["subject"] = {"type": "user", "id": self.id}
        return imposed


# No null: a policy can ask for the method without reading the claims, which would all be part of the cache key then.
_NOBODY: Final[Document] = {"user": None, "principal": {"method": "none"}}


class Rules(Struct, frozen=True):
    """What counts as proof, besides tokens."""

    token_header: str = _AUTHORIZATION
    user_claim: str = "sub"
    user_attributes: tuple[str, ...] = ()
    """Claims that become attributes of the user."""
    trusted_header: str = ""
    """Lower case; empty: none."""
    certificates: bool = False
    """Whether the client's certificate counts that a trusted peer reports."""
    trusted_peers: frozenset[str] = frozenset()
    """Names in their certificates, or `uid:1000`."""


class Principals:
    """A token comes first, then the header of a trusted peer, then the certificate that it reports. Thread-safe."""

    def __init__(self, tokens: Tokens | None, rules: Rules, on_refusal: OnRefusal) -> None:
        self._tokens = tokens
        self._rules = rules
        self._on_refusal = on_refusal

    @property
    def takes_tokens(self) -> bool:
        """Whether there are tokens at all."""
        return self._tokens is not None

    def imposed_on_http(
        self, document: Document, headers: Mapping[str, str], certificate: str, address: str, peer: Origin
    ) -> Document:
        """The document of an HTTP request with who sends it, and nobody where nobody was proven.

        `certificate` is the name in the client's, and `address` the client's own, as `peer` tells, who asks about it.
        Raises UnauthenticatedError for a token that is not valid: who shows one is not somebody else as well.
        """
        principal = self._of_http(headers, certificate, address, peer)
        return {**document, **_NOBODY} if principal is None else principal.imposed_on(document)

    def of_call(self, metadata: Metadata) -> Principal | None:
        """Who makes a native call, where it has a token.

        None without one: the caller, which enforces what is decided, speaks for its users. Raises UnauthenticatedError.
        """
        for name, value in metadata.pairs:
            if name == self._rules.token_header and type(value) is str:
                token = _bearer_of(value, prefixed=name == _AUTHORIZATION)
                if token is not None:
                    return self._of_token(token, metadata.origin.ip_address)
        return None

    def _of_http(self, headers: Mapping[str, str], certificate: str, address: str, peer: Origin) -> Principal | None:
        rules = self._rules
        if self._tokens is not None and rules.token_header in headers:
            token = _bearer_of(headers[rules.token_header], prefixed=rules.token_header == _AUTHORIZATION)
            if token is not None:
                return self._of_token(token, address)
        if not self._trusts(peer):
            return None
        if rules.trusted_header and rules.trusted_header in headers and headers[rules.trusted_header]:
            return self._named(headers[rules.trusted_header], "header", address)
        if rules.certificates and certificate:
            return self._named(certificate, "mtls", address)
        return None

    def _of_token(self, token: str, address: str) -> Principal:
        if self._tokens is None:
            raise UnauthenticatedError("tokens are not accepted here")
        try:
            claims = self._tokens.verify(token)
            id_ = claims.get(self._rules.user_claim)
            if type(id_) is not str or not 0 < len(id_) <= _LONGEST_ID:
                raise UnauthenticatedError(f"the token names nobody in its claim {self._rules.user_claim}")
        except UnauthenticatedError as error:
            self._on_refusal(address, (), str(error))
            raise
        user: Document = {"id": id_}
        for name in self._rules.user_attributes:
            if name in claims:
                user[name] = claims[name]
        return Principal(id_, "jwt", user, claims)

    def _named(self, name: str, method: Literal["header", "mtls"], address: str) -> Principal:
        if len(name) > _LONGEST_ID:
            reason = "the name of the principal is too long"
            self._on_refusal(address, (), reason)
            raise UnauthenticatedError(reason)
        return Principal(name, method, {"id": name}, {})

    def _trusts(self, peer: Origin) -> bool:
        trusted = self._rules.trusted_peers
        return (bool(peer.identity) and peer.identity in trusted) or (
            peer.uid is not None and f"uid:{peer.uid}" in trusted
        )


def _bearer_of(header: str, *, prefixed: bool) -> str | None:
    """The token in a header; None where it is of another scheme. A bare token counts where no scheme is expected."""
    if header[: len(_BEARER)].lower() == _BEARER:
        return header[len(_BEARER) :].strip()
    return None if prefixed or not header else header.strip()
