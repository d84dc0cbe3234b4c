"""``decaf-node join``: enter a mesh, with an invitation or by asking."""

from __future__ import annotations

import re
import socket
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from decaf_node.cli.first_settings import DataOption, FirstSettings, ListenOption, ModelOption, NameOption
from decaf_node.cli.options import ConfigOption, JsonOption, StateOption, places_of
from decaf_node.cli.output import print_json, print_text
from decaf_node.cli.ownership import hand_over, hidden_from_service, start_command
from decaf_node.errors import NotAllowed, TryAgain, UsageError

if TYPE_CHECKING:
    from decaf_node.daemon.identity import Identity
    from decaf_node.daemon.join_token import JoinToken
    from decaf_node.daemon.joining import Admission, Recognise, Tell
    from decaf_node.daemon.lan import OpenDoor


def join(
    token: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(
            metavar="[TOKEN]", help="The invitation; - reads it from standard input; none: ask to be let in."
        ),
    ] = None,
    model: ModelOption = None,
    data: DataOption = None,
    mesh: Annotated[str, typer.Option("--mesh", metavar="NAME", help="Which mesh to ask, without an invitation.")] = "",
    authority: Annotated[
        str,
        typer.Option("--authority", metavar="HEX", help="The certificate that approve shows, instead of comparing it."),
    ] = "",
    wait: Annotated[float, typer.Option("--wait", metavar="SECONDS", help="How long to wait for approval.")] = 1800.0,
    listen: ListenOption = "0.0.0.0",  # noqa: S104 - a node is there to be reached; it speaks mutual TLS
    name: NameOption = "",
    config: ConfigOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Enter a mesh.

    With an invitation the mesh is recognised before its secret is said. Without one the meshes of this network that
    expect somebody are looked for, you compare the mesh's certificate with what `decaf-node approve` shows there, and
    the device waits for it. A join that fails leaves nothing behind.

    Example: decaf-node join decaf1-AbC --model /srv/models/smollm2 --data /srv/data/mine.jsonl
    """
    import asyncio

    from decaf_node.daemon.founding import refuse_member
    from decaf_node.daemon.identity import load_identity, new_identity
    from decaf_node.daemon.join_token import read_token
    from decaf_node.daemon.node_id import printed

    places = places_of(config, state)
    folder = places.state / "identity"
    refuse_member(folder, "join.already-member")
    read = None if token is None else read_token(sys.stdin.readline() if token == "-" else token)  # noqa: S105 - no secret but a dash
    given = FirstSettings(places.config, model, data, listen, name)
    if read is not None:
        given.check(read.mesh)
    identity = load_identity(folder) if (folder / "key.pem").exists() else new_identity()

    def tell(line: str) -> None:
        if not as_json:
            print_text(line)

    tell(f"identity {printed(identity.node)}")
    asking = Asking(given, identity, name or socket.gethostname(), tell)
    recognised = _recognising(authority)
    admission = asyncio.run(asking.with_token(read) if read is not None else asking.without(mesh, wait, recognised))
    settings = given.check(admission.mesh)
    _keep(given, places.state, identity, admission)
    hand_over(places)
    if as_json:
        known = list(admission.members)
        print_json({"node": identity.node, "mesh": admission.mesh, "at": admission.at, "members": known})
    else:
        print_text(f"certificate issued; this device is a member of {admission.mesh}")
        print_text(f"\nStart it:  {start_command(places, config, state)}")
        if warning := hidden_from_service(places, settings):
            print_text(f"\n{warning}")


def _keep(given: FirstSettings, state: Path, identity: Identity, admission: Admission) -> None:
    """Write all of it, or nothing."""
    from decaf_node.daemon.joining import keep_admission

    with given.written(admission.mesh):
        keep_admission(state, identity, admission)


@dataclass(frozen=True)
class Asking:
    """A device that wants to join."""

    given: FirstSettings
    identity: Identity
    name: str
    tell: Tell

    def agree(self, mesh: str, parts: dict[str, Any]) -> None:
        """Compare what the mesh trains with the settings. Raises what ``agreement.compare`` does."""
        from decaf_node.training.agreement import compare
        from decaf_node.training.base import base_fingerprint, weight_files

        self.given.take_labels(parts.get("labels"))
        settings = self.given.check(mesh)
        model = settings.model

        def base() -> str | None:
            if not weight_files(model) or not all(path.is_file() for path in weight_files(model)):
                return None
            self.tell(f"comparing the base model in {model.path}")
            with tempfile.TemporaryDirectory() as folder:
                try:
                    return base_fingerprint(model, Path(folder, "digests"))
                except (OSError, ValueError):
                    return None

        unknown = compare(parts, settings, base)
        self.tell(f"nothing speaks against it; {unknown}")

    async def with_token(self, token: JoinToken) -> Admission:
        """Join with an invitation, at its addresses or where mDNS finds its mesh."""
        from decaf_node.daemon.joining import join_by_token
        from decaf_node.daemon.lan import look_around

        try:
            return await join_by_token(token, token.addresses, self.identity, self.name, self.tell, self.agree)
        except TryAgain as error:
            self.tell(f"not at the addresses of the invitation ({error.message}); looking by mDNS")
            doors = [door.address for door in await look_around(self.given.discovery()) if door.mesh == token.mesh]
            if not doors:
                raise
        return await join_by_token(token, doors, self.identity, self.name, self.tell, self.agree)

    async def without(self, mesh: str, patience: float, recognise: Recognise) -> Admission:
        """Ask the mesh that mDNS finds, and wait."""
        from decaf_node.daemon.joining import join_by_approval
        from decaf_node.daemon.lan import look_around

        door = _choose(mesh, await look_around(self.given.discovery()))
        return await join_by_approval(
            door.address, recognise, self.identity, self.name, self.tell, patience, self.agree
        )


def _recognising(authority: str) -> Recognise:
    """Return what makes sure of the mesh: by the fingerprint that was given, else a person is asked.

    Raises UsageError ``join.bad-authority``; what is returned raises NotAllowed ``join.other-mesh``, or UsageError
    ``join.no-authority`` where there is nobody to ask.
    """
    given = re.sub(r"[\s:-]", "", authority).lower()
    if given and re.fullmatch(r"[0-9a-f]{64}", given) is None:
        raise UsageError(
            "join.bad-authority", "--authority takes 64 hexadecimal digits, as `decaf-node approve` shows."
        )

    def recognise(found: bytes) -> None:
        if given:
            same = found.hex() == given
        elif sys.stdin.isatty():
            same = typer.confirm("Is it the same there?", err=True)
        else:
            raise UsageError(
                "join.no-authority",
                "Nobody is here to compare the mesh's certificate; give the one that `decaf-node approve` shows with "
                "--authority, or use an invitation.",
            )
        if not same:
            raise NotAllowed(
                "join.other-mesh", "That is another mesh, or somebody stands in between; nothing was asked of it."
            )

    return recognise


def _choose(mesh: str, doors: list[OpenDoor]) -> OpenDoor:
    """Return where to ask. Raises TryAgain ``join.none-found``, UsageError ``join.several-meshes``."""
    fitting = [door for door in doors if not mesh or door.mesh == mesh]
    if not fitting:
        raise TryAgain(
            "join.none-found",
            f"No mesh{f' {mesh!r}' if mesh else ''} of this network expects a device; run `decaf-node approve` on a "
            "member, or use an invitation where mDNS does not reach.",
        )
    names = sorted({door.mesh for door in fitting})
    if len(names) > 1:
        raise UsageError(
            "join.several-meshes", f"Several meshes expect a device here: {', '.join(names)}; choose one with --mesh."
        )
    return fitting[0]
