#!/usr/bin/env bash
# Make the virtual environment that the rest of this repository runs in; quick when nothing changed.
#
#   PYTHON=python3.12   the interpreter to use (default: the first of 3.11, 3.12, 3.13 found)
#   VENV=.venv          where the environment goes
#   SETUP_APT=no        never install system packages, only say which are missing
#
# Every Python package is pinned and checked by hash, the builders of source packages included:
# they are installed first and builds run without isolation, so nothing unpinned is ever fetched.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
root=$PWD
case ${VENV:=.venv} in /*) venv=$VENV ;; *) venv=$root/$VENV ;; esac
stamp=$venv/.setup-stamp       # written last: what the environment was made from
unfinished=$venv/.setup-unfinished # there while a set-up runs, or after one was cut short

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

step() { # step NAME COMMAND...: one line when it worked, the end of its log when it did not
    local name=$1 began=$SECONDS; shift
    if ! "$@" >"$log" 2>&1 </dev/null; then
        tail -n 40 "$log" >&2
        die "failed: $name"
    fi
    say "$name ($((SECONDS - began)) s)"
}

python_ok() { # python_ok COMMAND: it runs, and is 3.11 or newer
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
    local candidate
    if [ -n "${PYTHON:-}" ]; then
        python_ok "$PYTHON" || die "PYTHON=$PYTHON does not run or is older than 3.11"
        command -v "$PYTHON"
        return
    fi
    for candidate in python3.11 python3.12 python3.13 python3; do
        if python_ok "$candidate"; then command -v "$candidate"; return; fi
    done
    return 1
}

# What identifies the environment: where it stands, for which tree, from which interpreter.
identity() { # identity PYTHON
    "$1" -c 'import sys; print(sys.version.replace("\n", " "), sys.base_prefix)' 2>/dev/null
    printf '%s\n%s\n' "$venv" "$root"
}

lock_hash() { cat requirements/build.txt requirements/runtime.txt requirements/dev.txt | sha256sum; }

# The project is installed again when its metadata or its set of top-level packages changes.
project_hash() { { cat pyproject.toml; ls ./*/__init__.py 2>/dev/null || true; } | sha256sum; }

wanted_stamp() { # wanted_stamp PYTHON
    identity "$1"; lock_hash; project_hash
}

current() {
    [ -f "$stamp" ] && [ ! -e "$unfinished" ] || return 1
    [ "$(wanted_stamp "$venv/bin/python" 2>/dev/null)" = "$(cat "$stamp")" ] || return 1
    [ -z "${PYTHON:-}" ] || [ "$(identity "$PYTHON")" = "$(head -n 3 "$stamp")" ]
}

missing_packages() { # missing_packages [PYTHON]: Debian packages that a build of this needs
    local python=${1:-} suffix=3 include
    if [ -z "$python" ]; then
        printf '%s\n' python3 python3-venv python3-dev
    else
        # Debian names the packages of an interpreter that is not the default one by its version.
        if [ "$(readlink -f "$python")" != "$(readlink -f /usr/bin/python3)" ]; then
            suffix=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        fi
        "$python" -c 'import ensurepip, venv' >/dev/null 2>&1 || echo "python$suffix-venv"
        include=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
        [ -f "$include/Python.h" ] || echo "python$suffix-dev"
    fi
    command -v make >/dev/null 2>&1 || echo make
    if ! command -v gcc >/dev/null 2>&1 && ! command -v cc >/dev/null 2>&1; then
        printf '%s\n' gcc libc6-dev libgmp-dev
    elif ! echo '#include <gmp.h>' | "$(command -v gcc || command -v cc)" -E - >/dev/null 2>&1; then
        echo libgmp-dev
    fi
}

apt() { # apt PREFIX PACKAGES...: the lists may be missing or old, so a failure is tried once more
    local prefix=$1; shift
    $prefix env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" && return
    $prefix apt-get update
    $prefix env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"
}

