"""A client in a process of its own: asks one sidecar so many questions a second, and keeps what it was answered.

Questions leave when they are due, whether or not those before were answered, and latencies count from then: a sidecar
that stands still is not asked less. Ends when its standard input does.
"""

import argparse
import gc
import json
import select
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from random import Random
from typing import IO, Any, Final

import grpc
import msgspec
from msgspec import Struct

from sark_pdp._proto.decision_pb2 import CheckRequest, CheckResponse, Outcome

CHECK: Final = "/sark.pdp.v1.PolicyDecision/Check"
TIMEOUT: Final = 30.0
_USERS: Final = 400
_TOOLS: Final = ("search_code", "customer_lookup", "drop_database", "read_files", "deploy")
_ROLES: Final = ("developer", "viewer", "admin", "analyst")
_NOTE: Final = "x" * 8192
"""What no rule reads and no event holds; it fills the queue of a sidecar that cannot commit."""
_UNRECORDED: Final = "the audit trail cannot take the decision"
_OPTIONS: Final = (
    # A sidecar that was killed is found again as soon as it is there.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
)


class Answer(Struct, frozen=True, array_like=True):
    """What became of one question. Times are those of the monotonic clock, in seconds, which processes share."""

    due: float
    came: float
    request_id: str
    decision_id: str
    """Empty where there was no answer."""
    decision: str
    """As in the table: allow, deny, undefined or error; or the status that came instead of an answer."""
    recorded: bool
    """False for a denial that says that it is not in the audit trail."""


def read_answers(file: Path) -> list[Answer]:
    """What a client kept."""
    decoder = msgspec.json.Decoder(Answer)
    return [decoder.decode(line) for line in file.read_bytes().splitlines()]


def questions(seed: str) -> Iterator[CheckRequest]:
    """Without end: some that repeat and are answered from the cache, some that do not; each has an id of its own."""
    random = Random(seed)
    number = 0
    while True:
        number += 1
        user = random.randrange(_USERS)
        document = {
            "action": "tool:invoke",
            "user": {"id": f"user-{user}", "roles": [_ROLES[user % len(_ROLES)]]},
            "tool": {"name": random.choice(_TOOLS)},
            "context": {"note": _NOTE if number % 2 else ""},
        }
        yield CheckRequest(request_id=f"{seed}-{number}", input_json=json.dumps(document).encode())


class Client:
    """Asks until it is told to stop. Answers are taken on a thread of grpcio's."""

    def __init__(self, target: str, output: IO[bytes]) -> None:
        self._output = output
        self._open = 0
        self._lock = threading.Lock()
        self._answered = threading.Condition(self._lock)
        self._channel = grpc.insecure_channel(target, _OPTIONS)
        self._check: Any = self._channel.unary_unary(CHECK, CheckRequest.SerializeToString, CheckResponse.FromString)

    def ask(self, request: CheckRequest, due: float) -> None:
        """Returns at once."""
        with self._lock:
            self._open += 1
        self._check.future(request, timeout=TIMEOUT).add_done_callback(partial(self._note, due, request.request_id))

    def close(self) -> None:
        """After the last answer."""
        with self._answered:
            self._answered.wait_for(lambda: not self._open, 2 * TIMEOUT)
        self._channel.close()

    def _note(self, due: float, request_id: str, call: Any) -> None:
        came = time.monotonic()
        code = call.code()
        if code is grpc.StatusCode.OK:
            response = call.result()
            decision = Outcome.Name(response.outcome).removeprefix("OUTCOME_").lower()
            recorded = not response.reason.startswith(_UNRECORDED)
            answer = Answer(due, came, request_id, response.decision_id, decision, recorded)
        else:
            answer = Answer(due, came, request_id, "", code.name, recorded=False)
        line = msgspec.json.encode(answer) + b"\n"
        with self._answered:
            self._output.write(line)
            self._open -= 1
            self._answered.notify()


def main() -> None:
    """The command: `python -m tests.chaos.asking TARGET FILE --rate 250 --seed 1-0`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("target")
    parser.add_argument("file", type=Path)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--seed", required=True)
    options = parser.parse_args()
    # It would stop now and then to look for what there is none of, and the sidecar would look slow.
    gc.disable()
    gaps = Random(f"gaps {options.seed}")
    with options.file.open("wb", buffering=1 << 16) as output:
        client = Client(options.target, output)
        due = time.monotonic()
        for request in questions(options.seed):
            due += gaps.expovariate(options.rate)
            # Readable is what has ended: nothing is ever written to it.
            if select.select([sys.stdin], [], [], max(due - time.monotonic(), 0.0))[0]:
                break
            client.ask(request, due)
        client.close()


if __name__ == "__main__":
    main()
