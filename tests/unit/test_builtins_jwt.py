"""`io.jwt.*` returns what OPA returns, for good tokens and keys and for bad ones."""

import json
import subprocess
import sys
from base64 import b64encode, urlsafe_b64encode
from itertools import product
from random import Random
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from sark_pdp.engine.wasm.builtins import UNDEFINED, Context
from sark_pdp.errors import EvaluationError
from tests.fix_keys import certificate_of, jwk_of, private_key
from tests.fix_rego import Call, Oracle, call_builtin, differences

SECRET = "a secret of 32 characters, or so"
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
VERIFY = [f"io.jwt.verify_{algorithm.lower()}" for algorithm in ALGORITHMS]
CLAIMS: dict[str, Any] = {"iss": "me", "aud": ["you", "they"], "exp": 2000, "nbf": 1000, "n": 1.5, "text": "<ü>"}

RSA, P256, P384, P521, ED, X25519 = map(private_key, ("RSA", "P-256", "P-384", "P-521", "Ed25519", "X25519"))
SIGNERS: dict[str, Any] = {
    "RS256": RSA, "RS384": RSA, "RS512": RSA, "PS256": RSA, "PS384": RSA, "PS512": RSA,
    "ES256": P256, "ES384": P384, "ES512": P521, "EdDSA": ED,
}  # fmt: skip


def segment(content: Any) -> str:
    """A part of a token: bytes as they are, anything else as JSON."""
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def compact(header: Any, payload: Any, signature: str = "") -> str:
    """A token with a signature that is none."""
    return f"{segment(header)}.{segment(payload)}.{signature}"


def signed(header: Any, payload: Any = None, key: Any = None) -> str:
    """A token signed by this package: what OPA says of it is what counts."""
    jwk = jwk_of(SIGNERS[header["alg"]]) if key is None else key
    token = call_builtin("io.jwt.encode_sign", [header, CLAIMS if payload is None else payload, jwk])
    assert isinstance(token, str)
    return token


def oct_key(secret: str = SECRET, **more: Any) -> dict[str, Any]:
    """A symmetric JWK."""
    return {"kty": "oct", "k": urlsafe_b64encode(secret.encode()).rstrip(b"=").decode(), **more}


def public_jwk(key: Any, **more: Any) -> dict[str, Any]:
    """The public half of a key."""
    return jwk_of(key.public_key()) | more


def pem(key: Any) -> str:
    """The public half of a key, as PEM."""
    raw: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return raw.decode()


def certificate(key: Any) -> str:
    """A certificate of its own for the key, as PEM."""
    return certificate_of(key).public_bytes(Encoding.PEM).decode()


