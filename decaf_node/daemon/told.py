"""What members tell of their training: losses, for people to look at, and how frequent labels are, for ours."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from statistics import fmean

from decaf_node.daemon.wire import Introduction


class Told:
    """What each member has said last. limit: most members remembered; of more, the one heard longest ago goes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._last: OrderedDict[str, Introduction] = OrderedDict()

    def heard(self, who: Introduction) -> None:
        """The member has introduced itself. While it loads its model, what it has said before still counts."""
        before = self._last.pop(who.node, who)
        self._last[who.node] = who if who.schema else before
        if len(self._last) > self._limit:
            self._last.popitem(last=False)

    def loss_of(self, peer: str) -> float | None:
        """Return the loss that the member has said last, unless it has stopped to (``privacy.share_metrics``)."""
        who = self._last.get(peer)
        return None if who is None else who.loss

    def labels(self, us: Introduction, own: Sequence[float]) -> tuple[float, ...]:
        """Return the part of each label in the whole mesh: of us and of all who learn the same task.

        own: our own parts, which we may not tell; none where there are no labels, and then there are none in the mesh
        """
        if not own:
            return ()
        others = [who.label_parts for who in self._last.values() if who.schema == us.schema and who.node != us.node]
        return agreed([own, *others], len(own))


def mean_parts(told: Sequence[Sequence[float]], labels: int) -> tuple[float, ...]:
    """Return the mean over nodes of each label's part, of so many labels.

    Nodes weigh alike, however much they hold. One that tells nothing counts as if all labels were alike there.
    """
    return tuple(fmean(column) for column in zip(*_whole(told, labels), strict=True))


def agreed(told: Sequence[Sequence[float]], labels: int) -> tuple[float, ...]:
    """Return the part of each label in what all nodes' data are drawn from, of so many labels; see ``mean_parts``.

    The mean of few nodes that differ says little of that, so it is drawn towards all labels alike, by as much of its
    distance from there as such differences make by themselves: James and Stein's estimator, positive part, with the
    variances as the nodes show them. One node alone says nothing.
    """
    parts, mean, even = _whole(told, labels), mean_parts(told, labels), 1 / labels
    nodes = len(parts)
    apart = sum((part - middle) ** 2 for own in parts for part, middle in zip(own, mean, strict=True))
    far = sum((middle - even) ** 2 for middle in mean)
    by_chance = apart / (nodes * (nodes - 1)) if nodes > 1 else far
    kept = max(0.0, 1 - by_chance / far) if far else 0.0
    return tuple(even + kept * (middle - even) for middle in mean)


def _whole(told: Sequence[Sequence[float]], labels: int) -> list[Sequence[float]]:
    even = [1 / labels] * labels
    return [own if len(own) == labels else even for own in told]
