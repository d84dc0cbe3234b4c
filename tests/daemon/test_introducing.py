"""Neighbours hear what a node says of itself: once, and until they have."""

from __future__ import annotations

import asyncio

from decaf_node.daemon.host import Me
from decaf_node.daemon.introducing import Introducing
from decaf_node.daemon.tasks import Tasks


async def test_each_neighbour_hears_what_has_changed_and_nothing_twice() -> None:
    me, tasks, said, deaf = Me("A", "a", "lab", shares_loss=True), Tasks(), list[str](), {"C"}

    async def hello(peer: str) -> bool:
        said.append(peer)
        return peer not in deaf

    introducing = Introducing(me.introduction, hello, tasks)

    async def calls(*neighbours: str) -> str:
        said.clear()
        introducing.to(neighbours)
        introducing.to(neighbours)  # while the first calls are under way
        for _ in range(3):  # each call begins, and ends
            await asyncio.sleep(0)
        return "".join(said)

    assert await calls("B", "C") == "BC"
    assert await calls("B", "C") == "C", "it has not heard it"
    deaf.clear()
    assert await calls("B", "C") == "C"
    assert await calls("B", "C", "D") == "D"
    me.loss = 0.5
    assert await calls("B", "C", "D") == "BCD"
    me.round = 7
    assert await calls("B", "C", "D") == "", "that is said by edges"
    assert await calls("B") == ""
    assert await calls("B", "C") == "C", "it was no neighbour meanwhile"
