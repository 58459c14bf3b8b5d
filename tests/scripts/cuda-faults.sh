#!/usr/bin/env bash
# Faults of a GPU without a GPU: builds a driver that computes nothing (tests/fake-cuda) and runs
# tests/helpers/cuda_faults.c against it. Needs cuda.h, as the CUDA back end does.
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
