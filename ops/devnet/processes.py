"""Child processes that never outlive us, whatever way we end."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import trio

STOP_S = 8.0
START_S = 60.0
LINE_BYTES_MAX = 64 << 10
LAST_LINES = 12
PR_SET_PDEATHSIG = 1


class ProcessFailed(RuntimeError):
    """A child did not start, or ended by itself; the text names its log."""


def _die_with_parent() -> None:
    """Have the kernel kill us when the parent dies. Source: prctl(2)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@dataclass(slots=True)
class Child:
    """One `fairlane` command as a process, its standard error in a file."""

    name: str
    arguments: Sequence[str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0
    cpu_s: float = 0.0
    rss_kb_max: int = 0
    expected_down: bool = field(default=False)

    async def start(self) -> str:
        """Start it and return the first line that it prints. Errors: ProcessFailed."""
        self.process = self._spawn()
        self.starts += 1
        self.expected_down = False
        with trio.move_on_after(START_S):
            line: str = await trio.to_thread.run_sync(  # type: ignore[call-arg]  # stale stubs
                self._first_line, abandon_on_cancel=True
            )
            if line:
                return line
        self.kill()
        raise ProcessFailed(f"{self.name} did not start; see {self.log}\n{self.last_words()}")

    def last_words(self) -> str:
        """Return the end of its log."""
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-LAST_LINES:])

    def _spawn(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "ops", *self.arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    def _first_line(self) -> str:
        assert self.process is not None
        assert self.process.stdout is not None
        return self.process.stdout.readline(LINE_BYTES_MAX).decode().strip()

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def sample(self) -> None:
        """Take note of the memory and the CPU time that it has used. Source: proc(5)."""
        if not self.running or self.process is None:
            return
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text()
            stat = Path(f"/proc/{self.process.pid}/stat").read_text()
        except OSError:
            return
        for line in status.splitlines():
            if line.startswith("VmRSS:"):
                self.rss_kb_max = max(self.rss_kb_max, int(line.split()[1]))
        times = stat.rpartition(")")[2].split()
        self.cpu_s = (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")

    def kill(self) -> None:
        """End it at once, as power loss would."""
        self.expected_down = True
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    async def stop(self) -> int:
        """Ask it to end, and kill it when it does not; return its exit status."""
        self.expected_down = True
        process = self.process
        if process is None:
            return 0
        if process.poll() is None:
            process.terminate()
            with trio.move_on_after(STOP_S):
                while process.poll() is None:  # noqa: ASYNC110  Popen has no event to wait for
                    await trio.sleep(0.02)
        if process.poll() is None:
            process.kill()
        return process.wait()
