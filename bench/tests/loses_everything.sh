#!/bin/sh
# Called like restic, does as if it backed up, and restores an empty folder: the runner must notice.
for last; do :; done
case "$*" in
*" init") mkdir -p "$2" ;;
*" backup "*) echo "$last" >"$2/source" ;;
*" restore "*) mkdir -p "$last$(cat "$2/source")" ;;
*) echo "restic 0.0.0" ;;
esac
