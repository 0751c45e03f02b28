"""What each piece of advice in policies/README.md is worth: the same question asked of two policies, in turns.

Each is built into a bundle as `sark-pdp bundle build` does it, and evaluated in the engine without gRPC and caches.
Times are CPU time, which other work on the machine disturbs least.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from bench.machine import TOOLS
from sark_pdp.engine.build import build_bundle
from sark_pdp.engine.opa import Opa
from sark_pdp.engine.wasm.policy import Runtime, WasmPolicy
from sark_pdp.model import Json, Seconds
from sark_pdp.projection import Projection

OPA = TOOLS / "opa"
MEMORY_LIMIT = 64 * 1024 * 1024

HEAD = "package p\n\n"


class Pair(Struct, frozen=True):
    """One piece of advice: two policies that answer the same question, the second as advised."""

    advice: str
    without: str
    advised: str
    input: dict[str, Json]
    data: dict[str, Json] = {}


class Subject(Struct, frozen=True):
    """One policy, ready to be asked."""

    policy: WasmPolicy
    entrypoint: int
    input_json: bytes
    kilobytes: float

    def time(self, times: int) -> float:
        """Microseconds of CPU time of one evaluation."""
        evaluate, entrypoint, input_json = self.policy.evaluate, self.entrypoint, self.input_json
        began = time.process_time_ns()
        for _ in range(times):
            evaluate(entrypoint, input_json)
        return (time.process_time_ns() - began) / times / 1000


def alternatives(count: int) -> str:
    """A policy of that many rules, the last of which applies."""
    rules = "".join(f'\nallow if {{\n\tinput.role == "r{n}"\n\tinput.tool == "t{n}"\n}}\n' for n in range(count))
    return "default allow := false\n" + rules


def grants(count: int) -> dict[str, Json]:
    """The same as data."""
    return {"grants": {f"r{n}": {f"t{n}": True} for n in range(count)}}


LOOKUP = "default allow := false\n\nallow if data.grants[input.role][input.tool]\n"
NAMES = [f"name-{n}" for n in range(50)]


ASKED_AGAIN = """allow := 1 if {
	listed
	input.a
} else := 2 if {
	listed
	input.b
} else := 3 if not listed

listed if {
	some name in data.names
	name == input.user
}
"""


def helpers(arguments: str) -> str:
    """A policy with twelve helpers, each asked once."""
    asked = "".join(f"\th{n}{'(input.user.id)' if arguments else ''}\n" for n in range(12))
    defined = "".join(f'\nh{n}{arguments} if {arguments.strip("()") or "input.user.id"} != "x{n}"\n' for n in range(12))
    return f"default allow := false\n\nallow if {{\n{asked}}}\n{defined}"


REASONS = [("status", "active"), ("tenant", "a"), ("region", "eu"), ("channel", "web"), ("plan", "paid"), ("tier", "1")]
PERSON: dict[str, Json] = {field: "none" for field, _ in REASONS}

PAIRS = (
    Pair(
        advice="Lookups in data instead of 1,000 rules",
        without=alternatives(1000),
        advised=LOOKUP,
        input={"role": "r999", "tool": "t999"},
        data=grants(1000),
    ),
    Pair(
        advice="Lookups in data instead of 100 rules",
        without=alternatives(100),
        advised=LOOKUP,
        input={"role": "r99", "tool": "t99"},
        data=grants(100),
    ),
    Pair(
        advice="An object with a key for each of 50 names instead of a list",
        without="default allow := false\n\nallow if input.user in data.names\n",
        advised="default allow := false\n\nallow if data.known[input.user]\n",
        input={"user": "name-49"},
        data={"names": NAMES, "known": dict.fromkeys(NAMES, True)},
    ),
    Pair(
        advice="Helpers as functions instead of rules without arguments (12 of them)",
        without=helpers(""),
        advised=helpers("(id)"),
        input={"user": {"id": "bob"}},
    ),
    Pair(
        advice="A default for a rule that is asked three times and does not apply",
        without=ASKED_AGAIN,
        advised="default listed := false\n\n" + ASKED_AGAIN,
        input={"user": "nobody"},
        data={"names": NAMES},
    ),
    Pair(
        advice="Cheap checks first: a refusal that needs no clock",
        without="""allow := false if not open

else := false if input.suspended

else := true

open if time.clock(time.now_ns())[0] < 24
""",
        advised="""allow := false if input.suspended

else := false if not open

else := true

