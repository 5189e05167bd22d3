"""Checks of a machine that is to run a node: each names what is wrong and what to do about it.

Every `check_*` judges facts that it is given; `examine` gathers them. Nothing here needs a library
that a broken installation may lack, so that it can say which one that is.
"""

from __future__ import annotations

import os
import resource
import shutil
import socket
import stat
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from errno import EACCES, EADDRINUSE
from importlib import import_module
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, Final

from ops.hostclock import (
    ClockSample,
    ClockState,
    clock_state,
    monotonic_resolution_ms,
    sample_clocks,
)

PACKAGES: Final = ("consensus", "p2p", "matcher", "settlement", "contracts", "ops")
DISTRIBUTION: Final = "fairlane"
COMPILED_MODULES: Final = (
    "_cffi_backend",
    "coincurve",
    "cryptography.hazmat.bindings._rust",
    "fastecdsa.curve",
    "google.protobuf",
    "msgspec",
    "nacl.bindings",
    "py_arkworks_bls12381",
    "rocksdict",
    "tiny_keccak",
)
PYTHON_MIN: Final = (3, 11)
PYTHON_TESTED_MAX: Final = (3, 13)
CLOCK_STEP_MS_MAX: Final = 1.0
CLOCK_DRIFT_MS_MAX: Final = 20.0  # within the tenth of a second that is looked at
CLOCK_ERROR_MS_MAX: Final = 1000.0
DISK_FAIL_BYTES: Final = 1 << 30
DISK_WARN_BYTES: Final = 10 << 30
SYNC_WARN_MS: Final = 5.0
SYNC_FAIL_MS: Final = 50.0  # one block interval
SYNC_WRITES: Final = 32
SYNC_WRITE_BYTES: Final = 200
MEMORY_FAIL_BYTES: Final = 350 << 20  # what one node may use
MEMORY_WARN_BYTES: Final = 1 << 30
FILES_FAIL: Final = 256
FILES_WARN: Final = 1024
SETUP_AGAIN: Final = "run ops/setup/setup.sh, or install fairlane in a new virtual environment"


class Status(StrEnum):
    """How a check ended: `WARN` may run but will disappoint, `FAIL` must not run."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One check's name, end, what was found, and what to do when it is not ok."""

    name: str
    status: Status
    detail: str
    action: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the check as plain JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Home:
    """What the checks want to know of one node's home."""

    endpoints: Mapping[str, tuple[str, int]]
    secret_files: Sequence[Path]
    data_dir: Path
    running: bool


def check_names(
    owners: Mapping[str, Sequence[str]], origins: Mapping[str, Path | None], root: Path
) -> Check:
    """Check that each of our top-level packages is found below `root` and has no second owner.

    Shape: `owners` maps a top-level name to the distributions that install it, `origins` to the
    file that an import of it would run.
    """
    faults = []
    for name in PACKAGES:
        origin = origins.get(name)
        others = sorted(set(owners.get(name, ())) - {DISTRIBUTION})
        if origin is None:
            faults.append(f"{name} is not importable")
        elif origin != root / name / "__init__.py":
            faults.append(f"{name} would come from {origin}")
        if others:
            faults.append(f"{name} is also installed by {', '.join(others)}")
    if faults:
        action = "uninstall the other distribution, or " + SETUP_AGAIN
        return Check("names", Status.FAIL, "; ".join(faults), action)
    return Check("names", Status.OK, f"{', '.join(PACKAGES)} come from {root}")


def check_python(version: tuple[int, int], assertions: bool) -> Check:
    """Check the interpreter's version, and that its assertions are on."""
    shown = f"Python {version[0]}.{version[1]}"
    if not assertions:
        action = "run without -O and with PYTHONOPTIMIZE unset: assertions are part of safety"
        return Check("python", Status.FAIL, f"{shown} runs with -O", action)
    if version < PYTHON_MIN:
        return Check("python", Status.FAIL, f"{shown} is too old", "install Python 3.11 to 3.13")
    if version > PYTHON_TESTED_MAX:
        action = "use Python 3.11 to 3.13, which the tests run on"
        return Check("python", Status.WARN, f"{shown} is newer than what is tested", action)
    return Check("python", Status.OK, f"{shown}, assertions on")


