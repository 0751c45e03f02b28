"""Who a request is from: what counts as proof, and what does not."""

import base64
import json
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from sark_pdp.errors import StartError, UnauthenticatedError
from sark_pdp.model import Origin, Seconds
from sark_pdp.transport.handler import Metadata
from sark_pdp.transport.principal.keys import KeyFile, Keys, KeyUrl, UnusableKeysError
from sark_pdp.transport.principal.principals import Principals, Rules
from sark_pdp.transport.principal.tokens import Expected, Tokens
from tests.fix_bundles import until
from tests.fix_keys import private_key
from tests.fix_principal import AUDIENCE, ISSUER, key_server, key_set, token

EXPECTED = Expected(ISSUER, (AUDIENCE,), ("ES256", "RS256", "EdDSA"), Seconds(30.0))
ENVOY = Origin("127.0.0.1", "", "envoy.example")
STRANGER = Origin("127.0.0.1", "", "stranger.example")


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "keys.json"
    file.write_bytes(key_set(("P-256", 0), ("RSA", 0), ("Ed25519", 0)))
    return file


@pytest.fixture
def keys(key_file: Path) -> Iterator[Keys]:
    made = Keys(KeyFile(key_file), Seconds(300.0))
    made.start()
    yield made
    made.close()


@pytest.fixture
def tokens(keys: Keys) -> Tokens:
    return Tokens(keys, EXPECTED)


