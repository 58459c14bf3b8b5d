#!/usr/bin/env bash
# sana-edit from the outside: exit statuses, one sentence for each failure, pipes, names, interrupts.
# Pictures of 32x32, so that the model takes next to no time.
set -u
cd "$(dirname "$0")/../.." || exit 1

edit=${BUILD:-build}/bin/sana-edit
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
failures=0 checks=0
small=(--size 32x32 --threads 1 --backend cpu --prompt 'make it sepia')

fail() {
	echo "FAIL: $1"
	sed 's/^/    | /' "$work/err" "$work/out"
	failures=$((failures + 1))
}

# run STATUS WORDS ARGUMENT...: the status, and WORDS in the one sentence on stderr.
run() {
	local status=$1 words=$2 got

	shift 2
	checks=$((checks + 1))
	"$edit" "$@" >"$work/out" 2>"$work/err" </dev/null
	got=$?
	if [ "$got" -ne "$status" ]; then
		fail "$* ended with $got instead of $status"
	elif [ -n "$words" ] && ! grep -q -- "$words" "$work/err"; then
		fail "$* did not say \"$words\""
	elif [ "$status" -ne 0 ] && [ "$(grep '^sana-edit: ' "$work/err" | grep -vc ' warning: ')" -ne 1 ]; then
		fail "$*: not one sentence"
	else
		[ "$status" -eq 0 ] || grep '^sana-edit: ' "$work/err"
	fi
}

there() {
	checks=$((checks + 1))
	[ -s "$1" ] || fail "$1 is not there"
}

gone() {
	checks=$((checks + 1))
	[ ! -e "$1" ] || fail "$1 is there"
}

same() {
	checks=$((checks + 1))
	cmp -s "$1" "$2" || fail "$1 and $2 differ"
}

# ---- what it answers -----------------------------------------------------------------------------

for option in --help --version; do
	"$edit" $option >"$work/out" 2>"$work/err" || fail $option
	{ [ -s "$work/out" ] && [ ! -s "$work/err" ]; } || fail "$option prints elsewhere"
done
checks=$((checks + 2))
# Each option of --help is in the manual and in the completion.
for option in $("$edit" --help | grep -o -- '^  --[a-z-]*') --no-antialias --version; do
	checks=$((checks + 1))
	grep -q -- "$option" tools/completion/sana-edit || fail "$option is not completed"
	grep -q -- "${option//-/\\\\-}" docs/sana-edit.1 || fail "$option is not in the manual"
done

# ---- wrong usage ---------------------------------------------------------------------------------

run 2 'give a source' --prompt x
run 2 'with --prompt TEXT' pattern: "$work/a.mp4"
run 2 'with --prompt TEXT' pattern: "$work/a.mp4" --prompt-at 1s x
run 2 'two prompts begin at the start' pattern: "$work/a.mp4" --prompt x --prompt y
run 2 'unexpected argument' pattern: "$work/a.mp4" more --prompt x
for value in 1x -1s 1:60 inf 0x10 '#-1' '#' '' ms 1:2:3:4 1.2.3; do
	run 2 'prompt-at is a time' pattern: "$work/a.mp4" --prompt x --prompt-at "$value" y
done
run 2 'size is WIDTHxHEIGHT' pattern: "$work/a.mp4" --prompt x --size 64
run 2 'size is WIDTHxHEIGHT' pattern: "$work/a.mp4" --prompt x --size 0x32
run 2 'size is WIDTHxHEIGHT' pattern: "$work/a.mp4" --prompt x --size 99999x32
run 2 'multiples of 16' pattern: "$work/a.mp4" --prompt x --size 33x32
run 2 'fps is a rate' pattern: "$work/a.mp4" --prompt x --fps 0
run 2 'fps is a rate' pattern: "$work/a.mp4" --prompt x --fps 1000000
run 2 'duration is a time' pattern: "$work/a.mp4" --prompt x --duration 0s
run 2 'seed is a number' pattern: "$work/a.mp4" --prompt x --seed -1
run 2 'switch is keep' pattern: "$work/a.mp4" --prompt x --switch never
run 2 'codec is h264' pattern: "$work/a.mp4" --prompt x --codec divx
run 2 'extension is none of' pattern: "$work/a.avi" --prompt x
run 2 'first-chunk' pattern: "$work/a.mp4" --prompt x --first-chunk 99
run 2 'rompt' pattern: "$work/a.mp4" --size 32x32 --prompt ''

