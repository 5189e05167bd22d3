"""`fairlane devnet`: a whole network of processes on this machine, traded and settled."""

from __future__ import annotations

import signal
import sys
import tempfile
from pathlib import Path

import click
import msgspec
import trio


@click.command("devnet", short_help="Run a whole network on this machine, trade, settle, check.")
@click.option("--nodes", default=5, show_default=True, type=click.IntRange(1, 31))
@click.option(
    "--replay",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Order flow to send: plain CSV, or a Bitstamp event file (.csv.xz).",
)
@click.option(
    "--rate",
    default=100,
    show_default=True,
    type=click.IntRange(1, 5_000),
    help="Commands offered a second.",
)
@click.option(
    "--seconds",
    default=20.0,
    show_default=True,
    type=click.FloatRange(1, 86_400),
    help="How long to trade, unless --events ends it before.",
)
@click.option("--events", type=click.IntRange(1), help="Stop after so many events.")
@click.option("--seed", default=1, show_default=True, help="Of the built-in order flow.")
@click.option(
    "--kill",
    is_flag=False,
    flag_value=1,
    default=0,
    type=click.IntRange(0, 30),
    metavar="[COUNT]",
    help="kill -9 so many nodes (1) while trading; they must come back. Two of five: it stops "
    "for want of a quorum, and must go on.",
)
@click.option(
    "--byzantine",
    multiple=True,
    metavar="NODE:BEHAVIOUR",
    help="Let a node lie from a third of the trading on; repeat for more, at most f.",
)
@click.option("--beyond", is_flag=True, help="Allow more than f liars, to see what breaks.")
@click.option("--list-behaviours", is_flag=True, help="Show how nodes may lie, and exit.")
@click.option(
    "--kills",
    default=0,
    type=click.IntRange(0, 100_000),
    help="Hunt: kill -9 random nodes so many times while trading, then read all disks.",
)
@click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep everything here; must not exist or be empty. Default: a temporary folder.",
)
@click.option("--keep", is_flag=True, help="Leave the network running, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object last.")
@click.option(
    "--log-level",
    default="warning",
    show_default=True,
    type=click.Choice(["debug", "info", "warning", "error"]),
)
def command(
    nodes: int,
    replay: Path | None,
    rate: int,
    seconds: float,
    events: int | None,
    seed: int,
    kill: int,
    byzantine: tuple[str, ...],
    beyond: bool,
    list_behaviours: bool,
    kills: int,
    home: Path | None,
    keep: bool,
    as_json: bool,
    log_level: str,
) -> None:
    """Run a whole network on this machine: an Ethereum chain with the settlement contracts, nodes
    as processes, 50 traders with real deposits. It trades, settles, withdraws, and checks that
    every node agrees; the exit status says whether everything held.

    With --byzantine the named nodes lie, and only the honest ones are judged: agreement, every
    client's command executed, and the fairness of the order against their own logs of receipt.
    """
    from ops.devnet.behaviours import BEHAVIOURS, BadBehaviour, parse_behaviours
    from ops.devnet.run import Options

    if list_behaviours:
        width = max(len(name) for name in BEHAVIOURS)
        for name, about in sorted(BEHAVIOURS.items()):
            click.echo(f"  {name:<{width}}  {about}")
        return
    try:
        liars = parse_behaviours(byzantine, nodes, beyond)
    except BadBehaviour as error:
        raise click.UsageError(f"--byzantine: {error}") from None
    if keep and (liars or kills):
        raise click.UsageError("--keep: the disks are read after all nodes have ended")
    if liars and (kills or kill):
        raise click.UsageError("--byzantine: not together with kills; there is crash-loop")
    with tempfile.TemporaryDirectory(prefix="fairlane-devnet-") as temporary:
        place = home if home is not None else Path(temporary)
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        if any(place.iterdir()):
            raise click.UsageError(f"--home: {place} is not empty")
        options = Options(
            nodes=nodes,
            home=place,
            replay=replay,
            rate=rate,
            seconds=seconds if events is None and not kills else 86_400.0,
            events=events if events is not None else sys.maxsize,
            seed=seed,
            kill=min(kill, nodes),
            log_level=log_level,
            kills=kills,
            byzantine=liars,
        )
        sys.exit(_run(options, keep, as_json))


def _run(options: object, keep: bool, as_json: bool) -> int:
    from ops.devnet.processes import ProcessFailed
    from ops.devnet.report import Summary, table
    from ops.devnet.run import Devnet, Options
    from ops.devnet.traders import SetupFailed
    from ops.flow.event import FlowError
    from settlement.dealer import DEALER_WARNING
    from settlement.errors import ChainError

    assert isinstance(options, Options)
    # A shell's `&` leaves SIGINT ignored, and SIGTERM would leave keys behind in the home.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    screen = Screen(quiet=False)
    click.echo(DEALER_WARNING, err=True)
    code = 1
    try:
        devnet = Devnet(options, screen.say)

        def show(summary: Summary) -> None:
            nonlocal code
            screen.end()
            click.echo(table(summary))
            if as_json:
                click.echo(msgspec.json.encode(summary).decode())
            code = 0 if not summary.faults else 1

        def on_keep(summary: Summary) -> None:
            show(summary)
            for node in devnet.plan.nodes:
                click.echo(f"node {node.index}: {node.url}")
            click.echo("running until Ctrl-C")

        summary = trio.run(devnet.run, on_keep if keep else None)
        show(summary)
    except* (ProcessFailed, SetupFailed, ChainError, FlowError, OSError) as group:
        screen.end()
        click.echo(f"fairlane devnet: {_first(group)}", err=True)
    except* KeyboardInterrupt:
        screen.end()
        code = code if keep else 130
    return code


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


class Screen:
    """Progress: one line that changes on a terminal, a line each elsewhere."""

    def __init__(self, quiet: bool) -> None:
        self._live = sys.stdout.isatty()
        self._width = 0
        self._quiet = quiet

    def say(self, line: str) -> None:
        """Show a line of progress."""
        if self._live and line.startswith("height"):
            click.echo("\r" + line.ljust(self._width), nl=False)
            self._width = len(line)
            return
        self.end()
        click.echo(line)
        sys.stdout.flush()

    def end(self) -> None:
        """Leave the live line."""
        if self._width:
            click.echo()
            self._width = 0
