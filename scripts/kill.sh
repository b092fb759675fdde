#!/usr/bin/env bash
# Kills backups, restores, forgets and prunes with signal 9 at random moments, on a real folder, and verifies after each
# (cli/tests/kill.rs); then fills a small tmpfs under each of them. Prints what happened and ends with OK.
#   scripts/kill.sh [KILLS, default 300] [BINARY, default target/release/strongroom, else the debug one]
# The second half needs root, for mounting. STRONGROOM_KILL_DIR: the folder for the first half (default: TMPDIR).
set -euo pipefail
cd "$(dirname "$0")/.."
kills=${1:-300}
binary=${2:-target/release/strongroom}
if [ ! -x "$binary" ]; then
    cargo build --workspace --quiet
    binary=target/debug/strongroom
fi
binary=$(realpath "$binary")

STRONGROOM_KILLS=$kills STRONGROOM_BINARY=$binary STRONGROOM_KILL_FILES=${STRONGROOM_KILL_FILES:-40} \
    cargo test --workspace --quiet --test kill -- --nocapture

if [ "$(id -u)" != 0 ]; then
    echo "not root: no tmpfs is filled"
    exit 0
fi
place=$(mktemp -d)
disk=$place/disk
mkdir "$disk" "$place/source"
trap 'umount "$disk"; rm -rf "$place"' EXIT
mount -t tmpfs -o size=64m tmpfs "$disk"
export STRONGROOM_REPO=$disk/repo STRONGROOM_CACHE_DIR=$place/cache STRONGROOM_KEY_FILE=$place/key
"$binary" init --new-key-file "$place/key" --chunk-size 64k >/dev/null 2>&1

noise() { head -c "$1" /dev/urandom >"$place/source/$2"; }
# Leaves so many KiB on the disk.
fill() {
    rm -f "$disk/filler"
    local free
    free=$(df --output=avail -k "$disk" | tail -1)
    head -c $(((free - $1) * 1024)) /dev/zero >"$disk/filler"
}
# The command must fail with status 1 and say that there is no space.
must_be_full() {
    local status=0
    "$@" >"$place/out" 2>&1 || status=$?
    if [ $status != 1 ] || ! grep -qi 'space' "$place/out"; then
        echo "expected: no space; status $status: $*"
        cat "$place/out"
        exit 1
    fi
}
must() {
    if ! "$@" >"$place/out" 2>&1; then
        echo "failed: $*"
        cat "$place/out"
        exit 1
    fi
}
same() {
    rm -rf "$place/restored"
    must "$binary" restore "latest:$place/source" --target "$place/restored"
    diff -r "$place/source" "$place/restored"
}

noise 8M kept
noise 8M changed
must "$binary" backup "$place/source"
rounds=0
for free in 0 4 64 512 1024 2048 4096 6144; do
    # A backup of 8 MiB of news.
    noise 8M changed
    fill "$free"
    must_be_full "$binary" backup "$place/source"
    must "$binary" check
    # A prune may or may not find the room that it needs; it never does harm.
    "$binary" prune --fence-after 0s >"$place/out" 2>&1 || grep -qi space "$place/out"
    must "$binary" check --read-data
    rm "$disk/filler"
    must "$binary" backup "$place/source"
    same
    # A restore onto the full disk.
    fill "$free"
    must_be_full "$binary" restore "latest:$place/source" --target "$disk/target"
    rm "$disk/filler"
    must "$binary" restore "latest:$place/source" --target "$disk/target"
    diff -r "$place/source" "$disk/target"
    rm -rf "$disk/target"
    # The client's cache on the full disk: told, or not needed; then the backup goes on.
    noise 1M more
    fill "$free"
    STRONGROOM_CACHE_DIR=$disk/cache "$binary" backup "$place/source" >"$place/out" 2>&1 ||
        grep -qi space "$place/out"
    rm -rf "$disk/filler" "$disk/cache"
    must "$binary" backup "$place/source"
    same
    must "$binary" forget --keep-last 1 --reason 'kill.sh'
    # To the brim, a prune can not even write down what it will do.
    fill 0
    must_be_full "$binary" prune --fence-after 0s
    must "$binary" check
    rm "$disk/filler"
    must "$binary" prune --fence-after 0s --max-unused 0%
    must "$binary" check --read-data
    same
    rounds=$((rounds + 1))
done
echo "full disk: $rounds rounds of backup, prune, restore and cache; $(du -sm "$disk" | cut -f1) MiB left in use"
echo OK
