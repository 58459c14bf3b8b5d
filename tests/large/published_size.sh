#!/bin/sh
# One chunk of the published 2 B DiT and VAE with synthetic weights at a small picture, within
# 16 GiB: sana-bench runs two chunks of warm-up and one timed.
set -eu
out=$("${BUILD:-build}/bin/sana-bench" --shape 2b --weights synthetic:1 --size 64x64 --first-chunk 3 \
	--chunks 1 --weights-mode mapped --json)
printf '%s\n' "$out"
peak=$(printf '%s\n' "$out" | sed -n 's/.*"peak_memory_bytes": \([0-9]*\).*/\1/p')
frames=$(printf '%s\n' "$out" | sed -n 's/.*"frames": \([0-9]*\).*/\1/p')
[ "$frames" = 24 ] || { echo "24 frames expected, $frames came out"; exit 1; }
[ "$peak" -le 17179869184 ] || { echo "$peak bytes at the peak are more than 16 GiB"; exit 1; }
echo "peak memory $peak bytes of 17179869184"
