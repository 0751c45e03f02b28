"""The patch of any pod: it only adds, it is whole, and once applied there is nothing more to do."""

from typing import Any

import hypothesis.strategies as st
import jsonpatch
import msgspec
import pytest
from hypothesis import given, reject

from sark_pdp.addresses import TcpAddress
from sark_pdp.errors import InjectionError
from sark_pdp.injector.injection import inject
from sark_pdp.injector.review import Pod
from sark_pdp.injector.template import Resources, Template
from sark_pdp.quantities import format_memory, parse_cpu, parse_memory

NATIVE = Template(
    image="image:1",
    pull_policy="IfNotPresent",
    mode="native",
    resources=Resources("100m", "64Mi", None, "128Mi"),
    metrics=TcpAddress("0.0.0.0", 9004),  # noqa: S104 (compared with)
    spool_size="256Mi",
    user=65532,
    token_audience="sark-pdp",
    secret="keys",
    variables=(("SARK_PDP_CACHE__L2__MODE", "auto"),),
    envoy_image="envoy:1",
)
TEMPLATES = (NATIVE, msgspec.structs.replace(NATIVE, mode="container", secret=None))

names = st.text("abcdefgh", min_size=1, max_size=6)
variables = st.fixed_dictionaries(
    {"name": names | st.just("SARK_PDP_ADDRESS")},
    optional={"value": st.text(max_size=5), "valueFrom": st.just({"fieldRef": {"fieldPath": "metadata.name"}})},
)
mounts = st.fixed_dictionaries(
    {"name": names, "mountPath": st.text("/ab~", max_size=8)}, optional={"subPath": names, "readOnly": st.booleans()}
)
containers = st.fixed_dictionaries(
    {"name": names, "image": names},
    optional={
        "env": st.lists(variables, max_size=3),
        "volumeMounts": st.lists(mounts, max_size=3),
        "ports": st.lists(st.fixed_dictionaries({"containerPort": st.integers(1, 65535)}), max_size=2),
        "restartPolicy": st.just("Always"),
        "resources": st.just({}),
    },
)
pods = st.fixed_dictionaries(
    {
        "spec": st.fixed_dictionaries(
            {"containers": st.lists(containers, min_size=1, max_size=4, unique_by=lambda each: str(each["name"]))},
            optional={
                "initContainers": st.lists(
                    containers.map(lambda each: {**each, "name": f"init-{each['name']}"}),
                    max_size=3,
                    unique_by=lambda each: str(each["name"]),
                ),
                "volumes": st.lists(st.fixed_dictionaries({"name": names}), max_size=3),
                "terminationGracePeriodSeconds": st.integers(0, 600),
            },
        ),
        "metadata": st.fixed_dictionaries(
            {},
            optional={
                "name": names,
                "labels": st.dictionaries(names | st.just("a/b~c"), names, max_size=2),
                "annotations": st.dictionaries(names, names, max_size=2).map(
                    lambda each: {**each, "sark.io/envoy": "true", "sark.io/app-port": "8080"}
                ),
            },
        ),
    }
)


def without(whole: Any, part: Any) -> Any:
    """What `whole` has and `part` has not; fails where `part` has something else."""
    if isinstance(part, dict):
        assert isinstance(whole, dict)
        assert whole.keys() >= part.keys()
        kept = {key: without(value, part[key]) if key in part else value for key, value in whole.items()}
        return {key: value for key, value in kept.items() if value not in ({}, [], None)}
    if isinstance(part, list):
        named = [each["name"] for each in part if isinstance(each, dict) and "name" in each]
        # What there was keeps its order; what is new comes before or after it.
        first = whole.index(next((each for each in whole if named and each["name"] == named[0]), None)) if named else 0
        middle = whole[first : first + len(part)]
        rest = [without(new, old) for new, old in zip(middle, part, strict=True)]
        return whole[:first] + [each for each in rest if each] + whole[first + len(part) :]
    assert whole == part
    return None


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.mode)
@given(pod=pods)
def test_a_patch_only_adds_and_is_needed_once(template: Template, pod: dict[str, Any]) -> None:
    try:
        patch = inject(msgspec.convert(pod, Pod), template)
    except InjectionError:
        # A container has the port or the path that the sidecar needs.
        reject()

    injected = jsonpatch.apply_patch(pod, patch)

    assert {operation["op"] for operation in patch} == {"add"}
    assert without(injected, pod)
    assert inject(msgspec.convert(injected, Pod), template) == []
    for kind in ("containers", "initContainers"):
        for container in injected["spec"].get(kind, []):
            assert (
                len([mount for mount in container.get("volumeMounts", []) if mount["name"] == "sark-pdp-socket"]) <= 1
            )


@pytest.mark.parametrize(
    ("text", "value"), [("1", 1000), ("1.5", 1500), ("250m", 250), ("0.001", 1), ("16", 16_000), ("1.25", 1250)]
)
def test_processors(text: str, value: int) -> None:
    assert parse_cpu(text) == value


@pytest.mark.parametrize("text", ["", "0", "0m", "0.0", "-1", "1e3", "1.0005", "1 ", "a", "1M", "٣", "9" * 20])
def test_no_processors(text: str) -> None:
    with pytest.raises(ValueError, match="expected processors as in"):
        parse_cpu(text)


@pytest.mark.parametrize(("text", "value"), [("1Ki", 1024), ("64Mi", 2**26), ("2Gi", 2**31), ("1536Mi", 3 * 2**29)])
def test_memory(text: str, value: int) -> None:
    assert parse_memory(text) == value
    assert parse_memory(format_memory(value)) == value


@pytest.mark.parametrize("text", ["", "0Mi", "64", "64M", "64MiB", "1.5Gi", "-1Mi", " 1Mi", "1Mi\n", "9" * 20 + "Ki"])
def test_no_memory(text: str) -> None:
    with pytest.raises(ValueError, match="expected bytes with Ki, Mi or Gi"):
        parse_memory(text)
