"""From what happened in the core to the node's metrics."""

from __future__ import annotations

from matcher.outcome import CommandOutcome, Fill
from ops.metrics import Metrics
from ops.replica import Executed


def observe_executed(metrics: Metrics, executed: Executed, now_ms: int) -> None:
    """Count one block that was committed and executed at `now_ms`."""
    block = executed.block
    trades = 0
    commands = 0
    for event in executed.events:
        if isinstance(event, Fill):
            trades += 1
        elif isinstance(event, CommandOutcome):
            commands += 1
            metrics.execution.command_executed(event.status, event.reason or "")
    metrics.consensus.block_committed(
        now_ms / 1000,
        height=block.height,
        rounds=1,
        missing=0,
        ordered=commands,
        ordered_total=executed.first_outcome - 1 + commands,
        block_time_lag_s=(now_ms - block.time_ms) / 1000,
        commit_s=None,
    )
    metrics.execution.block_executed(block.height, 0.0, trades)
    metrics.order.emitted((len(batch.ids) for batch in block.batches), 0, 0)
