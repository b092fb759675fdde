#!/usr/bin/env bash
# Every operation of a backup, restore, check, forget and prune meets every fault (the test suite lets each, or one in
# a few, meet one by turns). Prints how many were injected. Takes ten minutes or so on two cores.
set -euo pipefail
cd "$(dirname "$0")/.."
export STRONGROOM_ALL_FAULTS=1
exec cargo test --workspace --test faults --test failing_calls --test prune_faults -- --nocapture
