#!/usr/bin/env bash
# The golden runner itself: wrong values are noticed, wrong manifests end in one sentence.
set -u
cd "$(dirname "$0")/../.." || exit 1

golden=${BUILD:-build}/tests/golden
case $golden in /*) ;; *) golden=$PWD/$golden ;; esac
if [ ! -x "$golden" ]; then
	echo "skipped: $golden is not there"
	exit 77
fi
room=$(mktemp -d) || exit 1
trap 'rm -rf "$room"' EXIT
failures=0

# expect NAME STATUS [OPTION]... : runs $room/NAME.json; status 2 wants exactly one sentence on stderr
expect() {
	local name=$1 wanted=$2 status lines
	shift 2

	"$golden" "$@" "$room/$name.json" >"$room/out" 2>"$room/err"
	status=$?
	lines=$(wc -l <"$room/err")
	if [ "$status" -ne "$wanted" ] || { [ "$wanted" -eq 2 ] && [ "$lines" -ne 1 ]; }; then
		echo "FAIL  $name: status $status instead of $wanted, $lines lines on stderr"
		failures=$((failures + 1))
	else
		echo "ok    $name: status $status; $(cat "$room/err" || true)"
	fi
	tail -n 1 "$room/out" | sed 's/^/      /'
}

# change NAME SED-SCRIPT: vae-a with its manifest edited
change() {
	sed -z "$2" tests/golden/vae-a.json >"$room/$1.json"
	cp tests/golden/vae-a.safetensors "$room/$1.safetensors"
	if cmp -s tests/golden/vae-a.json "$room/$1.json"; then
		echo "FAIL  $1: the edit changed nothing"
		failures=$((failures + 1))
	fi
}

cp tests/golden/vae-a.json tests/golden/vae-a.safetensors "$room"
expect vae-a 0
expect vae-a 0 --no-prepare --threads 1
expect vae-a 2 --backend abacus

change other-tag 's/"tag": "vae-a"/"tag": "vae-z"/'
expect other-tag 1
change no-video 's/"video"/"film"/'
expect no-video 1

change empty 's/.*//'
expect empty 2
change cut 's/"inputs".*//'
expect cut 2
change no-config 's/"config"/"settings"/'
expect no-config 2
change no-kind 's/"encoder_channels"/"channels"/'
expect no-kind 2
change no-key 's/"encoder.conv_in.conv.bias"/"encoder.conv_in.conv.tilt"/'
expect no-key 2
change wrong-shape 's/"shape": \[\n    8,/"shape": [\n    9,/'
expect wrong-shape 2
change huge-shape 's/"shape": \[\n    8,/"shape": [\n    2147483647,/'
expect huge-shape 2
change word-scale 's/"scale": 0.1/"scale": "much"/'
expect word-scale 2
change odd-patch 's/"patch": 4/"patch": 3/'
expect odd-patch 2
change no-patch 's/"patch": 4/"patch": 0/'
expect no-patch 2
change wrong-word 's/"temporal"/"sideways"/'
expect wrong-word 2

change short-file 's/$/ /'
head -c 5000 tests/golden/vae-a.safetensors >"$room/short-file.safetensors"
expect short-file 2
change no-tensors 's/$/ /'
printf '\002\0\0\0\0\0\0\0{}' >"$room/no-tensors.safetensors"
expect no-tensors 2
change no-file 's/$/ /'
rm "$room/no-file.safetensors"
expect no-file 2

# A tensor that is not a number is off, whatever the engine makes of it; so is one it does not make.
one_tensor() { # NAME TENSOR COUNT
	local header="{\"$2\":{\"dtype\":\"F32\",\"shape\":[$3],\"data_offsets\":[0,$(($3 * 4))]}}"

	change "$1" 's/$/ /'
	printf "\\x$(printf %02x ${#header})\0\0\0\0\0\0\0%s" "$header" >"$room/$1.safetensors"
	for ((i = 0; i < $3; i++)); do printf '\0\0\300\177'; done >>"$room/$1.safetensors"
}
one_tensor not-a-number latent_mean 96
expect not-a-number 1
one_tensor not-made latent_median 96
expect not-made 1
one_tensor wrong-count latent_mean 95
expect wrong-count 1

"$golden" >/dev/null 2>&1
[ $? -eq 2 ] || { echo "FAIL  no manifests: not status 2"; failures=$((failures + 1)); }
echo "$failures failures"
[ "$failures" -eq 0 ]
