"""`crypto.x509.*` and `crypto.parse_private_keys` return what OPA returns."""

from base64 import b64encode
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from itertools import product
from random import Random
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import (
    AuthorityInformationAccessOID,
    ExtendedKeyUsageOID,
    NameOID,
    ObjectIdentifier,
    SignatureAlgorithmOID,
)

from sark_pdp.engine.wasm.builtins import UNDEFINED, Context
from sark_pdp.errors import EvaluationError
from tests.fix_keys import private_key
from tests.fix_rego import Call, Oracle, call_builtin, differences

NOW = datetime.now(UTC).replace(microsecond=0)
PARSE, VERIFY = "crypto.x509.parse_certificates", "crypto.x509.parse_and_verify_certificates"
VERIFY_WITH = f"{VERIFY}_with_options"
RSA, P256, P384, ED = map(private_key, ("RSA", "P-256", "P-384", "Ed25519"))
CA = (x509.BasicConstraints(ca=True, path_length=None), True)
SERVER = (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
NAMES = x509.SubjectAlternativeName([
    x509.DNSName("a.example.com"), x509.DNSName("*.b.example.com"), x509.DNSName("odd_name"), x509.RFC822Name("a@b.c"),
    x509.IPAddress(ip_address("10.0.0.1")), x509.IPAddress(ip_address("fe80::1")),
    x509.UniformResourceIdentifier("spiffe://example.org/ns/a%2Fb?x=1#f"),
    x509.UniformResourceIdentifier("http://u:p@h:80"),
    x509.DirectoryName(x509.Name([])), x509.RegisteredID(ObjectIdentifier("1.2.3")),
])  # fmt: skip
RICH: list[tuple[Any, bool]] = [
    (NAMES, False),
    (x509.KeyUsage(*[True, False, True, False, True, True, False, False, False]), True),
    (x509.KeyUsage(*[False, False, False, False, True, False, False, True, True]), False),
    (
        x509.ExtendedKeyUsage(
            [
                ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
                ExtendedKeyUsageOID.OCSP_SIGNING,
                ObjectIdentifier("1.2.3.4.5"),
            ]
        ),
        False,
    ),
    (x509.SubjectKeyIdentifier(b"\x01\x02"), False),
    (x509.AuthorityKeyIdentifier(b"\x03\x04", None, None), False),
    (
        x509.CRLDistributionPoints(
            [
                x509.DistributionPoint([x509.UniformResourceIdentifier("http://crl/a")], None, None, None),
                x509.DistributionPoint([x509.UniformResourceIdentifier("http://crl/b")], None, None, None),
            ]
        ),
        False,
    ),
    (
        x509.AuthorityInformationAccess(
            [
                x509.AccessDescription(
                    AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier("http://ocsp")
                ),
                x509.AccessDescription(
                    AuthorityInformationAccessOID.CA_ISSUERS, x509.UniformResourceIdentifier("http://ca")
                ),
            ]
        ),
        False,
    ),
    (
        x509.CertificatePolicies(
            [
                x509.PolicyInformation(ObjectIdentifier("1.2.840.1"), None),
                x509.PolicyInformation(ObjectIdentifier("2.23.140.1.2.1"), ["http://cps"]),
            ]
        ),
        False,
    ),
    (x509.PolicyConstraints(0, 3), True),
    (x509.InhibitAnyPolicy(2), True),
    (
        x509.NameConstraints(
            [x509.DNSName("example.com"), x509.IPAddress(ip_network("10.0.0.0/8"))],
            [x509.RFC822Name("a@b.c"), x509.UniformResourceIdentifier("h.org")],
        ),
        True,
    ),
    (x509.NameConstraints([x509.DirectoryName(x509.Name([]))], None), True),
    (x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4"), b"\x05\0"), True),
    (x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4"), b"\x05\0"), False),
    (x509.UnrecognizedExtension(ObjectIdentifier("2.5.29.99"), b"x"), True),
    (x509.BasicConstraints(ca=False, path_length=None), True),
    (x509.BasicConstraints(ca=True, path_length=0), False),
    (x509.SubjectAlternativeName([x509.DirectoryName(x509.Name([]))]), True),
    (x509.SubjectKeyIdentifier(b"\x01\x02"), True),
    (x509.UnrecognizedExtension(ObjectIdentifier("2.5.29.37"), b"\x05\0"), False),
    (x509.UnrecognizedExtension(ObjectIdentifier("2.5.29.33"), bytes.fromhex("300d300b06042a03040506032a0304")), False),
]


def name(text: str) -> x509.Name:
    """With every kind of part that has a field of its own, and one that has none."""
    parts = {
        NameOID.COUNTRY_NAME: "DE", NameOID.ORGANIZATION_NAME: "Größe", NameOID.LOCALITY_NAME: "x y",
        NameOID.STATE_OR_PROVINCE_NAME: "s", NameOID.STREET_ADDRESS: "1", NameOID.POSTAL_CODE: "2",
        NameOID.SERIAL_NUMBER: "3",
        NameOID.ORGANIZATIONAL_UNIT_NAME: "u", NameOID.TITLE: "t", NameOID.EMAIL_ADDRESS: "a@b",
        NameOID.COMMON_NAME: text,
    }  # fmt: skip
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in parts.items()])


def certificate(
    subject: str,
    key: Any,
    issuer: tuple[str, Any] | None = None,
    extensions: Any = (),
    *,
    days: tuple[int, int] = (-1, 30),
    algorithm: Any = None,
    **options: Any,
) -> x509.Certificate:
    """Signed by the issuer, or by itself."""
    issuer_name, issuer_key = issuer or (subject, key)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(issuer_name))
        .public_key(key.public_key())
        .serial_number(int.from_bytes(subject.encode()[:19]) + 1)
        .not_valid_before(NOW + timedelta(days=days[0]))
        .not_valid_after(NOW + timedelta(days=days[1]))
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    chosen = None if isinstance(issuer_key, ed25519.Ed25519PrivateKey) else algorithm or hashes.SHA256()
    return builder.sign(issuer_key, chosen, **options)