def check_modules(names: Iterable[str]) -> Check:
    """Check that every module that a compiler built can be loaded."""
    names = list(names)
    faults = []
    for name in names:
        try:
            import_module(name)
        except (ImportError, OSError, AttributeError) as error:
            faults.append(f"{name}: {error}")
    if faults:
        return Check("modules", Status.FAIL, "; ".join(faults), SETUP_AGAIN)
    return Check("modules", Status.OK, f"{len(names)} compiled modules load")


def check_clock(samples: Sequence[ClockSample], resolution_ms: float, not_before_s: float) -> Check:
    """Check that timers are fine enough, that both clocks go forward, and at one pace.

    Units: `not_before_s` is a wall time in seconds that has surely passed.
    """
    faults = []
    if resolution_ms > CLOCK_STEP_MS_MAX:
        faults.append(f"the monotonic clock steps by {resolution_ms:.1f} ms")
    if any(after.monotonic_ns < before.monotonic_ns for before, after in pairwise(samples)):
        faults.append("the monotonic clock went back")
    first, last = samples[0], samples[-1]
    if last.wall_ns < (not_before_s - 86_400) * 1e9:
        faults.append("the wall clock is before this software was installed")
    if faults:
        action = "set the clock, or use another clock source of the machine"
        return Check("clock", Status.FAIL, "; ".join(faults), action)
    drift_ns = (last.wall_ns - first.wall_ns) - (last.monotonic_ns - first.monotonic_ns)
    detail = f"steps of {resolution_ms:.6f} ms, wall against monotonic {drift_ns / 1e6:+.3f} ms"
    if abs(drift_ns) > CLOCK_DRIFT_MS_MAX * 1e6:
        return Check("clock", Status.WARN, detail, "see what moves the wall clock")
    return Check("clock", Status.OK, detail)


def check_synchronised(state: ClockState | None) -> Check:
    """Check that the wall clock is kept right: prices and expiries are judged by it."""
    action = "run an NTP client, chrony or systemd-timesyncd"
    if state is None:
        return Check("ntp", Status.WARN, "unknown", f"make sure that the clock is kept: {action}")
    if not state.synchronised:
        return Check("ntp", Status.WARN, "the clock is not synchronised", action)
    if state.error_ms_max is None:
        return Check("ntp", Status.OK, "synchronised")
    detail = f"synchronised, error at most {state.error_ms_max:.1f} ms"
    if state.error_ms_max > CLOCK_ERROR_MS_MAX:
        return Check("ntp", Status.WARN, detail, f"use a nearer time server: {action}")
    return Check("ntp", Status.OK, detail)


def check_ports(endpoints: Mapping[str, tuple[str, int]], running: bool) -> Check:
    """Check that each endpoint can be listened on, by name; those of a running node are taken."""
    if running:
        return Check("ports", Status.OK, "this home's node is running and holds its ports")
    faults = []
    for name, (host, port) in endpoints.items():
        reason = _bind_fault(host, port)
        if reason is not None:
            faults.append(f"{name} {host}:{port}: {reason}")
    if faults:
        action = "stop what holds the port (ss -ltnp shows it) or change node.toml"
        return Check("ports", Status.FAIL, "; ".join(faults), action)
    shown = ", ".join(f"{name} {host}:{port}" for name, (host, port) in endpoints.items())
    return Check("ports", Status.OK, f"can be listened on: {shown}")


