#!/usr/bin/env bash
# What takes minutes, disk or root, on the release binary: a directory of a million entries, a sparse file of 100 GB, a full disk, a
# prune of millions of chunks, an index of many more (INDEX_CHUNKS=100000000 takes 13 GB of disk).
# Prints findings; exits 1 if one fails. Not part of the test suite, which has scaled twins of each.
#   scripts/heavy.sh [WORK FOLDER, default a new one in /tmp]     ENTRIES=1000000 SPARSE=100G scripts/heavy.sh
set -uo pipefail
cd "$(dirname "$0")/.."
cargo build --release --quiet --package strongroom-cli || exit 1
strongroom=$PWD/target/release/strongroom
work=${1:-$(mktemp -d)}
mkdir -p "$work"
failed=0
cleanup() { mountpoint -q "$work/small" && umount "$work/small"; chmod -R u+w "$work" 2>/dev/null; rm -rf "$work"; }
trap cleanup EXIT
export STRONGROOM_KEY_FILE=$work/key STRONGROOM_CACHE_DIR=$work/cache
verdict() { if [ "$2" = 0 ]; then echo "PASS  $1"; else echo "FAIL  $1"; failed=1; fi; }
# Runs strongroom and says how long it took and how much memory it had at most.
timed() {
    local what=$1; shift
    python3 - "$what" "$@" <<'PY'
import resource, subprocess, sys, time
start = time.monotonic()
code = subprocess.run(sys.argv[2:], stdout=subprocess.DEVNULL).returncode
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(f"      {sys.argv[1]}: {time.monotonic() - start:.1f} s, "
      f"CPU {usage.ru_utime + usage.ru_stime:.1f} s, peak {usage.ru_maxrss // 1024} MiB, exit {code}")
sys.exit(code)
PY
}
new_repository() {
    chmod -R u+w "$work/repository" 2>/dev/null; rm -rf "$work/repository" "$work/cache" "$work/key" "$work/restored"
    export STRONGROOM_REPO=${1:-$work/repository}
    env -u STRONGROOM_KEY_FILE "$strongroom" -q init --new-key-file "$work/key" 2>/dev/null
}

echo "A directory of ${ENTRIES:=1000000} entries"
new_repository
mkdir "$work/many"
python3 -c "
import os, sys
for n in range(int(sys.argv[2])): os.close(os.open(f'{sys.argv[1]}/{n:08x}', os.O_CREAT | os.O_WRONLY, 0o644))
" "$work/many" "$ENTRIES"
timed "first backup" "$strongroom" -q backup "$work/many"; verdict "first backup" $?
timed "again, unchanged" "$strongroom" -q backup "$work/many"; verdict "backup again" $?
timed "restore" "$strongroom" -q restore "latest:$work/many" --target "$work/restored"; verdict "restore" $?
[ "$(ls -f "$work/restored" | wc -l)" = "$(ls -f "$work/many" | wc -l)" ]; verdict "every entry is there" $?
rm -rf "$work/many" "$work/restored"

echo "A sparse file of ${SPARSE:=100G}"
new_repository
mkdir "$work/sparse"
truncate -s "$SPARSE" "$work/sparse/file"
for at in 0 1000 30000 70000; do
    head -c 3000000 /dev/urandom | dd of="$work/sparse/file" bs=1M seek=$at conv=notrunc status=none
done
truncate -s "$SPARSE" "$work/sparse/file"
timed "backup" "$strongroom" -q backup "$work/sparse"; verdict "backup" $?
timed "restore" "$strongroom" -q restore "latest:$work/sparse" --target "$work/restored"; verdict "restore" $?
[ "$(stat -c %s "$work/sparse/file")" = "$(stat -c %s "$work/restored/file")" ]; verdict "same length" $?
[ "$(stat -c %b "$work/restored/file")" -lt 100000 ]; verdict "still sparse" $?
for at in 0 1000 30000 70000; do
    cmp -n 4000000 -i "$((at << 20))" "$work/sparse/file" "$work/restored/file"; verdict "same bytes at $at MiB" $?
done
rm -rf "$work/sparse" "$work/restored"

echo "A disk that fills up (tmpfs of 64 MiB, root only)"
if [ "$(id -u)" = 0 ] && mkdir -p "$work/small" && mount -t tmpfs -o size=64m tmpfs "$work/small"; then
    new_repository "$work/small/repository"
    mkdir "$work/source"
    for n in 1 2 3 4; do head -c 40000000 /dev/urandom > "$work/source/$n"; done
    "$strongroom" -q backup "$work/source" 2> "$work/full"
    code=$?
    [ $code = 1 ] && grep -qiE "full|space" "$work/full"; verdict "a full disk is an error that says so (exit $code): $(head -1 "$work/full")" $?
    "$strongroom" -q check --no-key; verdict "what is there is sound" $?
    mount -o remount,size=400m "$work/small"
    timed "backup with room" "$strongroom" -q backup "$work/source"; verdict "with room it goes on" $?
    "$strongroom" -q check --read-data; verdict "check --read-data" $?
    "$strongroom" -q restore "latest:$work/source" --target "$work/restored" && diff -r "$work/source" "$work/restored"
    verdict "restored and identical" $?
    umount "$work/small"
else
    echo "SKIP  needs root"
fi

echo "A prune of ${CHUNKS:=2000000} chunks, half of them dead (sparse files for packs)"
CHUNKS=$CHUNKS cargo test --release --quiet --package strongroom-engine --lib -- --ignored --nocapture half_of_many | grep -E "^prune of|^again"
verdict "what is dead is freed, and nothing else" "${PIPESTATUS[0]}"

echo "An index of ${INDEX_CHUNKS:=10000000} chunks in ${INDEX_RUNS:=100} runs"
cargo run --release --quiet --package strongroom-bench --bin index_scale -- "$INDEX_CHUNKS" "$INDEX_RUNS" "$work/index"
verdict "filled, opened, asked" $?
exit $failed