TOKENS = {algorithm: signed({"alg": algorithm, "typ": "JWT"}) for algorithm in ALGORITHMS}
TOKENS_BY_ID = {algorithm: signed({"alg": algorithm, "kid": "one"}) for algorithm in ALGORITHMS}
HS = {size: signed({"alg": f"HS{size}", "typ": "JWT"}, key=oct_key()) for size in (256, 384, 512)}
P521_ES256 = signed({"alg": "ES256"}, key=jwk_of(P521))
KEY_TEXTS: list[Any] = [
    *(write(key) for key, write in product([RSA, P256, P384, P521, ED], [pem, certificate])),
    *(json.dumps(public_jwk(key)) for key in (RSA, P256, P521, ED, X25519)),
    *(json.dumps(jwk_of(key)) for key in (RSA, P256, ED)),
    json.dumps({"keys": [public_jwk(key, kid=name) for name, key in {"one": RSA, "two": P256, "three": ED}.items()]}),
    json.dumps({"keys": [public_jwk(P384, kid="one"), public_jwk(P256), public_jwk(RSA)]}),
    json.dumps({"keys": [public_jwk(RSA, alg="RS512"), public_jwk(P256, alg="ES256"), public_jwk(ED, alg="EdDSA")]}),
    json.dumps({"keys": [public_jwk(RSA, alg="RSA-OAEP"), public_jwk(P256)]}),
    json.dumps({"keys": [public_jwk(RSA, use="sig", key_ops=["verify"], x5t="a", other=[1])], "more": 1}),
    json.dumps(oct_key()),
]  # fmt: skip
BAD_KEY_TEXTS: list[Any] = [
    "", "x", "{}", "[]", "null", '{"keys": []}', '{"keys": 1}', '{"keys": [{}]}', '{"kty": "RSA"}', '{"kty": "oct"}',
    '{"kty": "oct", "k": ""}', '{"kty": "none"}', pem(RSA) + "x", pem(RSA) + pem(P256), "x\n" + pem(RSA),
    pem(RSA).replace("PUBLIC KEY", "RSA PUBLIC KEY"), certificate(RSA).replace("MII", "MIJ", 1), pem(RSA)[:-30],
    pem(RSA).replace("\n", "\r\n"), pem(RSA).replace("\n", "\n "), pem(RSA).replace("\n", "\nA: b\n\n", 1),
    json.dumps(public_jwk(RSA, alg="XX")), json.dumps(public_jwk(RSA, alg="")), json.dumps(public_jwk(RSA, alg=5)),
    json.dumps(public_jwk(RSA, kid=5)), json.dumps(public_jwk(RSA, n="")), json.dumps(public_jwk(RSA, e="AAAA")),
    json.dumps(public_jwk(RSA, e="Ag")), json.dumps(public_jwk(RSA, e="Aw==")), json.dumps(public_jwk(RSA, n="*")),
    json.dumps(public_jwk(RSA, n="AQ")), json.dumps(public_jwk(RSA, n="w" * 86)), json.dumps(public_jwk(P256, x="AA")),
    json.dumps(public_jwk(P256, crv="P-384")), json.dumps(public_jwk(P256, crv="P-1")),
    json.dumps(public_jwk(P256) | {"y": public_jwk(P256)["x"]}), json.dumps(public_jwk(ED, x="AA")),
    json.dumps(public_jwk(ED, crv="Ed1")), json.dumps({"keys": [public_jwk(RSA), {"kty": "EC"}]}),
    json.dumps({"keys": [public_jwk(RSA, kid=None)]}), 5, None, [pem(RSA)],
]  # fmt: skip
ODD_TOKENS: list[Any] = [
    "", ".", "..", "a.b", "a.b.c", "a.b.c.d", TOKENS["RS256"] + "=", TOKENS["RS256"] + "==", TOKENS["RS256"] + "\n",
    TOKENS["RS256"][:-1], TOKENS["RS256"][:-4], TOKENS["RS256"] + "AAAA", "\n" + TOKENS["RS256"],
    compact([1], {}), compact({}, []), compact({}, {}), compact({}, {}, "AA"), compact({}, {}, "A"), compact({}, b"x"),
    compact(b"{} x", {}),  compact({"enc": None}, {}), compact({"cty": "jwt"}, {}),
    compact({"cty": "JWT"}, TOKENS["RS256"].encode()), compact({"cty": "JWT"}, TOKENS["RS256"]),
    compact({"cty": "JWT"}, {}),
    compact(b'{"a": 1, "a": 2}', b'{"a": [1, 1.0]}'), compact(b'{"a": "\xff"}', b'{"a": "\\ud800"}'),
    compact(b'{"a": NaN}', {}), compact(b'{"a": "\\ud800", "b": NaN}', {}), compact(b" {} ", b'{"\\u00e9": "\\u2028"}'),
    f"{segment({'a': '+/'})}.{b64encode(b'[???>>>]').decode()}.AA", 5, None,
]  # fmt: skip
HEADERS: list[Any] = [
    {"alg": "HS256", "crit": ["a"], "a": 1}, {"alg": "HS256", "crit": ["a"]}, {"alg": "HS256", "crit": []},
    {"alg": "HS256", "crit": "a"}, {"alg": "HS256", "crit": [1]}, {"alg": "HS256", "crit": ["kid"], "kid": "x"},
    {"alg": "HS256", "": 1}, {"alg": "HS256", "kid": 5}, {"alg": "HS256", "typ": None}, {"alg": "HS256", "cty": []},
    {"alg": "HS256", "typ": "at+jwt"}, {"alg": "HS256", "kid": "x", "more": {"a": [1]}},
]  # fmt: skip
CONSTRAINTS: list[Any] = [
    {}, {"alg": "HS256"}, {"alg": "HS384"}, {"iss": "me"}, {"iss": "you"}, {"aud": "you"}, {"aud": "they"},
    {"aud": "me"},     {"aud": "you", "time": 1500e9}, {"aud": "you", "time": 999e9}, {"aud": "you", "time": 1000e9},
    {"aud": "you", "time": 2000 * 10**9}, {"aud": "you", "time": 2000 * 10**9 - 1},
    {"aud": "you", "time": 0}, {"aud": "you", "time": -1}, {"aud": "you", "time": "1"}, {"aud": "you", "nope": 1},
    {"aud": ["you"]}, {"iss": None}, {"cert": pem(RSA)}, {"secret": ""}, {"secret": "another"}, {"alg": ""}, 5,
]  # fmt: skip
CLAIM_SETS: list[Any] = [
    {}, {"aud": "you"}, {"aud": ["you"]}, {"aud": []}, {"aud": [1, "you"]}, {"aud": 5}, {"aud": None}, {"iss": "me"},
    {"exp": 1500}, {"exp": 1500.5}, {"exp": "1500"}, {"exp": None}, {"nbf": 1500}, {"nbf": 1500.5},
    {"nbf": "1500"}, {"nbf": 1499.9999999}, {"exp": 10**30}, {"exp": -1}, {"aud": ""}, {"aud": [""]},
]  # fmt: skip
SIGN_KEYS: list[Any] = [
    oct_key(), oct_key("x"), {"kty": "oct", "k": ""}, jwk_of(RSA), public_jwk(RSA), jwk_of(ED), public_jwk(ED),
    {"keys": [oct_key(), jwk_of(RSA)]}, {"keys": []}, {}, jwk_of(RSA) | {"d": ""}, oct_key(alg="RS256"),
    {name: value for name, value in jwk_of(RSA).items() if name not in ("dp", "dq", "qi")},
    {name: value for name, value in jwk_of(RSA).items() if name != "p"}, jwk_of(X25519), jwk_of(P256) | {"d": "AA"},
    jwk_of(ED) | {"x": public_jwk(private_key("Ed25519", 1))["x"]},
]  # fmt: skip
RAW: list[tuple[str, str]] = [
    ('{"alg":"HS256"}', "{}"), ('{"alg":"HS256"}', "x"), ('{"alg":"HS256","typ":"text"}', "x"), ("{}", "{}"),
    ('{"alg":"HS256","typ":"JWT"}', "x"), ('{"typ":"JWT",\r\n "alg":"HS256"}', '{"iss":"joe",\r\n "a":1}'),
    ('{"alg":"none"}', "{}"), ('{"alg":"Ed25519"}', "{}"), ('{"alg":5}', "{}"), ("x", "{}"),
    ('{"alg":"HS256","typ":5}', "x"),
    ('{"alg":"HS512","typ":"JWT"}', "5"), ('{"alg":"HS384","typ":"JWT"}', '"\u00e9"'), ("[]", "{}"),
]  # fmt: skip


