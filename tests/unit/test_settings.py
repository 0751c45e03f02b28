"""Settings: what wins over what, what is refused and how that is said."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sark_pdp.addresses import TcpAddress, UnixAddress
from sark_pdp.errors import SettingsError
from sark_pdp.settings import BundleSettings, Loaded, load, variables_of
from sark_pdp.settings.keys import variable_of

HOME = {"HOME": "/home/eve"}
"""A small environment, so that the one of the test run does not matter."""

DEFAULTS = {
    "listen.grpc": ["127.0.0.1:9001"],
    "listen.http": ["127.0.0.1:9002"],
    "listen.metrics": "127.0.0.1:9004",
    "listen.admin": "unix:///home/eve/.local/state/sark-pdp/run/admin.sock",
    "listen.socket_mode": 0o660,
    "listen.socket_owner": None,
    "listen.insecure": False,
    "transport": "auto",
    "policy.entrypoint": "sark/mcp/decision",
    "policy.ext_authz_entrypoint": "envoy/authz/allow",
    "policy.gateway_entrypoint": None,
    "policy.a2a_entrypoint": None,
    "policy.ext_authz_allowed": [],
    "policy.ext_authz_dry_run": False,
    "policy.ext_authz_on_failure": "deny",
    "policy.ext_authz_parse_body": True,
    "policy.ext_authz_proto_descriptor": None,
    "cache.l1.size": 1000,
    "cache.l1.ttl": 10.0,
    "cache.max_staleness": 300.0,
    "cache.l2.url": None,
    "cache.l2.ttl": 60.0,
    "cache.l2.mode": "always",
    "cache.l2.timeout": 0.005,
    "cache.l2.prefix": "sark",
    "cache.l2.mac_key_file": None,
    "cache.l2.username_file": None,
    "cache.l2.password_file": None,
    "cache.l2.ca_file": None,
    "cache.l2.client_cert_file": None,
    "cache.l2.client_key_file": None,
    "attributes.postgres_dsn": None,
    "attributes.postgres_password_file": None,
    "attributes.pool_size": 2,
    "attributes.pool_overflow": 0,
    "attributes.timeout": 0.5,
    "attributes.ttl": 60.0,
    "attributes.l1.size": 5000,
    "attributes.l1.ttl": 10.0,
    "attributes.trust_caller": False,
    "audit.spool_dir": "/home/eve/.local/state/sark-pdp/audit",
    "audit.spool_max_bytes": 2**30,
    "audit.writer": [],
    "audit.tls.ca_file": None,
    "audit.tls.cert_file": None,
    "audit.tls.key_file": None,
    "audit.tls.server_name": None,
    "audit.tls.insecure": False,
    "audit.on_full": "drop",
    "audit.mask": [],
    "audit.mask_key_file": None,
    "audit.chain_key_file": None,
    "tls.cert_file": None,
    "tls.key_file": None,
    "tls.client_ca_file": None,
    "tls.allowed_sans": [],
    "principal.jwt.issuer": None,
    "principal.jwt.audience": [],
    "principal.jwt.algorithms": ["ES256", "RS256"],
    "principal.jwt.jwks_file": None,
    "principal.jwt.jwks_url": None,
    "principal.jwt.jwks_ca_file": None,
    "principal.jwt.jwks_interval": 300.0,
    "principal.jwt.header": "authorization",
    "principal.jwt.user_claim": "sub",
    "principal.jwt.user_attributes": ["email", "roles", "teams"],
    "principal.jwt.leeway": 30.0,
    "principal.trusted_header": None,
    "principal.mtls": False,
    "principal.trusted_peers": [],
    "limits.eval_timeout": 0.05,
    "limits.max_input_bytes": 2**20,
    "limits.in_flight_bytes": 16 * 2**20,
    "limits.wasm_memory": 64 * 2**20,
    "limits.max_bundle_bytes": 2**27,
    "limits.max_concurrent": 1000,
    "limits.max_batch": 1000,
    "limits.max_depth": 30,
    "limits.max_values": 20_000,
    "limits.max_message_bytes": 4 * 2**20,
    "shutdown.grace": 10.0,
    "log.level": "info",
    "log.format": "json",
    "tracing.otlp_endpoint": None,
    "tracing.ca_file": None,
    "tracing.sample_ratio": 1.0,
    "tracing.service_name": "sark-pdp",
    "address": "127.0.0.1:9001",
    "state_dir": "/home/eve/.local/state/sark-pdp",
}


def value(loaded: Loaded, key: str) -> Any:
    """What the typed settings hold under a dotted key, addresses and paths as text."""
    found: Any = loaded.settings
    for part in key.split("."):
        found = getattr(found, part)
    if isinstance(found, tuple):
        return [str(item) for item in found]
    return str(found) if isinstance(found, Path | TcpAddress | UnixAddress) else found


def refused(config: Path | None = None, overrides: tuple[str, ...] = (), environ: Mapping[str, str] = HOME) -> str:
    """The one line that says why."""
    with pytest.raises(SettingsError) as caught:
        load(config, overrides, environ)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "sark-pdp.yaml"


@pytest.mark.parametrize("key", DEFAULTS)
def test_what_nobody_sets_has_the_documented_default(key: str) -> None:
    loaded = load(None, [], HOME)
    assert value(loaded, key) == DEFAULTS[key]
    assert loaded.origins[key] == "default"


def test_the_default_bundle_is_the_packed_one() -> None:
    (bundle,) = load(None, [], HOME).settings.policy.bundles
    assert bundle.path is not None
    assert (bundle.name, bundle.path.name, bundle.path.parent.name) == ("default", "default_bundle.tar.gz", "engine")


def test_every_key_has_an_origin() -> None:
    loaded = load(None, [], HOME)
    assert set(loaded.origins) == set(loaded.values) == {*DEFAULTS, "policy.bundles", "audit.source_name"}


STATE = [
    ({"XDG_STATE_HOME": "/s", "HOME": "/h"}, (), "/s/sark-pdp", "/s/sark-pdp/run/admin.sock"),
    ({"HOME": "/h", "XDG_RUNTIME_DIR": "/r"}, (), "/h/.local/state/sark-pdp", "/r/sark-pdp/admin.sock"),
    ({"HOME": "/"}, (), "/var/lib/sark-pdp", "/var/lib/sark-pdp/run/admin.sock"),
    ({}, (), "/var/lib/sark-pdp", "/var/lib/sark-pdp/run/admin.sock"),
    ({"XDG_RUNTIME_DIR": "/r"}, ("state_dir=/mine",), "/mine", "/mine/run/admin.sock"),
]


@pytest.mark.parametrize(("environ", "overrides", "state_dir", "admin"), STATE)
def test_folders_follow_the_machine_and_the_state_folder(
    environ: dict[str, str], overrides: tuple[str, ...], state_dir: str, admin: str
) -> None:
    settings = load(None, overrides, environ).settings
    assert settings.state_dir == Path(state_dir)
    assert settings.audit.spool_dir == Path(state_dir, "audit")
    assert settings.listen.admin == UnixAddress(Path(admin))


ADDRESS = [
    (("listen.grpc=127.0.0.1:7000",), "127.0.0.1:7000"),
    (("listen.grpc=unix:///run/x.sock",), "unix:///run/x.sock"),
    (("listen.grpc=0.0.0.0:7000", "listen.insecure=true"), "127.0.0.1:7000"),
    (("listen.grpc=[::]:7000", "listen.insecure=true"), "[::1]:7000"),
    (("listen.grpc=127.0.0.1:7000", "address=pdp.example.org:443"), "pdp.example.org:443"),
]


@pytest.mark.parametrize(("overrides", "address"), ADDRESS)
def test_a_client_connects_to_where_the_same_settings_listen(overrides: tuple[str, ...], address: str) -> None:
    assert str(load(None, overrides, HOME).settings.address) == address


FILE = """
listen:
  grpc: [127.0.0.1:7001, "unix:///run/pdp.sock"]
  socket_mode: 0600
  insecure: true
