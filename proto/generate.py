"""Generates `sark_pdp/_proto` from the protos beside this file: `python proto/generate.py [OUTPUT]`.

The messages import nothing of each other, so the generated modules lie flat in one package.
"""

import sys
import tempfile
from pathlib import Path

from google.protobuf import any_pb2, descriptor_pb2, duration_pb2, struct_pb2
from google.rpc import status_pb2
from grpc_tools import protoc

HERE = Path(__file__).parent
PROTOS = ("sark/pdp/v1/decision.proto", "sark/pdp/v1/admin.proto", "sark/audit/v1/audit.proto")


def generate(output: Path) -> None:
    """Writes `*_pb2.py` and `*_pb2.pyi` for each proto into `output`, which exists."""
    imported = descriptor_pb2.FileDescriptorSet()
    for module in (any_pb2, duration_pb2, struct_pb2, status_pb2):
        module.DESCRIPTOR.CopyToProto(imported.file.add())
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "imported.binpb").write_bytes(imported.SerializeToString())
        code = protoc.main(
            [
                "protoc",
                f"--descriptor_set_in={work / 'imported.binpb'}",
                f"--proto_path={HERE}",
                f"--python_out={work}",
                f"--pyi_out={work}",
                *PROTOS,
            ]
        )
        if code != 0:
            raise SystemExit(code)
        for proto in PROTOS:
            for suffix in ("_pb2.py", "_pb2.pyi"):
                made = work / proto.replace(".proto", suffix)
                (output / made.name).write_bytes(made.read_bytes())


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE.parent / "sark_pdp" / "_proto")
