#!/usr/bin/env bash
# What takes minutes, disk or root, on the release binary: directories of a million entries, trees of two million files, a file and
# a stream of 100 GB, a full disk, a prune of millions of chunks, an index of many
# more (INDEX_CHUNKS=100000000 takes 13 GB of disk).
# Prints findings; exits 1 if one fails, or takes more anonymous memory than it may. Not part of the test suite, which has scaled
# twins of each.
#   scripts/heavy.sh [WORK FOLDER, default a new one in /tmp]     ENTRIES=1000000 SPARSE=100G CASES="directory tree" scripts/heavy.sh
set -uo pipefail
cd "$(dirname "$0")/.."
# BINARY: one that is built already.
[ -n "${BINARY:-}" ] || cargo build --release --quiet --package strongroom-cli || exit 1
strongroom=${BINARY:-$PWD/target/release/strongroom}
work=${1:-$(mktemp -d)}
mkdir -p "$work"
failed=0
cleanup() { mountpoint -q "$work/small" && umount "$work/small"; chmod -R u+w "$work" 2>/dev/null; rm -rf "$work"; }
trap cleanup EXIT
export STRONGROOM_KEY_FILE=$work/key STRONGROOM_CACHE_DIR=$work/cache
verdict() { if [ "$2" = 0 ]; then echo "PASS  $1"; else echo "FAIL  $1"; failed=1; fi; }
# MiB of anonymous memory that a command may have at most (docs/performance.md, "Memory").
: "${BOUND:=512}"
wanted() { [[ " ${CASES:-directory tree sparse stream full prune index} " == *" $1 "* ]]; }
# Runs strongroom and says how long it took and how much memory it had at most: RssAnon, sampled every 5 ms. Fails above the bound.
timed() {
    local what=$1; shift
    python3 - "$what" "$BOUND" "$@" <<'PY'
import os, re, resource, subprocess, sys, threading, time
what, bound, command = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
start = time.monotonic()
source = subprocess.Popen(["head", "-c", os.environ["FEED"], "/dev/zero"], stdout=subprocess.PIPE) if "FEED" in os.environ else None
child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stdin=source.stdout if source else subprocess.DEVNULL)
peak = 0
while child.poll() is None:
    try:
        with open(f"/proc/{child.pid}/status") as status:
            found = re.search(r"RssAnon:\s+(\d+)", status.read())
            peak = max(peak, int(found.group(1)) if found else 0)
    except OSError:
        pass
    time.sleep(0.005)
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(f"      {what}: {time.monotonic() - start:.1f} s, CPU {usage.ru_utime:.1f} + {usage.ru_stime:.1f} s, "
      f"anonymous {peak // 1024} MiB, resident {usage.ru_maxrss // 1024} MiB, exit {child.returncode}", flush=True)
sys.exit(child.returncode or peak // 1024 > bound)
PY
}
new_repository() {
    chmod -R u+w "$work/repository" 2>/dev/null; rm -rf "$work/repository" "$work/cache" "$work/key" "$work/restored"
    export STRONGROOM_REPO=${1:-$work/repository}
    env -u STRONGROOM_KEY_FILE "$strongroom" -q init --new-key-file "$work/key" 2>/dev/null
}

# Backs a folder up twice and restores it, into a new repository.
there_and_back() {
    new_repository
    timed "first backup" "$strongroom" -q backup "$1"; verdict "first backup" $?
    timed "again, unchanged" "$strongroom" -q backup "$1"; verdict "backup again" $?
    rm -rf "$work/cache"
    timed "again, without this client's cache" "$strongroom" -q backup "$1"; verdict "backup without cache" $?
    timed "restore planned" "$strongroom" -q restore --dry-run "latest:$1" --target "$work/restored"; verdict "restore planned" $?
    timed "restore" "$strongroom" -q restore "latest:$1" --target "$work/restored"; verdict "restore" $?
    timed "restore again" "$strongroom" -q restore "latest:$1" --target "$work/restored"; verdict "restore again" $?
    cmp <(cd "$1" && find . | sort) <(cd "$work/restored" && find . | sort); verdict "every entry is there" $?
    rm -rf "$work/restored"
}

if wanted directory; then
    echo "A directory of ${ENTRIES:=1000000} entries, then a second one"
    for folder in a b; do
        mkdir -p "$work/many/$folder"
        python3 -c "
import os, sys
for n in range(int(sys.argv[2])): os.close(os.open(f'{sys.argv[1]}/{n:08x}', os.O_CREAT | os.O_WRONLY, 0o644))
" "$work/many/$folder" "$ENTRIES"
        there_and_back "$work/many"
    done
    rm -rf "$work/many"
fi

if wanted tree; then
    echo "A tree of ${DIRECTORIES:=2000} directories of 1000 files of 40 bytes, no two the same"
    python3 -c "
import os, sys
for d in range(int(sys.argv[2])):
    os.makedirs(f'{sys.argv[1]}/{d:04}')
    for n in range(1000):
        with open(f'{sys.argv[1]}/{d:04}/{n:04}.txt', 'wb', buffering=0) as f: f.write(b'%039d\n' % (d * 1000 + n))
" "$work/tree" "$DIRECTORIES"
    there_and_back "$work/tree"
    [ "$("$strongroom" -q dump "latest:$work/tree/0007/0007.txt")" = "$(cat "$work/tree/0007/0007.txt")" ]; verdict "a file has its content" $?
    rm -rf "$work/tree"
fi

if wanted sparse; then
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
fi

if wanted stream; then
    echo "Standard input of ${STREAM:=100G}"
    new_repository
    FEED=$STREAM timed "backup" "$strongroom" -q backup --stdin-name stream; verdict "backup" $?
    timed "restore planned" "$strongroom" -q restore --dry-run latest --target "$work/restored"; verdict "restore planned" $?
fi

if wanted full; then
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
fi

if wanted prune; then
echo "A prune of ${CHUNKS:=2000000} chunks, half of them dead (sparse files for packs)"
CHUNKS=$CHUNKS cargo test --release --quiet --package strongroom-engine --lib -- --ignored --nocapture half_of_many | grep -E "^prune of|^again"
verdict "what is dead is freed, and nothing else" "${PIPESTATUS[0]}"
fi
if wanted index; then
echo "An index of ${INDEX_CHUNKS:=10000000} chunks in ${INDEX_RUNS:=100} runs"
cargo run --release --quiet --package strongroom-bench --bin index_scale -- "$INDEX_CHUNKS" "$INDEX_RUNS" "$work/index"
verdict "filled, opened, asked" $?
fi
exit $failed
