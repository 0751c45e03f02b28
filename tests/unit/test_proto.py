"""The generated code is what the protos say, as the pinned generator writes it."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
GENERATED = ROOT / "sark_pdp" / "_proto"


def test_generated_code_is_committed_as_generated(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "proto" / "generate.py", tmp_path], check=True)

    generated = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    committed = {file.name: file.read_bytes() for file in GENERATED.glob("*_pb2*.py*")}

    assert generated, "proto/generate.py wrote nothing"
    assert sorted(generated) == sorted(committed)
    stale = [name for name, code in sorted(generated.items()) if committed[name] != code]
    assert not stale, "run `make proto`"
