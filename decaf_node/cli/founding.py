"""``decaf-node init``: found a mesh."""

from __future__ import annotations

from typing import Annotated

import typer

from decaf_node.cli.first_settings import DataOption, FirstSettings, ListenOption, ModelOption, NameOption
from decaf_node.cli.options import ConfigOption, JsonOption, StateOption, places_of
from decaf_node.cli.output import print_json, print_text
from decaf_node.cli.ownership import hand_over, hidden_from_service, start_command


def init(
    mesh: Annotated[str, typer.Option("--mesh", metavar="NAME", help="Name of the new mesh.")],
    model: ModelOption = None,
    data: DataOption = None,
    listen: ListenOption = "0.0.0.0",  # noqa: S104 - a node is there to be reached; it speaks mutual TLS
    name: NameOption = "",
    config: ConfigOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Found a mesh on this device.

    Makes its identity, the key and certificate of the mesh, and settings where there are none; prints what to type on
    the next device.

    Example: decaf-node init --mesh lab --model /srv/models/smollm2 --data /srv/data/tickets.jsonl
    """
    from decaf_node.daemon.founding import first_invitation, found
    from decaf_node.daemon.node_id import printed

    places = places_of(config, state)
    given = FirstSettings(places.config, model, data, listen, name)
    settings = given.check(mesh)
    with given.written(mesh):
        papers = found(places.state, settings)
    token = first_invitation(places.state, settings, papers)
    hand_over(places)
    if as_json:
        print_json({"node": papers.node, "mesh": mesh, "settings": str(places.config), "token": token})
        return
    print_text(f"identity  {printed(papers.node)}")
    print_text(f"mesh      {mesh}, founded; its key is in {places.state / 'identity'}: decaf-node config backup-ca")
    print_text(f"settings  {places.config}")
    print_text(f"\nStart it:              {start_command(places, config, state)}")
    if token is not None:
        print_text(f"Join another machine:  decaf-node join {token}   (30 minutes, one use)")
    if warning := hidden_from_service(places, settings):
        print_text(f"\n{warning}")
