"""`fairlane doctor` finds each fault it claims to find, and none on a sound machine."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from click.testing import CliRunner

from consensus.codec import encode
from consensus.context import KEY_SILENCE, TABLE_SAFETY
from consensus.effects import Write
from consensus.guard import Silence
from ops import doctor
from ops.commands.doctor import command
from ops.config import NodeConfig, save_config
from ops.doctor import Check, Status
from ops.hostclock import ClockSample, ClockState
from ops.keys import KeyLock, generate_keys, write_keys
from ops.store import Store

ROOT = Path(__file__).resolve().parents[2]
MIB = 1 << 20
GIB = 1 << 30
OWNERS = {name: ["fairlane"] for name in doctor.PACKAGES}
ORIGINS: dict[str, Path | None] = {
    name: Path("/tree") / name / "__init__.py" for name in doctor.PACKAGES
}


def samples(wall_step_ns: int = 1_000_000, monotonic_step_ns: int = 1_000_000) -> list[ClockSample]:
    start = 1_800_000_000 * 10**9
    return [ClockSample(i * monotonic_step_ns, start + i * wall_step_ns) for i in range(50)]


CASES: list[tuple[str, Callable[[], Check], Status, str]] = [
    ("names", lambda: doctor.check_names(OWNERS, ORIGINS, Path("/tree")), Status.OK, "/tree"),
    (
        "names, not installed but in the tree",
        lambda: doctor.check_names({}, ORIGINS, Path("/tree")),
        Status.OK,
        "/tree",
    ),
    (
        "names, a second owner",
        lambda: doctor.check_names(
            OWNERS | {"contracts": ["fairlane", "evil"]}, ORIGINS, Path("/tree")
        ),
        Status.FAIL,
        "contracts is also installed by evil",
    ),
    (
        "names, shadowed",
        lambda: doctor.check_names(
            OWNERS, ORIGINS | {"ops": Path("/else/ops/__init__.py")}, Path("/tree")
        ),
        Status.FAIL,
        "ops would come from /else/ops/__init__.py",
    ),
    (
        "names, missing",
        lambda: doctor.check_names(OWNERS, ORIGINS | {"p2p": None}, Path("/tree")),
        Status.FAIL,
        "p2p is not importable",
    ),
    ("python", lambda: doctor.check_python((3, 11), True), Status.OK, "3.11"),
    ("python, -O", lambda: doctor.check_python((3, 11), False), Status.FAIL, "-O"),
    ("python, old", lambda: doctor.check_python((3, 10), True), Status.FAIL, "too old"),
    ("python, new", lambda: doctor.check_python((3, 14), True), Status.WARN, "newer"),
    ("modules", lambda: doctor.check_modules(["json", "msgspec"]), Status.OK, "2 "),
    ("modules, none", lambda: doctor.check_modules(["no_such"]), Status.FAIL, "no_such"),
    ("clock", lambda: doctor.check_clock(samples(), 1e-6, 1.7e9), Status.OK, "+0.000"),
    ("clock, coarse", lambda: doctor.check_clock(samples(), 15.6, 1.7e9), Status.FAIL, "15.6"),
    (
        "clock, backwards",
        lambda: doctor.check_clock(samples(monotonic_step_ns=-1), 1e-6, 1.7e9),
        Status.FAIL,
        "went back",
    ),
    (
        "clock, wall steps",
        lambda: doctor.check_clock(samples(wall_step_ns=2_000_000), 1e-6, 1.7e9),
        Status.WARN,
        "+49.000 ms",
    ),
    (
        "clock, in the past",
        lambda: doctor.check_clock(samples(), 1e-6, 1.9e9),
        Status.FAIL,
        "before this software",
    ),
    ("ntp", lambda: doctor.check_synchronised(ClockState(True, 3.5)), Status.OK, "3.5 ms"),
    ("ntp, far", lambda: doctor.check_synchronised(ClockState(True, 1e4)), Status.WARN, "10000"),
    ("ntp, off", lambda: doctor.check_synchronised(ClockState(False, None)), Status.WARN, "not"),
    ("ntp, unknown", lambda: doctor.check_synchronised(None), Status.WARN, "unknown"),
    ("disk", lambda: doctor.check_disk(50 * GIB, ROOT), Status.OK, "50.0 GiB"),
    ("disk, little", lambda: doctor.check_disk(2 * GIB, ROOT), Status.WARN, "2.0 GiB"),
    ("disk, full", lambda: doctor.check_disk(100 * MIB, ROOT), Status.FAIL, "0.1 GiB"),
    ("sync", lambda: doctor.check_sync([0.2, 0.3, 90.0], ROOT), Status.OK, "median 0.30"),
    ("sync, slow", lambda: doctor.check_sync([8.0, 9.0, 9.5], ROOT), Status.WARN, "9.00"),
    ("sync, too slow", lambda: doctor.check_sync([80.0], ROOT), Status.FAIL, "80.00"),
    ("sync, read-only", lambda: doctor.check_sync([], ROOT), Status.FAIL, "cannot write"),
    ("memory", lambda: doctor.check_memory(4 * GIB), Status.OK, "4096 MiB"),
    ("memory, little", lambda: doctor.check_memory(500 * MIB), Status.WARN, "500 MiB"),
    ("memory, none", lambda: doctor.check_memory(100 * MIB), Status.FAIL, "100 MiB"),
    ("memory, unknown", lambda: doctor.check_memory(None), Status.WARN, "unknown"),
    ("files", lambda: doctor.check_file_limit(1024, 4096), Status.OK, "1024"),
    ("files, few", lambda: doctor.check_file_limit(512, 4096), Status.WARN, "512"),
    ("files, too few", lambda: doctor.check_file_limit(64, 64), Status.FAIL, "64"),
]


@pytest.mark.parametrize(
    ("check", "status", "told"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_each_check_judges_its_facts(check: Callable[[], Check], status: Status, told: str) -> None:
    result = check()
    assert (result.status, told in result.detail) == (status, True), result
    assert bool(result.action) == (status is not Status.OK), "a fault says what to do"


@pytest.fixture
def listener() -> Iterator[tuple[str, int]]:
    """A socket that listens on a port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()