def decode_verify_calls() -> list[Call]:
    """Every constraint with a token that meets it and with tokens that do not."""
    calls: list[Call] = []
    at_1500 = {"aud": "you", "time": 1500 * 10**9}
    for text in (*KEY_TEXTS, *BAD_KEY_TEXTS):
        tokens = ["RS256", "PS384", "ES256", "ES512", "EdDSA"] if text in KEY_TEXTS else ["RS256"]
        calls += [("io.jwt.decode_verify", [TOKENS[name], at_1500 | {"cert": text}]) for name in tokens]
    for name, text in product(("RS256", "ES256", "EdDSA"), KEY_TEXTS[18:]):
        calls.append(("io.jwt.decode_verify", [TOKENS_BY_ID[name], at_1500 | {"cert": text}]))
    secret = {"secret": SECRET}
    for constraints in CONSTRAINTS:
        given = secret | constraints if isinstance(constraints, dict) else constraints
        calls.append(("io.jwt.decode_verify", [HS[256], given]))
    for found, chosen in product(CLAIM_SETS, ({}, {"aud": "you"}, {"iss": "me"})):
        token = signed({"alg": "HS512"}, found, oct_key())
        calls.append(("io.jwt.decode_verify", [token, secret | chosen | {"time": 1500 * 10**9}]))
    calls += [("io.jwt.decode_verify", [token, secret]) for token in ODD_TOKENS]
    calls += [("io.jwt.decode_verify", [signed(header, {}, oct_key()), secret]) for header in HEADERS]
    calls += [("io.jwt.decode_verify", [HS[size], at_1500 | secret]) for size in HS]
    calls.append(("io.jwt.decode_verify", [HS[256], at_1500 | {"cert": json.dumps(oct_key())}]))
    calls.append(("io.jwt.decode_verify", [P521_ES256, at_1500 | {"cert": pem(P521)}]))
    return calls


