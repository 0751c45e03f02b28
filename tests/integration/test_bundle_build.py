"""Building bundles with the real OPA: what is compiled, what is recorded of it, and that data stays data."""

import json
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from sark_pdp.cli import main
from sark_pdp.engine.archive import read_archive
from sark_pdp.engine.build import build_bundle
from sark_pdp.engine.bundle import Bundle, read_bundle
from sark_pdp.engine.opa import Opa, OpaError
from sark_pdp.engine.verify import host_needs
from sark_pdp.engine.wasm.policy import Runtime, WasmPolicy
from sark_pdp.errors import BundleError
from sark_pdp.model import Seconds
from sark_pdp.settings import default_bundle

ROOT = Path(__file__).parent.parent.parent
LIMIT = 128 * 1024 * 1024

POLICY = """package shop

import data.lib

# METADATA
# title: May this user do this?
# entrypoint: true
decision := {"allow": allow}

default allow := false

allow if {
	some role in input.user.roles
	data.roles[role].actions[input.action]
}

allow if input.tool.owners[0].id == input.user.id

# METADATA
# entrypoint: true
open if lib.hour < 18
"""
LIB = "package lib\n\nhour := time.clock(time.now_ns())[0]\n"
TEST = """package shop_test

import data.shop

test_dev_reads if {
	shop.allow with input as {"user": {"id": "eve", "roles": ["dev"]}, "action": "read"}
}
"""
SOURCES = {
    "shop/shop.rego": POLICY,
    "shop/shop_test.rego": TEST,
    "lib.rego": LIB,
    "roles/data.json": '{"dev": {"actions": {"read": true}}}',
    "README.md": "Not a part of it.",
}
DEV_READS = {"user": {"id": "eve", "roles": ["dev"]}, "action": "read"}

Build = Callable[..., Bundle]


class _Clock:
    def now_ns(self) -> int:
        return time.time_ns()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "policies", SOURCES)


@pytest.fixture
def build(opa: Path, tmp_path: Path) -> Build:
    """Builds a folder of these sources; `report` collects what it says."""

    def build(
        sources: dict[str, str],
        *entrypoints: str,
        revision: str | None = None,
        report: Callable[[str], None] = lambda _line: None,
        output: str = "bundle.tar.gz",
    ) -> Bundle:
        folder = tmp_path / "sources"
        shutil.rmtree(folder, ignore_errors=True)
        write(folder, sources)
        return build_bundle(
            folder, tmp_path / output, opa=Opa(str(opa)), entrypoints=entrypoints, revision=revision, report=report
        )

    return build


@pytest.fixture(scope="module")
def runtime() -> Iterator[Runtime]:
    runtime = Runtime(eval_timeout=Seconds(5.0), memory_limit=LIMIT, clock=_Clock())
    yield runtime
    runtime.close()


def write(folder: Path, sources: dict[str, str]) -> Path:
    for name, content in sources.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


def ask(runtime: Runtime, bundle: Bundle, entrypoint: str, document: Any, data: Any = None) -> Any:
    """What the compiled entrypoint says with this data, or else the bundle's; None where it is undefined."""
    [module] = [m for m in bundle.modules if entrypoint in [e.name for e in m.entrypoints]]
    policy = WasmPolicy(runtime, module.wasm, msgspec.json.encode(bundle.data if data is None else data))
    result = policy.evaluate(policy.entrypoint(entrypoint), msgspec.json.encode(document))
    return None if result is None else msgspec.json.decode(result)


def reads(bundle: Bundle) -> dict[str, tuple[set[str], set[str]]]:
    """By entrypoint, the paths of input and data as `a.b`; the whole is an empty text."""
    return {
        e.name: ({".".join(p) for p in e.reads_input}, {".".join(p) for p in e.reads_data})
        for module in bundle.modules
        for e in module.entrypoints
    }


def test_annotated_rules_are_built_and_what_they_read_is_recorded(build: Build) -> None:
    bundle = build(SOURCES)
    assert reads(bundle) == {
        # The index of an array ends a path; `shop` and `lib` are what a reference into the packages can reach.
        "shop/decision": ({"user.id", "user.roles", "action", "tool.owners"}, {"roles", "shop"}),
        "shop/open": (set(), {"lib", "shop"}),
    }
    assert bundle.data == {"roles": {"dev": {"actions": {"read": True}}}}
    assert bundle.stale == ()