need_system() {
    local missing prefix=
    missing=$(missing_packages "$1" | tr '\n' ' ')
    missing=${missing% }
    [ -n "$missing" ] || return 0
    local by_hand="run this as root, then try again:  apt-get update && apt-get install -y $missing"
    command -v apt-get >/dev/null 2>&1 ||
        die "system packages are missing (their Debian names: $missing); install them and try again"
    [ "${SETUP_APT:-yes}" != no ] || die "system packages are missing; $by_hand"
    if [ "$(id -u)" -ne 0 ]; then
        sudo -n true >/dev/null 2>&1 || die "system packages are missing; $by_hand"
        prefix="sudo -n"
    fi
    # shellcheck disable=SC2086 # the list is of words
    step "system packages: $missing" apt "$prefix" $missing
}

try_spin() { # the model checker of tests/formal: tests that want it are skipped where it is not
    local prefix=
    ! command -v spin >/dev/null 2>&1 || return 0
    command -v apt-get >/dev/null 2>&1 && [ "${SETUP_APT:-yes}" != no ] || return 0
    if [ "$(id -u)" -ne 0 ]; then
        sudo -n true >/dev/null 2>&1 || return 0
        prefix="sudo -n"
    fi
    export -f apt
    if timeout --kill-after 5 120 bash -c 'apt "$@"' bash "$prefix" spin >"$log" 2>&1 </dev/null; then
        say "spin, for the model of the voting rules"
    else
        say "without spin: the tests of the formal model will be skipped"
    fi
}

remove_venv() { # only ever deletes what is an environment, or the beginning of one
    if [ -e "$venv" ] && [ ! -e "$venv/pyvenv.cfg" ] && [ ! -e "$unfinished" ] &&
        [ -n "$(ls -A "$venv" 2>/dev/null)" ]; then
        die "$venv exists and is not a virtual environment; move it away or set VENV"
    fi
    rm -rf "$venv"
}

usable() { # an environment that another hand made or an older lock file filled: keep it
    local python=${PYTHON:-$venv/bin/python}
    [ ! -e "$unfinished" ] && [ -x "$venv/bin/python" ] || return 1
    [ ! -f "$stamp" ] || [ "$(identity "$python")" = "$(head -n 3 "$stamp")" ] || return 1
    "$venv/bin/python" -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

pip() { "$venv/bin/python" -m pip --disable-pip-version-check --no-input "$@"; }

set_up() {
    local python
    python=$(find_python) || python=
    need_system "$python"
    try_spin
    python=$(find_python) || die "no Python 3.11 or newer here; install one or set PYTHON"
    if ! usable; then
        [ ! -e "$venv" ] || say "$VENV is unfinished, damaged or of another Python: making it again"
        say "using $("$python" -V) ($python)"
        remove_venv
        mkdir -p "$venv"
        : >"$unfinished"
        step "virtual environment $VENV" "$python" -m venv "$venv"
    fi
    : >"$unfinished"
    if [ ! -f "$stamp" ] || [ "$(sed -n 4p "$stamp")" != "$(lock_hash)" ]; then
        step "builders" pip install --require-hashes -r requirements/build.txt
        step "packages, each checked by hash" pip install --require-hashes --no-build-isolation \
            -r requirements/runtime.txt -r requirements/dev.txt
    fi
    step "fairlane itself" pip install --no-deps --no-build-isolation --editable .
    wanted_stamp "$venv/bin/python" >"$stamp"
    rm -f "$unfinished"
    say "done in $SECONDS s: $VENV/bin/fairlane"
}

if current; then
    [ "${1:-}" = --quiet ] || say "$VENV is up to date"
    exit 0
fi
mkdir -p "$(dirname "$venv")"
if command -v flock >/dev/null 2>&1; then # two set-ups of one environment wait for each other
    exec 9<"$(dirname "$venv")"
    flock -w 900 9 || die "another set-up has held $(dirname "$venv") for 15 minutes"
    if current; then exit 0; fi
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
set_up
