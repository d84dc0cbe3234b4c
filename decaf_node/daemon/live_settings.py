"""The settings that may change while the daemon runs, and how each is taken on."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from decaf_node.daemon import logs
from decaf_node.daemon.host import Me
from decaf_node.daemon.meeting import Meeting
from decaf_node.daemon.operators import Operators, operators_of
from decaf_node.daemon.resources import Resources
from decaf_node.settings import ResourcesSection, Settings

Apply = Callable[[Settings, Settings], bool]
"""Takes on what differs between the settings before and now; says whether all of it counts."""


def live_settings(
    meeting: Meeting,
    me: Me,
    resources: Resources,
    operators: Callable[[], Operators | None],
    introduce: Callable[[], None],
) -> Mapping[str, Apply]:
    """Return them by ``section.key``.

    operators: those of the TCP listener, where there is one. introduce: tells neighbours what this node says of itself
    """

    def say(_: Settings, now: Settings) -> bool:
        logs.configure(now.log.level, now.log.format)
        return True

    def dial(before: Settings, now: Settings) -> bool:
        """A peer that is new is tried from now on; one that is named no more is tried until a restart."""
        meeting.dial(tuple(sorted({*now.mesh.peers} - {*before.mesh.peers})))
        return {*before.mesh.peers} <= {*now.mesh.peers}

    def let_act(_: Settings, now: Settings) -> bool:
        if (listening := operators()) is not None:
            listening.let_act(operators_of(now, plaintext=False))
        return True

    def share(_: Settings, now: Settings) -> bool:
        me.shares_loss, me.shares_labels = now.privacy.share_metrics, now.privacy.share_labels
        introduce()
        return True

    def yield_the_device(_: Settings, now: Settings) -> bool:
        resources.take(now.resources)
        return True

    return {
        **{f"resources.{key}": yield_the_device for key in ResourcesSection.model_fields},
        "log.level": say,
        "log.format": say,
        "mesh.peers": dial,
        "monitor.operators": let_act,
        "privacy.share_labels": share,
        "privacy.share_metrics": share,
    }
