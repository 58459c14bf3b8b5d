#!/bin/sh
# The plan of the published model against the byte tables of docs/model/dit.md §6.1 and
# docs/model/vae.md §6.3, line by line, and the ways sana-bench is called wrongly.
set -u
bench=${BUILD:-build}/bin/sana-bench
plan=$("$bench" --plan --shape 2b --size 1280x704) || [ $? = 3 ] || exit 1
bad=0

# NAME | pieces | bytes each | bytes
while IFS='|' read -r name count each bytes; do
	printf '%s\n' "$plan" | grep -F "$name" | grep -Eq " $count +$each +$bytes " || {
		echo "missing: $name, $count pieces of $each bytes, $bytes in all"
		bad=1
	}
done <<'TABLE'
GDN S F32|15|1003520|15052800
GDN S BF16|15|501760|7526400
GDN z F32|15|8960|134400
GDN z BF16|15|4480|67200
FFN left frame BF16|20|3942400|78848000
softmax K+V BF16, first chunk 3|5|47308800|236544000
softmax K+V BF16, first chunk 5|5|63078400|315392000
softmax K+V 8-bit (alternative), first chunk 3|5|23654400|118272000
softmax K+V 8-bit (alternative), first chunk 5|5|31539200|157696000
text K+V BF16 per prompt, 300 tokens|20|2688000|53760000
encoder conv_in|1|10813440|10813440
encoder block 0 resnets + down|9|28835840|259522560
encoder block 1 resnets + down|13|14417920|187432960
encoder block 2 resnets + down|13|28835840|374865920
encoder block 3 resnets + down|5|14417920|72089600
encoder mid + conv_out|5|7208960|36044800
decoder conv_in|1|450560|450560
decoder mid + up0 conv|11|3604480|39649280
decoder up0 resnets + up1 conv|11|7208960|79298560
decoder up1 resnets + up2 conv|11|14417920|158597120
decoder up2 resnets + conv_out|11|28835840|317194240
TABLE

# Sums
while IFS='|' read -r name bytes; do
	printf '%s\n' "$plan" | grep -F "$name" | grep -Eq " $bytes " || {
		echo "missing: $name, $bytes bytes"
		bad=1
	}
done <<'TABLE'
sum, S and z F32, first chunk 3|330579200
sum, S and z F32, first chunk 5|409427200
encoder contexts|940769280
decoder contexts|595189760
encoder and decoder contexts|1535959040
TABLE
printf '%s\n' "$plan" | grep -Eq 'stream +block \(whole arena\) +[0-9]{9,}' || {
	echo 'missing: the whole arena'
	bad=1
}

# An estimate from counts: the classes add up, and no chunk is faster than its arithmetic allows. Rate in FLOP/ms.
while read -r target rate; do
	"$bench" --plan --shape 2b --size 1280x704 --estimate "$target" --json 2>/dev/null | awk -v target="$target" -v rate="$rate" '
	{ gsub(/[",]/, "") }
	$1 == "there_ms:" { sum += $2; classes++ }
	$1 == "chunk_ms:" { chunk = $2 }
	$1 == "fps:" { fps = $2 }
	$1 == "dit_pass_flops:" { pass = $2 }
	$1 == "passes:" { passes = $2 }
	$1 == "encode_flops:" || $1 == "decode_flops:" { flops += $2 }
	END {
		flops += passes * pass
		if (classes != 5 || sum < 0.999 * chunk || sum > 1.001 * chunk || chunk <= flops / rate ||
		    fps < 0.999 * 24000 / chunk || fps > 1.001 * 24000 / chunk) {
			printf "estimate of %s: %d classes of %g ms in all, a chunk %g ms, floor %g ms, %g fps\n",
				target, classes, sum, chunk, flops / rate, fps
			exit 1
		}
	}' || bad=1
done <<'TABLE'
rtx5090 209.5e9
gb10 61.44e9
TABLE

# EXIT STATUS | words of the sentence | arguments
while IFS='|' read -r status words arguments; do
	# shellcheck disable=SC2086
	said=$("$bench" $arguments 2>&1 >/dev/null </dev/null)
	got=$?
	[ "$got" = "$status" ] || { echo "sana-bench $arguments: exit $got, not $status"; bad=1; }
	case $said in
	*"$words"*) ;;
	*) echo "sana-bench $arguments says \"$said\", not \"$words\""; bad=1 ;;
	esac
done <<'TABLE'
2|give --model DIR or --shape|--plan
2|WIDTHxHEIGHT|--plan --shape 2b --size 1280
1|multiples of 32|--plan --shape 2b --size 1280x720
1|built-in shape|--plan --shape 7b
1|does-not-exist|--plan --model does-not-exist
1|no back end|--plan --shape 2b --backend abacus
2|threads is a number|--plan --shape 2b --threads 0
2|synthetic:SEED|--plan --shape 2b --weights 7
2|unexpected argument|--plan --shape 2b more
2|rtx5090 or gb10|--plan --shape 2b --estimate rtx4090
1|first chunk of 9|--plan --shape 2b --first-chunk 9
TABLE
[ $bad = 0 ] && echo "27 lines of the tables and 11 wrong calls are as they should be"
exit $bad
