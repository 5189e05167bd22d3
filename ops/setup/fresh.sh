#!/usr/bin/env bash
# Repeat a newcomer's first steps in a bare Debian: debootstrap, clone of HEAD, new home.
#
#   ops/setup/fresh.sh [COMMAND...]    default: make devnet, make devnet again, make test
#   FRESH_SUITE=bookworm  FRESH_MIRROR=URL  FRESH_KEEP=1 (leave the directory standing)
#
# The system has Python, gcc, make and git and nothing else: no venv module, no headers, no node.
set -euo pipefail
tree=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
suite=${FRESH_SUITE:-bookworm}

say() { printf 'fresh: %s\n' "$*"; }
die() { printf 'fresh: %s\n' "$*" >&2; exit 1; }

if [ "${1:-}" = --inside ]; then # second half, in a mount and process namespace of its own
    root=$2; shift 2
    mount -t proc proc "$root/proc"
    mount --rbind /dev "$root/dev"
    # Only what it takes to reach the outside world: proxies, certificates, pip's index.
    keep=()
    [ ! -f "$root/opt/certificates.pem" ] || keep+=(PIP_CERT=/opt/certificates.pem)
    for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY \
        PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_TRUSTED_HOST PIP_DEFAULT_TIMEOUT; do
        [ -z "${!name:-}" ] || keep+=("$name=${!name}")
    done
    for command in "$@"; do
        began=$SECONDS
        say "\$ $command"
        chroot "$root" env -i HOME=/home/fresh LANG=C.UTF-8 TERM=dumb \
            PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
            "${keep[@]}" bash -c "cd /home/fresh/fairlane && $command" </dev/null ||
            die "failed after $((SECONDS - began)) s: $command"
        say "ok ($((SECONDS - began)) s): $command"
    done
    exit 0
fi

[ "$(id -u)" -eq 0 ] || die "a chroot needs root: run  sudo make fresh"
command -v debootstrap >/dev/null || die "run first: apt-get install -y debootstrap"
[ $# -gt 0 ] || set -- "make devnet" "make devnet" "make test"
changed=$(git -C "$tree" status --porcelain | wc -l)
[ "$changed" -eq 0 ] || say "note: $changed changed files are not committed and not tried"

root=$(mktemp -d "${TMPDIR:-/var/tmp}/fairlane-fresh.XXXXXX")
cleanup() {
    # The mounts live in a namespace that ends with its processes; this is a second guard.
    if grep -q " $root/" /proc/mounts; then
        echo "fresh: something is still mounted below $root; left standing" >&2
    elif [ -n "${FRESH_KEEP:-}" ]; then
        say "left standing: $root"
    else
        rm -rf --one-file-system "$root"
    fi
}
trap cleanup EXIT
trap 'exit 130' INT TERM
chmod 755 "$root"

began=$SECONDS
debootstrap --variant=minbase --include=python3,gcc,make,git "$suite" "$root" \
    ${FRESH_MIRROR:+"$FRESH_MIRROR"} >"$root.log" 2>&1 || { tail -n 20 "$root.log"; die "debootstrap failed"; }
rm -f "$root.log"
for file in /etc/resolv.conf /etc/hosts /etc/pip.conf; do
    [ ! -f "$file" ] || install -m 644 "$file" "$root$file"
done
certificates=${PIP_CERT:-${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}}
[ ! -f "$certificates" ] || install -D -m 644 "$certificates" "$root/opt/certificates.pem"
mkdir -p "$root/home/fresh"
git -c safe.directory='*' clone --quiet --no-local "$tree" "$root/home/fresh/fairlane"
chown -R root:root "$root/home/fresh"
say "bare $suite with a clone of $(git -C "$tree" rev-parse --short HEAD) ($((SECONDS - began)) s)"

unshare --mount --propagation private --pid --fork --kill-child \
    "$0" --inside "$root" "$@"
