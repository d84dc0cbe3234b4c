"""Static peers: each is tried by one task, however often the settings are read again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

from decaf_node.daemon.dial import Answer, Dialler
from decaf_node.daemon.host import Me
from decaf_node.daemon.meeting import Meeting
from decaf_node.daemon.said import Said
from decaf_node.daemon.tasks import Tasks
from decaf_node.mesh.events import Event, HelloReceived
from decaf_node.mesh.rumours import NO_NEWS, News


class Tries:
    """Notes what it is to try."""

    def __init__(self) -> None:
        self.addresses: list[str] = []

    async def keep_trying(self, address: str, answered: Callable[[str, Answer], Awaitable[None]]) -> None:
        self.addresses.append(address)


async def post(event: Event, fresh: Callable[[], bool] | None = None) -> None:
    raise AssertionError(event)


async def greet(hello: HelloReceived) -> News:
    return NO_NEWS


async def test_a_peer_that_is_tried_already_is_tried_no_more_often() -> None:
    tries, tasks = Tries(), Tasks()
    meeting = Meeting(Me("A" * 52, "a", "lab"), cast(Dialler, tries), post, greet, tasks, Said(8))
    for addresses in (("b:1", "c:1"), ("c:1",), ("d:1", "b:1")):
        meeting.dial(addresses)
    await asyncio.sleep(0)
    assert tries.addresses == ["b:1", "c:1", "d:1"]
    await tasks.cancel()
