"""Reading a bundle: what it holds, what each entrypoint reads, and one sentence for each way in which it is bad."""

import contextlib
import gzip
import hashlib
import io
import json
import random
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sark_pdp.engine.archive import content_digest, pack_archive, read_archive
from sark_pdp.engine.bundle import Bundle, read_bundle
from sark_pdp.errors import BundleError
from sark_pdp.settings.load import default_bundle

WASM = b"\0asm\1\0\0\0"
OTHER_WASM = WASM + b"\0"
EVERYTHING = ((),)
ENTRY = {"entrypoint": "a/allow", "module": "/policy.wasm"}
SLOW_FILES = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def manifest(**keys: Any) -> bytes:
    return json.dumps({"revision": "r1", "roots": [""], "wasm": [ENTRY], **keys}).encode()


def sark(sha256: str, reads: dict[str, Any], *, file: str = "/policy.wasm", version: int = 1) -> dict[str, Any]:
    return {"sark": {"version": version, "modules": {file: {"sha256": sha256, "entrypoints": reads}}}}


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


GOOD = {"policy.wasm": WASM, ".manifest": manifest(), "data.json": b'{"roles":{"dev":1}}'}
READS = {"a/allow": {"input": [["user", "id"], ["action"]], "data": [["roles"]]}}