def pem(*parts: x509.Certificate) -> str:
    """One after another."""
    return "".join(part.public_bytes(Encoding.PEM).decode() for part in parts)


def der(*parts: x509.Certificate) -> str:
    """One after another, in Base64."""
    return b64encode(b"".join(part.public_bytes(Encoding.DER) for part in parts)).decode()


ROOT = certificate("root", P256, extensions=[CA])
MIDDLE = certificate("middle", RSA, ("root", P256), [CA])
LEAF = certificate("leaf", P384, ("middle", RSA), [(NAMES, False), SERVER])
PSS: dict[str, Any] = {"rsa_padding": padding.PSS(padding.MGF1(hashes.SHA384()), 48)}
ODD_PSS: dict[str, Any] = {"rsa_padding": padding.PSS(padding.MGF1(hashes.SHA256()), 20)}
PARSED: list[x509.Certificate] = [
    ROOT, MIDDLE, LEAF, *(certificate("rich", P256, extensions=[extension]) for extension in RICH),
    *(certificate("key", private_key(kind)) for kind in ("RSA", "P-384", "P-521", "Ed25519")),
    certificate("curve", ec.generate_private_key(ec.SECP224R1())),
    certificate("x" * 60, RSA, algorithm=hashes.SHA512()), certificate("pss", RSA, algorithm=hashes.SHA384(), **PSS),
    certificate("pss", RSA, algorithm=hashes.SHA256(), **ODD_PSS), certificate("past", ED, days=(-20000, -10)),
    certificate("future", ED, days=(1, 20000)),
]  # fmt: skip
ODD_TEXTS: list[Any] = [
    "", "x", "AAAA", pem(ROOT) + "x", "x\n" + pem(ROOT), pem(ROOT)[:-40], pem(ROOT).replace("CERTIFICATE", "X509"),
    der(ROOT) + "AAAA", der(ROOT)[:-4], b64encode(pem(ROOT, LEAF).encode()).decode(), pem(ROOT).replace("\n", "\r\n"),
    5, None, "-----BEGIN",
    b64encode(ROOT.public_bytes(Encoding.DER).replace(b"\x02\x01\x02", b"\x02\x01\x05", 1)).decode(), "MAA=", "MIAA",
]  # fmt: skip