def test_what_reads_the_clock_gets_a_module_of_its_own(build: Build) -> None:
    bundle = build(SOURCES)
    wanted = {
        module.path: ([e.name for e in module.entrypoints], host_needs("bundle", module).nondeterministic)
        for module in bundle.modules
    }
    assert wanted == {
        "policy.wasm": (["shop/decision"], ()),
        "nondeterministic/policy.wasm": (["shop/open"], ("time.now_ns",)),
    }


@pytest.mark.parametrize("entrypoint", ["shop/decision", "shop/open", "/shop/allow"])
def test_one_kind_of_entrypoint_makes_one_module(build: Build, entrypoint: str) -> None:
    [module] = build(SOURCES, entrypoint).modules
    assert module.path == "policy.wasm"
    assert [e.name for e in module.entrypoints] == [entrypoint.strip("/")]


def test_only_modules_manifest_and_data_are_packed(build: Build, tmp_path: Path) -> None:
    build(SOURCES)
    files, _size = read_archive(tmp_path / "bundle.tar.gz", LIMIT)
    assert set(files) == {".manifest", "data.json", "nondeterministic/policy.wasm", "policy.wasm"}


def test_the_same_sources_make_the_same_bytes(build: Build, tmp_path: Path) -> None:
    for output in ("one.tar.gz", "two.tar.gz"):
        build(dict(reversed(SOURCES.items())) if output == "two.tar.gz" else SOURCES, output=output)
    assert (tmp_path / "one.tar.gz").read_bytes() == (tmp_path / "two.tar.gz").read_bytes()


def test_the_revision_is_a_digest_of_what_is_compiled(build: Build) -> None:
    revision = build(SOURCES).revision
    assert build({**SOURCES, "shop/shop_test.rego": TEST + "\n# Tests do not count.\n"}).revision == revision
    more = '{"dev": {"actions": {"read": true}}, "ops": {}}'
    assert build({**SOURCES, "roles/data.json": more}).revision != revision
    assert build({**SOURCES, "lib.rego": LIB + "\n# Changed.\n"}).revision != revision
    assert build(SOURCES, "shop/decision").revision != revision
    assert build({**SOURCES, ".manifest": '{"revision": "v7"}'}).revision == "v7"
    assert build({**SOURCES, ".manifest": '{"revision": "v7"}'}, revision="v8").revision == "v8"


def test_a_manifest_among_the_sources_is_kept(build: Build, tmp_path: Path) -> None:
    source = {"roots": ["shop", "lib", "roles", "shop_test"], "metadata": {"team": "payments"}}
    bundle = build({**SOURCES, ".manifest": json.dumps(source)})
    assert sorted(bundle.roots) == sorted(source["roots"])
    packed = json.loads(bytes(read_archive(tmp_path / "bundle.tar.gz", LIMIT)[0][".manifest"]))
    assert packed["metadata"]["team"] == "payments"
    assert packed["metadata"]["sark"]["version"] == 1


@pytest.mark.parametrize("data_there", [True, False], ids=["data at build time", "no data at build time"])
def test_data_that_comes_later_counts(build: Build, runtime: Runtime, *, data_there: bool) -> None:
    """The optimizer would otherwise take what it sees for constant, and what it does not see for absent."""
    sources = {name: content for name, content in SOURCES.items() if name != "shop/shop_test.rego"}
    bundle = build(sources if data_there else {**sources, "roles/data.json": "{}"}, "shop/decision")
    granted = {"roles": {"dev": {"actions": {"read": True}}}}
    assert ask(runtime, bundle, "shop/decision", DEV_READS) == {"allow": data_there}
    assert ask(runtime, bundle, "shop/decision", DEV_READS, granted) == {"allow": True}
    assert ask(runtime, bundle, "shop/decision", DEV_READS, {}) == {"allow": False}


INSIDE = """package shop

# METADATA
# entrypoint: true
decision := data.shop.limits[input.level] > input.amount
"""


@pytest.mark.parametrize("data_there", [True, False], ids=["data at build time", "no data at build time"])
def test_data_inside_of_a_package_counts_too(build: Build, runtime: Runtime, *, data_there: bool) -> None:
    said: list[str] = []
    sources = {"shop/shop.rego": INSIDE, **({"shop/limits/data.json": '{"low": 10}'} if data_there else {})}
    bundle = build(sources, report=said.append)
    document = {"level": "low", "amount": 5}
    assert ask(runtime, bundle, "shop/decision", document, {"shop": {"limits": {"low": 10}}}) is True
    assert ask(runtime, bundle, "shop/decision", document, {"shop": {"limits": {"low": 1}}}) is False
    assert ask(runtime, bundle, "shop/decision", document, {}) is None
    assert any(line.startswith("not optimized, because there is data inside of the package shop;") for line in said)