class Refusals:
    """What the audit trail would be told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def __call__(self, address: str, names: Sequence[str], reason: str) -> None:
        del names
        self.told.append((address, reason))


def unsigned(claims: dict[str, Any], **header: Any) -> str:
    """A token whose signature says nothing."""
    parts = [json.dumps({"typ": "JWT", **header}).encode(), json.dumps(claims).encode(), b"x"]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


@pytest.mark.parametrize("kind", ["P-256", "RSA", "Ed25519"])
def test_a_token_of_the_issuer_is_believed_each_time(tokens: Tokens, kind: str) -> None:
    shown = token(kind, roles=["developer"])
    assert tokens.verify(shown)["sub"] == "alice"
    assert tokens.verify(shown)["roles"] == ["developer"]


PAST, FUTURE = int(time.time()) - 7200, int(time.time()) + 7200
REFUSED: dict[str, tuple[Callable[[], str], str]] = {
    "expired": (lambda: token(exp=PAST), "the token has expired"),
    "not yet valid": (lambda: token(nbf=FUTURE), "the token is not valid yet"),
    "issued in the future": (lambda: token(iat=FUTURE), "the token is not valid yet"),
    "another audience": (lambda: token(aud="other"), "the token is for somebody else"),
    "another issuer": (lambda: token(iss="https://other.example"), "the token is of another issuer"),
    "no end": (lambda: token(exp=None), "the token has no claim exp"),
    "no audience": (lambda: token(aud=None), "the token has no claim aud"),
    "a key of nobody": (lambda: token(number=7), "the token is signed with a key that is not known"),
    "a key of nobody under a known id": (
        lambda: token(number=7, headers={"kid": "P-256-0"}),
        "the token is not signed as it must be",
    ),
    "an algorithm that is not allowed": (
        lambda: jwt.encode({"sub": "alice"}, private_key("P-384"), "ES384", {"kid": "P-256-0"}),
        "the token is not signed as it must be",
    ),
    "the algorithm of another key": (
        lambda: token("RSA", headers={"kid": "P-256-0"}),
        "the token is not signed as it must be",
    ),
    "no signature": (
        lambda: unsigned({"sub": "alice"}, alg="none", kid="P-256-0"),
        "the token is not signed as it must be",
    ),
    "signed with the public key as a secret": (
        lambda: unsigned({"sub": "alice"}, alg="HS256", kid="P-256-0"),
        "the token is not signed as it must be",
    ),
    "no key id where there are several keys": (
        lambda: jwt.encode({"sub": "alice"}, private_key("P-256", 0), "ES256"),
        "the token is signed with a key that is not known",
    ),
    "nothing": (lambda: "", "the token is no signed JSON Web Token"),
    "three dots": (lambda: "...", "the token is no signed JSON Web Token"),
    "a header of brackets": (
        lambda: f"{base64.urlsafe_b64encode(b'[' * 5000).decode()}.e30.eA",
        "the token is no signed JSON Web Token",
    ),
    "very long": (lambda: "a" * 10_000, "the token is too long"),
    "deep claims": (lambda: token(roles=[[[[[[[[[[[[]]]]]]]]]]]]), "the token's claims are nested too deep"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_any_other_token_is_refused_with_the_reason(tokens: Tokens, case: str) -> None:
    make, reason = REFUSED[case]
    for _ in range(2):
        with pytest.raises(UnauthenticatedError) as caught:
            tokens.verify(make())
        assert str(caught.value) == reason


@given(st.data())
def test_no_changed_byte_of_a_token_is_believed(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    file = tmp_path_factory.mktemp("keys") / "keys.json"
    file.write_bytes(key_set(("P-256", 0)))
    tokens = Tokens(Keys(KeyFile(file), Seconds(300.0)), EXPECTED)
    tokens._keys._read()
    shown = token()
    assert tokens.verify(shown)
    place = data.draw(st.integers(0, len(shown) - 1))
    other = data.draw(st.characters(codec="ascii").filter(lambda each: each != shown[place]))
    # The last character of a base64 text has bits that mean nothing.
    if place in {len(shown) - 1, shown.index(".") - 1, shown.rindex(".") - 1}:
        return
    with pytest.raises(UnauthenticatedError):
        tokens.verify(shown[:place] + other + shown[place + 1 :])


def test_what_was_verified_is_not_believed_past_its_end(keys: Keys) -> None:
    """A token that is remembered ends like one that is not."""
    tokens = Tokens(keys, structs.replace(EXPECTED, leeway=Seconds(0.0)))
    shown = token(exp=int(time.time()) + 2)
    tokens.verify(shown)

    def is_over() -> bool:
        try:
            tokens.verify(shown)
        except UnauthenticatedError as error:
            return str(error) == "the token has expired"
        return False

    until(is_over)


def test_the_one_key_of_an_issuer_need_not_be_named(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_bytes(key_set(("P-256", 0)))
    keys = Keys(KeyFile(tmp_path / "keys.json"), Seconds(300.0))
    keys.start()
    try:
        now = int(time.time())
        claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": now + 60}
        assert Tokens(keys, EXPECTED).verify(jwt.encode(claims, private_key("P-256", 0), "ES256"))
    finally:
        keys.close()


def test_a_rotated_key_is_believed_and_a_withdrawn_one_is_not(key_file: Path) -> None:
    keys = Keys(KeyFile(key_file), Seconds(1.0))
    keys.start()
    try:
        tokens = Tokens(keys, EXPECTED)
        old, new = token(), token(number=1)
        assert tokens.verify(old)
        key_file.write_bytes(key_set(("P-256", 1)))
        until(lambda: keys.current.find("P-256-1") is not None)
        assert tokens.verify(new)
        with pytest.raises(UnauthenticatedError):
            tokens.verify(old)
        key_file.write_text("half of a")
        until(lambda: bool(keys.problems()))
        assert tokens.verify(new)
    finally:
        keys.close()


def test_keys_behind_a_url_come_when_its_server_does_and_outlive_its_failures() -> None:
    with key_server(b"not yet") as server:
        keys = Keys(KeyUrl(server.url), Seconds(1.0))
        keys.start()
        try:
            until(lambda: server.asked > 0)
            until(
                lambda: (
                    keys.problems() == ["the keys of principal.jwt cannot be had: what was read is no JSON Web Key Set"]
                )
            )
            server.content = key_set(("P-256", 0))
            until(lambda: not keys.problems())
            tokens = Tokens(keys, EXPECTED)
            assert tokens.verify(token())
            server.status = 503
            until(lambda: bool(keys.problems()))
            assert tokens.verify(token())
        finally:
            keys.close()


@pytest.mark.parametrize("id_", ["[1]", "{}", "5"])
def test_a_key_with_an_odd_id_is_left_out_and_the_others_are_believed(tmp_path: Path, id_: str) -> None:
    [good] = json.loads(key_set(("P-256", 0)))["keys"]
    file = tmp_path / "keys.json"
    file.write_text(json.dumps({"keys": [good, {**good, "kid": json.loads(id_)}]}))
    keys = Keys(KeyFile(file), Seconds(300.0))
    keys.start()
    try:
        assert Tokens(keys, EXPECTED).verify(token())
    finally:
        keys.close()


def test_a_proxy_of_the_environment_is_not_asked_for_keys_without_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    with key_server(key_set(("P-256", 0))) as server, key_server(key_set(("P-256", 9))) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.rpartition("/")[0])
        monkeypatch.delenv("no_proxy", raising=False)
        assert KeyUrl(server.url).read() == key_set(("P-256", 0))
        assert (server.asked, proxy.asked) == (1, 0)


def test_nobody_is_believed_whom_the_server_only_points_to() -> None:
    with key_server(key_set(("P-256", 0))) as other, key_server(b"") as server:
        server.status, server.elsewhere = 302, other.url
        with pytest.raises(UnusableKeysError, match=f"redirects to {other.url}; name that"):
            KeyUrl(server.url).read()
        assert (server.asked, other.asked) == (1, 0)


def test_what_speaks_no_http_is_told_of_and_asked_again() -> None:
    """The thread that reads keys must outlive whatever answers it."""
    with socket.create_server(("127.0.0.1", 0)) as nonsense:
        nonsense.settimeout(30)
        keys = Keys(KeyUrl(f"http://127.0.0.1:{nonsense.getsockname()[1]}/keys"), Seconds(1.0))
        keys.start()
        try:
            for _ in range(2):
                connection, _ = nonsense.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(b"nonsense\r\n\r\n")
            until(lambda: "cannot be read" in "".join(keys.problems()))
        finally:
            keys.close()


def test_a_token_with_an_unknown_key_has_the_keys_read_again_but_not_each_time() -> None:
    with key_server(key_set(("P-256", 0))) as server:
        keys = Keys(KeyUrl(server.url), Seconds(3600.0))
        keys.start()
        try:
            until(lambda: keys.current.find("P-256-0") is not None)
            for _ in range(100):
                with pytest.raises(UnauthenticatedError):
                    Tokens(keys, EXPECTED).verify(token(number=7))
            assert server.asked <= 2
        finally:
            keys.close()


NO_KEYS = {
    "nothing": b"",
    "a list": b"[]",
    "no keys": b'{"keys": []}',
    "deep": b'{"keys": ' + b"[" * 100_000,
    "a secret": b'{"keys": [{"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldC0", "alg": "HS256"}]}',
    "for encryption": key_set(("P-256", 0)).replace(b'"kid"', b'"use": "enc", "kid"'),
    "too large": b" " * 2_000_000,
    "an odd id alone": b'{"keys": [{"kty": "oct", "k": "AA", "kid": [1]}]}',
    "an odd algorithm": b'{"keys": [{"kty": "RSA", "alg": ["x"], "n": "AQAB", "e": "AQAB"}]}',
    "an odd type": b'{"keys": [{"kty": ["RSA"], "n": "AQAB", "e": "AQAB"}]}',
    "keys that are none": b'{"keys": {"a": 1}}',
}


@pytest.mark.parametrize("case", NO_KEYS)
def test_a_file_that_is_no_key_set_stops_the_start(tmp_path: Path, case: str) -> None:
    file = tmp_path / "keys.json"
    file.write_bytes(NO_KEYS[case])
    with pytest.raises(StartError, match=r"principal\.jwt\.jwks_file: "):
        Keys(KeyFile(file), Seconds(300.0)).start()


RULES = Rules(
    user_attributes=("email", "roles"),
    trusted_header="x-user",
    certificates=True,
    trusted_peers=frozenset({"envoy.example", "uid:1001"}),
)


def of(tokens: Tokens | None, headers: dict[str, str], certificate: str = "", peer: Origin = ENVOY) -> dict[str, Any]:
    said = {"user": {"id": "mallory"}, "action": "read"}
    return Principals(tokens, RULES, Refusals()).imposed_on_http(said, headers, certificate, "192.0.2.7", peer)


def test_a_token_comes_before_all_else(tokens: Tokens) -> None:
    headers = {"authorization": f"Bearer {token(email='a@example', groups=['x'])}", "x-user": "bob"}
    document = of(tokens, headers, "carol.example")
    assert document["user"] == {"id": "alice", "email": "a@example"}
    assert document["principal"]["method"] == "jwt"
    assert document["principal"]["claims"]["groups"] == ["x"]
    assert document["action"] == "read"


def test_a_token_leaves_no_other_name_of_its_user_standing(tokens: Tokens) -> None:
    """As other forms of a question have them."""
    principal = Principals(tokens, RULES, Refusals()).of_call(Metadata(pairs=(("authorization", f"Bearer {token()}"),)))
    assert principal is not None
    said = {"user_id": "root", "subject": {"type": "user", "id": "root", "properties": {"roles": ["admin"]}}, "a": 1}
    imposed = principal.imposed_on(said)
    assert (imposed["user"]["id"], imposed["user_id"], imposed["a"]) == ("alice", "alice", 1)
    assert imposed["subject"] == {"type": "user", "id": "alice"}


def test_who_shows_a_bad_token_is_nobody_and_it_is_told(tokens: Tokens) -> None:
    refusals = Refusals()
    headers = {"authorization": "Bearer x", "x-user": "bob"}
    with pytest.raises(UnauthenticatedError):
        Principals(tokens, RULES, refusals).imposed_on_http({}, headers, "carol", "192.0.2.7", ENVOY)
    assert refusals.told == [("192.0.2.7", "the token is no signed JSON Web Token")]


@pytest.mark.parametrize("claims", [{"sub": None}, {"sub": ""}, {"sub": "x" * 513}])
def test_a_token_that_names_nobody_proves_nobody(tokens: Tokens, claims: dict[str, Any]) -> None:
    with pytest.raises(UnauthenticatedError, match=r"names nobody|not signed"):
        of(tokens, {"authorization": f"Bearer {token(**claims)}"})


@pytest.mark.parametrize(
    ("peer", "header", "certificate", "user"),
    [
        (ENVOY, "bob", "carol.example", {"id": "bob"}),
        (ENVOY, "", "carol.example", {"id": "carol.example"}),
        (ENVOY, "", "", None),
        (Origin("", "", "", 1001), "bob", "", {"id": "bob"}),
        (Origin("", "", "", 1002), "bob", "carol.example", None),
        (STRANGER, "bob", "carol.example", None),
        (Origin("127.0.0.1"), "bob", "carol.example", None),
    ],
)
def test_header_and_certificate_count_from_trusted_peers_alone(
    peer: Origin, header: str, certificate: str, user: dict[str, Any] | None
) -> None:
    """And what the document itself said of its user is gone in any case."""
    document = of(None, {"x-user": header} if header else {}, certificate, peer)
    assert document["user"] == user
    assert (document["principal"] == {"method": "none"}) == (user is None)


def test_another_scheme_is_no_token(tokens: Tokens) -> None:
    assert of(tokens, {"authorization": "Basic YWxpY2U6c2VjcmV0", "x-user": "bob"})["user"] == {"id": "bob"}
