#!/usr/bin/env bash
# Tests the arrows of docs/architecture.md: who may include whom, from the include lines.
#
# usage: arrows.sh               the self-test, then this tree
#        arrows.sh --self-test   the self-test alone
#        arrows.sh --tree DIR    another tree
#
# Includes are written from the root of the repository. The longest prefix that fits a file is its
# rule; what it includes must begin with one of the words behind it. "*" allows everything.
set -u

rules='
kernels/               kernels/
base/                  base/
engine/                engine/ kernels/kernels.h kernels/cost.h base/
engine/checkpoint/     engine/checkpoint/ base/
media/                 media/ base/
conf/                  conf/ base/
dbus/                  dbus/ daemon/stream.h base/
daemon/                daemon/ base/
daemon/device          daemon/device media/ base/
daemon/source_         daemon/source_ daemon/device media/ base/
daemon/sink_           daemon/sink_ daemon/device media/ base/
daemon/hotplug         daemon/hotplug daemon/device media/ base/
daemon/pipeline        daemon/pipeline daemon/pacer media/source.h media/sink.h media/picture.h media/convert.h engine/sana.h base/
daemon/stream          daemon/stream daemon/pipeline daemon/guard media/device.h base/
daemon/pacer           daemon/pacer base/
daemon/main            daemon/ dbus/ conf/ media/ engine/sana.h base/
tools/                 tools/ engine/sana.h engine/checkpoint/ media/ dbus/ base/
tools/sana-import.c    tools/ engine/sana.h engine/model_config.h engine/model_keys.h engine/tokenizer.h engine/checkpoint/ base/
tools/import/          tools/ engine/sana.h engine/model_config.h engine/model_keys.h engine/tokenizer.h engine/checkpoint/ base/
tools/sana-bench.c     tools/ engine/sana.h kernels/kernels.h base/
tools/bench/           tools/ engine/sana.h kernels/kernels.h kernels/cost.h kernels/cublaslt.h base/
tests/                 *
'

