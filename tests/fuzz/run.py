"""Runs targets over many frames, and audits some of them for memory and time."""

from __future__ import annotations

import gc
import random
import tracemalloc
from dataclasses import dataclass, field
from time import process_time, process_time_ns

from tests.fuzz.mutate import mutated
from tests.fuzz.targets import Target

AUDIT_EVERY = 500
"""One frame in so many is measured; all are run."""
ALLOCATED_BASE = 256 << 10
ALLOCATED_PER_BYTE = 40
"""Most that reading may hold at one time for each byte read. A tuple of a million small integers
costs 16 (a list of pointers, and the tuple's), one of a million empty structs about 30."""
CPU_BASE_NS = 30_000_000
CPU_PER_BYTE_NS = 5_000
"""Checking a signature costs 35 us, and no message names one in fewer than some 60 bytes."""
KEPT_MAX = 2_000
"""Frames that were taken and go on as seeds, beside the ones given."""


class Finding(AssertionError):
    """A reader did what it must not; the text has the bytes."""

    def __init__(self, target: str, data: bytes, what: str) -> None:
        super().__init__(f"{target}: {what}: {data.hex()}")
        self.data = data


@dataclass
class Report:
    """What one run did, and the worst that it measured."""

    target: str
    frames: int = 0
    taken: int = 0
    octets: int = 0
    audited: int = 0
    allocated_per_byte: float = 0.0
    cpu_ns_per_byte: float = 0.0
    cpu_s: float = 0.0
    kept: list[bytes] = field(default_factory=list)

    def __str__(self) -> str:
        rate = self.frames / self.cpu_s if self.cpu_s else 0.0
        return (
            f"fuzz: {self.target:<10} {self.frames} frames, {self.taken} taken, "
            f"{self.octets >> 20} MiB, {self.cpu_s:.1f} s CPU, {rate:.0f}/s; {self.audited} "
            f"audited, at most {self.allocated_per_byte:.1f} bytes and "
            f"{self.cpu_ns_per_byte / 1000:.1f} us a byte"
        )


def audit(target: Target, data: bytes) -> tuple[int, int]:
    """Return how many bytes reading `data` holds at most and how many ns of CPU it takes.

    Errors: Finding beyond the bounds. Time is the best of three: other work on the machine or a
    collection of garbage is not the reader's.
    """
    size = len(data)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    target.read(data)
    allocated = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    if allocated > ALLOCATED_BASE + ALLOCATED_PER_BYTE * size:
        raise Finding(target.name, data[:4_096], f"holds {allocated} bytes for {size}")
    took = 1 << 62
    gc.disable()
    try:
        for _ in range(3):
            began = process_time_ns()
            target.read(data)
            took = min(took, process_time_ns() - began)
    finally:
        gc.enable()
    if took > CPU_BASE_NS + CPU_PER_BYTE_NS * size:
        raise Finding(target.name, data[:4_096], f"takes {took} ns for {size} bytes")
    return allocated, took


def one(target: Target, data: bytes) -> bool:
    """Run one frame; say whether it was taken. Errors: Finding."""
    try:
        return target.read(data)
    except Exception as error:
        raise Finding(target.name, data, f"{type(error).__name__}: {error}"[:300]) from error


def fuzz(target: Target, seed: int, frames: int, audit_every: int = AUDIT_EVERY) -> Report:
    """Run `frames` mutated frames. What is taken is mutated further. Errors: Finding."""
    rng = random.Random(f"{target.name} {seed}")
    report = Report(target.name)
    began = process_time()
    seeds = list(target.seeds)
    for data in target.seeds:
        one(target, data)
    given = len(seeds)
    for k in range(frames):
        data = mutated(rng, seeds, target.prefix)
        report.octets += len(data)
        if one(target, data):
            report.taken += 1
            if len(seeds) < given + KEPT_MAX and len(data) < 4_096:
                seeds.append(data)
        if k % audit_every == 0:
            allocated, took = audit(target, data)
            report.audited += 1
            size = max(len(data), 1_024)
            report.allocated_per_byte = max(report.allocated_per_byte, allocated / size)
            report.cpu_ns_per_byte = max(report.cpu_ns_per_byte, took / size)
    report.frames = frames
    report.cpu_s = process_time() - began
    return report
