"""`fairlane node`: run one replica from its home until it is told to stop."""

from __future__ import annotations

import faulthandler
import gc
import logging
import signal
import sys
from pathlib import Path
from types import MappingProxyType

import click
import trio

from ops.node import Node, open_node

EXIT_HALTED = 3
EXIT_FORKED = 4
EXIT_KEY_IN_USE = 5
EXIT_OF = MappingProxyType({"forked": EXIT_FORKED, "key_in_use": EXIT_KEY_IN_USE})
"""By the kind of a halt; any other is EXIT_HALTED. docs/guides/operator.md says what to do."""
DUMP_FILE = "halted.dump"
LOGGERS = ("fairlane", "settlement")
"""Ours; the libraries' own stay at warnings."""
STOP_MAX_S = 7.0
"""A stop that takes longer hangs somewhere that cannot be cancelled: say where, and end."""
GC_THRESHOLDS = (5_000, 10, 20)
"""Python's default of 700 walks the young generation three times a second at 200 commands/s, to
find a hundred objects in cycles. With this it is once in some 3 s; the oldest is walked once in
ten minutes or more, when what is alive has grown by a quarter."""

log = logging.getLogger("fairlane.node")


@click.command()
@click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    required=True,
    help="The node's folder: node.toml, genesis.json, keys.json.",
)
def command(home: Path) -> None:
    """Run one replica until SIGTERM or SIGINT; a second one ends it at once.

    Exits 0 when told to stop and 1 when it cannot start or go on. When going on would be unsafe
    it exits with 3 (its state is not the others'), 4 (a proven fork) or 5 (its key is in use
    elsewhere); what it knows of that is then in its home, in halted.dump and, for a state that
    differs from a quorum's, in a bundle for `fairlane replay-bundle`.
    """
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    sys.exit(trio.run(run_node, home))


async def run_node(home: Path, node_type: type[Node] = Node) -> int:
    """Run the node of `home` to its end; return the exit status."""
    from consensus.recovery import CorruptState
    from ops.config import ConfigError, load_config
    from ops.driver import Halted
    from ops.keys import KeyFileError
    from ops.node import NodeError
    from ops.store import StoreError
    from p2p.errors import HostError
    from settlement.errors import WrongChain

    expected = (
        *(ConfigError, KeyFileError, NodeError, StoreError, CorruptState),
        *(HostError, WrongChain, OSError),
    )
    code = 0
    try:
        for name in LOGGERS:
            logging.getLogger(name).setLevel(load_config(home).log_level.upper())
        node = open_node(home) if node_type is Node else open_node(home, node_type)
        await _run_until_signal(node)
    except* Halted as group:
        halted = _first(group)
        assert isinstance(halted, Halted)
        (home / DUMP_FILE).write_bytes(halted.dump)
        log.critical("halted: %s; see %s", halted, home / DUMP_FILE)
        code = EXIT_OF.get(halted.kind, EXIT_HALTED)
    except* expected as group:
        click.echo(f"fairlane node: {_first(group)}", err=True)
        code = 1
    return code


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _run_until_signal(node: Node) -> None:
    shutdown = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_watch_signals, shutdown)
        await node.run(shutdown, _announce)
        nursery.cancel_scope.cancel()


async def _watch_signals(shutdown: trio.Event) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            break
    # The kernel's own handling from now on: it works whatever this process is stuck in. All that
    # was promised to anybody is on disk, so ending at once is always safe.
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.SIG_DFL)
    faulthandler.dump_traceback_later(STOP_MAX_S, exit=True)
    log.info("stopping")
    shutdown.set()


def _announce(port: int) -> None:
    """Say on standard output that the door is open, for whoever started this process."""
    _spare_the_collector()
    click.echo(f"ready {port}")
    sys.stdout.flush()


def _spare_the_collector() -> None:
    """Keep what lives as long as the process out of the garbage collector's way.

    Some 150,000 containers of modules and libraries are alive by now, and a full collection would
    walk them all: 30 to 50 ms, 170 to 280 on a busy machine, and mostly in the middle of a block.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
