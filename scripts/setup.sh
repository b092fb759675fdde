#!/usr/bin/env bash
# What building and testing need on a fresh Debian-like machine, installed only where it is missing: a C compiler (for zstd and
# aws-lc), strace and util-linux (some tests use them and skip without). The Rust toolchain is the one that is there.
set -euo pipefail
missing=()
command -v cc >/dev/null || missing+=(gcc libc6-dev)
command -v make >/dev/null || missing+=(make)
command -v strace >/dev/null || missing+=(strace)
command -v unshare >/dev/null || missing+=(util-linux)
if [ ${#missing[@]} -gt 0 ]; then
    if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
        apt-get update -qq && apt-get install -y -qq "${missing[@]}"
    else
        echo "please install: ${missing[*]}" >&2
        exit 1
    fi
fi
command -v cargo >/dev/null || { echo "please install Rust 1.95 or newer (rustup)" >&2; exit 1; }