# Prints "file:line: …" for each include of the sources of a tree that no rule allows.
check_tree() {
	(
		cd "$1" || exit 1
		if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
			git ls-files --cached --others --exclude-standard
		else
			find . -type f -not -path './build/*' | sed 's|^\./||'
		fi | grep -E '\.(c|h|cc|cpp|hpp|cu|cuh|S)$' | sort -u | RULES=$rules awk '
function fits(path, prefix) {
	return prefix == "*" || index(path, prefix) == 1
}

function there(path,    line) {
	if (!(path in known)) {
		known[path] = (getline line < path) >= 0
		close(path)
	}
	return known[path]
}

function complain(text) {
	printf "%s:%d: %s\n", file, number, text
	bad = 1
}

# The words a file may include, of the rule with the longest prefix; "" when no rule fits.
function rule_of(path,    i, best) {
	best = 0
	for (i = 1; i <= rules; i++)
		if (fits(path, prefix[i]) && length(prefix[i]) > length(prefix[best]))
			best = i
	return allowed[best]
}

function check(included, quoted,    words, n, i) {
	# A system header, unless a file of ours is meant by <>.
	if (!quoted && !there(included))
		return
	if (rule == "") {
		complain("no rule for this directory in tests/scripts/arrows.sh")
		return
	}
	n = split(rule, words, " ")
	for (i = 1; i <= n; i++)
		if (fits(included, words[i]))
			break
	if (i > n)
		complain("may not include \"" included "\" (allowed: " rule ")")
	else if (quoted && !there(included))
		complain("\"" included "\" is no path from the root of the repository")
}

BEGIN {
	prefix[0] = allowed[0] = ""
	n = split(ENVIRON["RULES"], lines, "\n")
	for (i = 1; i <= n; i++) {
		if (split(lines[i], words, " ") < 2)
			continue
		prefix[++rules] = words[1]
		allowed[rules] = lines[i]
		sub(/^[^ ]+ +/, "", allowed[rules])
	}
}

{
	file = $0
	rule = rule_of(file)
	number = 0
	while ((getline line < file) > 0) {
		number++
		if (line !~ /^[ \t]*#[ \t]*include/)
			continue
		includes++
		if (match(line, /"[^"]*"/))
			check(substr(line, RSTART + 1, RLENGTH - 2), 1)
		else if (match(line, /<[^>]*>/))
			check(substr(line, RSTART + 1, RLENGTH - 2), 0)
		else
			complain("an include that cannot be read: " line)
	}
	close(file)
	files++
}

END {
	printf "%d includes of %d files\n", includes, files
	exit bad
}'
	)
}

# expect STATUS FILE INCLUDE: one line in one file of an otherwise sound tree.
expect() {
	local status=$1 file=$2 line=$3 output got

	mkdir -p "$tree/$(dirname "$file")"
	printf '/* first line */\n%s\n' "$line" >"$tree/$file"
	output=$(check_tree "$tree")
	got=$?
	rm "$tree/$file"
	if [ "$got" -ne "$status" ]; then
		printf 'self-test: %s: %s: status %d instead of %d\n%s\n' \
			"$file" "$line" "$got" "$status" "$output"
		return 1
	fi
	if [ "$status" -ne 0 ] && ! grep -q "^$file:2: " <<<"$output"; then
		printf 'self-test: %s:2 is not named:\n%s\n' "$file" "$output"
		return 1
	fi
	tried=$((tried + 1))
}

self_test() {
	local header tried=0

	tree=$(mktemp -d) || return 1
	trap 'rm -rf "$tree"' EXIT
	for header in base/log.h kernels/kernels.h kernels/cpu/gemm.h engine/sana.h engine/plan.h \
		engine/checkpoint/zip.h media/source.h daemon/stream.h daemon/pipeline.h dbus/bus.h; do
		mkdir -p "$tree/$(dirname $header)"
		echo '#include <stdint.h>' >"$tree/$header"
	done

	expect 0 base/ring.c '#include "base/log.h"' &&
		expect 1 base/ring.c '#include "engine/sana.h"' &&
		expect 1 base/ring.c '#include <engine/sana.h>' &&
		expect 1 base/ring.c '#include "log.h"' &&
		expect 1 base/ring.c '# include HEADER' &&
		expect 1 base/ring.c '#include "base/gone.h"' &&
		expect 0 kernels/cpu/x.c '#include "kernels/kernels.h"' &&
		expect 1 kernels/cpu/x.c '#include "base/log.h"' &&
		expect 1 kernels/cuda/x.cu '#include "engine/plan.h"' &&
		expect 0 engine/x.c '#include "kernels/kernels.h"' &&
		expect 1 engine/x.c '	#	include "kernels/cpu/gemm.h"' &&
		expect 1 engine/x.c '#include "media/source.h"' &&
		expect 0 engine/x.cpp '#include "engine/checkpoint/zip.h"' &&
		expect 0 engine/checkpoint/x.c '#include "base/log.h"' &&
		expect 1 engine/checkpoint/x.c '#include "engine/sana.h"' &&
		expect 1 media/x.c '#include "engine/sana.h"' &&
		expect 0 daemon/pipeline.c '#include "media/source.h"' &&
		expect 1 daemon/sink_kms.c '#include "engine/sana.h"' &&
		expect 1 daemon/stream.c '#include "dbus/bus.h"' &&
		expect 0 dbus/x.c '#include "daemon/stream.h"' &&
		expect 1 dbus/x.c '#include "daemon/pipeline.h"' &&
		expect 0 tools/sana-edit.c '#include "media/source.h"' &&
		expect 1 tools/sana-edit.c '#include "kernels/kernels.h"' &&
		expect 0 tools/sana-bench.c '#include "kernels/kernels.h"' &&
		expect 1 tools/sana-bench.c '#include "kernels/cpu/gemm.h"' &&
		expect 1 tools/import/x.c '#include "engine/plan.h"' &&
		expect 0 tools/import/x.c '#include "engine/checkpoint/zip.h"' &&
		expect 0 tests/unit/x.c '#include "kernels/cpu/gemm.h"' &&
		expect 1 elsewhere/x.c '#include "base/log.h"' ||
		return 1
	echo "self-test: $tried trees judged as they should be"
}

root=$(cd "$(dirname "$0")/../.." && pwd) || exit 1
case ${1:-} in
--self-test) self_test ;;
--tree) check_tree "$2" ;;
*) self_test && check_tree "$root" ;;
esac