def test_beside_data_a_dynamic_reference_into_packages_reads_all_data(build: Build, runtime: Runtime) -> None:
    """OPA's analysis reports the rules there, and misses the documents."""
    sources = {
        "q.rego": "package q\n\n# METADATA\n# entrypoint: true\nseen := data.regions[input.region].open\n",
        "eu.rego": 'package regions.eu\n\nopen if input.user == "eve"\n',
    }
    with_data = build({**sources, "regions/us/data.json": '{"open": true}'})
    assert reads(with_data) == {"q/seen": ({"region", "user"}, {""})}
    assert ask(runtime, with_data, "q/seen", {"region": "us"}) is True
    without = build(sources)
    assert reads(without) == {"q/seen": ({"region", "user"}, {"q", "regions"})}
    # What makes the difference: data that comes later is seen.
    assert ask(runtime, without, "q/seen", {"region": "us"}) is None
    assert ask(runtime, without, "q/seen", {"region": "us"}, {"regions": {"us": {"open": True}}}) is True
    assert ask(runtime, without, "q/seen", {"region": "eu", "user": "eve"}) is True


BODIES: list[tuple[str, set[str]]] = [
    ("input.a.b == 1", {"a.b"}),
    ("input == {}", {""}),
    ("input.a[_].b == 1", {"a"}),
    ("input.a[3].b == 1", {"a"}),
    ("input.a[input.b] == 1", {"a", "b"}),
    ('some x in input["a-b"]; x == input["c.d"].e', {"a-b", "c.d.e"}),
    ("count(object.keys(input)) == 1", {""}),
    ("object.get(input, ['a', 'b'], 0) == 1".replace("'", '"'), {""}),
    ("object.get(input.a, 'b', 0) == 1".replace("'", '"'), {"a"}),
    ("x := input.a; x.b == 1", {"a.b"}),
    ("every x in input.a { x == input.b }", {"a", "b"}),
    ("not input.a.b", {"a.b"}),
    ("f(input.a)", {"a"}),
    ("data.x == 1", set()),
]
"""What an entrypoint asks, and the paths of input that it reads. A shorter path is safe; a missing one never."""


def test_paths_of_input(build: Build) -> None:
    rules = [
        f"# METADATA\n# entrypoint: true\nrule_{number} if {{ {body} }}\n" for number, (body, _) in enumerate(BODIES)
    ]
    found = reads(build({"q.rego": "package q\n\nf(x) := x.y\n\n" + "\n".join(rules)}))
    assert [(body, found[f"q/rule_{number}"][0]) for number, (body, _) in enumerate(BODIES)] == BODIES


def test_yaml_data_is_packed_as_json(build: Build) -> None:
    assert build({"q.rego": "package q\n\nr := data.x.y\n", "x/data.yaml": "y: [1, two]\n"}, "q/r").data == {
        "x": {"y": [1, "two"]}
    }


def test_the_syntax_of_rego_v0_is_declared_in_the_manifest(build: Build, runtime: Runtime) -> None:
    sources = {"q.rego": "package q\n\ndefault r = false\n\nr { input.x == 1 }\n", ".manifest": '{"rego_version": 0}'}
    bundle = build(sources, "q/r")
    assert reads(bundle) == {"q/r": ({"x"}, {"q"})}
    assert ask(runtime, bundle, "q/r", {"x": 1}) is True


def test_names_that_need_quotes_are_understood(build: Build, runtime: Runtime) -> None:
    rego = 'package a["b-c"]\n\n# METADATA\n# entrypoint: true\nallow if data["d-e"].f == input["g h"]\n'
    bundle = build({"q.rego": rego, "d-e/data.json": '{"f": 1}'})
    assert reads(bundle) == {"a/b-c/allow": ({"g h"}, {"d-e.f", "a"})}
    assert ask(runtime, bundle, "a/b-c/allow", {"g h": 1}) is True


