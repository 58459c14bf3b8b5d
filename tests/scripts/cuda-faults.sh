#!/usr/bin/env bash
# Faults of a GPU without a GPU: builds a driver that computes nothing (tests/fake-cuda) and runs
# tests/helpers/cuda_faults.c and the daemon against it. Needs cuda.h, as the CUDA back end does.
set -u
cd "$(dirname "$0")/../.." || exit 1

nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
include=$(dirname "$nvcc")/../include
if [ ! -e "$include/cuda.h" ]; then
	echo "no CUDA Toolkit: there is no CUDA back end to test"
	exit 77
fi
directory=$(mktemp -d) || exit 1
trap 'rm -rf "$directory"' EXIT
"${CC:-gcc}" -std=c11 -Wall -Wextra -Werror -O1 -g -D_GNU_SOURCE -fPIC -shared -I. -isystem "$include" \
	-Wl,-soname,libcuda.so.1 -o "$directory/libcuda.so.1" tests/fake-cuda/fake_cuda.c -lpthread || exit 1
"${BUILD:-build}/tests/helpers-cuda_faults" "$directory/libcuda.so.1"
status=$?
[ $status -eq 0 ] || exit $status

# The daemon itself: a kernel fails, the driver forgives nothing, and the process makes room for a new one.
cat >"$directory/conf" <<-END
	model = { directory = "$PWD/models/demo"; backend = "auto"; deterministic = true; width = 64; height = 48; };
	source = { identity = "pattern:"; };
	prompt = { initial = "invert the colors"; };
	output = { sinks = [ "file:$directory/out.mp4" ]; };
END
export RUNTIME_DIRECTORY=$directory
LD_LIBRARY_PATH=$directory FAKE_CUDA_BREAK=40 timeout 60 "${BUILD:-build}/bin/sana-streamd" --session \
	--config "$directory/conf" >"$directory/log" 2>&1
status=$?
grep -E 'back end|backend\.|refuses' "$directory/log"
if [ $status -ne 75 ] || ! grep -q 'backend.kernel\|a kernel failed' "$directory/log"; then
	echo "FAIL  sana-streamd ended with $status instead of 75; it said:"
	cat "$directory/log"
	exit 1
fi

# The new one is told which back end to wait for; when that works, the choice is free again.
if [ "$(cat "$directory/backend-before")" != cuda ]; then
	echo "FAIL  the new process is not told that the GPU was in use"
	exit 1
fi
LD_LIBRARY_PATH=$directory "${BUILD:-build}/bin/sana-streamd" --session --config "$directory/conf" >"$directory/log" 2>&1 &
pid=$!
for _ in $(seq 300); do
	[ -e "$directory/backend-before" ] || break
	sleep 0.1
done
kill $pid
wait $pid
grep -E 'back end|is warm' "$directory/log"
if [ -e "$directory/backend-before" ] || ! grep -q 'runs on the back end cuda' "$directory/log"; then
	echo "FAIL  the new process did not get the GPU; it said:"
	cat "$directory/log"
	exit 1
fi
