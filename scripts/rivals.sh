#!/usr/bin/env bash
# Installs the tools that bench/ compares Strongroom with: restic (apt), borg (pip, else apt), rustic
# and bupstash (cargo: on two busy cores 15 and 5 minutes, into ~/.cargo/bin). One that fails does not
# stop the others; the end says which are there. What apt has may be years old: look at the versions
# before quoting numbers. Run it niced: nice -n 15 bash scripts/rivals.sh
set -uo pipefail

# With these both built on 2026-11-22 and the runner's commands work; empty: the newest.
RUSTIC_VERSION=${RUSTIC_VERSION-0.11.4}
BUPSTASH_VERSION=${BUPSTASH_VERSION-0.12.0}
VENV=${VENV:-/opt/rivals}
BIN=${BIN:-/usr/local/bin}

have() { command -v "$1" >/dev/null 2>&1; }

restic_by_apt() {
    apt-get update -qq && apt-get install -y -qq --no-install-recommends restic
}

borg_by_pip() {
    python3 -m venv "$VENV" 2>/dev/null || python3 -m virtualenv "$VENV" || return 1
    "$VENV/bin/pip" install -q borgbackup || return 1
    ln -sf "$VENV/bin/borg" "$BIN/borg"
}

borg_by_apt() { apt-get install -y -qq --no-install-recommends borgbackup; }

# A build folder of its own, so that an interrupted build goes on where it was.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-/var/tmp/rivals-target}

cargo_install() { # crate, version or nothing
    cargo install --locked --jobs "${JOBS:-1}" "$1" ${2:+--version "$2"}
}

bupstash_by_cargo() {
    apt-get install -y -qq --no-install-recommends libsodium-dev pkg-config
    cargo_install bupstash "$BUPSTASH_VERSION"
}

have restic || restic_by_apt || echo "rivals: restic failed" >&2
have borg || borg_by_pip || borg_by_apt || echo "rivals: borg failed" >&2
have bupstash || bupstash_by_cargo || echo "rivals: bupstash failed" >&2
have rustic || cargo_install rustic-rs "$RUSTIC_VERSION" || echo "rivals: rustic failed" >&2

echo "--- installed"
have restic && restic version
have borg && borg --version
have bupstash && bupstash version
have rustic && rustic --version
exit 0
