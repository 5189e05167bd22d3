"""The set-up script: what it refuses, what it says, and that it repeats nothing needlessly.

A stub project stands in for this one: empty locks and a build backend of its own, so nothing is
fetched. The real locks are tried by `.ci/run`, which makes a new environment each time.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = (
    "bash", "cat", "chmod", "date", "dirname", "env", "flock", "grep", "head", "id", "ls", "mkdir",
    "mktemp", "readlink", "rm", "sed", "sha256sum", "tail", "tr", "true",
)  # fmt: skip

BACKEND = """
import zipfile

def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    name = "stub-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel_directory + "/" + name, "w") as wheel:
        info = "stub-1.0.dist-info/"
        wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\\nName: stub\\nVersion: 1.0\\n")
        wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\n"
                                       "Tag: py3-none-any\\n")
        wheel.writestr(info + "RECORD", "")
    return name

build_wheel = build_editable
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A stub project with the real set-up script."""
    (tmp_path / "ops" / "setup").mkdir(parents=True)
    (tmp_path / "requirements").mkdir()
    shutil.copy(ROOT / "ops" / "setup" / "setup.sh", tmp_path / "ops" / "setup")
    for name in ("build", "runtime", "dev"):
        (tmp_path / "requirements" / f"{name}.txt").write_text("# nothing\n")
    (tmp_path / "backend.py").write_text(BACKEND)
    (tmp_path / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    return tmp_path


def set_up(project: Path, **variables: str) -> tuple[int, str]:
    """Run the script; return its status and all that it printed."""
    environment = os.environ | {"PYTHON": sys.executable, "SETUP_APT": "no"} | variables
    environment.pop("VENV", None)
    done = subprocess.run(
        ["ops/setup/setup.sh"],
        cwd=project, env=environment, text=True, check=False, timeout=120,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return done.returncode, done.stdout


def bare_path(project: Path, *extra: str) -> Path:
    """Return a directory with the tools that every Debian has, and no compiler."""
    folder = project / "bin"
    folder.mkdir()
    for tool in (*TOOLS, *extra):
        found = shutil.which(tool)
        assert found is not None, tool
        (folder / tool).symlink_to(found)
    return folder


def stub(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/bash\n{script}\n")
    path.chmod(0o755)


def test_missing_system_packages_are_named_with_the_command_to_run(project: Path) -> None:
    folder = bare_path(project)
    stub(folder, "apt-get", f'echo "$@" >> {project}/apt.log')
    status, told = set_up(project, PATH=str(folder))
    assert status == 1
    assert "apt-get update && apt-get install -y" in told
    for package in ("make", "gcc", "libgmp-dev"):
        assert package in told
    assert not (project / "apt.log").exists(), "SETUP_APT=no installs nothing"
    assert not (project / ".venv").exists()


def test_without_root_and_sudo_nothing_is_tried(project: Path) -> None:
    folder = bare_path(project)
    stub(folder, "apt-get", f'echo "$@" >> {project}/apt.log')
    stub(folder, "sudo", "exit 1")
    (folder / "id").unlink()
    stub(folder, "id", "echo 1000")
    status, told = set_up(project, PATH=str(folder), SETUP_APT="yes")
    assert (status, "run this as root" in told) == (1, True)
    assert not (project / "apt.log").exists()


def test_with_sudo_apt_is_asked_and_its_failure_is_shown(project: Path) -> None:
    folder = bare_path(project)
    stub(folder, "apt-get", f'echo "$@" >> {project}/apt.log; echo E: no network; exit 100')
    stub(folder, "sudo", 'shift; exec "$@"')
    (folder / "id").unlink()
    stub(folder, "id", "echo 1000")
    status, told = set_up(project, PATH=str(folder), SETUP_APT="yes")
    assert status == 1
    assert "E: no network" in told
    assert "failed: system packages: make gcc libc6-dev libgmp-dev" in told
    log = (project / "apt.log").read_text().splitlines()
    assert [line.split()[0] for line in log] == ["install", "update", "install"]


def test_without_apt_the_debian_names_are_told(project: Path) -> None:
    status, told = set_up(project, PATH=str(bare_path(project)), SETUP_APT="yes")
    assert (status, "their Debian names: make gcc libc6-dev libgmp-dev" in told) == (1, True)


def test_a_python_that_is_too_old_is_refused(project: Path) -> None:
    stub(project, "python3.9", "exit 1")
    status, told = set_up(project, PYTHON=str(project / "python3.9"))
    assert (status, "older than 3.11" in told) == (1, True)


def test_a_directory_that_is_no_environment_is_left_alone(project: Path) -> None:
    (project / ".venv").mkdir()
    (project / ".venv" / "thesis.txt").write_text("years of work")
    status, told = set_up(project)
    assert (status, "is not a virtual environment" in told) == (1, True)
    assert (project / ".venv" / "thesis.txt").read_text() == "years of work"


@pytest.mark.slow
def test_a_set_up_is_repeated_only_where_something_changed(project: Path) -> None:
    python = project / ".venv" / "bin" / "python"
    status, told = set_up(project)
    assert status == 0, told
    for step in ("virtual environment", "builders", "packages", "fairlane itself", "done"):
        assert f"setup: {step}" in told
    made = python.lstat().st_ctime_ns

    assert set_up(project) == (0, "setup: .venv is up to date\n")

    (project / "pyproject.toml").open("a").write("# changed\n")
    status, told = set_up(project)
    assert (status, "fairlane itself" in told, "packages" in told) == (0, True, False)

    (project / "requirements" / "dev.txt").write_text("# changed\n")
    status, told = set_up(project)
    assert (status, "packages" in told, "virtual environment" in told) == (0, True, False)
    assert python.lstat().st_ctime_ns == made

    (project / "requirements" / "dev.txt").write_text("no-such-package==1 --hash=sha256:00\n")
    status, told = set_up(project, PIP_NO_INDEX="1")
    assert (status, "failed: packages" in told) == (1, True)
    python.unlink()  # damaged as well
    (project / "requirements" / "dev.txt").write_text("# changed\n")
    status, told = set_up(project)
    assert (status, "making it again" in told) == (0, True), "cut short, so made again"
    assert set_up(project) == (0, "setup: .venv is up to date\n")
