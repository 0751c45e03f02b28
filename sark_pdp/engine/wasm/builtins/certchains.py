"""Chains of certificates: built and checked as Go's `Certificate.Verify` does it, with roots that are given."""

from typing import Final

from msgspec import Struct

from sark_pdp.engine.wasm.builtins.certificates import Certificate
from sark_pdp.engine.wasm.builtins.certkeys import is_signed
from sark_pdp.engine.wasm.builtins.goip import MAPPED, parse_address
from sark_pdp.engine.wasm.values import LimitError

_MAX_CHECKS: Final = 100
"""Candidates that are looked at: Go's own limit."""
_CERTIFICATE_SIGNING: Final = 1 << 5
_ANY, _SERVER = 0, 1
_SECOND: Final = 1_000_000_000
_NAME: Final = set("abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ-_")

Chain = list[Certificate]


class Wanted(Struct, frozen=True):
    """What a chain must be good for."""

    now_ns: int
    """Since the epoch, UTC."""
    dns_name: str = ""
    usages: tuple[int, ...] = ()
    """Any of these; none means that of a server."""


def verified(certificates: Chain, wanted: Wanted) -> Chain | None:
    """The first chain from the last certificate to the first one, by way of those between; None where there is none.

    Raises LimitError for what Go would check here, and this package does not.
    """
    if len(certificates) < 2:
        return None
    root, *between, leaf = certificates
    if not _is_valid(leaf, [], wanted, is_between=False) or (
        wanted.dns_name and not is_for_host(leaf, wanted.dns_name)
    ):
        return None
    chains = [[leaf]] if leaf.raw == root.raw else _Builder(root, between, wanted).chains([leaf])
    for chain in chains:
        for certificate in chain:
            _refuse_unchecked(certificate)
        if _is_for_usages(chain, wanted.usages or (_SERVER,)):
            return chain
    return None


def _refuse_unchecked(certificate: Certificate) -> None:
    found = certificate.found
    if any(found[name] for name in found if name.startswith(("Permitted", "Excluded"))):
        raise LimitError("a certificate has name constraints, which are not checked here")
    if found["RequireExplicitPolicy"] or found["RequireExplicitPolicyZero"]:
        raise LimitError("a certificate requires explicit policies, which are not checked here")


class _Builder:
    """Counts the candidates that it looks at."""

    def __init__(self, root: Certificate, between: Chain, wanted: Wanted) -> None:
        self._root = root
        self._between = between
        self._wanted = wanted
        self._checks = 0

    def chains(self, chain: Chain) -> list[Chain]:
        """All ways from the end of the chain to the root."""
        found: list[Chain] = []
        for candidates, is_between in (([self._root], False), (self._between, True)):
            for candidate in _potential_parents(chain[-1], candidates):
                self._checks += 1
                if self._checks > _MAX_CHECKS:
                    return found
                if not self._fits(candidate, chain, is_between=is_between):
                    continue
                longer = [*chain, candidate]
                found += self.chains(longer) if is_between else [longer]
        return found

    def _fits(self, candidate: Certificate, chain: Chain, *, is_between: bool) -> bool:
        return (
            candidate.key.fields is not None
            and not _is_in(candidate, chain)
            and _signed_by(chain[-1], candidate)
            and _is_valid(candidate, chain, self._wanted, is_between=is_between)
        )


def _potential_parents(child: Certificate, candidates: Chain) -> Chain:
    """Those of the right name, the most likely ones first."""
    named: list[tuple[int, Certificate]] = []
    for candidate in candidates:
        if candidate.subject == child.issuer and candidate.raw not in [other.raw for _, other in named]:
            own, wanted = candidate.found["SubjectKeyId"] or "", child.found["AuthorityKeyId"] or ""
            named.append((0 if own == wanted else 2 if own and wanted else 1, candidate))
    return [candidate for _, candidate in sorted(named, key=lambda pair: pair[0])]


def _is_in(candidate: Certificate, chain: Chain) -> bool:
    names = _alternative_names(candidate)
    for certificate in chain:
        if certificate.subject == candidate.subject and certificate.raw_key == candidate.raw_key:
            own = _alternative_names(certificate)
            if own == names:
                return True
            if own is None or names is None:
                return False
    return False


def _alternative_names(certificate: Certificate) -> bytes | None:
    return next((each.value for each in certificate.extensions if each.oid == [2, 5, 29, 17]), None)


def _signed_by(child: Certificate, parent: Certificate) -> bool:
    found = parent.found
    if (parent.version == 3 or found["BasicConstraintsValid"]) and not found["IsCA"]:
        return False
    if found["KeyUsage"] and not found["KeyUsage"] & _CERTIFICATE_SIGNING:
        return False
    return is_signed(parent.key, child.algorithm, child.signed, child.signature)


def _is_valid(certificate: Certificate, chain: Chain, wanted: Wanted, *, is_between: bool) -> bool:
    found = certificate.found
    begin, end = (int(time.timestamp()) * _SECOND for time in (certificate.not_before, certificate.not_after))
    if found["UnhandledCriticalExtensions"] or not begin <= wanted.now_ns <= end:
        return False
    if is_between and not found["IsCA"]:
        return False
    return not (found["BasicConstraintsValid"] and 0 <= found["MaxPathLen"] < len(chain) - 1)


def _is_for_usages(chain: Chain, usages: tuple[int, ...]) -> bool:
    """Whether one of the usages is among those of each certificate that has some."""
    left = set(usages)
    if _ANY in left:
        return True
    for certificate in reversed(chain):
        own = certificate.found["ExtKeyUsage"] or []
        if (own or certificate.found["UnknownExtKeyUsage"]) and _ANY not in own:
            left &= set(own)
            if not left:
                return False
    return True


def is_for_host(certificate: Certificate, host: str) -> bool:
    """Whether the certificate is for a host: a name, which a wildcard may match, or an address."""
    bare = host[1:-1] if len(host) >= 3 and host[0] == "[" and host[-1] == "]" else host
    address = parse_address(bare)
    if address is not None:
        return any(_number(parse_address(own)) == _number(address) for own in certificate.alternatives.addresses)
    host = _lower(host)
    parts = host.removesuffix(".").split(".")
    for pattern in certificate.alternatives.dns:
        own = _lower(pattern)
        if _is_host(host.removesuffix("."), wildcard=False) and _is_host(own, wildcard=True):
            own_parts = own.split(".")
            if len(own_parts) == len(parts) and own_parts[0] in ("*", parts[0]) and own_parts[1:] == parts[1:]:
                return True
        elif own == host and own not in ("", "."):
            return True
    return False


def _number(address: tuple[int, int] | None) -> int | None:
    """An address as a number of 128 bits."""
    if address is None:
        return None
    bits, number = address
    return number + MAPPED if bits == 32 else number


def _lower(text: str) -> str:
    return "".join([character.lower() if character.isascii() else character for character in text])


def _is_host(text: str, *, wildcard: bool) -> bool:
    if text in ("", "*"):
        return False
    labels = text.split(".")
    if wildcard and labels[0] == "*":
        labels = labels[1:]
    return all(label and _NAME.issuperset(label) and label[0] != "-" for label in labels)
