"""Generates `sark_pdp/_proto` from the protos beside this file: `python proto/generate.py [OUTPUT]`.

The messages import nothing of each other, so the generated modules lie flat in one package. With `--describe FILE` a
descriptor set is written instead, comments and imports included: what buf reads, and protoc for other languages.
"""

import argparse
import tempfile
from pathlib import Path

from google.protobuf import any_pb2, descriptor_pb2, duration_pb2, struct_pb2
from google.rpc import status_pb2
from grpc_tools import protoc

HERE = Path(__file__).parent
PROTOS = ("sark/pdp/v1/decision.proto", "sark/pdp/v1/admin.proto", "sark/audit/v1/audit.proto")


def generate(output: Path) -> None:
    """Writes `*_pb2.py` and `*_pb2.pyi` for each proto into `output`, which exists."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        _protoc(work, [f"--python_out={work}", f"--pyi_out={work}"])
        for proto in PROTOS:
            for suffix in ("_pb2.py", "_pb2.pyi"):
                made = work / proto.replace(".proto", suffix)
                (output / made.name).write_bytes(made.read_bytes())


def describe(file: Path) -> None:
    """Writes a `google.protobuf.FileDescriptorSet` of the protos and of what they import."""
    with tempfile.TemporaryDirectory() as folder:
        _protoc(Path(folder), ["--include_imports", "--include_source_info", f"--descriptor_set_out={file}"])


def _protoc(work: Path, outputs: list[str]) -> None:
    """What the protos import comes from the packages that the generated code uses."""
    imported = descriptor_pb2.FileDescriptorSet()
    for module in (any_pb2, duration_pb2, struct_pb2, status_pb2):
        module.DESCRIPTOR.CopyToProto(imported.file.add())
    (work / "imported.binpb").write_bytes(imported.SerializeToString())
    code = protoc.main(
        ["protoc", f"--descriptor_set_in={work / 'imported.binpb'}", f"--proto_path={HERE}", *outputs, *PROTOS]
    )
    if code != 0:
        raise SystemExit(code)


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, nargs="?", default=HERE.parent / "sark_pdp" / "_proto")
    parser.add_argument("--describe", type=Path, metavar="FILE", help="write a descriptor set instead")
    options = parser.parse_args()
    if options.describe:
        describe(options.describe)
    else:
        generate(options.output)


if __name__ == "__main__":
    main()
