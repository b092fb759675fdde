#!/usr/bin/env bash
# Runs every fuzz target for a while (needs cargo-fuzz and a nightly toolchain; never needed to build or test).
#   scripts/fuzz.sh [SECONDS each, default 60] [TARGET…]
set -uo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-60}
shift || true
targets=${*:-$(sed -n 's/^name = "\(.*\)"$/\1/p' fuzz/Cargo.toml | grep -v strongroom)}
failed=0
for target in $targets; do
    mkdir -p "fuzz/corpus/$target"
    # Whole runs take few bytes and some time; parsers take many and none.
    case $target in
        mutated | operations | cache) shape="-max_len=160 -len_control=0 -timeout=120" ;;
        *) shape="-max_len=65536" ;;
    esac
    if cargo +nightly fuzz run --sanitizer none "$target" -- -max_total_time="$seconds" $shape -verbosity=0 \
        -print_final_stats=1 >"/tmp/fuzz-$target.log" 2>&1; then
        printf '%-16s %s inputs, nothing found\n' "$target" \
            "$(sed -n 's/^stat::number_of_executed_units: *//p' "/tmp/fuzz-$target.log")"
    else
        failed=1
        printf '%-16s FOUND SOMETHING:\n' "$target"
        tail -20 "/tmp/fuzz-$target.log"
    fi
done
exit $failed
