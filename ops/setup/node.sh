#!/usr/bin/env bash
# Print the directory of a node and npm to use: the machine's own, or the pinned one from a wheel.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
venv=${VENV:-.venv}
if command -v node >/dev/null 2>&1 && command -v npm >/dev/null 2>&1; then
    dirname "$(command -v node)"
    exit 0
fi
if [ ! -x "$venv/bin/node" ]; then
    echo "node: none on this machine, installing the pinned wheel into $venv" >&2
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
        --require-hashes -r requirements/node.txt >&2
fi
cd "$venv/bin" && pwd
