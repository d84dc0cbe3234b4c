"""What the visits to the members mean: who is well, and what is wrong with the others."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from decaf_node.daemon.doctor.clock import DIFFERENCE_SECONDS
from decaf_node.daemon.doctor.finding import Finding, failure, unseen, warning, well
from decaf_node.daemon.doctor.peers import Visit
from decaf_node.daemon.wire import Introduction
from decaf_node.errors import BadSettings, DecafError

LAYER = "peers"
SHOWN = 8  # characters of a fingerprint


@dataclass(frozen=True)
class Own:
    """What this node trains, as far as it is known, and how far it is."""

    schema: str = ""
    base: str = ""
    round: int = 0


def judge_visits(visits: Sequence[Visit], own: Own, problems: Mapping[str, str]) -> list[Finding]:
    """Judge each member. One with trouble is a warning only as long as another is well, and one that is not reached
    as long as another is: devices may be switched off.

    problems: what the daemon says of members, by node ID
    """
    usual = statistics.median([visit.ahead for visit in visits if visit.ahead is not None] or [0.0])
    errors = [visit.error or _difference(visit, own) for visit in visits]
    none_well = all(error is not None for error in errors)
    none_reached = not any(visit.reached for visit in visits)
    return [
        finding
        for visit, error in zip(visits, errors, strict=True)
        for finding in (
            _troubled(visit, error, none_well if visit.reached else none_reached)
            if error
            else _well(visit, own, usual, problems)
        )
    ]


def _difference(visit: Visit, own: Own) -> DecafError | None:
    """Return why nothing can be mixed with who answers."""
    if visit.seen is None:
        return None
    who = visit.seen.who
    if own.base and who.base and who.base != own.base:
        return BadSettings(
            "peer.other-model",
            f"It trains another base model ({who.base[:SHOWN]}) than this device has ({own.base[:SHOWN]}): nothing can "
            "be mixed.",
        )
    if own.schema and who.schema and who.schema != own.schema:
        same = ", of the same base model" if own.base and who.base else ""
        return BadSettings(
            "peer.other-schema",
            f"It trains another adapter or task (schema {who.schema[:SHOWN]}) than this device "
            f"({own.schema[:SHOWN]}){same}: nothing can be mixed.",
        )
    return None


def _troubled(visit: Visit, error: DecafError, fails: bool) -> Iterator[Finding]:
    if error.reason == "identity.cloned":
        yield failure("identity", visit.address, error)
    elif fails:
        yield failure(LAYER, _subject(visit), error)
    else:
        yield warning(LAYER, _subject(visit), error.reason, error.message)


def _well(visit: Visit, own: Own, usual: float, problems: Mapping[str, str]) -> Iterator[Finding]:
    if visit.seen is None:
        yield unseen(LAYER, _subject(visit), "it answers; this node has no certificate to ask it anything with")
        return
    who, ahead = visit.seen.who, visit.ahead
    if ahead is not None and abs(ahead - usual) > DIFFERENCE_SECONDS:
        off = f"Its clock is {abs(ahead):.0f} s {'behind' if ahead > 0 else 'ahead of'} this one, and others' are not."
        yield warning(LAYER, _subject(visit), "peer.clock-differs", off)
    if problem := problems.get(who.node, ""):
        yield warning(LAYER, _subject(visit), "peer.trouble", f"The daemon says: {problem}")
    yield well(LAYER, _subject(visit), f"reached, and is who it should be; round {who.round}, {_compared(who, own)}")


def _compared(who: Introduction, own: Own) -> str:
    if own.schema and who.schema:
        return "same base model and schema"
    missing = "there" if own.schema else "here"
    same = "same base model, " if own.base and who.base else ""
    return f"{same}schema not compared: no model is loaded {missing} yet"


def _subject(visit: Visit) -> str:
    title = visit.seen.who.name if visit.seen and visit.seen.who.name else visit.peer.title
    return title if visit.address in ("", title) else f"{title} at {visit.address}"
