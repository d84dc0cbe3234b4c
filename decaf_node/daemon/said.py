"""What members say of their training: losses, for people to look at, and how frequent labels are, for ours."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from statistics import fmean

from decaf_node.daemon.wire import Introduction


class Said:
    """What each member has said last. limit: most members remembered; of more, the one heard longest ago goes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._last: OrderedDict[str, Introduction] = OrderedDict()
        self._met = False  # somebody who learns the same task was heard
        self._mesh: tuple[tuple[object, ...], tuple[float, ...]] = (), ()  # what was asked last, and the answer

    def heard(self, who: Introduction) -> None:
        """The member has introduced itself. While it loads its model, what it has said before still counts."""
        before = self._last.pop(who.node, None)
        now = before if before is not None and not who.schema else who
        self._last[who.node] = now
        if len(self._last) > self._limit:
            self._last.popitem(last=False)
        if before is None or (now.schema, now.label_parts) != (before.schema, before.label_parts):
            self._mesh = (), ()

    def forget(self, peer: str) -> None:
        """The peer is no member any more."""
        self._last.pop(peer, None)
        self._mesh = (), ()

    def loss_of(self, peer: str) -> float | None:
        """Return the loss that the member has said last, unless it has stopped to (``privacy.share_metrics``)."""
        who = self._last.get(peer)
        return None if who is None else who.loss

    def labels(self, us: Introduction, own: Sequence[float]) -> tuple[float, ...]:
        """Return the part of each label in the whole mesh, as far as all who learn the same task agree on it.

        own: our own parts, which we may not tell; none where no labels are weighed. Empty then, and where nobody else
        was heard since our start: what was known before it still holds. Worked out anew only where somebody has said
        something else: of a thousand members it takes a third of a second
        """
        asked = us.node, us.schema, own
        if self._mesh[0] != asked:
            others = [who for who in self._last.values() if who.schema == us.schema and who.node != us.node]
            self._met = self._met or bool(others)
            parts = [own, *(who.label_parts for who in others)]
            self._mesh = asked, agreed(parts, len(own)) if own and self._met else ()
        return self._mesh[1]


def mean_parts(told: Sequence[Sequence[float]], labels: int) -> tuple[float, ...]:
    """Return the mean over nodes of each label's part, of so many labels.

    Nodes weigh alike, however much they hold. One that tells nothing counts as if all labels were alike there.
    """
    return tuple(fmean(column) for column in zip(*_whole(told, labels), strict=True))


def agreed(told: Sequence[Sequence[float]], labels: int) -> tuple[float, ...]:
    """Return the part of each label in what all nodes' data are drawn from, of so many labels; see ``mean_parts``.

    The mean of few nodes that differ says little of that, so it is drawn towards all labels alike: what it is away from
    there is taken for chance as far as nodes that differ so would make it by themselves. (By moments, in the manner of
    James and Stein, 1961: E |mean - even|^2 = |truth - even|^2 + the mean's variance.) One node alone says nothing.
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
