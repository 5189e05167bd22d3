"""Order-flow files of either format, compressed or not."""

from __future__ import annotations

import gzip
import lzma
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import BufferedReader
from pathlib import Path

from ops.flow import bitstamp, plain
from ops.flow.event import Chunk, FlowError, FlowEvent

_XZ = b"\xfd7zXZ\x00"
_GZIP = b"\x1f\x8b"


def read(path: Path) -> Iterator[FlowEvent]:
    """Yield the events of the flow file at `path`, whichever format it has, in bounded memory.

    The format is told by the first line, xz and gzip by the first bytes.
    Errors: FlowError, OSError.
    """
    with _opened(path) as (stream, is_bitstamp):
        yield from bitstamp.events(stream) if is_bitstamp else plain.events(stream)


def chunks(path: Path) -> Iterator[Chunk]:
    """Yield the same as rows of plain order flow, for `Book.replay`.

    Errors: FlowError, OSError.
    """
    with _opened(path) as (stream, is_bitstamp):
        yield from bitstamp.chunks(stream) if is_bitstamp else plain.chunks(stream)


def counts_satoshi(path: Path) -> bool:
    """Say whether the file is Bitstamp's, whose quantities are satoshi. Errors: as `read`."""
    with _opened(path) as (_, is_bitstamp):
        return is_bitstamp


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BufferedReader, bool]]:
    with ExitStack() as opened:
        stream = opened.enter_context(path.open("rb"))
        magic = stream.peek(len(_XZ))
        try:
            if magic.startswith(_XZ):
                stream = BufferedReader(opened.enter_context(lzma.LZMAFile(stream)))
            elif magic.startswith(_GZIP):
                stream = BufferedReader(opened.enter_context(gzip.GzipFile(fileobj=stream)))
            yield stream, stream.peek(len(bitstamp.HEADER)).startswith(bitstamp.HEADER)
        except (lzma.LZMAError, zlib.error, gzip.BadGzipFile, EOFError) as error:
            raise FlowError(None, f"the compressed file is damaged: {error}") from None
