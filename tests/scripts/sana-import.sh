#!/usr/bin/env bash
# sana-import: every layout in, values that stay the same, and bad input that gets nowhere.
set -u
cd "$(dirname "$0")/../.." || exit 1

build=${BUILD:-build}
case $build in /*) ;; *) build=$PWD/$build ;; esac
import=$build/bin/sana-import
make=$build/tests/helpers-checkpoint
golden=$build/tests/golden
demo=models/demo
for program in "$import" "$make" "$golden"; do
	if [ ! -x "$program" ]; then
		echo "skipped: $program is not there"
		exit 77
	fi
done
room=$(mktemp -d) || exit 1
trap 'rm -rf "$room"' EXIT
failures=0
# The sanitizers' own memory and time are not what is measured.
seconds=1 mebibytes=64
[ -z "${SANITIZE:-}" ] || seconds=0 mebibytes=0

fail() {
	echo "FAIL  $1"
	sed 's/^/      /' "$room/err"
	failures=$((failures + 1))
}

# good NAME ARGUMENT…: exits 0
good() {
	local name=$1
	shift

	if "$import" "$@" >"$room/out" 2>"$room/err"; then
		echo "ok    $name: $(tail -n 1 "$room/out")"
	else
		fail "$name: status $?"
		return 1
	fi
}

# bad NAME STATUS WORDS ARGUMENT…: that status, a sentence with these words, and no output directory
bad() {
	local name=$1 wanted=$2 words=$3 status
	shift 3

	"$make" run "$seconds" "$mebibytes" "$import" "$@" >"$room/out" 2>"$room/err"
	status=$?
	if [ "$status" -ne "$wanted" ]; then
		fail "$name: status $status instead of $wanted"
	elif ! grep -qi -- "$words" "$room/err"; then
		fail "$name: does not say \"$words\""
	elif [ -e "$room/no" ]; then
		fail "$name: left a directory"
		rm -rf "$room/no"
	else
		echo "ok    $name: $(grep -i -m 1 -- "$words" "$room/err")"
	fi
}

same() {
	if cmp "$2" "$3" >"$room/err" 2>&1; then
		echo "ok    $1: equal bytes"
	else
		fail "$1"
	fi
}

says() {
	if grep -q -- "$3" "$2"; then
		echo "ok    $1"
	else
		cp "$2" "$room/err"
		fail "$1: \"$3\" is not said"
	fi
}

# ---- state dicts of all nestings, value by value

for name in plain state_dict generator module_prefix; do
	good "raw $name" --raw "tests/checkpoint/$name.pth" --output "$room/raw-$name" &&
		if ! "$make" expect "$room/raw-$name/model.safetensors" 2>"$room/err"; then
			fail "raw $name: values"
		fi
done
good "raw safetensors" --raw tests/checkpoint/plain.safetensors --output "$room/raw-st/"
"$make" expect "$room/raw-st/model.safetensors" 2>"$room/err" || fail "raw safetensors: values"

# ---- a golden model in each nesting gives the golden values

for nesting in bare state_dict generator generator.state_dict model. module. model.module.; do
	"$make" golden "$nesting" tests/golden/dit-a.json "$room/golden.pth"
	good "golden, $nesting" --raw "$room/golden.pth" --output "$room/golden.$nesting" || continue
	# The same bytes need not be run again.
	if [ "$nesting" != bare ]; then
		same "golden, $nesting" "$room/golden.bare/model.safetensors" \
			"$room/golden.$nesting/model.safetensors"
		continue
	fi
	"$golden" --weights "$room/golden.bare" tests/golden/dit-a.json >"$room/err" 2>&1 ||
		fail "golden, $nesting: values"
	tail -n 1 "$room/err" | sed 's/^/      /'
done

# ---- hostile files: refused with a reason, quickly, in little memory

for file in tests/checkpoint/hostile_*; do
	bad "$file" 1 '.' --raw "$file" --output "$room/no"
done
bad legacy 1 'before version 1.6' --raw tests/checkpoint/legacy.pth --output "$room/no"
mkdir "$room/hostile"
"$make" hostile "$room/hostile" >"$room/hostile.list"
while read -r name; do
	bad "$name" 1 "hostile/$name" --raw "$room/hostile/$name" --output "$room/no"
done <"$room/hostile.list"
[ "$(wc -l <"$room/hostile.list")" -ge 10 ] || fail "fewer than ten hostile files"
bad "hostile, not raw" 1 'posix.system' tests/checkpoint/hostile_reduce.pth --output "$room/no"

# ---- as it is published: .pth, causal VAE in its folder, sharded text encoder

good demo "$demo" --output "$room/demo"
from=$room/download
mkdir -p "$from/sana/dit" "$from/sana/ltx2_causal_vae_0516" "$from/ltx/vae" "$from/gemma" "$from/ltx/other"
cp "$demo/stream.json" "$from/sana"
cp "$demo/dit/config.json" "$from/sana/dit"
cp "$demo"/vae/* "$from/sana/ltx2_causal_vae_0516"
cp "$demo"/vae/* "$from/ltx/vae"
sed -i 's/"decoder_causal": true/"decoder_causal": false/' "$from/ltx/vae/config.json"
cp "$demo/text_encoder/config.json" "$demo/text_encoder/tokenizer.model" "$from/gemma"
"$make" shard 3 model. "$demo/text_encoder/model.safetensors" "$from/gemma"
for nesting in bare state_dict generator model. module.; do
	"$make" torch "$nesting" "$demo/dit/model.safetensors" "$from/sana/dit/sana_streaming_ar.pth"
	rm -rf "$room/model"
	good "published layout, $nesting" "$from/sana" "$from/gemma" --output "$room/model" || continue
	same "its DiT" "$room/demo/dit/model.safetensors" "$room/model/dit/model.safetensors"
done
same "its VAE" "$room/demo/vae/diffusion_pytorch_model.safetensors" \
	"$room/model/vae/diffusion_pytorch_model.safetensors"
says "causal decoder as published" "$room/model/manifest.json" '"decoder_origin": "published"'
"$import" --describe "$room/model" --tensors --json >"$room/a" 2>"$room/err" || fail "describe"
says "described as complete" "$room/a" '"what": "a model directory"'
says "with a memory plan" "$room/a" '"stream_bytes": [1-9]'
says "text encoder without its prefix" "$room/a" '"name": "layers.0.input_layernorm.weight"'
bad "size of the plan" 1 'multiple' --describe "$room/model" --size 100x100
if [ -x "$build/bin/sana-bench" ]; then
	"$build/bin/sana-bench" --plan --model "$room/model" >"$room/err" 2>&1 || fail "the engine plans it"
fi
"$import" --describe "$room/model" --verify >"$room/out" 2>"$room/err" || fail "verify"
says "digests verified" "$room/out" 'all files are those of the manifest'
printf x | dd of="$room/model/vae/config.json" bs=1 seek=3 conv=notrunc 2>/dev/null
bad "verify, one byte changed" 1 'SHA-256\|JSON' --describe "$room/model" --verify
good "describe a file" --describe "$from/sana/dit/sana_streaming_ar.pth" --json
says "named for what it is" "$room/out" 'SANA-Streaming DiT'
good "describe a download" --describe "$from/gemma"
# files by name, and the shards along with their index
rm -rf "$room/model"
good "files one by one" "$from/sana/dit/sana_streaming_ar.pth" "$from/sana/stream.json" \
	"$from"/sana/ltx2_causal_vae_0516/*.safetensors "$from"/gemma/* --output "$room/model" --json
says "digests of sources" "$room/out" '"sha256": "[0-9a-f]\{64\}"'
# a cache of links, as download tools keep it
mkdir -p "$from/cache/snapshots/1" "$from/cache/blobs"
for file in "$from"/gemma/*; do
	cp "$file" "$from/cache/blobs/$(basename "$file" | cksum | cut -d ' ' -f 1)"
	ln -s "../../blobs/$(basename "$file" | cksum | cut -d ' ' -f 1)" \
		"$from/cache/snapshots/1/$(basename "$file")"
done
rm -rf "$room/model"
good "a cache of links" "$from/sana" "$from/cache" --output "$room/model"

# ---- a model of the published size: headers only, the rest is sparse

large=$room/2b
mkdir -p "$large/dit" "$large/vae" "$large/text_encoder"
for part in dit vae text_encoder; do
	cp "engine/shapes/2b/$part.json" "$large/$part/config.json"
done
cp engine/shapes/2b/stream.json "$large"
"$make" sparse-model "$large"
"$make" tokenizer 256000 "$large/text_encoder/tokenizer.model"
# quick NAME COMMAND…: within a second, in one of three tries, as others may use the machine
quick() {
	local name=$1 try
	shift

	for try in 1 2 3; do
		"$make" run "$seconds" 0 "$@" >"$room/out" 2>"$room/err"
		# 3: sana-bench's answer where this machine is too small
		case $? in
		0 | 3)
			echo "ok    $name: $(tail -n 1 "$room/err"), try $try"
			return
			;;
		esac
	done
	fail "$name"
}
quick "the published size is described" "$import" --describe "$large" --size 1280x704 --json
says "588 tensors" "$room/out" '"tensors": 588'
says "184 tensors" "$room/out" '"tensors": 184'
says "288 tensors" "$room/out" '"tensors": 288'
says "its plan" "$room/out" '"stream_bytes": [1-9]'
if [ -x "$build/bin/sana-bench" ]; then
	quick "the published size is planned" "$build/bin/sana-bench" --plan --model "$large"
fi

# ---- the bidirectional VAE

rm -rf "$room/model"
good "public VAE" "$from/sana/dit" "$from/sana/stream.json" "$from/ltx" "$from/gemma" \
	--output "$room/model"
says "said plainly" "$room/err" 'decoder_origin: converted'
says "in the manifest" "$room/model/manifest.json" '"decoder_origin": "converted"'
says "in the configuration" "$room/model/vae/config.json" '"decoder_causal": true'
"$import" --describe "$room/model" >"$room/out" 2>"$room/err"
says "when described" "$room/out" 'converted from the bidirectional VAE'
if cmp -s "$room/demo/vae/diffusion_pytorch_model.safetensors" \
	"$room/model/vae/diffusion_pytorch_model.safetensors"; then
	fail "the decoder was not converted"
fi
"$make" taps "$demo/vae/diffusion_pytorch_model.safetensors" \
	"$room/model/vae/diffusion_pytorch_model.safetensors" 2>"$room/err" || fail "taps of the decoder"
rm -rf "$room/model"
good "both VAEs" "$from/sana" "$from/ltx" "$from/gemma" --output "$room/model"
says "the causal one is taken" "$room/model/manifest.json" '"decoder_origin": "published"'
says "the other one is named" "$room/err" 'left out'

# ---- every difference has a name

dit=$demo/dit/model.safetensors
mkdir -p "$room/alter"
cp "$demo/dit/config.json" "$room/alter"
# altered NAME STATUS WORDS CHANGE…
altered() {
	local name=$1 status=$2 words=$3
	shift 3

	rm -rf "$room/model"
	"$make" alter "$dit" "$room/alter/model.safetensors" "$@"
	if [ "$status" -eq 0 ]; then
		good "$name" --partial "$room/alter" --output "$room/model"
	else
		bad "$name" "$status" "$words" --partial "$room/alter" --output "$room/no"
	fi
}
altered "the other unused tensor extra" 0 '' add:y_embedder.y_embedding
altered "unused tensor extra, the other missing" 0 '' add:pos_embed
altered "tensor missing" 1 'blocks.1.attn.v.weight is missing' drop:blocks.1.attn.v.weight
altered "tensor extra" 1 'difference: blocks.1.attn.z is unexpected' add:blocks.1.attn.z
altered "other shape" 1 'instead of \[192\|is \[36864\] instead of' flat:blocks.1.attn.v.weight
altered "other type" 1 'of type F64' f64:blocks.1.attn.v.weight
altered "several" 1 'difference: a.b is unexpected' add:a.b drop:blocks.2.attn.q.weight
says "each of them" "$room/err" 'difference: blocks.2.attn.q.weight is missing'

# ---- not a model, another model, wrong company

echo 'hello' >"$room/text.pth"
bad "a text" 1 'looks like a text file' "$room/text.pth" --output "$room/no"
echo '<!DOCTYPE html>' >"$room/page.safetensors"
bad "a page" 1 'HTML' "$room/page.safetensors" --output "$room/no"
echo 'version https://git-lfs.github.com/spec/v1' >"$room/pointer.pth"
bad "a pointer" 1 'Git LFS' "$room/pointer.pth" --output "$room/no"
: >"$room/empty.pth"
bad "nothing" 1 'an empty file' "$room/empty.pth" --output "$room/no"
mkdir "$room/dir"
bad "an empty directory" 1 'no checkpoint' "$room/dir" --output "$room/no"
bad "not there" 1 'No such file' "$room/none" --output "$room/no"
bad "a device" 1 'not a regular file' /dev/zero --output "$room/no"
mkfifo "$room/pipe"
bad "a pipe" 1 'not a regular file' "$room/pipe" --output "$room/no"
# family WORDS NAME…
family() {
	local words=$1
	shift

	"$make" names "$room/other.pth" "$@"
	bad "another family" 1 "looks like .*$words" "$room/other.pth" --output "$room/no"
}
family 'Llama' model.embed_tokens.weight model.layers.0.self_attn.q_proj.weight
family 'FLUX' double_blocks.0.img_attn.qkv.weight
family 'Stable Diffusion' model.diffusion_model.a first_stage_model.b
family 'image or bidirectional SANA' blocks.0.attn.qkv.weight blocks.0.cross_attn.q_linear.weight
family 'diffusers layout' transformer_blocks.0.attn1.to_q.weight
family 'T5' encoder.block.0.layer.0.SelfAttention.q.weight
family 'LoRA' base_model.model.x
family 'Gemma-3' embed_tokens.weight layers.0.pre_feedforward_layernorm.weight \
	layers.0.self_attn.q_norm.weight
family 'no model known' a b c
bad "DiT alone" 1 'the VAE is not among' "$from/sana/dit" --output "$room/no"
cp "$from/sana/dit/sana_streaming_ar.pth" "$room/second.pth"
bad "two DiTs" 1 'look like the SANA-Streaming DiT' "$from/sana" "$room/second.pth" --output "$room/no"
mkdir "$room/vae"
cp "$demo/vae/diffusion_pytorch_model.safetensors" "$room/vae"
bad "VAE without configuration" 1 'config.json' --partial "$room/vae" --output "$room/no"
mkdir "$room/gemma"
cp "$from"/gemma/*.json "$from"/gemma/*.safetensors "$room/gemma"
bad "no tokenizer" 1 'tokenizer.model' --partial "$room/gemma" --output "$room/no"
cp tests/fuzz/corpus/tokenizer/small "$room/gemma/tokenizer.model"
bad "wrong tokenizer" 1 'another model.s tokenizer' --partial "$room/gemma" --output "$room/no"
cp README.md "$room/gemma/tokenizer.model"
bad "no tokenizer at all" 1 'tokenizer' --partial "$room/gemma" --output "$room/no"
rm "$room/gemma/model-00002-of-00003.safetensors"
bad "a shard missing" 1 'model-00002-of-00003' --partial "$room/gemma" --output "$room/no"
bad "one shard alone" 1 'no checkpoint' --partial "$room/gemma/model-00001-of-00003.safetensors" \
	--output "$room/no"

# ---- usage

bad "no output" 2 'output' "$from"
bad "no source" 2 'sources' --output "$room/no"
bad "size without describe" 2 'describe' "$from" --output "$room/no" --size 64x64
bad "wrong size" 2 'WIDTHxHEIGHT' --describe "$demo" --size 64
bad "unknown option" 2 'unrecognized' --colour

# ---- places that cannot be written

mkdir "$room/there"
touch "$room/there/file"
if "$import" "$demo" --output "$room/there" >"$room/out" 2>"$room/err"; then
	fail "wrote over a directory"
fi
says "output is there" "$room/err" 'is there already'
mkdir "$room/free"
good "an empty directory is taken" "$demo" --output "$room/free"
if [ "$(id -u)" -eq 0 ]; then
	bad "read-only target" 1 'cannot make it' "$demo" --output /sys/sana-import-test
else
	mkdir "$room/locked"
	chmod 555 "$room/locked"
	bad "read-only target" 1 'cannot make it' "$demo" --output "$room/locked/no"
fi
mkdir "$room/no.partial"
touch "$room/no.partial/mine"
bad "somebody's files" 1 'no import made' "$demo" --output "$room/no"
rm -r "$room/no.partial"
mkdir "$room/tmpfs"
if mount -t tmpfs -o size=4m none "$room/tmpfs" 2>/dev/null; then
	bad "disk too small" 1 'GB are needed' "$demo" --output "$room/tmpfs/model"
	umount "$room/tmpfs"
else
	echo "skip  disk too small: no tmpfs can be mounted here"
fi

# ---- stopped, and gone on with

# No file may grow beyond 3000 KiB: the DiT of 7.4 MB stops half way.
(
	ulimit -f 3000
	"$import" "$demo" --output "$room/resumed" >"$room/out" 2>"$room/err"
)
says "no room" "$room/err" 'the same command goes on'
[ ! -e "$room/resumed" ] || fail "an incomplete directory appeared"
good "gone on with" "$demo" --output "$room/resumed"
says "not from the beginning" "$room/err" 'going on in'
for file in dit/model.safetensors vae/diffusion_pytorch_model.safetensors; do
	same "resumed $file" "$room/demo/$file" "$room/resumed/$file"
done
"$import" --describe "$room/resumed" --verify >"$room/out" 2>"$room/err" || fail "verify resumed"
grep -v made_at "$room/demo/manifest.json" >"$room/a"
grep -v made_at "$room/resumed/manifest.json" >"$room/b"
same "digests of sources and results" "$room/a" "$room/b"

# a journal that lies or is torn: the result is right all the same
# torn NAME COMMAND: COMMAND changes $journal
torn() {
	local name=$1 journal=$room/torn.partial/import.journal
	shift

	rm -rf "$room/torn" "$room/torn.partial"
	(
		ulimit -f 3000
		"$import" "$demo" --output "$room/torn" >"$room/out" 2>"$room/err"
	)
	"$@" "$journal"
	good "$name" "$demo" --output "$room/torn"
	same "$name" "$room/demo/dit/model.safetensors" "$room/torn/dit/model.safetensors"
}
cut_journal() { truncate -s -50 "$1"; }
garbage() { printf 'r 0 5 99 zz\nr 99999999999999999999 1 1 1\n\0\0\n' >>"$1"; }
shorten() { truncate -s 1000 "$(dirname "$1")/dit/model.safetensors"; }
other() { sed -i '1s/.*/sana-import 1 other/' "$1"; }
torn "torn journal" cut_journal
torn "garbage in the journal" garbage
torn "result cut" shorten
torn "another import's journal" other
if command -v flock >/dev/null; then
	mkdir "$room/busy.partial"
	: >"$room/busy.partial/import.journal"
	flock "$room/busy.partial/import.journal" \
		"$import" "$demo" --output "$room/busy" >"$room/out" 2>"$room/err"
	says "two at once" "$room/err" 'another import'
