"""A turn of Flower's deployment engine: a SuperLink, four SuperNodes, FedAvg, without TLS as in its quick start.

    python with_flower.py FOLDER MIB

Federated evaluation is left out, which would send the arrays once more; so a node holds the aggregate as soon as it is
sent it for the next round. What the nodes run is this file too, as a Flower app.
"""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from benchmarks.peers.rounds import ADDRESSES, NODES, SERVER, TRAININGS, Rounds, adapter, start, until_over

APP = """\
[project]
name = "peers"
version = "1.0.0"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "benchmarks"

[tool.flwr.app.components]
serverapp = "with_flower:server"
clientapp = "with_flower:client"

[tool.flwr.app.config]
mib = 64
"""
CONNECTION = """\
[superlink]
default = "lab"

[superlink.lab]
address = "{address}"
insecure = true
"""
PORT = 8000

server = ServerApp()
client = ClientApp()


@server.main()  # type: ignore[untyped-decorator]  # flwr is in an environment of its own
def serve(grid: Grid, context: Context) -> None:
    strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=len(NODES), min_available_nodes=len(NODES))
    strategy.start(grid, ArrayRecord(adapter(int(context.run_config["mib"]))), num_rounds=TRAININGS)


@client.train()  # type: ignore[untyped-decorator]
def train(message: Message, context: Context) -> Message:
    arrays = message.content["arrays"].to_numpy_ndarrays()
    rounds = Rounds(Path(str(context.node_config["folder"])), str(context.node_config["node"]))
    rounds.round = int(message.content["config"]["server-round"]) - 1  # each message finds a new process
    rounds.held = rounds.round == 0
    rounds.holds(arrays)
    content = {"arrays": ArrayRecord(rounds.train(arrays)), "metrics": MetricRecord({"num-examples": 1})}
    return Message(content=RecordDict(content), reply_to=message)


def main(folder: Path, mib: str) -> None:
    app, home = folder / "app", folder / "flwr"
    app.mkdir()
    home.mkdir()
    shutil.copy(__file__, app)
    (app / "pyproject.toml").write_text(APP)
    address = f"{ADDRESSES[SERVER]}:{PORT}"
    (home / "config.toml").write_text(CONNECTION.format(address=address))
    programs = str(Path(sys.executable).parent)
    environ = {
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "PATH": f"{programs}:/usr/sbin:/usr/bin:/sbin:/bin",
    }
    listen = (
        "--insecure",
        "--disable-runtime-dependency-installation",
        "--host",
        ADDRESSES[SERVER],
        "--port",
        str(PORT),
    )
    processes = [start(SERVER, f"{programs}/flower-superlink", *listen, cwd=folder, **environ)]
    time.sleep(10.0)
    for node in NODES:
        config = f'node="{node}" folder="{folder}"'
        words = ("--insecure", "--superlink", address, "--node-config", config)
        processes.append(start(node, f"{programs}/flower-supernode", *words, cwd=folder, **environ))
    time.sleep(5.0)
    words = ("run", str(app), "lab", "--run-config", f"mib={mib}")
    processes.append(start(SERVER, f"{programs}/flwr", *words, cwd=folder, **environ))
    until_over(folder, processes)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
