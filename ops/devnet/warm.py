"""A node's process that imports everything, then waits for `go` on its standard input.

`python -m ops.devnet.warm MODULE ARGUMENT...` becomes `python -m MODULE ARGUMENT...`. Importing
takes a second of CPU, most of a node's start: a devnet does it while its chain starts, and a
killed node's successor does it while the node is meant to be down.
"""

from __future__ import annotations

import os
import runpy
import sys

GO = b"go\n"


def main() -> None:
    """Import what a node needs; run the module when told, or end when the devnet has ended."""
    module, arguments = sys.argv[1], sys.argv[2:]
    import ops.commands.node
    import ops.node  # noqa: F401

    if sys.stdin.buffer.readline() != GO:
        return
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, sys.stdin.fileno())
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
