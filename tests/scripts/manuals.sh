#!/usr/bin/env bash
# Manual pages, completions and tools agree: every option of --help and every key of --json is in the
# manual, every option of the manual is in --help, and completion offers them all.
set -u
cd "$(dirname "$0")/../.." || exit 1

bin=${BUILD:-build}/bin
failures=0 compared=0

fail() {
	echo "FAIL  $1"
	failures=$((failures + 1))
}

# Option names, one a line.
options() {
	grep -oE -e '(^|[^-A-Za-z0-9])--[a-z][a-z0-9-]*' | grep -oE -e '--.*' | sort -u
}

# same NAME WANTED GOT: two sorted lists of words
same() {
	local difference

	difference=$(diff <(printf '%s\n' "$2") <(printf '%s\n' "$3") | grep '^[<>]')
	[ -z "$difference" ] || fail "$1: ${difference//$'\n'/ }"
	compared=$((compared + $(wc -w <<<"$2")))
}

for page in docs/*.1 docs/*.8; do
	tool=$(basename "${page%.?}")
	if [ ! -x "$bin/$tool" ]; then
		fail "$page describes $bin/$tool, which is not there"
		continue
	fi
	help=$("$bin/$tool" --help | options)
	manual=$(sed 's/\\-/-/g' "$page" | options)
	same "$tool --help against $page" "$help" "$manual"
	[ -n "$help" ] || fail "$tool --help names no option"
	if [ ! -f "tools/completion/$tool" ]; then
		fail "tools/completion/$tool is not there"
		continue
	fi
	offered=$(
		# shellcheck source=/dev/null
		. "tools/completion/$tool" || exit
		COMP_WORDS=("$tool" --) COMP_CWORD=1 COMPREPLY=()
		"_${tool//-/_}"
		printf '%s\n' "${COMPREPLY[@]}" | sort -u
	)
	same "completion of $tool" "$help" "$offered"
	if command -v man >/dev/null; then
		warnings=$(man --warnings -l "$page" 2>&1 >/dev/null)
		[ -z "$warnings" ] || fail "$page: $warnings"
	fi
done

# A key counts as described where the page has it as a word of its own.
json_keys() {
	"$bin/sana-bench" "$@" --json | grep -oE '"[a-z_0-9]+":' | tr -d '":' | sort -u
}
text=$(sed 's/\\-/-/g' docs/sana-bench.1)
for key in $(json_keys --plan --model models/demo) \
	$(json_keys --model models/demo --size 32x32 --chunks 1); do
	grep -qw -- "$key" <<<"$text" || fail "docs/sana-bench.1 does not describe \"$key\""
	compared=$((compared + 1))
done

# Every key of the configuration, as --check-config knows them, is in its manual and the other way round.
keys=$(awk '/^[a-z-]+ =$/ { group = $1 "." } /^};/ { group = "" }
	/^ *[a-z-]+ = .*;$/ { print group $1 }' conf/sana-streamd.conf | sort -u)
described=$(sed -n 's/\\-/-/g; s/^\.B \([a-z-]*\.\{0,1\}[a-z-]*\)$/\1/p' docs/sana-streamd.conf.5 |
	grep -v -e '^systemctl' -e '^sana-streamd' | sort -u)
same "keys of conf/sana-streamd.conf against docs/sana-streamd.conf.5" "$keys" "$described"
for page in docs/*.5; do
	command -v man >/dev/null || continue
	warnings=$(man --warnings -l "$page" 2>&1 >/dev/null)
	[ -z "$warnings" ] || fail "$page: $warnings"
done

echo "$compared options and keys compared, $failures failures"
[ "$failures" -eq 0 ] && [ "$compared" -gt 40 ]
