"""What makes figures worth comparing: servers that decide alike, answers that are answers, a trail that is whole."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.figures import Proof
from bench.loads import Load
from bench.questions import COMPARED, TIMED
from bench.servers import Server

_SHORTER = 0.95
"""An answer that is not as long as this share of the known one is another."""
_AUDIT_SECONDS = 900


def require_agreement(servers: Mapping[str, Server], *, native: bool) -> None:
    """Exits with the first question on which a server decides otherwise than it should; an echo is not asked.

    Through `Check` the default bundle is asked, always the same: it has to allow.
    """
    for name, server in servers.items():
        for question in COMPARED if server.decides else ():
            expected = native or question.allowed
            answer = server.target.ask(question)
            if server.target.api.allows(answer) != expected:
                raise SystemExit(
                    f"{name} {'denies' if expected else 'allows'} {question}, the others do not: "
                    "figures would compare nothing"
                )


def answer_sizes(server: Server) -> list[int]:
    """Bytes of the body of the answer to each of the timed questions."""
    frame = 5 if server.target.api.grpc else 0
    return [len(server.target.ask(question)) + frame for question in TIMED]


def unexpected(load: Load, expected: Sequence[int]) -> int:
    """An estimate of the answers that are too short, from the mean size of those to each body: a failed call has none.

    `expected` has the size for each body that was sent. Where sizes are not known, statuses were read instead.
    """
    each = load.calls / max(1, len(load.answer_bytes))
    pairs = zip(load.answer_bytes, expected, strict=True) if load.answer_bytes else ()
    return sum(round(each * (1 - got / size)) for got, size in pairs if got < size * _SHORTER)


def prove(spool: Path, decisions: int) -> Proof:
    """What `sark-pdp audit` finds in the trail of a process that has ended, beside the decisions that it counted."""
    found: Mapping[str, int] = json.loads(_audit("stats", spool, check=True).stdout)["decisions"]
    return Proof(decisions, sum(found.values()), verified=_audit("verify", spool).returncode == 0)


def _audit(command: str, spool: Path, *, check: bool = False) -> "subprocess.CompletedProcess[bytes]":
    program = Path(sys.executable).parent / "sark-pdp"
    arguments = [str(program), "audit", command, "--json", "--spool", str(spool)]
    return subprocess.run(arguments, capture_output=True, check=check, timeout=_AUDIT_SECONDS)
