"""Puts the parts together that tell who a request is from. `app` alone imports it, where `principal` is set."""

from sark_pdp.model import Seconds
from sark_pdp.settings.principal import JwtSettings, PrincipalSettings
from sark_pdp.transport.principal.keys import KeyFile, Keys, KeySource, KeyUrl
from sark_pdp.transport.principal.principals import OnRefusal, Principals, Rules
from sark_pdp.transport.principal.tokens import Expected, Tokens


class Proofs:
    """What `principal` adds to a sidecar. `start` and `close` are called once each, by one thread."""

    def __init__(self, settings: PrincipalSettings, on_refusal: OnRefusal) -> None:
        jwt = settings.jwt
        self._keys = None if jwt.issuer is None else Keys(_source(jwt), jwt.jwks_interval)
        tokens = None if self._keys is None else Tokens(self._keys, _expected(jwt))
        rules = Rules(
            token_header=jwt.header,
            user_claim=jwt.user_claim,
            user_attributes=jwt.user_attributes,
            trusted_header=settings.trusted_header or "",
            certificates=settings.mtls,
            trusted_peers=frozenset(settings.trusted_peers),
        )
        self.principals = Principals(tokens, rules, on_refusal)

    def start(self) -> None:
        """Raises StartError where the file of the keys cannot be used."""
        if self._keys is not None:
            self._keys.start()

    def close(self) -> None:
        """Ends the thread that reads keys."""
        if self._keys is not None:
            self._keys.close()

    def problems(self) -> list[str]:
        """What an operator should know."""
        return [] if self._keys is None else self._keys.problems()


def _source(jwt: JwtSettings) -> KeySource:
    if jwt.jwks_file is not None:
        return KeyFile(jwt.jwks_file)
    return KeyUrl(jwt.jwks_url or "", jwt.jwks_ca_file)


def _expected(jwt: JwtSettings) -> Expected:
    return Expected(jwt.issuer or "", jwt.audience, jwt.algorithms, Seconds(jwt.leeway))
