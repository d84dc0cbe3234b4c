"""The training losses that members share (``privacy.share_metrics``), for people to look at; they decide nothing."""

from __future__ import annotations

from collections import OrderedDict

from decaf_node.daemon.wire import Introduction


class Losses:
    """What each member has said last. limit: most members remembered; of more, the one heard longest ago goes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._of: OrderedDict[str, float] = OrderedDict()

    def heard(self, who: Introduction) -> None:
        """The member has introduced itself, with its loss or without."""
        self._of.pop(who.node, None)
        if who.loss is not None:
            self._of[who.node] = who.loss
            if len(self._of) > self._limit:
                self._of.popitem(last=False)

    def of(self, peer: str) -> float | None:
        """Return the loss that the member has said last, unless it has stopped to."""
        return self._of.get(peer)