def nested_calls() -> list[Call]:
    """A token within a token, both good, or one of them bad."""
    inner, key = signed({"alg": "HS256"}, {"a": 1}, oct_key()), json.dumps(oct_key())
    bad = inner[:-4] + "AAAA"
    calls: list[Call] = []
    for payload, kind in product([inner, json.dumps(inner), bad, "x"], ["JWT", "jwt", "text"]):
        header = json.dumps({"alg": "HS256", "cty": kind, "typ": "outer"})
        token = call_builtin("io.jwt.encode_sign_raw", [header, payload, key])
        calls += [("io.jwt.decode", [token]), ("io.jwt.decode_verify", [token, {"secret": SECRET}])]
    return calls


def test_tokens_are_decoded_as_opa_does(rego_oracle: Oracle) -> None:
    tokens = [*TOKENS.values(), *HS.values(), *ODD_TOKENS]
    assert differences(rego_oracle, [("io.jwt.decode", [token]) for token in tokens]) == []


def test_signatures_are_verified_as_opa_does(rego_oracle: Oracle) -> None:
    calls: list[Call] = []
    for name, text, token in product(VERIFY, KEY_TEXTS, ("RS256", "PS256", "ES256", "EdDSA")):
        calls.append((name, [TOKENS[token], text]))
    for name, algorithm in zip(VERIFY, ALGORITHMS, strict=True):
        calls += [(name, [TOKENS[algorithm], write(SIGNERS[algorithm])]) for write in (pem, certificate)]
        calls += [(name, [TOKENS_BY_ID[algorithm], text]) for text in KEY_TEXTS[18:]]
        calls.append((name, [TOKENS[algorithm][:-8], pem(SIGNERS[algorithm])]))
    calls += [("io.jwt.verify_rs256", [TOKENS["RS256"], text]) for text in BAD_KEY_TEXTS]
    calls += [("io.jwt.verify_rs256", [token, pem(RSA)]) for token in ODD_TOKENS]
    calls += [("io.jwt.verify_es256", [P521_ES256, pem(P521)]), ("io.jwt.verify_es256", [f"{P521_ES256}AA", pem(P521)])]
    calls += [("io.jwt.verify_eddsa", [signed(header, {}, oct_key()), pem(ED)]) for header in HEADERS]
    assert differences(rego_oracle, calls) == []


def test_secrets_are_verified_as_opa_does(rego_oracle: Oracle) -> None:
    names = [f"io.jwt.verify_hs{size}" for size in HS]
    calls: list[Call] = [(name, [token, SECRET]) for name, token in product(names, [*HS.values(), *ODD_TOKENS])]
    calls += [(names[0], [HS[256], secret]) for secret in ("", "another", 5)]
    assert differences(rego_oracle, calls) == []


def test_every_constraint_means_what_it_means_to_opa(rego_oracle: Oracle) -> None:
    assert differences(rego_oracle, decode_verify_calls()) == []


def test_nested_tokens_are_opened_as_opa_does(rego_oracle: Oracle) -> None:
    assert differences(rego_oracle, nested_calls()) == []