def test_opa_understands_the_bundle(build: Build, opa: Path, tmp_path: Path) -> None:
    build(SOURCES, revision="v1")
    seen = subprocess.run(
        [opa, "inspect", "-f", "json", "bundle.tar.gz"], cwd=tmp_path, capture_output=True, check=True
    )
    found = json.loads(seen.stdout)["manifest"]
    assert found["revision"] == "v1"
    assert {entry["entrypoint"]: entry["module"] for entry in found["wasm"]} == {
        "shop/decision": "/policy.wasm",
        "shop/open": "/nondeterministic/policy.wasm",
    }


REFUSED = {
    "a failing test": ({"lib_test.rego": "package lib_test\n\ntest_x if false\n"}, "opa test refused", "test_x: FAIL"),
    "no Rego": ({"bad.rego": "package x\n\nallow if {\n"}, "opa check refused", "bad.rego:"),
    "not strict": ({"bad.rego": "package x\n\nf(y) := 1 if z := 2\n"}, "opa check refused", "z"),
    "data for a rule": ({"lib/data.json": '{"hour": 1}'}, "opa check refused", "hour"),
    "data that is no JSON": ({"lib/data.json": "{"}, "opa check refused", "data.json"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_opa_refuses_is_not_built(build: Build, tmp_path: Path, name: str) -> None:
    sources, problem, detail = REFUSED[name]
    (tmp_path / "bundle.tar.gz").write_text("the bundle before")
    with pytest.raises(OpaError, match=problem) as caught:
        build({**SOURCES, **sources})
    assert detail in caught.value.output
    assert (tmp_path / "bundle.tar.gz").read_text() == "the bundle before"


@pytest.mark.parametrize(
    ("sources", "entrypoints", "problem"),
    [
        (SOURCES, ["shop/nothing"], "opa build refused"),
        ({"q.rego": "package q\n\nr := 1\n"}, ["q/r"], "opa build crashed, as it does where every rule is constant"),
        ({"q.rego": "package q\n\nr := 1\n"}, [], "name an entrypoint with --entrypoint, or annotate"),
        ({"data.json": "{}"}, ["q/r"], "holds no Rego files"),
        (
            {"q.rego": 'package q\n\n# METADATA\n# {"entrypoint": true}\nr := 1\n'},
            [],
            "metadata of q/r must have `# entrypoint: true` on a line of its own",
        ),
    ],
)
def test_what_cannot_be_compiled_is_named(
    build: Build, sources: dict[str, str], entrypoints: list[str], problem: str
) -> None:
    with pytest.raises(BundleError, match=problem):
        build(sources, *entrypoints)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["bundle", *map(str, arguments)])


def test_build_from_the_shell(folder: Path, opa: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.tar.gz"
    result = run("build", folder, "-e", "shop/decision", "--output", output, "--revision", "v1", "--opa", opa)
    assert result.exit_code == 0, result.output
    assert result.stderr.splitlines()[1:] == ["1 tests passed", "compiling shop/decision"]
    assert "v1" in result.stdout
    assert "action, tool.owners, user.id, user.roles" in result.stdout
    assert read_bundle(output).revision == "v1"


def test_without_opa_it_says_how_to_get_it(folder: Path, tmp_path: Path) -> None:
    result = run("build", folder, "--output", tmp_path / "out.tar.gz", "--opa", "opa-that-is-not-there")
    assert result.exit_code == 2
    assert result.stderr.startswith(
        "sark-pdp: opa-that-is-not-there is not an executable here: install OPA with `go inst"
    )
    assert len(result.stderr.splitlines()) == 1


def test_a_failing_test_is_shown(folder: Path, opa: Path, tmp_path: Path) -> None:
    write(folder, {"roles/data.json": "{}"})
    result = run("build", folder, "--output", tmp_path / "out.tar.gz", "--opa", opa)
    assert result.exit_code == 2
    assert "test_dev_reads: FAIL" in result.stderr
    assert result.stderr.splitlines()[-1] == "sark-pdp: opa test refused the policies (exit code 2)"


@pytest.mark.parametrize("output", ["nowhere/out.tar.gz", "."])
def test_an_output_that_cannot_be_written_is_named(folder: Path, opa: Path, tmp_path: Path, output: str) -> None:
    result = run("build", folder, "--output", tmp_path / output, "--opa", opa)
    assert result.exit_code == 2
    assert "cannot be written" in result.stderr.splitlines()[-1]


def test_a_folder_that_is_not_there_is_named(opa: Path, tmp_path: Path) -> None:
    result = run("build", tmp_path / "nowhere", "--output", tmp_path / "out.tar.gz", "--opa", opa)
    assert (result.exit_code, "there is no such folder" in result.stderr) == (2, True)


def test_inspect_tells_what_each_entrypoint_reads(build: Build, tmp_path: Path) -> None:
    bundle = build(SOURCES)
    seen = json.loads(run("inspect", tmp_path / "bundle.tar.gz", "--json").stdout)
    assert seen["revision"] == bundle.revision
    assert seen["digest"] == bundle.digest
    assert seen["data"] == ["roles"]
    modules = {module["path"]: module for module in seen["modules"]}
    assert modules["policy.wasm"]["nondeterministic"] == []
    assert modules["nondeterministic/policy.wasm"]["builtins"] == ["time.clock", "time.now_ns"]
    [decision] = modules["policy.wasm"]["entrypoints"]
    assert decision["name"] == "shop/decision"
    assert ["user", "roles"] in decision["reads_input"]
    text = run("inspect", tmp_path / "bundle.tar.gz").stdout
    assert "no, unless the result says cache_ttl: it calls time.now_ns" in text


def test_a_bundle_of_plain_opa_is_inspected_and_sound(folder: Path, opa: Path, tmp_path: Path) -> None:
    subprocess.run(
        [opa, "build", "-t", "wasm", "-e", "shop/decision", "-o", tmp_path / "plain.tar.gz", "."],
        cwd=folder,
        check=True,
    )
    assert "everything" in run("inspect", tmp_path / "plain.tar.gz").stdout
    result = run("verify", tmp_path / "plain.tar.gz")
    assert result.exit_code == 0, result.output


def test_verify_passes_what_was_built(build: Build, tmp_path: Path) -> None:
    build(SOURCES, revision="v1")
    result = run("verify", tmp_path / "bundle.tar.gz")
    assert result.exit_code == 0, result.output
    assert "revision v1 is sound; 2 entrypoints, 2 modules" in result.stdout


def test_verify_finds_what_this_engine_cannot_run(build: Build, tmp_path: Path) -> None:
    build({"q.rego": 'package q\n\nr := http.send({"method": "get", "url": input.url})\n'}, "q/r")
    result = run("verify", tmp_path / "bundle.tar.gz")
    assert result.exit_code == 1
    assert "policy.wasm: the policy calls built-ins that this engine does not have: http.send" in result.stderr


def test_verify_finds_reads_that_are_of_another_module(build: Build, tmp_path: Path) -> None:
    from sark_pdp.engine.archive import pack_archive

    build({"q.rego": "package q\n\nr := input.x\n"}, "q/r")
    path = tmp_path / "bundle.tar.gz"
    files = {name: bytes(content) for name, content in read_archive(path, LIMIT)[0].items()}
    custom_section = b"\x00\x02\x01x"
    path.write_bytes(pack_archive({**files, "policy.wasm": files["policy.wasm"] + custom_section}))
    result = run("verify", path)
    assert result.exit_code == 1
    assert "policy.wasm: the recorded reads were made for another module" in result.stderr


def test_verify_cannot_say_anything_of_a_damaged_bundle(tmp_path: Path) -> None:
    (tmp_path / "bundle.tar.gz").write_bytes(default_bundle().read_bytes()[:1000])
    result = run("verify", tmp_path / "bundle.tar.gz")
    assert result.exit_code == 2
    assert result.stderr == f"sark-pdp: bundle {tmp_path}/bundle.tar.gz: is truncated; fetch or build it again\n"


def test_the_default_bundle_is_what_the_policies_build(opa: Path, tmp_path: Path) -> None:
    """Compared by content: how far gzip compresses depends on the zlib at hand."""
    rebuilt = tmp_path / "default.tar.gz"
    build_bundle(ROOT / "policies", rebuilt, opa=Opa(str(opa)), entrypoints=(), revision=None, report=print)
    packed, _size = read_archive(default_bundle(), LIMIT)
    files, _size = read_archive(rebuilt, LIMIT)
    different = sorted(name for name in packed.keys() | files.keys() if packed.get(name) != files.get(name))
    assert not different, "policies/ and policies/default.tar.gz differ; run `make bundle` and commit what it writes"


def test_a_wheel_holds_the_default_bundle(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    shutil.copy(ROOT / "pyproject.toml", source)
    (source / "README.md").write_text("")
    for name in ("sark_pdp", "policies"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    options = ["--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check", "--quiet"]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, "-w", tmp_path, source], check=True)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read("sark_pdp/engine/default_bundle.tar.gz") == default_bundle().read_bytes()
