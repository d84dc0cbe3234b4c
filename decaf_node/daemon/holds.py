"""Why the node is paused: an operator wants it, or other work has the device. It goes on when nobody holds it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from decaf_node.mesh.events import Event, PauseRequested, ResumeRequested


class Holds:
    """post: has the machine take an event, as ``Driver.post_and_wait`` does."""

    def __init__(self, post: Callable[[Event], Awaitable[None]]) -> None:
        self._post = post
        self._why: dict[str, str] = {}

    @property
    def why(self) -> str:
        """Say why the node is paused; empty where it is not."""
        return "; ".join(self._why.values())

    async def hold(self, holder: str, why: str) -> None:
        """Pause the node, or say another reason of the same holder."""
        held = bool(self._why)
        self._why[holder] = why
        if not held:
            await self._post(PauseRequested())

    async def release(self, holder: str) -> None:
        """Have the node go on, unless another holds it too."""
        self._why.pop(holder, None)
        if not self._why:
            await self._post(ResumeRequested())