def _bind_fault(host: str, port: int) -> str | None:
    """Return why nobody can listen on host:port, or None."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except OSError as error:
        known = {EADDRINUSE: "in use", EACCES: "needs a privilege"}
        return known.get(error.errno or 0) or error.strerror or str(error)
    return None


def check_disk(free_bytes: int, where: Path) -> Check:
    """Check the space that is left for blocks and state."""
    detail = f"{free_bytes / (1 << 30):.1f} GiB free at {where}"
    if free_bytes >= DISK_WARN_BYTES:
        return Check("disk", Status.OK, detail)
    status = Status.WARN if free_bytes >= DISK_FAIL_BYTES else Status.FAIL
    return Check("disk", status, detail, "free some space, or put data_dir on a larger disk")


def check_sync(latencies_ms: Sequence[float], where: Path) -> Check:
    """Check how long one small write takes to be on disk: every vote waits for one."""
    if not latencies_ms:
        action = "make the directory writable for the node's user"
        return Check("fdatasync", Status.FAIL, f"cannot write at {where}", action)
    middle = median(latencies_ms)
    detail = f"median {middle:.2f} ms, worst {max(latencies_ms):.2f} ms at {where}"
    if middle <= SYNC_WARN_MS:
        return Check("fdatasync", Status.OK, detail)
    status = Status.WARN if middle <= SYNC_FAIL_MS else Status.FAIL
    return Check("fdatasync", status, detail, "put data_dir on a local SSD with power protection")


def check_memory(available_bytes: int | None) -> Check:
    """Check the memory that a new process can have."""
    if available_bytes is None:
        return Check("memory", Status.WARN, "unknown", "make sure that 1 GiB is free")
    detail = f"{available_bytes / (1 << 20):.0f} MiB available"
    if available_bytes >= MEMORY_WARN_BYTES:
        return Check("memory", Status.OK, detail)
    status = Status.WARN if available_bytes >= MEMORY_FAIL_BYTES else Status.FAIL
    return Check("memory", status, detail, "stop other programs or add memory")


def check_file_limit(soft: int, hard: int) -> Check:
    """Check how many files and connections a process may hold open."""
    detail = f"{soft} open files (at most {hard})"
    if soft >= FILES_WARN:
        return Check("files", Status.OK, detail)
    status = Status.WARN if soft >= FILES_FAIL else Status.FAIL
    return Check("files", status, detail, f"ulimit -n {FILES_WARN}, or LimitNOFILE= in the unit")


def check_secret_files(paths: Sequence[Path]) -> Check:
    """Check that each file with a secret is there and is its owner's alone."""
    faults = []
    for path in paths:
        try:
            status = path.stat()
        except OSError as error:
            faults.append(f"{path}: {error.strerror}")
            continue
        if not stat.S_ISREG(status.st_mode):
            faults.append(f"{path} is not a regular file")
        elif status.st_mode & 0o077:
            faults.append(f"{path} has mode {stat.S_IMODE(status.st_mode):04o}")
        elif status.st_uid not in (os.geteuid(), 0):
            faults.append(f"{path} belongs to another user")
    if faults:
        action = "chmod 600 the file; if others could read it, make new keys"
        return Check("secrets", Status.FAIL, "; ".join(faults), action)
    return Check("secrets", Status.OK, f"{len(paths)} files, mode 0600")


def check_signing(data_dir: Path) -> Check:
    """Check that the node may sign: that peers did not know more of its key than its own store."""
    if not (data_dir / "CURRENT").is_file():
        return Check("signing", Status.OK, "no store yet: peers are asked at the first start")
    try:
        from consensus.codec import CodecError, decode
        from consensus.context import KEY_SILENCE, TABLE_SAFETY
        from consensus.guard import Silence
        from ops.store import Store, StoreError
    except ImportError as error:
        return Check("signing", Status.FAIL, f"cannot read the store: {error}", SETUP_AGAIN)
    try:
        store = Store.open_to_read(data_dir)
        try:
            raw = store.get(TABLE_SAFETY, KEY_SILENCE)
        finally:
            store.close()
        silence = None if raw is None else decode(Silence, raw)
    except (StoreError, CodecError) as error:
        return Check("signing", Status.FAIL, str(error), "see the operator's guide")
    if silence is None:
        return Check("signing", Status.OK, "the store knows all that peers knew of its key")
    action = "nothing: it follows, and signs again in the next epoch; never put back an older copy"
    detail = f"silent in epoch {silence.epoch}: {silence.why}"
    return Check("signing", Status.WARN, detail, action)


