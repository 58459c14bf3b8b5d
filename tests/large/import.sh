#!/usr/bin/env bash
# Files of the published size: rate against cp and sha256sum, peak memory, and --describe in time.
#
# The DiT is one zip64 file of 588 tensors, the text encoder 288 in two shards; random values, so
# that nothing is sparse or compressed away. Best of three each, alternating, the disk at rest before
# each run. Needs 20 GB; SANA_LARGE_DIR chooses where (default: the build directory).
set -u
cd "$(dirname "$0")/../.." || exit 1

build=${BUILD:-build}
case $build in /*) ;; *) build=$PWD/$build ;; esac
import=$build/bin/sana-import
make=$build/tests/helpers-checkpoint
for program in "$import" "$make"; do
	if [ ! -x "$program" ]; then
		echo "skipped: $program is not there"
		exit 77
	fi
done
room=$(mktemp -d "${SANA_LARGE_DIR:-$build}/import-large.XXXXXX") || exit 1
trap 'rm -rf "$room"' EXIT
free=$(df --output=avail -B 1000000000 "$room" | tail -n 1)
if [ "$free" -lt 20 ]; then
	echo "skipped: $free GB are free in $room, 20 are needed"
	exit 77
fi
max_mebibytes=512
runs=3
failures=0

fail() {
	echo "FAIL  $1"
	failures=$((failures + 1))
}

# Sets took: seconds of a command.
timed() {
	local start=$EPOCHREALTIME

	"$@" || fail "$*"
	took=$(awk -v a="$start" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.2f", b - a }')
}

copy_and_sum() {
	cp --sparse=never --reflink=never "$@" "$room/copy" && sha256sum "$@" >"$room/sums"
}

least() { awk -v a="$1" -v b="$2" 'BEGIN { print a == "" || b < a ? b : a }'; }

# race NAME WEIGHTS ARGUMENT…: WEIGHTS are the large files, ARGUMENTs what sana-import is given
race() {
	local name=$1 i best_copy='' best_import='' bytes peak
	local -n weights=$2
	shift 2

	bytes=$(cat "${weights[@]}" | wc -c)
	echo "$name: $bytes bytes in ${#weights[@]} files"
	for ((i = 0; i < runs; i++)); do
		mkdir "$room/copy"
		sync
		timed copy_and_sum "${weights[@]}"
		best_copy=$(least "$best_copy" "$took")
		echo "  cp + sha256sum $took s"
		rm -rf "$room/copy"
		sync
		timed "$make" run 0 $max_mebibytes "$import" "$@" --output "$room/model" --quiet \
			>"$room/out" 2>"$room/err"
		best_import=$(least "$best_import" "$took")
		peak=$(sed -n 's/.* and \(.*\) MiB/\1/p' "$room/err")
		echo "  sana-import    $took s, peak $peak MiB; $(tail -n 1 "$room/out")"
		[ $i -eq $((runs - 1)) ] || rm -rf "$room/model"
	done
	awk -v n="$name" -v b="$bytes" -v c="$best_copy" -v i="$best_import" 'BEGIN {
		printf "%s: cp + sha256sum %.0f MB/s, sana-import %.0f MB/s, ratio %.2f (0.5 wanted)\n",
			n, b / c / 1e6, b / i / 1e6, c / i
		exit c / i < 0.5
	}' || fail "$name: too slow"
}

# The values are those of the source.
same_values() {
	if [ "$(sed -n 's/.*"sha256": "\(.*\)".*/\1/p' "$room/model/manifest.json" | head -n 1)" = \
		"$(cut -d ' ' -f 1 "$room/sums" | head -n 1)" ]; then
		echo "  digest of the source as sha256sum has it"
	else
		fail "another digest than sha256sum's"
	fi
	timed "$import" --describe "$room/model" --verify >"$room/out"
	grep -q 'all files are those of the manifest' "$room/out" || fail "digests of the results"
	timed "$import" --describe "$room/model" --json >"$room/out"
	echo "  described in $took s"
	awk -v t="$took" 'BEGIN { exit t > 1 }' || fail "--describe took more than a second"
}

dit=("$room/sana_streaming_ar.pth")
"$make" large-dit "${dit[0]}" || exit 1
race "DiT" dit --partial "${dit[0]}"
same_values
rm -rf "$room/model"
timed "$import" --describe "${dit[0]}" >"$room/out"
cat "$room/out"
awk -v t="$took" 'BEGIN { exit t > 1 }' || fail "--describe of the file took more than a second"
rm -f "${dit[0]}"

# The published tokenizer cannot be made here; any of as many pieces will do.
mkdir "$room/gemma"
"$make" large-text 2 "$room/gemma" || exit 1
cp engine/shapes/2b/text_encoder.json "$room/gemma/config.json"
"$make" tokenizer 256000 "$room/gemma/tokenizer.model" || exit 1
# shellcheck disable=SC2034 # race reads it by its name
shards=("$room"/gemma/*.safetensors)
race "text encoder" shards --partial "$room/gemma"
same_values

if [ $failures -ne 0 ]; then
	echo "$failures failures"
	exit 1
fi