def tar(*members: tuple[str, bytes] | tarfile.TarInfo, **keys: Any) -> bytes:
    """A tar archive with these files; a TarInfo goes in as it is, without content."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", **keys) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    return packed.getvalue()


def read(folder: Path, content: bytes, **keys: Any) -> Bundle:
    path = folder / "bundle.tar.gz"
    path.write_bytes(content)
    return read_bundle(path, **keys)


def read_files(folder: Path, files: dict[str, bytes]) -> Bundle:
    return read(folder, pack_archive(files))


def test_a_bundle_of_plain_opa_reads_everything(tmp_path: Path) -> None:
    bundle = read_files(tmp_path, GOOD)
    assert bundle.revision == bundle.name == "r1"
    assert bundle.roots == ("",)
    assert bundle.data == {"roles": {"dev": 1}}
    assert bundle.size == (tmp_path / "bundle.tar.gz").stat().st_size
    [module] = bundle.modules
    assert (module.path, module.wasm, module.digest) == ("policy.wasm", WASM, digest(WASM))
    [entrypoint] = module.entrypoints
    assert (entrypoint.name, entrypoint.reads_input, entrypoint.reads_data) == ("a/allow", EVERYTHING, EVERYTHING)


def test_without_a_revision_the_digest_names_it(tmp_path: Path) -> None:
    bundle = read_files(tmp_path, {**GOOD, ".manifest": manifest(revision="")})
    assert bundle.revision == ""
    assert bundle.name == bundle.digest


@pytest.mark.parametrize("file", ["/policy.wasm", "policy.wasm", "./policy.wasm"])
def test_recorded_reads_count_for_the_module_that_they_were_made_for(tmp_path: Path, file: str) -> None:
    metadata = sark(digest(WASM), READS, file=file)
    bundle = read_files(tmp_path, {**GOOD, ".manifest": manifest(metadata=metadata)})
    [entrypoint] = bundle.modules[0].entrypoints
    assert entrypoint.reads_input == (("user", "id"), ("action",))
    assert entrypoint.reads_data == (("roles",),)
    assert bundle.stale == ()


@pytest.mark.parametrize(
    ("metadata", "stale"),
    [
        pytest.param(sark(digest(OTHER_WASM), READS), ("policy.wasm",), id="another module"),
        pytest.param(sark(digest(WASM), READS, version=2), (), id="a version from the future"),
        pytest.param(
            {"sark": {"version": 2, "modules": ["of another shape"]}},
            (),
            id="another shape in a version from the future",
        ),
        pytest.param(sark(digest(WASM), {"b/allow": READS["a/allow"]}), (), id="another entrypoint"),
        pytest.param(sark(digest(WASM), READS, file="/x/policy.wasm"), (), id="another path"),
        pytest.param(sark(digest(WASM), {"a/allow": {}}), (), id="no paths recorded"),
        pytest.param(sark(digest(WASM), {"a/allow": {"input": [[]], "data": [[]]}}), (), id="everything recorded"),
        pytest.param({"other": {"version": 1}}, (), id="metadata of somebody else"),
    ],
)
def test_reads_that_are_not_of_this_module_mean_everything(
    tmp_path: Path, metadata: dict[str, Any], stale: tuple[str, ...]
) -> None:
    bundle = read_files(tmp_path, {**GOOD, ".manifest": manifest(metadata=metadata)})
    [entrypoint] = bundle.modules[0].entrypoints
    assert (entrypoint.reads_input, entrypoint.reads_data) == (EVERYTHING, EVERYTHING)
    assert bundle.stale == stale


def test_an_entrypoint_may_read_nothing(tmp_path: Path) -> None:
    metadata = sark(digest(WASM), {"a/allow": {"input": [], "data": []}})
    [entrypoint] = read_files(tmp_path, {**GOOD, ".manifest": manifest(metadata=metadata)}).modules[0].entrypoints
    assert (entrypoint.reads_input, entrypoint.reads_data) == ((), ())


def test_modules_of_several_folders_keep_their_entrypoints(tmp_path: Path) -> None:
    entries = [
        {"entrypoint": "b/now", "module": "/clock/policy.wasm"},
        ENTRY,
        {"entrypoint": "a/deny", "module": "policy.wasm"},
        ENTRY,
    ]
    bundle = read_files(tmp_path, {**GOOD, "clock/policy.wasm": OTHER_WASM, ".manifest": manifest(wasm=entries)})
    found = {module.path: [entrypoint.name for entrypoint in module.entrypoints] for module in bundle.modules}
    assert found == {"clock/policy.wasm": ["b/now"], "policy.wasm": ["a/allow", "a/deny"]}


def test_data_lies_below_the_path_of_its_folder(tmp_path: Path) -> None:
    documents = {"data.json": b'{"a":{"x":1}}', "a/data.json": b'{"y":2}', "a/b/data.json": b"[3]"}
    assert read_files(tmp_path, {**GOOD, **documents}).data == {"a": {"x": 1, "y": 2, "b": [3]}}


def test_a_bundle_need_not_have_data(tmp_path: Path) -> None:
    assert read_files(tmp_path, {"policy.wasm": WASM, ".manifest": manifest()}).data == {}


@pytest.mark.parametrize("prefix", ["", "/", "./"])
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_and_forms_of_every_tar_are_read(tmp_path: Path, prefix: str, form: int) -> None:
    folder = tarfile.TarInfo(prefix + "a")
    folder.type = tarfile.DIRTYPE
    long = "a/" + "long/" * 30 + "data.json"
    members = [(prefix + name, content) for name, content in {**GOOD, long: b"{}"}.items() if len(name) < 99 or form]
    bundle = read(tmp_path, gzip.compress(tar(folder, *members, format=form)))
    assert bundle.data["roles"] == {"dev": 1}
    assert bundle.modules[0].wasm == WASM


def gz(*members: tuple[str, bytes] | tarfile.TarInfo) -> Callable[[], bytes]:
    return lambda: gzip.compress(tar(*GOOD.items(), *members))


def special(name: str, kind: bytes, **keys: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    for key, value in keys.items():
        setattr(info, key, value)
    return info


def files(**changed: bytes | None) -> Callable[[], bytes]:
    """The good files with some changed, and some, None, left out; `_` stands for the dot of a name."""
    named = {{"manifest": ".manifest"}.get(name, name.replace("_", ".")): content for name, content in changed.items()}
    return lambda: pack_archive({n: content for n, content in {**GOOD, **named}.items() if content is not None})


def damaged_second_header() -> bytes:
    archive = bytearray(tar(*GOOD.items()))
    archive[1024 : 1024 + 8] = b"\xff" * 8
    return gzip.compress(bytes(archive))


def negative_size() -> bytes:
    info = tarfile.TarInfo("data.json")
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = (-512).to_bytes(12, signed=True)
    return gzip.compress(checksummed(header) + bytes(1024))


def checksummed(header: bytearray) -> bytes:
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "not a gzipped tar"),
    "text": (lambda: b"package a\n", "not a gzipped tar"),
    "a tar without gzip": (lambda: tar(*GOOD.items()), "not a gzipped tar"),
    "gzip of something else": (lambda: gzip.compress(b"hello " * 1000), "not a tar archive inside"),
    "gzip of nothing": (lambda: gzip.compress(b""), "not a tar archive inside"),
    "cut in the middle": (lambda: gz()()[:-30], "is truncated"),
    "a wrong checksum": (lambda: gz()()[:-8] + bytes(8), "is damaged"),
    "bytes after the end": (lambda: gz()() + b"\1\2\3", "is damaged"),
    "a tar cut within a file": (lambda: gzip.compress(tar(("policy.wasm", WASM * 1000))[:2048]), "truncated within"),
    "a damaged header": (damaged_second_header, "damaged header after 1 files"),
    # Some versions of tarfile see it themselves.
    "a negative size": (negative_size, "damaged"),
    "no module": (files(policy_wasm=None), "no policy.wasm"),
    "no manifest": (files(manifest=None), "no .manifest"),
    "no files": (lambda: pack_archive({}), "no policy.wasm"),
    "a manifest that is no JSON": (files(manifest=b"{"), "manifest is not valid JSON"),
    "a manifest that is no text": (files(manifest=b'{"revision":"\xff"}'), "manifest is not"),
    "a manifest that is a list": (files(manifest=b"[]"), "manifest is not as it should be: Expected `object`"),
    "a manifest too deep": (files(manifest=b'{"x":' * 100_000), "manifest is not valid JSON"),
    "a revision that is a number": (files(manifest=manifest(revision=1)), r"manifest .*Expected `str`.*\$.revision"),
    "roots that are no list": (files(manifest=manifest(roots="")), r"manifest .*\$.roots"),
    "a wasm entry without module": (files(manifest=manifest(wasm=[{"entrypoint": "a"}])), "manifest .*`module`"),
    "metadata without version": (files(manifest=manifest(metadata={"sark": {}})), "manifest .*`version`"),
    "reads that are no paths": (
        files(manifest=manifest(metadata=sark("", {"a/allow": {"input": ["user"]}}))),
        "manifest .*Expected `array`",
    ),
    "no entrypoint": (files(manifest=manifest(wasm=[])), "names no entrypoint"),
    "an entry for a missing module": (
        files(manifest=manifest(wasm=[{"entrypoint": "a/b", "module": "/x/policy.wasm"}])),
        "maps a/b to /x/policy.wasm, which it does not hold",
    ),
    "an entrypoint in two modules": (
        lambda: pack_archive(
            {
                **GOOD,
                "x/policy.wasm": OTHER_WASM,
                ".manifest": manifest(wasm=[ENTRY, {"entrypoint": "a/allow", "module": "/x/policy.wasm"}]),
            }
        ),
        "maps a/allow to two modules",
    ),
    "a module that is none": (files(policy_wasm=b"(module)"), "policy.wasm is not a WebAssembly module"),
    "an empty module": (files(policy_wasm=b""), "policy.wasm is not a WebAssembly module"),
    "data that is no JSON": (files(data_json=b"{'a':1}"), "data.json is not valid JSON"),
    "data that is not a number": (files(data_json=b'{"a":NaN}'), "data.json is not valid JSON"),
    "data that is a list": (files(data_json=b"[1]"), "data.json is not a JSON object"),
    "data too deep": (files(data_json=b'{"x":' * 100_000), "data.json is not valid JSON"),
    "data of two files for one path": (
        gz(("roles/dev/data.json", b"2")),
        "another data.json both have a value for 'dev'",
    ),
    "data.yaml": (gz(("a/data.yaml", b"x: 1")), "data.yaml, which is not read"),
    "a delta": (gz(("patch.json", b"{}")), "is a delta"),
    "signed": (gz((".signatures.json", b"{}")), "is signed, and no verification key is configured"),
    "a file twice": (gz(("./policy.wasm", OTHER_WASM)), "holds policy.wasm twice"),
    "a path upwards": (gz(("../policy.wasm", WASM)), "does not belong in a bundle"),
    "a path upwards inside": (gz(("a/../../policy.wasm", WASM)), "does not belong in a bundle"),
    "a path of Windows": (gz(("..\\policy.wasm", WASM)), "does not belong in a bundle"),
    "a path with a line break": (gz(("a\nb", b"")), "does not belong in a bundle"),
    "a path with no name": (gz(("/", b"")), "does not belong in a bundle|is not a plain file"),
    "a symbolic link": (gz(special("a", tarfile.SYMTYPE, linkname="/etc/passwd")), "'a' is not a plain file"),
    "a hard link": (gz(special("a", tarfile.LNKTYPE, linkname="policy.wasm")), "'a' is not a plain file"),
    "a device": (gz(special("a", tarfile.CHRTYPE)), "'a' is not a plain file"),
    "a pipe": (gz(special("a", tarfile.FIFOTYPE)), "'a' is not a plain file"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_bundle_is_refused_in_one_sentence(tmp_path: Path, name: str) -> None:
    content, problem = BAD[name]
    with pytest.raises(BundleError, match=problem) as caught:
        read(tmp_path, content())
    assert str(caught.value).startswith(f"bundle {tmp_path / 'bundle.tar.gz'}: ")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"nowhere\.tar\.gz: there is no such file"):
        read_bundle(tmp_path / "nowhere.tar.gz")


def test_a_folder_with_the_files_of_a_bundle_is_the_bundle(tmp_path: Path) -> None:
    for name, content in read_archive(default_bundle(), 1 << 24)[0].items():
        file = tmp_path / "unpacked" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    assert read_bundle(tmp_path / "unpacked").digest == read_bundle(default_bundle()).digest


def test_an_empty_folder_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"holds no policy\.wasm"):
        read_bundle(tmp_path)


def test_a_bundle_that_is_too_large_is_refused_before_it_takes_memory(tmp_path: Path) -> None:
    limit = 1024 * 1024
    bombs = {
        "larger than the": random.Random(1).randbytes(limit + 1),
        "unpacks to more": gzip.compress(bytes(100 * limit)),
    }
    for problem, content in bombs.items():
        tracemalloc.start()
        with pytest.raises(BundleError, match=problem):
            read(tmp_path, content, max_bytes=limit)
        assert tracemalloc.get_traced_memory()[1] < 8 * limit
        tracemalloc.stop()


def test_a_member_that_claims_to_be_huge_takes_no_memory(tmp_path: Path) -> None:
    info = tarfile.TarInfo("data.json")
    info.size = 2**40
    tracemalloc.start()
    with pytest.raises(BundleError, match=r"is truncated within data\.json"):
        read(tmp_path, gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024)))
    assert tracemalloc.get_traced_memory()[1] < 8 * 1024 * 1024
    tracemalloc.stop()


def test_an_archive_of_more_files_than_anybody_needs_is_refused(tmp_path: Path) -> None:
    folder = tarfile.TarInfo("d")
    folder.type = tarfile.DIRTYPE
    with pytest.raises(BundleError, match="holds more than 20000 files and folders"):
        read(tmp_path, gzip.compress(folder.tobuf() * 20_001 + bytes(1024), 1))


@pytest.mark.parametrize("name", ["x" * 1_000_000, "\x1b[2J\n"])
def test_a_message_is_one_short_printable_line_whatever_it_repeats(tmp_path: Path, name: str) -> None:
    files = {".manifest": manifest(wasm=[{"entrypoint": name, "module": "/none.wasm"}]), "data.json": b"{}"}
    with pytest.raises(BundleError) as caught:
        read_files(tmp_path, files)
    message = str(caught.value)
    assert len(message) < 1100
    assert message.isprintable()


NAMES = st.lists(st.text("abc.-é", min_size=1, max_size=5), min_size=1, max_size=3).map("/".join)
FILES = st.dictionaries(
    NAMES.filter(lambda name: not {".", ".."} & set(name.split("/"))), st.binary(max_size=1500), max_size=6
)


@SLOW_FILES
@given(FILES, st.randoms(use_true_random=False))
def test_a_packed_archive_reads_back_and_does_not_depend_on_order(
    tmp_path: Path, contents: dict[str, bytes], chance: random.Random
) -> None:
    shuffled = list(contents.items())
    chance.shuffle(shuffled)
    packed = pack_archive(dict(shuffled))
    assert packed == pack_archive(contents)
    path = tmp_path / "bundle.tar.gz"
    path.write_bytes(packed)
    unpacked, size = read_archive(path, 1024 * 1024)
    assert {name: bytes(content) for name, content in unpacked.items()} == contents
    assert size == len(packed)


@SLOW_FILES
@given(FILES, FILES)
def test_a_digest_is_of_names_and_contents(one: dict[str, bytes], other: dict[str, bytes]) -> None:
    assert (content_digest(one) == content_digest(other)) == (one == other)
    assert content_digest(one) == content_digest(dict(reversed(one.items())))


def test_a_digest_does_not_depend_on_how_it_was_packed(tmp_path: Path) -> None:
    stranger = [special(f"./{name}", tarfile.REGTYPE, mtime=12345, uid=7, mode=0o600) for name in GOOD]
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for info, content in zip(reversed(stranger), reversed(GOOD.values()), strict=True):
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    assert read(tmp_path, packed.getvalue()).digest == read_files(tmp_path, GOOD).digest


@SLOW_FILES
@given(st.data())
def test_a_changed_byte_is_never_read_as_something_else(tmp_path: Path, data: st.DataObject) -> None:
    """A flipped byte is found, or changes nothing: in the header of gzip, or where it repeats other zeros."""
    packed = bytearray(pack_archive(GOOD))
    position = data.draw(st.integers(0, len(packed) - 1))
    packed[position] ^= data.draw(st.integers(1, 255))
    before = read_files(tmp_path, GOOD).digest
    with contextlib.suppress(BundleError):
        assert read(tmp_path, bytes(packed)).digest == before


@SLOW_FILES
@given(st.integers(0, len(pack_archive(GOOD)) - 1))
def test_a_bundle_cut_anywhere_is_refused(tmp_path: Path, length: int) -> None:
    with pytest.raises(BundleError):
        read(tmp_path, pack_archive(GOOD)[:length])


@SLOW_FILES
@given(st.lists(st.tuples(st.integers(0, 5119), st.binary(min_size=1, max_size=16)), max_size=8), st.booleans())
def test_nothing_but_a_bundle_error_comes_of_a_forged_archive(
    tmp_path: Path, patches: list[tuple[int, bytes]], repair: bool
) -> None:
    archive = bytearray(tar(*GOOD.items(), format=tarfile.PAX_FORMAT, pax_headers={"comment": "x"}))
    for position, content in patches:
        archive[position : position + len(content)] = content
    if repair:
        for start in range(0, 5120, 512):
            if any(archive[start : start + 512]):
                archive[start : start + 512] = checksummed(archive[start : start + 512])
    with contextlib.suppress(BundleError):
        read(tmp_path, gzip.compress(bytes(archive)))