policy:
  bundles:
    - {name: mine, path: BUNDLE}
cache: {l1: {size: 5, ttl: 0}}
audit: {spool_max_bytes: 2097152, on_full: deny}
limits: {wasm_memory: 32MiB}
shutdown:
log: {level: debug}
"""


def test_a_file_sets_what_it_names(config: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.tar.gz"
    bundle.touch()
    config.write_text(FILE.replace("BUNDLE", str(bundle)))
    loaded = load(config, [], HOME)
    settings = loaded.settings
    assert [str(address) for address in settings.listen.grpc] == ["127.0.0.1:7001", "unix:///run/pdp.sock"]
    assert settings.listen.socket_mode == 0o600
    assert settings.listen.insecure is True
    assert settings.policy.bundles == (BundleSettings(name="mine", path=bundle),)
    assert (settings.cache.l1.size, settings.cache.l1.ttl) == (5, 0.0)
    assert (settings.audit.spool_max_bytes, settings.audit.on_full) == (2 * 2**20, "deny")
    assert settings.limits.wasm_memory == 32 * 2**20
    assert settings.shutdown.grace == 10.0
    assert loaded.origins["cache.l1.size"] == f"file:{config}"
    assert loaded.origins["shutdown.grace"] == "default"


def test_a_spool_of_no_size_is_a_trail_turned_off_unless_every_decision_must_be_recorded() -> None:
    off = "audit.spool_max_bytes=0"
    assert load(None, [off], HOME).settings.audit.spool_max_bytes == 0
    with pytest.raises(SettingsError, match="turns the audit trail off"):
        load(None, [off, "audit.on_full=deny"], HOME)


def test_an_empty_file_sets_nothing(config: Path) -> None:
    config.write_text("# nothing yet\n")
    assert set(load(config, [], HOME).origins.values()) == {"default"}


@pytest.mark.parametrize("nothing", ["", "null", "~", '""', "[]"])
def test_nothing_turns_a_listener_off_in_a_file_too(config: Path, nothing: str) -> None:
    config.write_text(f"listen:\n  http: {nothing}\n")
    assert not load(config, [], HOME).settings.listen.http


TEXTS = [
    ("listen.grpc", "[::1]:9001", ["[::1]:9001"]),
    ("listen.grpc", '["127.0.0.1:1", "unix:///run/x"]', ["127.0.0.1:1", "unix:///run/x"]),
    ("listen.http", "unix:///run/h", ["unix:///run/h"]),
    ("listen.http", "", None),
    ("listen.insecure", "true", True),
    ("listen.socket_mode", "600", 0o600),
    ("cache.l1.size", "0", 0),
    ("cache.l1.ttl", "250ms", 0.25),
    ("limits.max_input_bytes", "4096", 4096),
    ("audit.spool_dir", "/spool", "/spool"),
    ("audit.spool_dir", "spool", str(Path.cwd() / "spool")),
    ("audit.source_name", "pod-1", "pod-1"),
    ("audit.writer", "127.0.0.1:9010", ["127.0.0.1:9010"]),
    ("audit.writer", '["[::1]:9010", "unix:///w"]', ["[::1]:9010", "unix:///w"]),
    ("tls.cert_file", "", None),
    ("tls.allowed_sans", "[]", []),
    ("tracing.sample_ratio", "0.25", 0.25),
    ("tracing.sample_ratio", "0", 0.0),
    ("tracing.sample_ratio", "1e-05", 0.00001),
    ("tracing.otlp_endpoint", "https://collector.example", "https://collector.example"),
]


@pytest.mark.parametrize(("key", "text", "expected"), TEXTS)
def test_the_environment_and_flags_read_texts_alike(key: str, text: str, expected: Any) -> None:
    variable = f"SARK_PDP_{key.upper().replace('.', '__')}"
    by_environment = load(None, [], HOME | {variable: text})
    by_flag = load(None, [f"{key}={text}"], HOME)
    assert value(by_environment, key) == value(by_flag, key) == expected
    assert by_environment.origins[key] == f"env {variable}"
    assert by_flag.origins[key] == "flag"


def test_the_last_of_two_flags_wins() -> None:
    assert load(None, ["cache.l1.size=1", "cache.l1.size=2"], HOME).settings.cache.l1.size == 2


sizes = st.none() | st.integers(0, 10**6)


@given(in_file=sizes, in_environment=sizes, in_flag=sizes)
def test_flags_win_over_the_environment_over_the_file_over_the_default(
    tmp_path_factory: pytest.TempPathFactory, in_file: int | None, in_environment: int | None, in_flag: int | None
) -> None:
    config = tmp_path_factory.getbasetemp() / "precedence.yaml"
    config.write_text(yaml.safe_dump({} if in_file is None else {"cache": {"l1": {"size": in_file}}}))
    environ = {} if in_environment is None else {"SARK_PDP_CACHE__L1__SIZE": str(in_environment)}
    overrides = [] if in_flag is None else [f"cache.l1.size={in_flag}"]
    loaded = load(config, overrides, HOME | environ)
    ranked = [
        (in_flag, "flag"),
        (in_environment, "env SARK_PDP_CACHE__L1__SIZE"),
        (in_file, f"file:{config}"),
        (1000, "default"),
    ]
    size, origin = next(pair for pair in ranked if pair[0] is not None)
    assert loaded.settings.cache.l1.size == size
    assert loaded.origins["cache.l1.size"] == origin


BAD_VALUES = [
    ("cache.l1.ttl=10", "'10'", "250ms"),
    ("cache.l1.ttl=-1s", "'-1s'", "250ms"),
    ("cache.l1.size=many", "'many'", "whole number"),
    ("cache.l1.size=-1", "'-1'", "at least 0"),
    ("limits.eval_timeout=0", "'0'", "more than 0"),
    ("limits.wasm_memory=64MB", "'64MB'", "KiB, MiB or GiB"),
    ("limits.wasm_memory=5GiB", "'5GiB'", "at most 4GiB"),
    ("listen.insecure=yes", "'yes'", "true or false"),
    ("listen.socket_mode=999", "'999'", "0660"),
    ("listen.metrics=unix:///run/x", "'unix:///run/x'", "host:port"),
    ("listen.grpc=[]", "[]", "at least one address"),
    ("listen.grpc=127.0.0.1", "'127.0.0.1'", "unix:///path"),
    ("listen.admin=", "''", "unix:///path"),
    ("audit.on_full=block", "'block'", "drop or deny"),
    ("audit.spool_max_bytes=1023KiB", "'1023KiB'", "0, or at least 1MiB"),
    ("audit.source_name=", "''", "a text"),
    ("audit.writer=writer:9010", "'writer:9010'", "set audit.tls.ca_file, or audit.tls.insecure to true"),
    ("audit.tls.ca_file=/", "'/'", "a file that this process may read"),
    ("audit.tls.server_name=a", "'a'", "set audit.tls.ca_file too"),
    ('audit.mask=[{"path": "input/a"}]', "'input/a'", "/input/"),
    ('audit.mask=[{"path": "/input"}]', "'/input'", "/input/"),
    ('audit.mask=[{"path": "/input//a"}]', "'/input//a'", "/input/"),
    ('audit.mask=[{"path": "/decision"}]', "'/decision'", "/input/"),
    ('audit.mask=[{"path": "/reason", "operation": "hash"}]', "'hash'", "set audit.mask_key_file too"),
    ('audit.mask=[{"path": "/reason", "operation": "drop"}]', "'drop'", "remove or hash or truncate"),
    ("audit.chain_key_file=/no/such/file", "'/no/such/file'", "a file that this process may read"),
    ("audit.chain_key_file=/", "'/'", "a file that this process may read"),
    ("transport=quic", "'quic'", "grpcio"),
    ("tls.allowed_sans=pdp", "'pdp'", "a list"),
    ("policy.bundles=[]", "[]", "at least one bundle"),
    ("log.level=loud", "'loud'", "debug or info"),
    ("tracing.sample_ratio=1.5", "'1.5'", "at most 1.0"),
    ("tracing.sample_ratio=nan", "'nan'", "a number, as in 0.25"),
    ("tracing.sample_ratio=1e3", "'1e3'", "a number, as in 0.25"),
    ("tracing.otlp_endpoint=collector:4318", "'collector:4318'", "expected http://host:port"),
    ("tracing.otlp_endpoint=http://:4318", "'http://:4318'", "expected http://host:port"),
    ("tracing.otlp_endpoint=http://c:x", "'http://c:x'", "expected http://host:port"),
    ("tracing.otlp_endpoint=http://u:p@c", "'***'", "has a user or a password in it"),
    ("tracing.ca_file=/", "'/'", "a file that this process may read"),
    ("tracing.ca_file=/proc/self/stat", "'/proc/self/stat'", "set tracing.otlp_endpoint too"),
]


@pytest.mark.parametrize(("override", "shown", "expected"), BAD_VALUES)
def test_a_value_that_cannot_be_used_is_named_with_its_key_origin_and_what_is_expected(
    override: str, shown: str, expected: str
) -> None:
    line = refused(overrides=(override,))
    assert line.startswith(override.partition("=")[0])
    assert shown in line
    assert "(flag)" in line
    assert expected in line


BAD_ELEMENTS = [
    ("listen.grpc", ["127.0.0.1:1", "x"], "listen.grpc[1]: 'x'"),
    ("listen.grpc", 9001, "listen.grpc: 9001"),
    ("listen.grpc", ["127.0.0.1:1", "127.0.0.1:1"], "names one address twice"),
    ("tls.allowed_sans", ["a", 5], "tls.allowed_sans[1]: 5"),
    ("policy.bundles", [{"path": "/x"}], "policy.bundles[0]: {'path': '/x'} (flag) is incomplete"),
    ("policy.bundles", [{"name": "a"}], "policy.bundles[0]: 'a' (flag) needs a path or a url"),
    ("policy.bundles", [{"name": "a", "path": "/", "url": "https://b/c"}], "needs a path or a url, and not both"),
    ("policy.bundles", [{"name": "a", "path": "/x", "pth": "/y"}], "has the unknown pth"),
    ("policy.bundles", [{"name": 1, "path": "/x"}], "policy.bundles[0].name: 1"),
    ("policy.bundles", ["/x"], "policy.bundles[0]: '/x' (flag) is not a mapping"),
    ("policy.bundles", [{"name": "a", "path": "/no/such"}], "policy.bundles[0].path: '/no/such'"),
    ("policy.bundles", [{"name": "a", "path": "/"}, {"name": "a", "path": "/"}], "two bundles of one name"),
    ("policy.bundles", [{"name": "a", "path": "/", "long_poll": "5s"}], "long_poll: '5.0' (flag) is of use with a url"),
    ("policy.bundles", [{"name": "a", "path": "/", "persist_dir": "/p"}], "persist_dir: '/p' (flag) is of use with"),
    ("policy.bundles", [{"name": "a", "path": "/", "poll_interval": "5"}], "policy.bundles[0].poll_interval: '5'"),
    ("policy.bundles", [{"name": "a", "path": "/", "verification_key_file": "/no"}], "verification_key_file: '/no'"),
    ("policy.bundles", [{"name": "a", "url": "ftp://b/c"}], "policy.bundles[0].url: 'ftp://b/c' (flag) is no URL"),
    ("policy.bundles", [{"name": "a", "url": "https://b:x/c"}], "is no URL"),
    ("policy.bundles", [{"name": "a", "url": "https://u:p@b/c"}], "has a user"),
    ("policy.bundles", [{"name": "a", "url": "http://b/c"}], "is http to another machine"),
    ("policy.bundles", [{"name": "a", "url": "https://b/c", "client_cert_file": "/proc/self/stat"}], "no use alone"),
]


@pytest.mark.parametrize(("key", "elements", "problem"), BAD_ELEMENTS)
def test_the_element_that_cannot_be_used_is_named(key: str, elements: Any, problem: str) -> None:
    assert problem in refused(overrides=(f"{key}={json.dumps(elements)}",))


UNKNOWN = [
    ("cache.l1.sze=1", "cache.l1.sze: there is no such setting (flag); did you mean cache.l1.size?"),
    ("cach.l1.size=1", "did you mean cache.l1.size?"),
    ("cache.l3.url=redis://x", "cache.l3.url: there is no such setting"),
    ("listen.htp=127.0.0.1:9002", "listen.htp: there is no such setting"),
    ("cache=1", "cache: is a section (flag)"),
    ("qqq=1", "`sark-pdp config` lists them"),
    ("cache.l1.size", "expected KEY=VALUE"),
]


@pytest.mark.parametrize(("override", "problem"), UNKNOWN)
def test_an_unknown_key_is_refused_with_the_nearest_one(override: str, problem: str) -> None:
    assert problem in refused(overrides=(override,))


def test_an_unknown_variable_is_refused_with_the_nearest_one() -> None:
    line = refused(environ=HOME | {"SARK_PDP_CACHE_L1_SIZE": "5"})
    assert line.startswith("SARK_PDP_CACHE_L1_SIZE:")
    assert "did you mean SARK_PDP_CACHE__L1__SIZE?" in line


@pytest.mark.parametrize(
    "variable",
    [
        "SARK_PDP_SERVICE_HOST",
        "SARK_PDP_SERVICE_PORT",
        "SARK_PDP_SERVICE_PORT_GRPC",
        "SARK_PDP_PORT",
        "SARK_PDP_PORT_9001_TCP",
        "SARK_PDP_PORT_9001_TCP_ADDR",
        "SARK_PDP_WRITER_SERVICE_HOST",
        "SARK_PDP_WRITER_PORT_9010_TCP_PROTO",
        "OTHER_VARIABLE",
    ],
)
def test_variables_of_a_kubernetes_service_and_of_others_are_passed_over(variable: str) -> None:
    assert set(load(None, [], HOME | {variable: "tcp://10.0.0.1:9001"}).origins.values()) == {"default"}


BAD_FILES = [
    ("cache: {l1: {ttl: 10}}", "cache.l1.ttl: 10 (file:FILE) is not a length of time"),
    ("cache: {l1: {size: '5'}}", "cache.l1.size: '5' (file:FILE) is not a whole number"),
    ("cache: {l1: {size: 1.5}}", "cache.l1.size: 1.5 (file:FILE)"),
    ("cache: {l1: {size: true}}", "cache.l1.size: True (file:FILE)"),
    ("tracing: {sample_ratio: true}", "tracing.sample_ratio: True (file:FILE) is not a number"),
    ("tracing: {sample_ratio: '1'}", "tracing.sample_ratio: '1' (file:FILE) is not a number"),
    ("tracing: {sample_ratio: -0.5}", "tracing.sample_ratio: '-0.5' (file:FILE)"),
    ("cache: {l1: {size: }}", "cache.l1.size: None (file:FILE)"),
    ("cache: {l1: {sise: 5}}", "cache.l1.sise: there is no such setting (file:FILE); did you mean cache.l1.size?"),
    ("cache: 5", "cache: 5 (file:FILE) is no section"),
    ("listen: {insecure: 'true'}", "listen.insecure: 'true' (file:FILE)"),
    ("1: 2", "1: there is no such setting (file:FILE)"),
    ("state_dir: [a]", "state_dir: ['a'] (file:FILE) is of the wrong type; expected a path"),
    ("[a, b]", "--config FILE: holds no mapping"),
    ("log: {level: info\nx", "--config FILE: line 2 is not YAML"),
    ("log: {level: info}\nlog: {format: text}", "--config FILE: line 2 is not YAML: 'log' is given twice"),
    ("log: !!python/object/apply:os.system [true]", "--config FILE: line 1 is not YAML"),
    ("{[a]: b}", "--config FILE: line 1 is not YAML"),
    ("a: *b", "--config FILE: line 1 is not YAML"),
    ("a: 2000-99-99", "--config FILE"),
    ("a\0", "--config FILE: is not a text"),
    ("[" * 5000, "--config FILE: is not YAML that can be read"),
]


@pytest.mark.parametrize(("text", "problem"), BAD_FILES)
def test_a_file_that_cannot_be_used_is_refused(config: Path, text: str, problem: str) -> None:
    config.write_text(text)
    assert problem.replace("FILE", str(config)) in refused(config)


def test_a_file_that_is_no_utf_8_is_refused(config: Path) -> None:
    config.write_bytes(b"address: \xff")
    assert "UTF-8" in refused(config)


def test_a_missing_file_is_refused(config: Path) -> None:
    assert refused(config) == f"--config {config}: cannot be read: No such file or directory"


CERT, KEY, CA = "tls.cert_file=PEM", "tls.key_file=PEM", "tls.client_ca_file=PEM"
TOGETHER = [
    (("listen.grpc=0.0.0.0:9001",), "listen.grpc: '0.0.0.0:9001' (flag) is reached from other machines"),
    (('listen.grpc=["127.0.0.1:1", "[::]:2"]',), "'[::]:2'"),
    (("listen.grpc=pdp.example.org:9001",), "'pdp.example.org:9001'"),
    (("listen.admin=127.0.0.1:9003",), "listen.admin: '127.0.0.1:9003' (flag) is TCP without mTLS"),
    (("listen.admin=127.0.0.1:9003", CERT, KEY), "is TCP without mTLS"),
    (("listen.admin=unix:///run/a", "listen.grpc=unix:///run/a"), "names one address twice"),
    (("listen.http=0.0.0.0:9002",), "listen.http: '0.0.0.0:9002' (flag) is reached from other machines"),
    (("listen.http=127.0.0.1:9001",), "listen.http: ['127.0.0.1:9001'] (flag) names one address twice"),
    (("listen.http=127.0.0.1:9004",), "names one address twice"),
    (("listen.http=unix:///run/a", "listen.admin=unix:///run/a"), "names one address twice"),
    ((CERT,), "set tls.key_file too"),
    ((KEY,), "set tls.cert_file too"),
    ((CA,), "set tls.cert_file too"),
    (('tls.allowed_sans=["a"]', CERT, KEY), "set tls.client_ca_file too"),
]
JWT = ("principal.jwt.issuer=https://i", 'principal.jwt.audience=["a"]')
KEYS = "principal.jwt.jwks_file=PEM"
PEERS = 'principal.trusted_peers=["envoy"]'
TOGETHER += [
    (("principal.jwt.issuer=https://i",), "principal.jwt.issuer: 'https://i' (flag) needs principal.jwt.audience"),
    (JWT, "principal.jwt.issuer: 'https://i' (flag) needs its keys"),
    ((*JWT, KEYS, "principal.jwt.jwks_url=https://i/keys"), "needs its keys"),
    ((*JWT, "principal.jwt.jwks_url=http://i/keys"), "'http://i/keys' (flag) cannot be trusted"),
    ((*JWT, "principal.jwt.jwks_url=https://u:p@i/keys"), "cannot be trusted"),
    ((*JWT, "principal.jwt.jwks_file=/no/keys"), "principal.jwt.jwks_file: '/no/keys' (flag) cannot be read"),
    ((*JWT, KEYS, "principal.jwt.algorithms=[]"), "principal.jwt.algorithms: [] (flag) is empty"),
    ((*JWT, KEYS, "principal.jwt.header=X-Token"), "principal.jwt.header: 'X-Token' (flag) is no name of a header"),
    ((*JWT, KEYS, PEERS, "principal.trusted_header=authorization"), "is where the token is"),
    (('principal.jwt.audience=["a"]',), "principal.jwt.audience: ['a'] (flag) is of no use alone"),
    (("principal.trusted_header=x-user",), "name who may say so in principal.trusted_peers"),
    (("principal.mtls=true",), "principal.mtls: 'True' (flag) is of no use alone"),
    ((PEERS,), "principal.trusted_peers: ['envoy'] (flag) is of no use alone"),
    (("principal.mtls=true", 'principal.trusted_peers=["uid:root"]'), "has 'uid:root' in it"),
]
FINE_TOGETHER = [
    (*JWT, KEYS),
    (*JWT, "principal.jwt.jwks_url=http://127.0.0.1:8080/keys"),
    (PEERS, "principal.mtls=true", "principal.trusted_header=x-user"),
    ("listen.grpc=0.0.0.0:9001", "listen.insecure=true"),
    ("listen.grpc=0.0.0.0:9001", CERT, KEY),
    ("listen.metrics=0.0.0.0:9004",),
    ("listen.admin=10.0.0.1:9003", CERT, KEY, CA, 'tls.allowed_sans=["ops"]'),
    ("listen.grpc=127.0.0.1:0",),
    ("listen.grpc=127.0.0.1:0", "listen.http=127.0.0.1:0", "listen.metrics=127.0.0.1:0"),
    ("listen.http=0.0.0.0:9002", "listen.insecure=true"),
    ("listen.http=",),
]


def with_pem(overrides: tuple[str, ...], tmp_path: Path) -> tuple[str, ...]:
    pem = tmp_path / "some.pem"
    pem.touch()
    return tuple(override.replace("PEM", str(pem)) for override in overrides)


@pytest.mark.parametrize(("overrides", "problem"), TOGETHER)
def test_settings_that_do_not_go_together_are_refused(overrides: tuple[str, ...], problem: str, tmp_path: Path) -> None:
    assert problem in refused(overrides=with_pem(overrides, tmp_path))


@pytest.mark.parametrize("overrides", FINE_TOGETHER)
def test_settings_that_go_together_are_taken(overrides: tuple[str, ...], tmp_path: Path) -> None:
    given_keys = {override.partition("=")[0] for override in overrides}
    origins = load(None, with_pem(overrides, tmp_path), HOME).origins
    assert {key for key, origin in origins.items() if origin == "flag"} == given_keys


def test_a_derived_socket_path_that_is_too_long_is_refused() -> None:
    line = refused(overrides=("state_dir=/" + "a" * 120,))
    assert "listen.admin" in line
    assert "107 bytes" in line


# The settings below cache.l2, and the start of the line that they are refused with.
KEY = "/proc/self/stat"
"""A file that can be read."""
BAD_L2 = [
    ({"url": "redis://h:6379"}, "cache.l2.url: 'redis://h:6379' (flag) needs cache.l2.mac_key_file"),
    ({"url": "redis://u:secret@h", "mac_key_file": KEY}, "cache.l2.url: '***' (flag) has a user or a password in it"),
    ({"url": "redis://:secret@h", "mac_key_file": KEY}, "cache.l2.url: '***' (flag) has a user or a password in it"),
    ({"url": "http://h", "mac_key_file": KEY}, "cache.l2.url: 'http://h' (flag) is no URL of Redis"),
    ({"url": "redis://", "mac_key_file": KEY}, "cache.l2.url: 'redis://' (flag) is no URL of Redis"),
    ({"url": "redis://h:x", "mac_key_file": KEY}, "cache.l2.url: 'redis://h:x' (flag) is no URL"),
    ({"url": "redis://h:0", "mac_key_file": KEY}, "cache.l2.url: 'redis://h:0' (flag) is no URL of Redis"),
    ({"url": "redis://h/a", "mac_key_file": KEY}, "cache.l2.url: 'redis://h/a' (flag) is no URL of Redis"),
    ({"url": "unix://", "mac_key_file": KEY}, "cache.l2.url: 'unix://' (flag) is no URL of Redis"),
    ({"url": "unix://run/redis", "mac_key_file": KEY}, "cache.l2.url: 'unix://run/redis' (flag) is no URL of Redis"),
    ({"url": "redis://h?timeout=1", "mac_key_file": KEY}, "cache.l2.url: 'redis://h?timeout=1' (flag) has a query"),
    ({"url": "redis://h", "mac_key_file": KEY, "ca_file": KEY}, "cache.l2.url: 'redis://h' (flag) is not reached over"),
    ({"mac_key_file": "/no"}, "cache.l2.mac_key_file: '/no' (flag) cannot be read"),
    ({"password_file": "/no"}, "cache.l2.password_file: '/no' (flag) cannot be read"),
    ({"client_cert_file": KEY}, "cache.l2.client_cert_file: '/proc/self/stat' (flag) is of no use alone"),
    ({"prefix": "a b"}, "cache.l2.prefix: 'a b' (flag) cannot begin a key"),
    ({"prefix": "a:b"}, "cache.l2.prefix: 'a:b' (flag) cannot begin a key"),
    ({"mode": "never"}, "cache.l2.mode: 'never' (flag) is not one of its values"),
    ({"timeout": "0"}, "cache.l2.timeout: '0' (flag) is out of range"),
]


@pytest.mark.parametrize(("given", "problem"), BAD_L2)
def test_a_shared_cache_that_cannot_be_is_refused(given: dict[str, str], problem: str) -> None:
    line = refused(overrides=tuple(f"cache.l2.{key}={value}" for key, value in given.items()))
    assert line.startswith(problem)
    assert "secret" not in line


@pytest.mark.parametrize(
    "url", ["redis://h", "redis://[::1]:6379/2", "rediss://h.example:6380/0", "redis://10.0.0.1:6379/", "unix:///run/r"]
)
def test_a_shared_cache_is_reached_by_url(url: str) -> None:
    l2 = load(None, [f"cache.l2.url={url}", f"cache.l2.mac_key_file={KEY}"], HOME).settings.cache.l2
    assert (l2.url, str(l2.mac_key_file)) == (url, KEY)


def test_a_file_means_the_same_as_the_variables_that_it_becomes(tmp_path: Path) -> None:
    """The injector gives the settings of a sidecar in its environment."""
    tree = {
        "listen": {"grpc": ["unix:///run/x", "[::1]:1"], "http": None, "socket_mode": "0600"},
        "policy": {"bundles": [{"name": "b", "url": "https://b.example/b", "long_poll": "30s"}]},
        "cache": {"l1": {"ttl": "250ms", "size": 7}},
        "attributes": {"trust_caller": True},
        "audit": {"spool_max_bytes": "3MiB", "mask": [{"path": "/input/a", "operation": "truncate", "length": 2}]},
        "limits": {"max_batch": 5},
    }
    file = tmp_path / "sidecar.yaml"
    file.write_text(yaml.safe_dump(tree))

    variables = {variable_of(name): value for name, value in variables_of(file).items()}

    assert load(None, [], {**HOME, **variables}).settings == load(file, [], HOME).settings
    assert len(variables) == 10


def test_a_file_that_no_sidecar_could_use_becomes_no_variables(tmp_path: Path) -> None:
    file = tmp_path / "sidecar.yaml"
    file.write_text("cache: {l1: {siez: 5}}")

    with pytest.raises(SettingsError, match=r"did you mean cache\.l1\.size"):
        variables_of(file)
