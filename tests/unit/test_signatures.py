"""Signatures of bundles: what OPA signs is accepted here and the other way round, and nothing else is."""

import base64
import hmac
import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from sark_pdp.engine import jws
from sark_pdp.engine.archive import pack_archive, read_archive
from sark_pdp.engine.signatures import SIGNATURES, Key, Keys, read_keys, signed, verify
from sark_pdp.errors import BundleSignatureError

SECRET = b"a secret of some length"
# Numbers as they stand, characters that Go escapes and those that it does not, keys out of order.
DATA = (
    '{"z": -0, "a": {"one": 1.0, "thousand": 1e3, "big": 123456789012345678901234567890, "half": 0.50},'
    ' "é": "<a&b> \\u2028\\u2029\\u007f\\b\\f\\u0001 \\"\\\\/", "A": [null, true, {}, []]}'
)
ALGORITHMS = ("HS256", "HS512", "RS256", "RS384", "PS256", "PS512", "ES256", "ES384", "ES512")


class Pair(msgspec.Struct):
    private: Path
    public: Path


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Pair]:
    """By algorithm; `other` is a second RSA key."""
    folder = tmp_path_factory.mktemp("keys")
    private: dict[str, Any] = {
        "RSA": rsa.generate_private_key(65537, 2048),
        "other": rsa.generate_private_key(65537, 2048),
        "ES256": ec.generate_private_key(ec.SECP256R1()),
        "ES384": ec.generate_private_key(ec.SECP384R1()),
        "ES512": ec.generate_private_key(ec.SECP521R1()),
    }
    pairs: dict[str, Pair] = {}
    for name, key in private.items():
        pairs[name] = Pair(folder / f"{name}.pem", folder / f"{name}.pub")
        pairs[name].private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.TraditionalOpenSSL,
                serialization.NoEncryption(),
            )
        )
        pairs[name].public.write_bytes(
            key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
    secret = folder / "secret"
    secret.write_bytes(SECRET)
    return {**pairs, **{name: Pair(secret, secret) for name in ("HS256", "HS512")}}


def pair(keys: Mapping[str, Pair], algorithm: str) -> Pair:
    return keys["RSA" if algorithm[:2] in {"RS", "PS"} else algorithm]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("policies")
    (folder / "a.rego").write_text("package p\n\nallow if input.x == data.a.one\n")
    (folder / "data.json").write_text(DATA)
    return folder


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_opa_signs_is_verified_here(
    opa: Path, keys: Mapping[str, Pair], sources: Path, tmp_path: Path, algorithm: str
) -> None:
    output = tmp_path / "signed.tar.gz"
    key = SECRET.decode() if algorithm.startswith("HS") else str(pair(keys, algorithm).private)
    command: list[str | Path] = [
        opa,
        "build",
        "--bundle",
        ".",
        "--signing-key",
        key,
        "--signing-alg",
        algorithm,
        "--output",
        output,
    ]
    subprocess.run(command, cwd=sources, check=True)
    files, _ = read_archive(output, 1 << 24)
    verify(output, files, read_keys(pair(keys, algorithm).public))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_is_signed_here_is_verified_by_opa(
    opa: Path, keys: Mapping[str, Pair], tmp_path: Path, algorithm: str
) -> None:
    files = {".manifest": b'{"roots": [""], "revision": "1"}', "data.json": DATA.encode()}
    bundle = tmp_path / "signed.tar.gz"
    private = pair(keys, algorithm).private.read_bytes()
    bundle.write_bytes(pack_archive(signed(files, private, algorithm, "default", "")))

    def verified(key: str) -> bool:
        options: list[str | Path] = [
            "--verification-key",
            key,
            "--signing-alg",
            algorithm,
            "--output",
            tmp_path / "out.tar.gz",
        ]
        run = subprocess.run([opa, "build", "--bundle", bundle, *options], capture_output=True)
        return run.returncode == 0

    if algorithm.startswith("HS"):
        assert verified(SECRET.decode())
        assert not verified("another secret of some length")
    else:
        assert verified(str(pair(keys, algorithm).public))
        if pair(keys, algorithm) is keys["RSA"]:
            assert not verified(str(keys["other"].public))


FILES = {".manifest": b'{"roots": ["a"]}', "data.json": b'{"a": 1}', "policy.wasm": b"\0asm"}
GOOD = Keys({}, Key(SECRET))
Change = Callable[[dict[str, bytes]], Any]


def a_signed(algorithm: str = "HS256", key_id: str = "", scope: str = "") -> dict[str, bytes]:
    return signed(FILES, SECRET, algorithm, key_id, scope)


def token_with(bundle: dict[str, bytes], **claims: Any) -> None:
    """Signs other claims in place of what is stated."""
    stated = json.loads(jws.parse(json.loads(bundle[SIGNATURES])["signatures"][0]).payload)
    token = jws.sign(json.dumps(stated | claims).encode(), SECRET, "HS256", "")
    bundle[SIGNATURES] = json.dumps({"signatures": [token]}).encode()


def unsigned_token(files: dict[str, bytes]) -> None:
    """As an attacker makes one: the algorithm none."""
    token = json.loads(files[SIGNATURES])["signatures"][0]
    head = jws._encoded(b'{"alg":"none"}').decode()
    files[SIGNATURES] = json.dumps({"signatures": [f"{head}.{token.split('.')[1]}."]}).encode()


def signatures(text: str) -> Change:
    return lambda files: files.update({SIGNATURES: text.encode()})


CHANGES: dict[str, tuple[Change, str]] = {
    "no signature": (lambda files: files.pop(SIGNATURES), "is not signed"),
    "a changed file": (lambda files: files.update({"policy.wasm": b"\0asm\1"}), "policy.wasm is not the file that was"),
    "changed data": (lambda files: files.update({"data.json": b'{"a": 2}'}), "data.json is not the file that was"),
    "a number of another form": (lambda files: files.update({"data.json": b'{"a": 1.0}'}), "data.json is not the file"),
    "data that is no JSON": (lambda files: files.update({"data.json": b'{"a": NaN}'}), "data.json is not valid JSON"),
    "a file more": (lambda files: files.update({"x/data.json": b"1"}), "x/data.json, which its signature does not"),
    "a file less": (lambda files: files.pop("data.json"), "lacks data.json"),
    "no JSON": (signatures("{"), "is not as it should be"),
    "no token": (signatures("{}"), "holds 0 tokens"),
    "two tokens": (signatures('{"signatures": ["a", "b"]}'), "holds 2 tokens"),
    "a token of two parts": (signatures('{"signatures": ["a.b"]}'), "no compact JSON Web Signature"),
    "a plugin": (signatures('{"signatures": ["a.b.c"], "plugin": "mine"}'), "plugin 'mine'"),
    "no algorithm": (unsigned_token, "algorithm 'none' is not one of"),
    "MD5": (
        lambda files: token_with(files, files=[{"name": name, "hash": "00", "algorithm": "MD5"} for name in FILES]),
        "'MD5' for .manifest, which proves nothing",
    ),
    "another scope": (lambda files: token_with(files, scope="write"), "for the scope 'write', and its key is for ''"),
    "claims of other types": (lambda files: token_with(files, files="all"), "is not as it should be"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_what_was_not_signed_so_is_refused_in_one_sentence(case: str) -> None:
    change, message = CHANGES[case]
    files = a_signed()
    verify("b", files, GOOD)
    change(files)
    with pytest.raises(BundleSignatureError, match=message) as caught:
        verify("b", files, GOOD)
    assert str(caught.value).startswith("bundle b: ")


def test_a_signed_bundle_without_a_key_is_refused() -> None:
    verify("b", FILES, None)
    with pytest.raises(BundleSignatureError, match="is signed, and no verification key is configured"):
        verify("b", a_signed(), None)


def test_json_is_compared_by_what_it_means() -> None:
    verify("b", {**a_signed(), "data.json": b' {"a" : 1}\n'}, GOOD)


def der(public: bytes) -> bytes:
    return base64.b64decode(b"".join(public.splitlines()[1:-1]))


def ssh(public: bytes) -> bytes:
    return serialization.load_pem_public_key(public).public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )


FORMS: dict[str, Callable[[bytes], bytes]] = {
    "PEM": lambda public: public,
    "PEM after an empty line": lambda public: b"\n" + public,
    "PEM after a byte order mark": lambda public: b"\xef\xbb\xbf" + public,
    "PEM after text, as openssl writes it": lambda public: b"Public-Key: (2048 bit)\n" + public,
    "DER": der,
    "DER with a line end": lambda public: der(public) + b"\n",
    "base64": lambda public: b"".join(public.splitlines(keepends=True)[1:-1]),
    "SSH": ssh,
}


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
@pytest.mark.parametrize("form", FORMS)
def test_a_public_key_is_no_secret(keys: Mapping[str, Pair], algorithm: str, form: str) -> None:
    public = FORMS[form](pair(keys, algorithm).public.read_bytes())
    # What an attacker would sign with, who knows the public key alone.
    head = jws._encoded(b'{"alg":"HS256"}')
    signed_ = head + b"." + jws._encoded(b"{}")
    token = (signed_ + b"." + jws._encoded(hmac.digest(public, signed_, "sha256"))).decode()
    with pytest.raises(BundleSignatureError, match="the key is public, and HS256 needs a secret"):
        jws.is_valid(jws.parse(token), public)


@pytest.mark.parametrize("form", [form for form in FORMS if "text" in form or "empty" in form])
def test_text_before_a_public_key_does_not_count(tmp_path: Path, keys: Mapping[str, Pair], form: str) -> None:
    path = tmp_path / "key"
    path.write_bytes(FORMS[form](keys["RSA"].public.read_bytes()))
    verify("b", signed(FILES, keys["RSA"].private.read_bytes(), "RS256", "", ""), read_keys(path))


@pytest.mark.parametrize("secret", [b"0", b"0123456789abcdef", b"MIIBIjANBgkqhkiG9w0BAQ==", b"\x30\x82 not DER"])
def test_a_secret_that_begins_as_a_key_does_is_one(secret: bytes) -> None:
    verify("b", signed(FILES, secret, "HS256", "", ""), Keys({}, Key(secret)))


KEY_FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"\n", "is empty"),
    "JSON of another shape": (b'{"keys": []}', "not as OPA's keys are configured"),
    "no keys": (b"{}", "holds no key"),
    "an empty key": (b'{"a": {"key": ""}}', "holds no key"),
}