open if time.clock(time.now_ns())[0] < 24
""",
        input={"suspended": True},
    ),
    Pair(
        advice="No built-in of the host: the clock only where it counts",
        without='allow if {\n\ttime.clock(time.now_ns())[0] < 24\n\tinput.level == "low"\n}\n',
        advised="""allow if input.level == "low"

allow if {
	input.level == "high"
	time.clock(time.now_ns())[0] < 24
}
""",
        input={"level": "low"},
    ),
    Pair(
        advice="concat instead of sprintf",
        without='allow := sprintf("a role grants %s in %s", [input.level, input.place])\n',
        advised='allow := concat("", ["a role grants ", input.level, " in ", input.place])\n',
        input={"level": "low", "place": "production"},
    ),
    Pair(
        advice="The first reason instead of all six",
        without='allow := concat("; ", sort(deny))\n'
        + "".join(f'\ndeny contains "bad {field}" if input.{field} != "{good}"\n' for field, good in REASONS),
        advised="\n\nelse".join(
            f'{"allow" if n == 0 else ""} := "bad {field}" if input.{field} != "{good}"'
            for n, (field, good) in enumerate(REASONS)
        )
        + "\n",
        input=PERSON,
    ),
    Pair(
        advice="No regular expression where a check of characters will do",
        without="default allow := false\n\nallow if regex.match(`^[a-z0-9-]{3,63}$`, input.name)\n",
        advised="""default allow := false

allow if {
	trim(input.name, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
	count(input.name) >= 3
	count(input.name) <= 63
}
""",
        input={"name": "billing-tools"},
    ),
    Pair(
        advice="A field of the input instead of all of it (parameters of 4 KB)",
        without='default allow := false\n\nallow if object.get(input, ["user", "role"], "") == "developer"\n',
        advised='default allow := false\n\nallow if input.user.role == "developer"\n',
        input={"user": {"role": "developer"}, "parameters": {f"key-{n}": "value " * 5 for n in range(100)}},
    ),
)


def subject(runtime: Runtime, opa: Opa, folder: Path, pair: Pair, rego: str) -> Subject:
    """Builds and loads one policy of a pair."""
    source = folder / "source"
    (source / "data").mkdir(parents=True)
    (source / "p.rego").write_text(HEAD + rego)
    (source / "data.json").write_bytes(msgspec.json.encode(pair.data))
    bundle = build_bundle(
        source, folder / "bundle.tar.gz", opa=opa, entrypoints=["p/allow"], revision="1", report=lambda _: None
    )
    (module,) = bundle.modules
    (entrypoint,) = module.entrypoints
    projection = Projection(entrypoint.reads_input)
    policy = WasmPolicy(runtime, module.wasm, msgspec.json.encode(bundle.data))
    read = msgspec.json.encode(projection.project(pair.input))
    number = policy.entrypoint(entrypoint.name)
    if policy.evaluate(number, read) is None:
        raise RuntimeError(f"{pair.advice}: a policy that does not decide shows nothing")
    return Subject(policy, number, read, len(module.wasm) / 1024)


def measure(pair: Pair, runtime: Runtime, opa: Opa, rounds: int) -> list[str]:
    """One line of the table."""
    with tempfile.TemporaryDirectory() as temporary:
        subjects = [
            subject(runtime, opa, Path(temporary) / name, pair, rego)
            for name, rego in (("without", pair.without), ("advised", pair.advised))
        ]
    without, advised = subjects
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for one, series in zip(subjects, times, strict=True):
            series.append(one.time(300))
    before, after = (statistics.median(series) for series in times)
    return [
        pair.advice,
        f"{before:.1f}",
        f"{after:.1f}",
        f"{before / after:.1f}",
        f"{without.kilobytes:.0f}",
        f"{advised.kilobytes:.0f}",
    ]


class _SystemClock:
    def now_ns(self) -> int:
        return time.time_ns()


def main(arguments: Sequence[str]) -> int:
    """Prints the table of policies/README.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--opa", default=str(OPA), help="the executable (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=31, help="of 300 evaluations each (default: %(default)s)")
    options = parser.parse_args(arguments)
    opa = Opa(options.opa)
    runtime = Runtime(eval_timeout=Seconds(10.0), memory_limit=MEMORY_LIMIT, clock=_SystemClock())
    print("| advice | without, µs | advised, µs | times faster | module without, KiB | advised, KiB |")
    print("|---|---|---|---|---|---|")
    for pair in PAIRS:
        print(f"| {' | '.join(measure(pair, runtime, opa, options.rounds))} |", flush=True)
    runtime.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