def chains() -> list[list[x509.Certificate]]:
    """Good ones, and one for each thing that can be wrong."""
    leaf = certificate("leaf", P384, ("root", P256), [SERVER])
    client = certificate(
        "leaf", P384, ("root", P256), [(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False)]
    )
    no_sign = x509.KeyUsage(*[True, *[False] * 8])
    sign = x509.KeyUsage(*[False, False, False, False, False, True, False, False, False])
    short = certificate("short", P256, extensions=[(x509.BasicConstraints(ca=True, path_length=0), True)])
    far = certificate("far", P256, ("middle", RSA), [CA])
    critical = [(x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4"), b"\x05\0"), True)]
    return [
        [ROOT, MIDDLE, LEAF], [ROOT, LEAF], [ROOT, leaf], [ROOT, client], [ROOT], [], [ROOT, ROOT], [MIDDLE, LEAF],
        [ROOT, MIDDLE, MIDDLE, LEAF], [ROOT, far, MIDDLE, certificate("leaf", P384, ("far", P256))],
        [LEAF, MIDDLE, ROOT],
        [ROOT, certificate("leaf", P384, ("root", P384))], [ROOT, certificate("leaf", P384, ("other", P256))],
        [ROOT, certificate("leaf", P384, ("root", P256), days=(-5, -1))],
        [ROOT, certificate("leaf", P384, ("root", P256), days=(1, 5))],
        [certificate("root", P256, extensions=[CA], days=(-5, -1)), leaf],
        [certificate("root", P256), leaf], [certificate("root", P256, extensions=[CA, (no_sign, True)]), leaf],
        [certificate("root", P256, extensions=[CA, (sign, True)]), leaf],
        [certificate("root", P256, extensions=[CA, *critical]), leaf],
        [ROOT, certificate("leaf", P384, ("root", P256), critical)],
        [ROOT, certificate("middle", RSA, ("root", P256)), LEAF],
        [short, certificate("middle", RSA, ("short", P256), [CA]), LEAF],
        [short, certificate("leaf", P384, ("short", P256))],
        [certificate("ed", ED, extensions=[CA]), certificate("leaf", P384, ("ed", ED))],
        [certificate("rsa", RSA, extensions=[CA]), certificate("leaf", P384, ("rsa", RSA), algorithm=hashes.SHA384(),
        **PSS)],
        [certificate("root", P256, extensions=[CA, SERVER]), client], [certificate("root",
        P256, extensions=[CA, SERVER]), leaf],
        [certificate("root", P256, extensions=[CA, (x509.SubjectKeyIdentifier(b"1"), False)]), leaf],
        [ROOT, certificate("middle", P384, ("root", P256), [CA]), MIDDLE, LEAF],
    ]  # fmt: skip


KEYS = [
    key.private_bytes(encoding, kind, NoEncryption())
    for key, kinds in (
        (RSA, (PrivateFormat.TraditionalOpenSSL, PrivateFormat.PKCS8)),
        (P256, (PrivateFormat.TraditionalOpenSSL, PrivateFormat.PKCS8)),
        (ED, (PrivateFormat.PKCS8,)),
    )
    for kind, encoding in product(kinds, (Encoding.PEM, Encoding.DER))
]
KEY_TEXTS: list[Any] = [
    *(key.decode() if key.startswith(b"-----") else b64encode(key).decode() for key in KEYS),
    *(b64encode(key).decode() for key in KEYS if key.startswith(b"-----")),
    KEYS[0].decode() + KEYS[4].decode() + pem(ROOT),
    KEYS[0].decode().replace("RSA PRIVATE", "PRIVATE"),
    KEYS[2].decode().replace("PRIVATE", "RSA PRIVATE"),
    KEYS[4].decode().replace("EC PRIVATE", "RSA PRIVATE"),
    "x\n" + KEYS[0].decode(),
    KEYS[0].decode()[:-40],
    pem(ROOT),
    *("", "x", "-----BEGIN", 5, None),
]


def requests() -> list[Any]:
    """Certificate requests, and texts that are none."""
    plain = x509.CertificateSigningRequestBuilder().subject_name(name("request"))
    rich = plain.add_extension(NAMES, critical=False).add_extension(*CA)
    challenge = plain.add_attribute(x509.oid.AttributeOID.CHALLENGE_PASSWORD, b"secret")
    made = [builder.sign(key, hashes.SHA256()) for builder, key in product((plain, rich, challenge), (RSA, P256))]
    raw = [request.public_bytes(encoding) for request, encoding in product(made, (Encoding.PEM, Encoding.DER))]
    texts = [text.decode() if text.startswith(b"-----") else b64encode(text).decode() for text in raw]
    return [
        *texts,
        b64encode(raw[0]).decode(),
        texts[1] + "AAAA",
        pem(ROOT),
        der(ROOT),
        "",
        "x",
        texts[0][:-40],
        "\n" + texts[0],
        5,
    ]


def test_certificates_have_the_fields_that_opa_shows(rego_oracle: Oracle) -> None:
    texts = [*map(pem, PARSED), *map(der, PARSED), pem(*PARSED[:5]), der(*PARSED[:5]), *ODD_TEXTS]
    assert differences(rego_oracle, [(PARSE, [text]) for text in texts]) == []


def test_chains_are_good_or_bad_as_opa_says(rego_oracle: Oracle) -> None:
    texts = [*(pem(*chain) for chain in chains()), *(der(*chain) for chain in chains()[:3]), *ODD_TEXTS]
    # OPA asks its own clock.
    context = Context(int(NOW.timestamp()) * 10**9, Random(1))
    calls: list[Call] = [(VERIFY, [text]) for text in texts]
    expected = rego_oracle(calls)
    assert sum(result is not UNDEFINED and result[0] for result in expected) > 5
    assert [call_builtin(*call, context) for call in calls] == expected


def test_options_mean_what_they_mean_to_opa(rego_oracle: Oracle) -> None:
    now = int(NOW.timestamp()) * 10**9
    days = 86400 * 10**9
    names = [
        "a.example.com", "A.Example.COM", "a.example.com.", "x.b.example.com", "x.y.b.example.com", "b.example.com",
        "odd_name", "",
        "10.0.0.1", "10.0.0.2", "[fe80::1]", "fe80::1", "::ffff:10.0.0.1", "*.b.example.com", "x", '"a.example.com"', 5,
    ]  # fmt: skip
    options: list[Any] = [
        *({"DNSName": text, "CurrentTime": now} for text in names),
        *({"CurrentTime": now + shift} for shift in (0, -2 * days, 31 * days, -days, 30 * days, 30 * days + 1)),
        *({"CurrentTime": time} for time in (0, 1.5, "1", None)),
        *({"CurrentTime": now, "KeyUsages": usages} for usages in (
            [], ["KeyUsageServerAuth"], ["KeyUsageClientAuth"], ["KeyUsageAny"], ["KeyUsageClientAuth",
            "KeyUsageServerAuth"],
            ["nope"], "KeyUsageAny", None,
        )),
        {"CurrentTime": now, "MaxConstraintComparisons": 5}, {"MaxConstraintComparisons": "5"}, {"nope": 1}, 5, [],
    ]  # fmt: skip
    calls: list[Call] = [(VERIFY_WITH, [pem(ROOT, MIDDLE, LEAF), each]) for each in options]
    calls += [(VERIFY_WITH, [text, {"CurrentTime": now}]) for text in ODD_TEXTS]
    assert differences(rego_oracle, calls) == []


def test_what_go_would_check_and_this_does_not_fails_the_evaluation() -> None:
    constraints = (x509.NameConstraints([x509.DNSName("example.com")], None), True)
    explicit = (x509.PolicyConstraints(0, None), True)
    context = Context(int(NOW.timestamp()) * 10**9, Random(1))
    for extension in (constraints, explicit):
        root = certificate("root", P256, extensions=[CA, extension])
        with pytest.raises(EvaluationError, match="not checked here"):
            call_builtin(VERIFY, [pem(root, certificate("leaf", P384, ("root", P256)))], context)


def test_private_keys_are_those_that_opa_reads(rego_oracle: Oracle) -> None:
    names = ("crypto.parse_private_keys", "crypto.x509.parse_rsa_private_key")
    assert differences(rego_oracle, [(each, [text]) for each, text in product(names, KEY_TEXTS)]) == []


def test_pairs_are_those_that_opa_finds(rego_oracle: Oracle) -> None:
    certificates: list[Any] = [
        pem(certificate("pair", RSA)), der(certificate("pair", P256)), pem(certificate("pair", ED), ROOT), pem(LEAF),
        "x", "", 5,
        b64encode(pem(certificate("pair", RSA)).encode()).decode(), KEYS[0].decode(), pem(ROOT).replace("CERTIFICATE",
        "X"),
    ]  # fmt: skip
    calls: list[Call] = [("crypto.x509.parse_keypair", list(pair)) for pair in product(certificates, KEY_TEXTS)]
    assert differences(rego_oracle, calls) == []


def test_requests_have_the_fields_that_opa_shows(rego_oracle: Oracle) -> None:
    assert differences(rego_oracle, [("crypto.x509.parse_certificate_request", [text]) for text in requests()]) == []


def test_what_is_too_large_fails_the_evaluation() -> None:
    calls: list[Call] = [(PARSE, ["A" * 300_000]), (PARSE, [der(*[ROOT] * 65)]), (VERIFY, [pem(*[ROOT] * 65)])]
    for each, operands in calls:
        with pytest.raises(EvaluationError, match=r"too large|too many"):
            call_builtin(each, operands)


def test_a_certificate_signed_with_sha_1_is_shown_and_never_trusted(rego_oracle: Oracle) -> None:
    raw = ROOT.public_bytes(Encoding.DER)
    names = {SignatureAlgorithmOID.ECDSA_WITH_SHA256: "06082a8648ce3d040302", "sha1": "06072a8648ce3d0401"}
    assert raw.count(bytes.fromhex(names[SignatureAlgorithmOID.ECDSA_WITH_SHA256])) == 2
    text = b64encode(raw.replace(bytes.fromhex("2a8648ce3d040302"), bytes.fromhex("2a8648ce3d04037f"))).decode()
    assert differences(rego_oracle, [(PARSE, [text])]) == []
    assert call_builtin(VERIFY, [text], Context(0, Random(1))) == [False, []]
