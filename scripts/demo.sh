#!/usr/bin/env bash
# The main job on sample data: builds the release binary, makes a repository in a temporary folder, backs up real sample files twice
# (the second time nothing is new), lists, checks, restores and compares. Leaves nothing behind but target/.
#   scripts/demo.sh [FOLDER]     back up FOLDER instead of the samples in testdata/
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh
cargo build --release --package strongroom-cli
strongroom=$PWD/target/release/strongroom
source=$(realpath "${1:-testdata/real}")
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
export STRONGROOM_REPO=$work/repository STRONGROOM_KEY_FILE=$work/owner.key STRONGROOM_CACHE_DIR=$work/cache
say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

say "1. A repository, opened by a key file"
env -u STRONGROOM_KEY_FILE "$strongroom" init --new-key-file "$work/owner.key"
say "2. First backup of $source"
"$strongroom" backup "$source" --study DEMO-1 --tag nightly
say "3. Second backup: nothing is new"
"$strongroom" backup "$source" --study DEMO-1 --tag nightly
say "4. What is there"
"$strongroom" snapshots
"$strongroom" ls "latest:$source" | head -20
"$strongroom" stats
say "5. Check: structure, then every byte, then without any key"
"$strongroom" check
"$strongroom" check --read-data
"$strongroom" check --no-key
say "6. Restore and compare"
"$strongroom" restore "latest:$source" --target "$work/restored"
diff -r --no-dereference "$source" "$work/restored"
say "Restored files are identical. A key for a machine that may only add backups:"
"$strongroom" key add --role backup --name scanner-1 --new-key-file "$work/scanner-1.key"
"$strongroom" --key-file "$work/scanner-1.key" backup "$source"
if "$strongroom" --key-file "$work/scanner-1.key" restore latest --target "$work/stolen" 2>"$work/refused"; then
    echo "a backup key restored data: this must not happen" >&2
    exit 1
fi
head -3 "$work/refused"
say "Done."
