"""One node's discovery as a process: ``python -m tests.daemon.finding NODE MESH PORT``. Commands on stdin, one a line.

Prints JSON lines: ``["found", node, addresses]``, ``["left", node]``, ``["warned", reason]``, ``["ready"]``.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from decaf_node.daemon.discovery import Discovery
from decaf_node.settings import DiscoverySection

LOOPBACK = DiscoverySection(interfaces=("127.0.0.1",), refresh=1.0)


def tell(*said: Any) -> None:
    print(json.dumps(said), flush=True)


async def main(node: str, mesh: str, port: int) -> None:
    discovery = Discovery(
        node,
        f"name of {node}",
        mesh,
        port,
        LOOPBACK,
        found=lambda peer, addresses: tell("found", peer, addresses),
        left=lambda peer: tell("left", peer),
        warn=lambda reason, message: tell("warned", reason),
    )
    await discovery.start()
    tell("ready")
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        await discovery.announce(line.strip())
    await discovery.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
