"""Child processes that never outlive us, whatever way we end."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import trio

from ops.devnet.warm import GO

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
    """One `python -m module` as a process, its standard error in a file."""

    name: str
    arguments: Sequence[str]
    log: Path
    module: str = "ops"
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0
    cpu_s: float = 0.0
    rss_kb_max: int = 0
    expected_down: bool = field(default=False)
    ready: bool = False
    """Whether it has said its first line."""
    _prepared: subprocess.Popen[bytes] | None = None

    def prepare(self) -> None:
        """Have the next start's process import what a node needs, and wait. Source: `warm`."""
        if self._prepared is None:
            self.log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            warm = ["ops.devnet.warm", self.module, *self.arguments]
            self._prepared = self._spawn(warm, subprocess.PIPE)

    def _begin(self) -> subprocess.Popen[bytes]:
        process, self._prepared = self._prepared, None
        if process is not None and process.poll() is None:
            assert process.stdin is not None
            with suppress(BrokenPipeError):
                process.stdin.write(GO)
                process.stdin.close()
            return process
        return self._spawn([self.module, *self.arguments], subprocess.DEVNULL)

    async def start(self) -> str:
        """Start it and return the first line that it prints. Errors: ProcessFailed."""
        process = self.process = self._begin()
        self.starts += 1
        self.ready = False
        self.expected_down = False
        with trio.move_on_after(START_S):
            line: str = await trio.to_thread.run_sync(  # type: ignore[call-arg]  # stale stubs
                _first_line, process, abandon_on_cancel=True
            )
            if line:
                self.ready = self.process is process and not self.expected_down
                return line
        if process.poll() is None:
            process.kill()
            process.wait()
        raise ProcessFailed(f"{self.name} did not start; see {self.log}\n{self.last_words()}")

    def last_words(self) -> str:
        """Return the end of its log."""
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-LAST_LINES:])

    def _spawn(self, command: Sequence[str], stdin: int) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", *command],
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

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
        self.ready = False
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def signal(self, number: int) -> None:
        """Send it a signal, if it runs."""
        if self.process is not None and self.running:
            self.process.send_signal(number)

    async def stop(self) -> int:
        """Ask it to end, and kill it when it does not; return its exit status."""
        self.expected_down = True
        self.ready = False
        if self._prepared is not None:
            self._prepared.kill()
            self._prepared.wait()
            self._prepared = None
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


def _first_line(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    return process.stdout.readline(LINE_BYTES_MAX).decode().strip()
