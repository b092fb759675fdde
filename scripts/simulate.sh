#!/usr/bin/env bash
# Real engine code over a simulated store that fails, stalls, crashes and loses power, seed after seed, on the release build.
# Prints findings as they come, with their seeds, and at the end what was done; exits 1 if a seed found something.
#   scripts/simulate.sh [SECONDS for each class, default 3600] [FIRST SEED, default taken from the clock]
#   SIM_CLASS=Prune scripts/simulate.sh 600         one class only: Writers, Directories, Prune or Rot
#   SIM_CLASS=Prune SIM_SEED=42 scripts/simulate.sh replay       one seed with its whole trace
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "${1:-}" = replay ]; then
    exec cargo test --release --quiet --package strongroom-engine --test simulation -- --ignored --nocapture --exact replay
fi
export SIM_SECONDS=${1:-3600} SIM_FROM=${2:-$(date +%s)000000}
echo "from seed $SIM_FROM, $SIM_SECONDS s for each class"
cargo test --release --quiet --package strongroom-engine --test simulation -- --ignored --nocapture --exact hours
