"""The four nodes become a mesh as any others do: the first founds it and invites the others, and they join."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from decaf_node.cli.demo.newsrooms import Newsroom
from decaf_node.daemon.enrolment import Enrolment
from decaf_node.daemon.founding import found
from decaf_node.daemon.identity import new_identity
from decaf_node.daemon.join_token import read_token
from decaf_node.daemon.joining import join_by_token, keep_admission
from decaf_node.daemon.problems import Problems
from decaf_node.daemon.trust import OwnMesh, load_trust
from decaf_node.settings import load_settings

TTL_SECONDS = 60.0


def make_mesh(newsrooms: Sequence[Newsroom]) -> None:
    """Give each node its identity and its certificate. Raises what ``found`` and ``join_by_token`` raise."""
    asyncio.run(_make(newsrooms[0], newsrooms[1:]))


async def _make(founder: Newsroom, others: Sequence[Newsroom]) -> None:
    settings = load_settings(founder.places.config, {})
    found(founder.places.state, settings)
    own = load_trust(founder.places.state / "identity", settings.security, plaintext=False)
    assert isinstance(own, OwnMesh), "it was just founded"
    # What its daemon does later, done here: so the others need not wait for it, and all start together.
    enrolment = Enrolment(own, settings, list, lambda: None, lambda port: None, Problems())
    listening = asyncio.create_task(enrolment.run())
    try:
        token = read_token(await enrolment.invite(TTL_SECONDS, len(others)))
        for room in others:
            identity = new_identity()
            admission = await join_by_token(token, token.addresses, identity, room.name, _nothing, _nothing)
            keep_admission(room.places.state, identity, admission)
    finally:
        listening.cancel()
        await asyncio.wait({listening})


def _nothing(*_: object) -> None:
    """Neither tell how far it is nor compare: all the demo's nodes have the same settings."""
