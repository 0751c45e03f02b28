"""Prints the bill of materials of the environment that runs it, as CycloneDX: `python charts/sbom.py front/Cargo.lock`.

What Python packages there are is read from what is installed, what the front was linked with from its lock file.
"""

import json
import re
import sys
import tomllib
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

_NAME = "sark-pdp"
_FRONT = "sark-pdp-front"


def bill(lock: Path) -> dict[str, Any]:
    """Without a time and a number of its own: the same content is the same bill."""
    installed = sorted(distributions(), key=lambda each: _normal(each.name))
    python = [_python(each) for each in installed]
    (own,) = (each for each in python if each["name"] == _NAME)
    crates = [
        _component(crate["name"], crate["version"], f"pkg:cargo/{crate['name']}@{crate['version']}")
        for crate in tomllib.loads(lock.read_text())["package"]
        if crate["name"] != _FRONT
    ]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {**own, "type": "application"}},
        "components": [each for each in python if each is not own] + crates,
    }


def _python(distribution: Distribution) -> dict[str, Any]:
    name = _normal(distribution.name)
    made = _component(name, distribution.version, f"pkg:pypi/{name}@{distribution.version}")
    if "License-Expression" in distribution.metadata:
        made["licenses"] = [{"expression": distribution.metadata["License-Expression"]}]
    return made


def _component(name: str, version: str, purl: str) -> dict[str, Any]:
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    json.dump(bill(Path(sys.argv[1])), sys.stdout, indent=1)
    print()
