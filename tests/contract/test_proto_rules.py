"""The protos follow buf's rules, and break nobody who was built from the released ones."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet

from tests.fix_tools import ROOT

RULES = ROOT / "proto" / "buf.yaml"
RELEASED = ROOT / "proto" / "released.binpb"
"""A descriptor set, not a commit of the history: a clone need not have one."""


@pytest.fixture(scope="module")
def protos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The protos as they are, with what they import."""
    file = tmp_path_factory.mktemp("proto") / "proto.binpb"
    subprocess.run([sys.executable, ROOT / "proto" / "generate.py", "--describe", file], check=True, timeout=120)
    return file


def run(buf: Path, *arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [str(part) for part in (buf, *arguments, "--config", RULES, "--path", "sark")]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_buf_has_nothing_to_say_of_the_protos(buf: Path, protos: Path) -> None:
    found = run(buf, "lint", protos)
    assert (found.returncode, found.stdout + found.stderr) == (0, "")


def test_nothing_that_was_released_is_broken(buf: Path, protos: Path) -> None:
    """Neither on the wire nor in generated code. What may be broken all the same: CONTRIBUTING.md tells how."""
    found = run(buf, "breaking", protos, "--against", RELEASED)
    assert (found.returncode, found.stdout + found.stderr) == (0, "")


def _first_field(file: FileDescriptorProto, name: str) -> FieldDescriptorProto:
    field: FieldDescriptorProto = next(each for each in file.message_type if each.name == name).field[0]
    return field


def _renumber(file: FileDescriptorProto) -> None:
    _first_field(file, "CheckResponse").number = 99


def _retype(file: FileDescriptorProto) -> None:
    _first_field(file, "CheckResponse").type = FieldDescriptorProto.TYPE_BYTES


def _rename(file: FileDescriptorProto) -> None:
    _first_field(file, "CheckResponse").name = "id"


def _remove_message(file: FileDescriptorProto) -> None:
    del file.message_type[-1]
    del file.service[0].method[-1]


def _remove_method(file: FileDescriptorProto) -> None:
    del file.service[0].method[-1]


def _remove_value(file: FileDescriptorProto) -> None:
    del file.enum_type[0].value[-1]


@pytest.mark.parametrize("change", [_renumber, _retype, _rename, _remove_message, _remove_method, _remove_value])
def test_a_breaking_change_is_found(
    buf: Path, protos: Path, tmp_path: Path, change: Callable[[FileDescriptorProto], None]
) -> None:
    changed = FileDescriptorSet.FromString(protos.read_bytes())
    change(next(file for file in changed.file if file.name == "sark/pdp/v1/decision.proto"))
    broken = tmp_path / "broken.binpb"
    broken.write_bytes(changed.SerializeToString())
    found = run(buf, "breaking", broken, "--against", RELEASED)
    assert found.returncode == 100
    assert "sark/pdp/v1/decision.proto" in found.stdout


def test_an_addition_breaks_nothing(buf: Path, protos: Path, tmp_path: Path) -> None:
    changed = FileDescriptorSet.FromString(protos.read_bytes())
    file = next(file for file in changed.file if file.name == "sark/pdp/v1/decision.proto")
    message = next(each for each in file.message_type if each.name == "CheckResponse")
    message.field.add(
        name="added", number=50, type=FieldDescriptorProto.TYPE_STRING, label=FieldDescriptorProto.LABEL_OPTIONAL
    )
    longer = tmp_path / "longer.binpb"
    longer.write_bytes(changed.SerializeToString())
    assert run(buf, "breaking", longer, "--against", RELEASED).returncode == 0