def test_a_port_that_is_taken_is_found(listener: tuple[str, int]) -> None:
    result = doctor.check_ports({"gateway": listener}, running=False)
    assert result.status is Status.FAIL
    assert f"gateway 127.0.0.1:{listener[1]}: in use" in result.detail
    assert doctor.check_ports({"gateway": listener}, running=True).status is Status.OK


def test_an_address_that_is_not_ours_is_found() -> None:
    result = doctor.check_ports({"p2p": ("192.0.2.1", 4000)}, running=False)  # RFC 5737
    assert result.status is Status.FAIL


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o604, 0o666])
def test_a_secret_that_others_may_touch_is_found(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "keys.json"
    path.write_text("{}")
    path.chmod(mode)
    result = doctor.check_secret_files([path])
    assert result.status is (Status.FAIL if mode & 0o077 else Status.OK)


def test_a_missing_secret_and_a_directory_are_found(tmp_path: Path) -> None:
    assert doctor.check_secret_files([tmp_path / "none"]).status is Status.FAIL
    assert doctor.check_secret_files([tmp_path]).status is Status.FAIL


def test_memory_is_the_smaller_of_the_machine_and_the_group(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    assert doctor.available_memory(tmp_path) is None
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    4096 kB\n")
    assert doctor.available_memory(tmp_path) == 4 * MIB
    (group / "memory.max").write_text("3145728\n")
    (group / "memory.current").write_text("1048576\n")
    assert doctor.available_memory(tmp_path) == 2 * MIB
    (group / "memory.max").write_text("max\n")
    assert doctor.available_memory(tmp_path) == 4 * MIB


def test_synchronised_writes_are_timed_and_an_unwritable_place_is_told(tmp_path: Path) -> None:
    latencies = doctor.sync_latencies_ms(tmp_path)
    assert len(latencies) == doctor.SYNC_WRITES
    assert all(latency > 0 for latency in latencies)
    assert doctor.sync_latencies_ms(tmp_path / "none") == []


ports = count(20_000 + os.getpid() % 10_000)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The home of one node, its ports free."""
    home = tmp_path / "home"
    home.mkdir()
    write_keys(home / "keys.json", generate_keys(), b"pass", strength="interactive")
    config = NodeConfig(
        index=0,
        p2p_listen=f"127.0.0.1:{next(ports)}",
        gateway_listen=f"127.0.0.1:{next(ports)}",
        rpc_url="http://127.0.0.1:8545",
    )
    save_config(home, config)
    return home


def by_name(home: Path) -> dict[str, Check]:
    return {check.name: check for check in doctor.examine(home)}


def test_a_sound_home_passes(home: Path) -> None:
    checks = by_name(home)
    assert checks["ports"].status is Status.OK
    assert checks["secrets"].status is Status.OK
    assert str(home) in checks["disk"].detail


def test_a_silent_node_is_told_of_and_not_failed(home: Path) -> None:
    assert "no store yet" in by_name(home)["signing"].detail
    store = Store.open(home / "data")
    assert by_name(home)["signing"].status is Status.OK
    silence = Silence(3, "a vote of round 7 bears our signature", b"")
    store.apply([Write(TABLE_SAFETY, KEY_SILENCE, encode(silence))], sync=True)
    check = by_name(home)["signing"]
    assert (check.status, "silent in epoch 3: a vote" in check.detail) == (Status.WARN, True)
    store.close()
    (home / "data" / "CURRENT").write_bytes(b"x")
    assert by_name(home)["signing"].status is Status.FAIL


def test_faults_of_a_home_are_found(home: Path) -> None:
    (home / "keys.json").chmod(0o644)
    assert "0644" in by_name(home)["secrets"].detail
    (home / "node.toml").write_text("index = 0\n")
    assert by_name(home)["home"].status is Status.FAIL
    (home / "node.toml").unlink()
    assert by_name(home)["home"].status is Status.FAIL


@pytest.mark.skipif(sys.platform != "linux", reason="the lock of a key is Linux' own")
def test_the_ports_of_a_running_node_are_its_own(home: Path) -> None:
    from ops.keys import read_public_keys

    lock = KeyLock(read_public_keys(home / "keys.json").consensus)
    try:
        assert "running" in by_name(home)["ports"].detail
    finally:
        lock.release()
    assert "running" not in by_name(home)["ports"].detail


def test_the_exit_status_and_the_json_tell_of_a_failure(home: Path) -> None:
    (home / "keys.json").chmod(0o666)
    result = CliRunner().invoke(command, ["--home", str(home), "--json"])
    answer = json.loads(result.output)
    assert (result.exit_code, answer["ok"]) == (1, False)
    failed = [check for check in answer["checks"] if check["status"] == "fail"]
    assert "secrets" in [check["name"] for check in failed]
    assert all(check["action"] for check in failed)
    shown = CliRunner().invoke(command, ["--home", str(home)])
    assert shown.exit_code == 1
    assert "-> chmod 600" in shown.output


def test_another_distribution_with_our_name_is_found(tmp_path: Path) -> None:
    """A planted distribution that installs `matcher`, as pip would leave it."""
    info = tmp_path / "impostor-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: impostor\nVersion: 1.0\n")
    (info / "top_level.txt").write_text("matcher\n")
    (tmp_path / "matcher").mkdir()
    (tmp_path / "matcher" / "__init__.py").write_text("")
    program = (
        "import json; from ops.doctor import examine; "
        "print(json.dumps([c.as_json() for c in examine(None)]))"
    )
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    names = next(check for check in json.loads(done.stdout) if check["name"] == "names")
    assert names["status"] == "fail"
    assert "matcher is also installed by impostor" in names["detail"]
    assert f"matcher would come from {tmp_path}" in names["detail"]