@pytest.mark.parametrize("case", KEY_FILES)
def test_a_key_file_that_cannot_be_used_is_named(tmp_path: Path, case: str) -> None:
    content, message = KEY_FILES[case]
    path = tmp_path / "key"
    path.write_bytes(content)
    with pytest.raises(BundleSignatureError, match=message) as caught:
        read_keys(path)
    assert str(path) in str(caught.value)


def test_a_line_end_of_a_secret_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(SECRET + b"\n")
    verify("b", a_signed(), read_keys(path))


def test_a_private_key_is_not_taken_for_verification(keys: Mapping[str, Pair]) -> None:
    files = signed(FILES, keys["RSA"].private.read_bytes(), "RS256", "", "")
    with pytest.raises(BundleSignatureError, match="the verification key is private"):
        verify("b", files, read_keys(keys["RSA"].private))


IDS: list[tuple[str, str, str, str | None]] = [
    ("one", "read", "HS256", None),
    ("two", "read", "HS256", "was not made with the configured key"),
    ("three", "read", "HS256", "signed with the key 'three'; the configured ones are 'one', 'two'"),
    ("", "read", "HS256", "signed with the key ''"),
    ("one", "write", "HS256", "for the scope 'write', and its key is for 'read'"),
    ("one", "read", "HS512", "signed with HS512, and its key is for HS256"),
]


@pytest.mark.parametrize(("key_id", "scope", "algorithm", "problem"), IDS)
def test_of_several_keys_the_named_one_counts_with_its_scope_and_algorithm(
    tmp_path: Path, key_id: str, scope: str, algorithm: str, problem: str | None
) -> None:
    path = tmp_path / "keys.json"
    one = {"key": SECRET.decode(), "algorithm": "HS256", "scope": "read"}
    path.write_text(json.dumps({"one": one, "two": {**one, "key": "another secret"}}))
    files = a_signed(algorithm, key_id, scope)
    if problem is None:
        verify("b", files, read_keys(path))
        return
    with pytest.raises(BundleSignatureError, match=problem):
        verify("b", files, read_keys(path))
