"""Index prices from this operator's own source, polled over HTTP.

The source answers `{"observations": [[feed, value, time_ms], ..]}`: value in micro-USDC per whole
unit of the underlying, time when it was seen. What it says goes into this replica's order log;
the engine takes the median over the logs, so one wrong source moves nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import httpx
import msgspec
import trio
from msgspec import Struct

from consensus.effects import PricesObserved
from consensus.messages import OBSERVATIONS_MAX, Observation

POLL_S = 1.0
TIMEOUT_S = 5.0
ANSWER_BYTES_MAX = 64 << 10

log = logging.getLogger("fairlane.prices")


class _Answer(Struct):
    observations: list[tuple[int, int, int]]


_DECODER = msgspec.json.Decoder(_Answer)


def parse_prices(data: bytes) -> tuple[Observation, ...]:
    """Return the observations in a source's answer. Errors: ValueError."""
    if len(data) > ANSWER_BYTES_MAX:
        raise ValueError("answer too long")
    rows = _DECODER.decode(data).observations
    if len(rows) > OBSERVATIONS_MAX:
        raise ValueError("too many observations")
    for feed, value, time_ms in rows:
        if not (0 <= feed < OBSERVATIONS_MAX and 0 < value < 1 << 63 and 0 <= time_ms < 1 << 62):
            raise ValueError("observation out of bounds")
    return tuple(Observation(feed, value, time_ms) for feed, value, time_ms in rows)


async def poll_prices(url: str, offer: Callable[[PricesObserved], object]) -> None:
    """Ask the source for ever; an outage is logged once and only ages the prices."""
    failing = False
    async with httpx.AsyncClient(timeout=TIMEOUT_S) as client:
        while True:
            try:
                response = await client.get(url)
                response.raise_for_status()
                observations = parse_prices(response.content)
            except (httpx.HTTPError, ValueError) as error:
                if not failing:
                    log.warning("no prices from %s: %s", url, error)
                failing = True
            else:
                failing = False
                if observations:
                    offer(PricesObserved(observations))
            await trio.sleep(POLL_S)
