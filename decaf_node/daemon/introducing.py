"""Hellos to neighbours that have not heard yet what this node says of itself now.

The machine says hello only to members that it does not hear otherwise, and a neighbour is heard by its edges; of the
two ends of an edge only the one that opens it introduces itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection

from decaf_node.daemon.tasks import Tasks
from decaf_node.daemon.wire import Introduction

Words = tuple[str, float | None, tuple[float, ...]]


class Introducing:
    """me: what this node says of itself now; hello: says it to a peer, and tells whether it was heard."""

    def __init__(self, me: Callable[[], Introduction], hello: Callable[[str], Awaitable[bool]], tasks: Tasks) -> None:
        self._me = me
        self._hello = hello
        self._tasks = tasks
        self._heard: dict[str, Words] = {}
        self._calling: set[str] = set()

    def to(self, neighbours: Collection[str]) -> None:
        """Say hello to those of these that have not heard it yet. Who does not hear it now is tried next time."""
        now = self._said()
        self._heard = {peer: said for peer, said in self._heard.items() if peer in neighbours}
        for peer in neighbours:
            if self._heard.get(peer) != now and peer not in self._calling:
                self._calling.add(peer)
                self._tasks.spawn(self._call(peer))

    async def _call(self, peer: str) -> None:
        said = self._said()
        try:
            if await self._hello(peer):
                self._heard[peer] = said
        finally:
            self._calling.discard(peer)

    def _said(self) -> Words:
        me = self._me()
        return me.schema, me.loss, me.label_parts
