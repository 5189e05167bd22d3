"""`fairlane order`: the fair order of given logs."""

from __future__ import annotations

from typing import BinaryIO

import click
import msgspec

from ops.orderfile import OrderFileError, answers


class BadInput(click.ClickException):
    exit_code = 2


@click.command("order", short_help="Compute the fair order of given logs.")
@click.argument("file", type=click.File("rb"), metavar="FILE.json")
@click.option("--json", "_as_json", is_flag=True, help="Print JSON, which is what it always does.")
def command(file: BinaryIO, _as_json: bool) -> None:
    """Compute the fair order of the logs in FILE.json (- reads standard input).

    \b
    {"n": 5, "f": 1, "gamma": "1", "logs": [["a","b"], ["a","b"], ["a"], [], ["b"]]}

    logs[i] are the ids that replica i received, in its order. f defaults to floor((n-1)/3), gamma
    to "1". Prints the batches in order, and the ids that have to wait for more logs:

    \b
    {"batches": [["a"], ["b"]], "pending": []}

    A file may also hold one such object a line; it gets one answer a line. All logs are taken as
    committed in one block with an empty digest. Exits with 2 and the reason if the file is bad.
    """
    try:
        for answer in answers(file):
            click.echo(msgspec.json.encode(answer))
    except OrderFileError as error:
        raise BadInput(f"{file.name}: {error}") from None
    except OSError as error:
        raise BadInput(str(error)) from None