fi

"$make" random 320 1 "$room/random.pth"
good "not stopped" --raw "$room/random.pth" --output "$room/whole"
# stop SIGNAL BYTES: sends it once so much is written
stop() {
	local pid size

	rm -rf "$room/half" "$room/half.partial"
	"$import" --raw "$room/random.pth" --output "$room/half" >"$room/out" 2>"$room/err" &
	pid=$!
	while kill -0 $pid 2>/dev/null; do
		size=$(stat -c %s "$room/half.partial/model.safetensors" 2>/dev/null || echo 0)
		if [ "$size" -ge "$2" ]; then
			kill "-$1" $pid 2>/dev/null
			break
		fi
	done
	wait $pid
	status=$?
	[ ! -e "$room/half" ] || echo "      it was quicker than the signal"
}
stop TERM 20000000
[ -e "$room/half" ] || [ $status -eq 3 ] || fail "SIGTERM: status $status"
[ -e "$room/half" ] || good "after SIGTERM" --raw "$room/random.pth" --output "$room/half"
same "after SIGTERM" "$room/whole/model.safetensors" "$room/half/model.safetensors"
stop KILL 300000000
[ -e "$room/half" ] || {
	good "after SIGKILL" --raw "$room/random.pth" --output "$room/half"
	says "from the checkpoint on" "$room/err" 'going on in'
}
same "after SIGKILL" "$room/whole/model.safetensors" "$room/half/model.safetensors"
stop KILL 20000000
touch "$room/random.pth"
[ -e "$room/half" ] || good "source changed meanwhile" --raw "$room/random.pth" --output "$room/half"
same "source changed meanwhile" "$room/whole/model.safetensors" "$room/half/model.safetensors"

# ---- damage inside the data

printf '\377' | dd of="$room/random.pth" bs=1 seek=150000000 conv=notrunc 2>/dev/null
bad "CRC" 1 'damaged' --check-crc --raw "$room/random.pth" --output "$room/no"

if [ $failures -eq 0 ]; then
	echo "all as it should be"
else
	echo "$failures failures"
	exit 1
fi
