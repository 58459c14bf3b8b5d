#!/bin/sh
# Tests what sources and documents point at: "X §N" has a section N in docs/model/X.md, relative links
# lead to files, and so do paths of Markdown files in sources.
#
# usage: docs.sh               the self-test, then this tree
#        docs.sh --tree DIR    another tree
#
# A section is a heading "## §4 …" or "### §4.2 …", or item 5 of the numbered list below it (§4.2.5).
# In docs/model/X.md itself a "§N" without a name in front means X.
set -u
LC_ALL=C.UTF-8
export LC_ALL

models='dit|vae|streaming|text-encoder|color|checkpoint|directory'

sources() {
	if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
		git ls-files --cached --others --exclude-standard
	else
		find . -type f | sed 's|^\./||'
	fi | grep -vE '^(build|models/demo/expected)/' |
		grep -E '\.(c|h|cpp|hpp|cu|cuh|S|py|sh|md)$|^Makefile$' | sort -u | while read -r file; do
		# This file talks of sections that are not there.
		[ -f "$file" ] && [ "$file" != tests/scripts/docs.sh ] && echo "$file"
	done
}

check_tree() {
	(
		cd "$1" || exit 1
		sources | MODELS=$models awk '
function complain(text) {
	printf "%s:%d: %s\n", file, number, text
	bad = 1
}

# Not by getline, which some awks do not survive on a directory.
function there(path) {
	if (!(path in known))
		known[path] = path ~ plain && system("test -e " path) == 0
	return known[path]
}

# Sections of docs/model/NAME.md into section[NAME, "4.2.5"].
function sections_read(name,    path, line, heading, code) {
	path = "docs/model/" name ".md"
	heading = ""
	while ((getline line < path) > 0) {
		if (line ~ /^```/)
			code = !code
		if (code)
			continue
		if (match(line, /^#+ §[0-9][0-9.]*/)) {
			heading = substr(line, RSTART, RLENGTH)
			sub(/^#+ §/, "", heading)
			sub(/\.$/, "", heading)
			section[name, heading] = 1
		} else if (line ~ /^#/) {
			heading = ""
		} else if (heading != "" && match(line, /^[0-9]+\. /)) {
			section[name, heading "." (line + 0)] = 1
		}
	}
	close(path)
}

function section_check(name, number_text) {
	references++
	if (!there("docs/model/" name ".md"))
		complain("there is no docs/model/" name ".md")
	else if (!((name, number_text) in section))
		complain("docs/model/" name ".md has no §" number_text)
}

# "§4.2.5–6, §4.8": the first number, the end of a range (its last part is replaced), and what follows
# a comma, "and" or "to". Returns the rest of the line.
function references_read(name, text,    first, last) {
	while (match(text, /^ ?§[0-9]+(\.[0-9]+)*/)) {
		first = substr(text, RSTART, RLENGTH)
		text = substr(text, RSTART + RLENGTH)
		sub(/^ ?§/, "", first)
		section_check(name, first)
		if (match(text, /^(–|-)(§)?[0-9]+(\.[0-9]+)*/)) {
			last = substr(text, RSTART, RLENGTH)
			text = substr(text, RSTART + RLENGTH)
			sub(/^(–|-)(§)?/, "", last)
			if (last !~ /\./ && first ~ /\./)
				sub(/[0-9]+$/, last, first)
			else
				first = last
			section_check(name, first)
		}
		if (!sub(/^(,| and| to) §/, "§", text))
			break
	}
	return text
}

function line_references(line, own,    name) {
	while (line ~ /§[0-9]/) {
		match(line, named "|§[0-9]")
		name = substr(line, RSTART, RLENGTH)
		if (name ~ /^§/) {
			line = substr(line, RSTART)
			name = own
			if (name == "") {
				complain("\"" substr(line, 1, 8) "\": of which file of docs/model?")
				return
			}
		} else {
			line = substr(line, index(line, name) + length(name))
			sub(/[^a-z-].*$/, "", name)
			line = "§" line
		}
		line = references_read(name, line)
	}
}

# [text](path) and [text](path#part), but no URL.
function line_links(line,    path, directory) {
	directory = file
	if (!sub(/[^\/]*$/, "", directory))
		directory = ""
	while (match(line, /\]\([^)]*\)/)) {
		path = substr(line, RSTART + 2, RLENGTH - 3)
		line = substr(line, RSTART + RLENGTH)
		if (path ~ /^[a-z]+:/ || path ~ /^#/)
			continue
		sub(/#.*/, "", path)
		links++
		if (!there(directory path))
			complain("a link to " path ", which is not there")
	}
}

# docs/x.md, tests/golden/README.md, …: from the root of the repository.
function line_paths(line,    path) {
	while (match(line, /(docs|tests|engine|kernels|media|models|tools)\/[A-Za-z0-9_\/.-]*\.md/)) {
		path = substr(line, RSTART, RLENGTH)
		line = substr(line, RSTART + RLENGTH)
		links++
		if (!there(path))
			complain(path " is not there")
	}
}

BEGIN {
	n = split(ENVIRON["MODELS"], names, "|")
	for (i = 1; i <= n; i++)
		sections_read(names[i])
	plain = "^[A-Za-z0-9_/.-]+$"
	named = "(" ENVIRON["MODELS"] ")(\\.md)?`? ?§"
}

{
	file = $0
	number = 0
	code = 0
	own = ""
	if (file ~ /^docs\/model\//) {
		own = file
		sub(/^docs\/model\//, "", own)
		sub(/\.md$/, "", own)
	}
	while ((getline line < file) > 0) {
		number++
		line_references(line, own)
		if (file ~ /\.md$/) {
			if (line ~ /^```/)
				code = !code
			if (!code)
				line_links(line)
		} else {
			line_paths(line)
		}
	}
	close(file)
	files++
}

END {
	printf "%d section references and %d paths in %d files\n", references, links, files
	exit bad
}'
	)
}

# expect STATUS FILE LINE: one file of one line in an otherwise sound tree.
expect() {
	mkdir -p "$tree/$(dirname "$2")"
	printf '%s\n' "$3" >"$tree/$2"
	output=$(check_tree "$tree")
	got=$?
	rm "$tree/$2"
	if [ "$got" -ne "$1" ]; then
		printf 'self-test: %s: %s: status %d instead of %d\n%s\n' "$2" "$3" "$got" "$1" "$output"
		return 1
	fi
	tried=$((tried + 1))
}

self_test() {
	tried=0
	tree=$(mktemp -d) || return 1
	trap 'rm -rf "$tree"' EXIT
	mkdir -p "$tree/docs/model"
	printf '%s\n' '## §3 Inputs' '' '1. one' '2. two' '' '```' '3. three' '```' '' '### §4.2 Block' '' \
		'5. five' '6. six' >"$tree/docs/model/dit.md"
	printf '## §8 Re-basing\n\nsee dit §4.2, and streaming §8 or §8\n' >"$tree/docs/model/streaming.md"

	expect 0 engine/a.h '/* (dit §3, §4.2.5–6; streaming §8) */' &&
		expect 0 engine/a.h '/* docs/model/dit.md §3.1 to §3.2 and §4.2 */' &&
		expect 1 engine/a.h '/* docs/model/dit.md §3 and §5 */' &&
		expect 1 engine/a.h '/* (dit §5) */' &&
		expect 1 engine/a.h '/* (dit §3.3) */' &&
		expect 1 engine/a.h '/* (dit §3, §4.1) */' &&
		expect 1 engine/a.h '/* (dit §4.2.5–7) */' &&
		expect 1 engine/a.h '/* (dit §3; streaming §7) */' &&
		expect 1 engine/a.h '/* (vae §3) */' &&
		expect 1 engine/a.h '/* see §3 */' &&
		expect 1 engine/a.h '/* docs/model/vae.md */' &&
		expect 1 docs/model/vae.md 'see §1' &&
		expect 1 docs/model/vae.md 'as in dit.md §9' &&
		expect 0 docs/a.md 'a [link](model/dit.md#x) and [one](https://example.org/x)' &&
		expect 0 docs/a.md 'a [link](model/)' &&
		expect 1 docs/a.md 'a [link](model/dot.md)' &&
		expect 1 docs/a.md 'a [link](model/dit.md;true)' || return 1
	echo "self-test: $tried trees judged as they should be"
}

root=$(cd "$(dirname "$0")/../.." && pwd) || exit 1
case ${1:-} in
--tree) check_tree "$2" ;;
*) self_test && check_tree "$root" ;;
esac