def sync_latencies_ms(directory: Path) -> list[float]:
    """Return how long small synchronised writes in `directory` take; empty if none is possible."""
    latencies = []
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            for _ in range(SYNC_WRITES):
                began = time.perf_counter_ns()
                os.write(file.fileno(), bytes(SYNC_WRITE_BYTES))
                getattr(os, "fdatasync", os.fsync)(file.fileno())
                latencies.append((time.perf_counter_ns() - began) / 1e6)
    except OSError:
        return []
    return latencies


def available_memory(root: Path = Path("/")) -> int | None:
    """Return the bytes that a new process can have, by the kernel and by our control group."""
    found = []
    try:
        for line in (root / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                found.append(int(line.split()[1]) * 1024)
    except (OSError, ValueError, IndexError):
        return None
    group = root / "sys/fs/cgroup"
    try:
        limit = (group / "memory.max").read_text().strip()
        if limit != "max":
            found.append(int(limit) - int((group / "memory.current").read_text()))
    except (OSError, ValueError):
        pass  # no control group of our own
    return min(found, default=None)


def _nearest_directory(path: Path) -> Path:
    """Return `path` or the closest directory above it that exists."""
    return next(place for place in (path, *path.absolute().parents) if place.is_dir())


def _origins() -> dict[str, Path | None]:
    specs = {name: find_spec(name) for name in PACKAGES}
    return {
        name: Path(spec.origin).resolve() if spec is not None and spec.origin else None
        for name, spec in specs.items()
    }


def _key_in_use(public: bytes) -> bool:
    """Tell whether a node on this machine holds the lock of `public`, without taking it.

    Source: `ops.keys.KeyLock`, a name in Linux' abstract socket space.
    """
    try:
        names = Path("/proc/net/unix").read_text(errors="replace")
    except OSError:
        return False
    return f"@fairlane-key-{public.hex()}\n" in names


def read_home(home: Path) -> Home | Check:
    """Return what `node.toml` in `home` says, or the failed check."""
    try:
        # Late, because these import compiled modules, and a broken one must not stop the doctor.
        from ops.config import ConfigError, load_config, parse_endpoint
        from ops.keys import KeyFileError, read_public_keys
    except ImportError as error:
        return Check("home", Status.FAIL, f"cannot read {home}: {error}", SETUP_AGAIN)
    try:
        config = load_config(home)
    except (ConfigError, OSError) as error:
        return Check("home", Status.FAIL, str(error), "mend node.toml, or give another --home")
    secret_files = [Path(config.keys_file)]
    if config.passphrase_file:
        secret_files.append(Path(config.passphrase_file))
    try:
        public = read_public_keys(secret_files[0])
        running = _key_in_use(public.consensus) or _key_in_use(public.network)
    except KeyFileError:
        running = False  # the check of secret files says why
    endpoints = {
        "p2p": parse_endpoint(config.p2p_listen),
        "gateway": parse_endpoint(config.gateway_listen),
    }
    return Home(endpoints, secret_files, Path(config.data_dir), running)


def examine(home: Path | None) -> list[Check]:
    """Run every check; those of ports, keys and data directory need a node's home."""
    root = Path(__file__).resolve().parents[1]
    checks = [
        check_names(packages_distributions(), _origins(), root),
        check_python(sys.version_info[:2], __debug__),
        check_modules(COMPILED_MODULES),
        check_clock(sample_clocks(), monotonic_resolution_ms(), Path(__file__).stat().st_mtime),
        check_synchronised(clock_state()),
    ]
    data_dir = Path.cwd()
    if home is None:
        checks.append(check_ports({"any port": ("127.0.0.1", 0)}, running=False))
    else:
        found = read_home(home)
        if isinstance(found, Check):
            checks.append(found)
        else:
            data_dir = found.data_dir
            checks.append(check_ports(found.endpoints, found.running))
            checks.append(check_secret_files(found.secret_files))
            checks.append(check_signing(found.data_dir))
    where = _nearest_directory(data_dir)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return [
        *checks,
        check_disk(shutil.disk_usage(where).free, where),
        check_sync(sync_latencies_ms(where), where),
        check_memory(available_memory()),
        check_file_limit(soft, hard),
    ]
