"""What the machine is told at its start: the settings that concern it, and the last durable state."""

from __future__ import annotations

import time

from decaf_node.daemon.spool import Spool
from decaf_node.daemon.store import SavedState, Store
from decaf_node.mesh.events import Saved, Snapshot
from decaf_node.mesh.policy import Policy, probe_interval
from decaf_node.settings import Settings


def policy_of(settings: Settings) -> Policy:
    """Return what the machine is told of the settings."""
    rounds, limits = settings.round, settings.limits
    return Policy(
        topology=settings.mesh.topology,
        exchange=rounds.algorithm != "local",
        overlap=rounds.overlap,
        adopt_after=rounds.adopt_after,
        wait_floor=rounds.wait_floor,
        wait_ceiling=rounds.wait_ceiling,
        limit=rounds.limit,
        save_every=settings.store.save_every,
        snapshot_limit_bytes=limits.snapshot_bytes,
        peer_limit=limits.peers,
        adopt_from=limits.adopt_from,
        unsaved_receipts=limits.unsaved_receipts,
        unsaved_bytes=limits.spool_bytes // 2,  # the other half is for the rounds that go on meanwhile
        redial_backoff=limits.redial_backoff,
        probe_every=probe_interval(0.0 if rounds.steps else rounds.seconds),
        robust=settings.security.robust,
    )


def saved_of(state: SavedState, store: Store, spool: Spool) -> Saved:
    """Return what the machine is told of the last durable state.

    An edge whose snapshots are not both whole in the spool any more (a power cut) cannot be mixed again.
    """
    unsaved, promised = store.unsaved(), store.promised()
    digests = {digest for edge in (*unsaved, *promised) for digest in (edge.own, edge.theirs)}
    whole = {digest for digest in sorted(digests) if spool.verified(digest)}
    return Saved(
        round=state.round,
        mixes=state.mixes,
        schema=state.schema,
        snapshot=Snapshot(state.snapshot.digest, state.round, state.rank, state.snapshot.size_bytes),
        unsaved=tuple(edge for edge in unsaved if {edge.own, edge.theirs} <= whole),
        absent=max(0.0, time.time() - state.time),
        promised=tuple(edge for edge in promised if {edge.own, edge.theirs} <= whole),
        unheard=store.unheard(),
    )
