"""Several bundles become one set of modules: whose data is seen by whom, and which fingerprints change with it."""

import gzip
from typing import Any

import pytest

from sark_pdp.engine import preparation
from sark_pdp.engine.archive import pack_archive
from sark_pdp.engine.policies import load_prepared
from sark_pdp.engine.preparation import Content, Prepared, prepare, prepare_here
from sark_pdp.engine.signatures import Key, Keys, signed
from sark_pdp.engine.wasm.policy import Runtime
from sark_pdp.errors import BundleActivationError, BundleError, BundleSignatureError, BundleSizeError
from tests.fix_bundles import MakeBundle, data_bundle, delta_bundle

LIMIT = 1 << 26


def content(name: str, *archives: dict[str, bytes], keys: Keys | None = None) -> Content:
    return Content(name, name, tuple(pack_archive(files) for files in archives), keys)


def answer(prepared: Prepared, runtime: Runtime, entrypoint: str) -> Any:
    policies = load_prepared(prepared, runtime, None)
    try:
        return policies.entrypoint(entrypoint).evaluate(b"{}")
    finally:
        policies.close()


def fingerprints(prepared: Prepared) -> dict[str, bytes]:
    return {entry.name: entry.fingerprint for module in prepared.modules for entry in module.entrypoints}


def test_the_data_of_one_bundle_is_seen_by_the_modules_of_another(
    patient_runtime: Runtime, make_bundle: MakeBundle
) -> None:
    alone = prepare_here([content("policy", make_bundle())], LIMIT)
    assert answer(alone, patient_runtime, "p/shared") is None
    for shared in ([1], [2]):
        both = prepare_here(
            [content("policy", make_bundle()), content("lists", data_bundle({"lists": {"shared": shared}}))], LIMIT
        )
        assert answer(both, patient_runtime, "p/shared") == str(shared).encode()
        assert [bundle.name for bundle in both.bundles] == ["policy", "lists"]


def test_a_fingerprint_changes_only_for_whoever_reads_what_changed(make_bundle: MakeBundle) -> None:
    lists = data_bundle({"lists": {"shared": 1}, "other": {"x": 1}})
    before = fingerprints(prepare_here([content("p", make_bundle()), content("d", lists)], LIMIT))
    for operation, changed in (
        ({"op": "upsert", "path": "/lists/shared", "value": 2}, {"p/shared"}),
        ({"op": "upsert", "path": "/other/x", "value": 2}, set()),
    ):
        patched = content("d", lists, delta_bundle([operation]))
        after = fingerprints(prepare_here([content("p", make_bundle()), patched], LIMIT))
        assert {name for name, value in after.items() if value != before[name]} == changed


OVERLAPS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"facts": {}}, {}, "facts"),
    ({"p": {"more": 1}}, {}, "p"),
    ({"lists": {}}, {"roots": [""]}, "lists"),
    ({"facts": {"below": 1}}, {}, "facts"),
]


@pytest.mark.parametrize(("data", "manifest", "shared"), OVERLAPS)
def test_bundles_that_own_the_same_are_refused(
    make_bundle: MakeBundle, data: dict[str, Any], manifest: dict[str, Any], shared: str
) -> None:
    with pytest.raises(BundleError, match=f"the bundles policy and more both own {shared}: give them roots"):
        prepare_here([content("policy", make_bundle(**manifest)), content("more", data_bundle(data))], LIMIT)


def test_roots_side_by_side_do_not_overlap(patient_runtime: Runtime, make_bundle: MakeBundle) -> None:
    policy = {**make_bundle(roots=["p", "facts", "lists/own"]), "lists/own/data.json": b"[1]"}
    more = {".manifest": b'{"roots": ["lists/shared"]}', "lists/shared/data.json": b"[2]"}
    prepared = prepare_here([content("policy", policy), content("more", more)], LIMIT)
    assert answer(prepared, patient_runtime, "p/shared") == b"[2]"


FOREIGN: dict[str, tuple[dict[str, Any], str]] = {
    "data": ({"roots": ["p"]}, "the data at facts lies outside of its roots"),
    "entrypoint": ({"roots": ["facts"]}, "the entrypoint p/marks lies outside of its roots"),
    "a longer name": ({"roots": ["p", "fact"]}, "the data at facts lies outside of its roots"),
    "below the data": ({"roots": ["p", "facts/other"]}, "the data at facts/mark lies outside of its roots"),
    "more roots than anybody needs": (
        {"roots": [f"r{number}" for number in range(1001)]},
        "has 1001 roots; no more than",
    ),
    "roots within roots": ({"roots": ["p", "facts", "p/q"]}, "has the roots 'p' and 'p/q', which overlap"),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_what_a_bundle_does_not_own_is_refused(make_bundle: MakeBundle, case: str) -> None:
    manifest, message = FOREIGN[case]
    with pytest.raises(BundleError, match=message):
        prepare_here([content("policy", make_bundle(**manifest))], LIMIT)


def test_data_alone_decides_nothing(patient_runtime: Runtime) -> None:
    prepared = prepare_here([content("d", data_bundle({"a": {}}))], LIMIT)
    with pytest.raises(BundleActivationError, match=r"no policy\.wasm is in d: only data"):
        load_prepared(prepared, patient_runtime, None)


def test_a_bundle_that_is_larger_than_it_says_is_read_by_the_child(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {**data_bundle({"a": {}}), "a/b/data.json": b" " * (1 << 21) + b"1"}
    # The trailer of gzip is that of its last member.
    packed = pack_archive(files, level=1) + gzip.compress(b"")
    here: list[int] = []
    monkeypatch.setattr(preparation, "combine", lambda bundles: here.append(len(bundles)))
    prepared = prepare([Content("d", "d", (packed,))], LIMIT)
    assert ([bundle.name for bundle in prepared.bundles], here) == (["d"], [])


def test_data_that_is_nested_too_deeply_is_refused_by_name(make_bundle: MakeBundle) -> None:
    deep = delta_bundle([{"op": "upsert", "path": "/facts" + "/a" * 100_000, "value": 1}])
    with pytest.raises(BundleError, match=r"^bundle p: the data is nested too deeply$"):
        prepare_here([content("p", make_bundle(), deep)], LIMIT)


def test_a_child_prepares_the_same(make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = b"a secret of some length"
    files = signed(make_bundle(), secret, "HS256", "", "")
    contents = [content("p", files, keys=Keys({}, Key(secret))), content("d", data_bundle({"lists": {"shared": 1.0}}))]
    here = prepare(contents, LIMIT)
    monkeypatch.setattr(preparation, "_INLINE_BYTES", 0)
    assert prepare(contents, LIMIT) == here
    refusals: list[tuple[type[BundleError], Content, int]] = [
        (BundleSignatureError, content("p", make_bundle(), keys=Keys({}, Key(secret))), LIMIT),
        (BundleSizeError, content("p", make_bundle()), 1000),
        (BundleError, content("p", delta_bundle([{"op": "remove", "path": "/a"}])), LIMIT),
    ]
    for kind, refused, limit in refusals:
        with pytest.raises(BundleError, match=r"^bundle p: ") as caught:
            prepare([refused], limit)
        assert type(caught.value) is kind
