"""A replica in a process of its own, to be frozen and killed: `python -m tests.p2p.child INDEX`.

The committee comes as JSON on standard input; each link that comes up is a line on standard output.
"""

from __future__ import annotations

import json
import sys

import trio

from p2p.transport import Transport
from tests.p2p.mesh import SEEDS


async def main(index: int) -> None:
    """Run until killed, and send every frame back to where it came from."""
    peers = [(bytes.fromhex(key), host, port) for key, host, port in json.loads(sys.stdin.read())]

    def echo(peer: int, frame: bytes) -> bool:
        return transport.send(peer, frame)

    transport = Transport(
        SEEDS[index],
        index,
        peers,
        peers[index][1:],
        echo,
        on_up=lambda peer: print("up", peer, flush=True),
    )
    await transport.run()


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]))