# ---- sources and targets that cannot be ----------------------------------------------------------

printf 'no video\n' >"$work/text.mp4"
: >"$work/empty.mp4"
head -c 100000 /dev/zero >"$work/zero.mkv"
# 0.1 s of silence: a RIFF header and 4800 samples of 16 bits.
{
	printf 'RIFF\xa4\x25\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x80\xbb\0\0\0\x77\1\0\2\0\x10\0data\x80\x25\0\0'
	head -c 9600 /dev/zero
} >"$work/sound.wav"
run 3 'No such file' "$work/missing.mp4" "$work/a.mp4" "${small[@]}"
run 3 'directory' "$work" "$work/a.mp4" "${small[@]}"
run 3 'empty' "$work/empty.mp4" "$work/a.mp4" "${small[@]}"
run 3 'no video file' "$work/text.mp4" "$work/a.mp4" "${small[@]}"
run 3 'no video file' "$work/zero.mkv" "$work/a.mp4" "${small[@]}"
run 3 'sound' "$work/sound.wav" "$work/a.mp4" "${small[@]}"
run 3 'YUV4MPEG2' - "$work/a.mp4" "${small[@]}"
run 1 'missing-model' pattern: "$work/a.mp4" "${small[@]}" --model "$work/missing-model"
run 1 'no-such' pattern: "$work/a.mp4" "${small[@]}" --backend no-such
run 4 'No such file' pattern: "$work/gone/a.mp4" "${small[@]}"
mkdir "$work/dir.mp4"
run 4 'directory' pattern: "$work/dir.mp4" "${small[@]}"
run 4 'No such file' pattern: "$work/a.mp4" "${small[@]}" --save-latents "$work/gone/l.safetensors"
gone "$work/a.mp4"
gone "$work/a.partial.mp4"

# ---- files, pipes, pictures ----------------------------------------------------------------------

