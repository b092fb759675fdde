#!/usr/bin/env bash
# Explores the deletion protocol (model/): the small configurations completely, the large ones for so many minutes each, one thread.
# Memory: about 20 bytes a state for what is known, 250 for each on the frontier; --states bounds it (100 million by default).
#   scripts/model.sh [--minutes 2] [--states 100000000] [--only TEXT]      prints a table, fails if a property fails
#   scripts/model.sh --without RULE                                        prints how data is lost without that rule
set -euo pipefail
cd "$(dirname "$0")/.."
exec nice -n 10 cargo run --quiet --release --package strongroom-model -- "$@"
