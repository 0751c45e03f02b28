"""Generations where Redis is there, and one question to it fails."""

from collections.abc import Sequence
from typing import Any

import pytest

from sark_pdp.cache import subjects
from sark_pdp.cache.redis_connection import Command
from sark_pdp.cache.redis_generations import RedisGenerations
from sark_pdp.model import Seconds
from tests.fix_generations import StartProcess, a_question, asked
from tests.fix_redis import RedisProcess

ADA = subjects.user("ada")
OF_ADA = a_question("ada")


class Failing:
    """Redis, but no reply comes while `fails`."""

    def __init__(self, link: Any) -> None:
        self.fails = False
        self.odd: list[Any] | None = None
        """What is answered instead."""
        self._link = link

    @property
    def run_id(self) -> bytes | None:
        """Of the link, whatever fails."""
        return bytes(self._link.run_id)

    def execute(self, commands: Sequence[Command]) -> list[Any] | None:
        """As the link, or None."""
        return self.odd if self.fails else list(self._link.execute(commands))


@pytest.mark.parametrize("reply", [0, b"", None, [], [b"1"], [1] * 20, [[]] * 20, {}])
def test_a_reply_that_is_none_is_a_failed_read(
    start_process: StartProcess, redis_server: RedisProcess, redis_prefix: str, reply: Any
) -> None:
    process = start_process(redis_server.url)
    process.wait_linked()
    link = Failing(process.link)
    odd = RedisGenerations(link, redis_prefix, Seconds(600.0))
    shared = asked(odd, OF_ADA)
    link.fails = True
    wanted = len(odd._parts.subjects(*OF_ADA[:2]))
    link.odd = [reply[:wanted] if isinstance(reply, list) else reply]
    assert len({*asked(odd, OF_ADA), *asked(odd, OF_ADA), *shared}) == 3


def test_one_read_that_fails_does_not_end_the_reading_where_nothing_else_tells_of_invalidations(
    start_process: StartProcess, redis_server: RedisProcess, redis_prefix: str
) -> None:
    """Without a channel each question has to ask: what was made up for one of them would never be replaced."""
    process = start_process(redis_server.url)
    process.wait_linked()
    link = Failing(process.link)
    unhearing = RedisGenerations(link, redis_prefix, Seconds(600.0))
    shared = process.ask(OF_ADA)
    assert asked(unhearing, OF_ADA) == [shared]
    link.fails = True
    alone = [*asked(unhearing, OF_ADA), *asked(unhearing, OF_ADA), *unhearing.of([ADA]), *unhearing.of([ADA])]
    assert len({*alone, shared}) == 5
    assert unhearing.known(*OF_ADA) is None
    assert unhearing.known_of([ADA]) is None
    link.fails = False
    process.generations.invalidate([ADA])
    assert asked(unhearing, OF_ADA) == [process.ask(OF_ADA)] != [shared]