def test_signatures_without_chance_are_those_that_opa_makes(rego_oracle: Oracle) -> None:
    algorithms = ["HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "EdDSA"]
    headers: list[Any] = [{"alg": algorithm, "typ": "JWT", "z": 1, "a": "<&>"} for algorithm in algorithms]
    # OPA takes the bytes of an Ed25519 key for a secret; here it is the wrong kind of key.
    calls: list[Call] = [
        ("io.jwt.encode_sign", [header, CLAIMS, key])
        for header, key in product(headers, SIGN_KEYS)
        if not (header["alg"].startswith("HS") and key.get("kty") == "OKP")
    ]
    keys = [json.dumps(oct_key()), "", "{}", json.dumps({"keys": []})]
    calls += [("io.jwt.encode_sign_raw", [*raw, key]) for raw, key in product(RAW, keys)]
    assert differences(rego_oracle, calls) == []


@pytest.mark.parametrize("name", [key for key in ALGORITHMS if key.startswith(("PS", "ES"))])
def test_signatures_by_chance_are_good_to_opa(rego_oracle: Oracle, name: str) -> None:
    token = signed({"alg": name, "typ": "JWT"})
    calls: list[Call] = [
        (f"io.jwt.verify_{name.lower()}", [token, pem(SIGNERS[name])]),
        ("io.jwt.decode_verify", [token, {"cert": pem(SIGNERS[name]), "aud": "you", "time": 1500 * 10**9}]),
    ]
    assert rego_oracle(calls) == [True, [True, {"alg": name, "typ": "JWT"}, CLAIMS]]


def test_without_a_time_the_evaluation_s_own_counts() -> None:
    token, constraints = signed({"alg": "HS256"}, key=oct_key()), {"secret": SECRET, "aud": "you"}
    for seconds, valid in ((999, False), (1000, True), (1999, True), (2000, False)):
        context = Context(seconds * 10**9, Random(1))
        assert call_builtin("io.jwt.decode_verify", [token, constraints], context)[0] is valid


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=9) | st.integers(-(2**53), 2**53) | st.none(), max_size=4))
def test_what_was_signed_is_what_is_decoded(payload: dict[str, Any]) -> None:
    token = signed({"alg": "HS256"}, payload, oct_key())
    assert call_builtin("io.jwt.decode", [token])[1] == payload
    assert call_builtin("io.jwt.verify_hs256", [token, SECRET]) is True
    flipped = token[:-6] + ("A" if token[-6] != "A" else "B") + token[-5:]
    assert call_builtin("io.jwt.verify_hs256", [flipped, SECRET]) is False


def test_what_is_too_large_fails_the_evaluation() -> None:
    huge = "A" * 300_000
    wide = json.dumps({"kty": "RSA", "e": "AQAB", "n": "w" * 3000})
    calls: list[Call] = [
        ("io.jwt.decode", [f"{huge}.."]),
        ("io.jwt.verify_hs256", [f"{huge}..", "x"]),
        ("io.jwt.verify_rs256", [TOKENS["RS256"], huge]),
        ("io.jwt.verify_rs256", [TOKENS["RS256"], wide]),
        ("io.jwt.encode_sign_raw", ['{"alg":"HS256","typ":"x"}', huge, json.dumps(oct_key())]),
    ]
    for name, operands in calls:
        with pytest.raises(EvaluationError, match="too large"):
            call_builtin(name, operands)
    with pytest.raises(EvaluationError, match="number is too large"):
        call_builtin("io.jwt.decode", [compact({}, b'{"a": 1e400}')])
    assert call_builtin("io.jwt.decode", ["x.y.z"]) is UNDEFINED


def test_where_opa_itself_crashes_there_is_no_result() -> None:
    issued = signed({"alg": "HS256"}, {"iss": 5}, oct_key())
    assert call_builtin("io.jwt.decode_verify", [issued, {"secret": SECRET, "iss": "me"}]) is UNDEFINED
    assert call_builtin("io.jwt.decode", [compact({"cty": 5}, {})]) is UNDEFINED


def test_tokens_nested_without_end_fail_the_evaluation() -> None:
    token = signed({"alg": "HS256"}, {}, oct_key())
    for _ in range(24):
        token = compact({"cty": "JWT"}, token.encode(), "AA")
        if len(token) > 200_000:
            break
    assert call_builtin("io.jwt.decode", [token])[1] == {}


def test_reading_a_token_or_checking_a_secret_imports_no_cryptography() -> None:
    program = (
        "import sys; from sark_pdp.engine.wasm.builtins import resolve; "
        "resolve(['io.jwt.decode', 'io.jwt.verify_hs256']); print('cryptography' in sys.modules); "
        "resolve(['io.jwt.verify_rs256']); print('cryptography' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "True"]
