"""What this machine's clocks are like, read and not judged: step, pace and synchronisation."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Final

SAMPLES: Final = 50
SAMPLE_GAP_S: Final = 0.002
TIMEX_BYTES: Final = 208  # of the kernel's struct on 64-bit machines, its padding included
TIME_ERROR: Final = 5
STA_UNSYNC: Final = 0x40
TIMEDATECTL_SECONDS_MAX: Final = 3


@dataclass(frozen=True, slots=True)
class ClockSample:
    """Both clocks, read one right after the other. Units: nanoseconds."""

    monotonic_ns: int
    wall_ns: int


@dataclass(frozen=True, slots=True)
class ClockState:
    """Whether something keeps the wall clock right, and the error it admits if it says so."""

    synchronised: bool
    error_ms_max: float | None


class _Timex(ctypes.Structure):
    """The head of Linux' `struct timex`, as wide as the whole. Source: adjtimex(2)."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_char * (TIMEX_BYTES - 48)),
    )


def sample_clocks() -> list[ClockSample]:
    """Read the clocks for about a tenth of a second."""
    samples = []
    for _ in range(SAMPLES):
        samples.append(ClockSample(time.monotonic_ns(), time.time_ns()))
        time.sleep(SAMPLE_GAP_S)
    return samples


def monotonic_resolution_ms() -> float:
    """Return the step of the clock that timers run on."""
    return time.get_clock_info("monotonic").resolution * 1e3


def clock_state() -> ClockState | None:
    """Return what the kernel or timedatectl says of synchronisation; None where neither does."""
    return _from_kernel() or _from_timedatectl()


def _from_kernel() -> ClockState | None:
    if sys.platform != "linux" or ctypes.sizeof(ctypes.c_long) != 8:
        return None
    try:
        call = ctypes.CDLL(None, use_errno=True).adjtimex
    except (OSError, AttributeError):
        return None
    timex = _Timex()  # modes 0: read only
    result = call(ctypes.byref(timex))
    if result < 0:
        return None
    synchronised = result != TIME_ERROR and not timex.status & STA_UNSYNC
    return ClockState(synchronised, timex.maxerror / 1e3 if synchronised else None)


def _from_timedatectl() -> ClockState | None:
    if shutil.which("timedatectl") is None:
        return None
    try:
        answer = subprocess.run(
            ["timedatectl", "show", "--property=NTPSynchronized", "--value"],
            capture_output=True,
            text=True,
            timeout=TIMEDATECTL_SECONDS_MAX,
            check=False,
        ).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return None
    return ClockState(answer == "yes", None) if answer in {"yes", "no"} else None
