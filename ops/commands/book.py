"""`fairlane book`: order flow through one book."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from time import process_time
from typing import BinaryIO, NamedTuple

import click

from matcher.book import BadRow, Book, Trade
from ops.flow import FlowError, chunks
from ops.flow.plain import trade_lines


class Replayed(NamedTuple):
    """What a replay came to; `events_per_s` counts CPU time, reading and hashing included."""

    events: int
    trades: int
    events_per_s: int
    trades_sha256: str


def replay(path: Path, out: BinaryIO | None = None) -> Replayed:
    """Replay the flow file at `path` through an empty book, writing the trades to `out`.

    Errors: FlowError, OSError.
    """
    book, digest, events, count = Book(), sha256(), 0, 0
    trades: list[Trade] = []
    started = process_time()
    for chunk in chunks(path):
        try:
            book.replay(chunk, trades.append)
        except BadRow as error:
            raise FlowError(chunk.line(), str(error)) from None
        lines = trade_lines(trades)
        digest.update(lines)
        if out is not None:
            out.write(lines)
        events += chunk.rows
        count += len(trades)
        trades.clear()
    spent = max(process_time() - started, 1e-9)
    return Replayed(events, count, round(events / spent), digest.hexdigest())


class BadInput(click.ClickException):
    exit_code = 2


@click.command("book", short_help="Replay order flow through one book.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--trades",
    "trades_path",
    metavar="OUT.csv",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the trades here: taker_id,maker_id,price,qty.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(file: Path, trades_path: Path | None, as_json: bool) -> None:
    """Replay the order flow in FILE through one price-time book.

    FILE has the lines op,id,side,price,qty: op 0 is a limit order, 1 a cancel of order id, 2 a
    market order; side 0 buys, 1 sells; integers; a header line is optional. Bitstamp order events
    (id,timestamp,exchange.timestamp,price,volume,action,direction) work too, and either may be
    compressed with xz or gzip.

    Prints the events, the trades, the events per second of CPU time, and the SHA-256 over the
    trade lines taker_id,maker_id,price,qty, each with its newline.
    """
    try:
        with _replaced(trades_path) as out:
            done = replay(file, out)
    except FlowError as error:
        raise BadInput(f"{file}: {error}") from None
    except OSError as error:
        raise BadInput(str(error)) from None
    if as_json:
        click.echo(json.dumps(done._asdict()))
        return
    click.echo(f"events         {done.events:,}")
    click.echo(f"trades         {done.trades:,}")
    click.echo(f"events per s   {done.events_per_s:,} of CPU time")
    click.echo(f"trades sha256  {done.trades_sha256}")


@contextmanager
def _replaced(path: Path | None) -> Iterator[BinaryIO | None]:
    """Open a file that takes the place of `path` only if all goes well.

    A link or a device (`/dev/stdout`) is written to as it is, never replaced.
    """
    if path is None:
        yield None
        return
    if path.is_symlink() or (path.exists() and not path.is_file()):
        with path.open("wb") as out:
            yield out
        return
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as out:
            yield out
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