run 0 'frames a second' pattern: "$work/a.mkv" "${small[@]}" --codec ffv1 --duration '#12'
there "$work/a.mkv"
gone "$work/a.partial.mkv"
run 4 'exists' pattern: "$work/a.mkv" "${small[@]}" --duration '#12'
run 0 '' pattern: "$work/b.mkv" "${small[@]}" --codec ffv1 --duration 0.5s --json
same "$work/a.mkv" "$work/b.mkv" # twelve frames are half a second, and runs repeat
for event in 'start' 'prompt_applied' 'done'; do
	checks=$((checks + 1))
	[ "$(grep -c "^{\"event\":\"$event\".*}\$" "$work/out")" -eq 1 ] || fail "no event $event"
done
checks=$((checks + 1))
[ ! -s "$work/err" ] || fail "words besides the events"
run 0 '' pattern: "$work/a.mkv" "${small[@]}" --codec ffv1 --duration '#6' --overwrite --quiet \
	--seed 7
checks=$((checks + 2))
{ [ ! -s "$work/err" ] && [ ! -s "$work/out" ]; } || fail 'not quiet'
cmp -s "$work/a.mkv" "$work/b.mkv" && fail 'not overwritten'

# From one to the next over YUV4MPEG2: nothing but video is on stdout.
"$edit" pattern: - "${small[@]}" --duration '#8' 2>"$work/err" |
	"$edit" - "$work/c.y4m" "${small[@]}" 2>"$work/out"
status=${PIPESTATUS[*]}
checks=$((checks + 3))
[ "$status" = '0 0' ] || fail "the pipe: $status"
[ "$(head -c 9 "$work/c.y4m")" = YUV4MPEG2 ] || fail 'not YUV4MPEG2'
[ "$(grep -ao 'FRAME' "$work/c.y4m" | wc -l)" -eq 8 ] || fail 'not eight frames'
run 0 '8 frames' <(cat "$work/c.y4m") "$work/named.mkv" "${small[@]}" # a pipe with a name
"$edit" pattern: - "${small[@]}" --duration '#8' --json 2>"$work/err" >"$work/d.y4m"
checks=$((checks + 1))
grep -q '"event":"done"' "$work/err" || fail 'events are not on stderr beside a video on stdout'

run 0 '' pattern: "$work/p%03d.png" "${small[@]}" --duration '#7'
there "$work/p007.png"
gone "$work/p008.png"
run 0 '7 frames' "$work/p%03d.png" "$work/e.mp4" "${small[@]}" --fps 10
run 4 'exists' pattern: "$work/p%03d.png" "${small[@]}" --duration '#2'

# ---- outputs that fail, sources that end early ---------------------------------------------------

"$edit" pattern: - "${small[@]}" --duration '#9' >/dev/full 2>"$work/err" </dev/null
status=$?
checks=$((checks + 1))
{ [ $status -eq 4 ] && grep -q 'No space left' "$work/err"; } || fail "full: $status"
(
	ulimit -f 1 # kilobytes
	exec "$edit" pattern: "$work/full.mkv" "${small[@]}" --codec ffv1 --duration '#20'
) >"$work/out" 2>"$work/err" </dev/null
status=$?
checks=$((checks + 1))
{ [ $status -eq 4 ] && grep -q 'File too large' "$work/err"; } || fail "file size limit: $status"
gone "$work/full.mkv"
gone "$work/full.partial.mkv"
"$edit" pattern: - "${small[@]}" --duration '#40' 2>"$work/err" </dev/null | head -c 100 >/dev/null
status=${PIPESTATUS[0]}
checks=$((checks + 1))
{ [ "$status" -eq 4 ] && grep -q 'Broken pipe' "$work/err"; } || fail "reader gone: $status"

size=$(stat -c %s "$work/c.y4m")
head -c $((size - 500)) "$work/c.y4m" >"$work/cut.y4m"
run 3 'cut off' "$work/cut.y4m" "$work/cut.mkv" "${small[@]}"
there "$work/cut.partial.mkv"
gone "$work/cut.mkv"
run 0 '7 frames' "$work/cut.partial.mkv" "$work/f.mkv" "${small[@]}"

# ---- interrupts ----------------------------------------------------------------------------------

# interrupt SIGNAL ARGUMENT...: a run that would take minutes, stopped after its first frames.
interrupt() {
	local signal=$1 pid tries=0

	shift
	"$edit" pattern: "$@" "${small[@]}" --duration 1:00:00 --json >"$work/out" 2>"$work/err" \
		</dev/null &
	pid=$!
	until grep -q '"progress"' "$work/out" || [ $((tries += 1)) -gt 600 ]; do
		sleep 0.1
	done
	kill "-$signal" $pid
	wait $pid
	status=$?
	checks=$((checks + 1))
	{ [ $status -eq 130 ] && grep -q 'Interrupted: what was edited is in' "$work/err"; } ||
		fail "SIG$signal: $status"
}
interrupt INT "$work/int.mp4"
gone "$work/int.mp4"
there "$work/int.partial.mp4"
run 0 'frames' "$work/int.partial.mp4" "$work/g.mkv" "${small[@]}" --duration '#9'
interrupt TERM "$work/term.mkv" --keep-partial
there "$work/term.mkv"
gone "$work/term.partial.mkv"
run 0 'frames' "$work/term.mkv" "$work/h.mkv" "${small[@]}" --duration '#9'

echo "$checks checks, $failures failures"
[ $failures -eq 0 ]
