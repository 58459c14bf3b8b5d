#!/usr/bin/env bash
# `make demo` over two seconds of the clip: six edited clips and a contact sheet that shows them.
set -u
cd "$(dirname "$0")/../.." || exit 1

build=${BUILD:-build}
if [ -n "${SANITIZE:-}" ]; then
	echo "skipped: minutes under the sanitizers; sana-edit.sh edits there"
	exit 77
fi
room=$(mktemp -d) || exit 1
trap 'rm -rf "$room"' EXIT
failures=0

fail() {
	echo "FAIL  $1"
	failures=$((failures + 1))
}

if ! DEMO_SECONDS=2 OUT=$room SOURCE='' BUILD=$build scripts/demo >"$room/out" 2>"$room/err"; then
	cat "$room/out" "$room/err"
	exit 1
fi
cat "$room/out"
grep -q 'frames a second, .*MiB of memory' "$room/err" || fail "no frames a second and no memory"
for name in clip pattern; do
	for edit in sketch night switch; do
		grep -qF "$room/$name-$edit.mp4" "$room/out" || fail "$name-$edit.mp4 is not named"
		[ -s "$room/$name-$edit.mp4" ] || fail "$name-$edit.mp4 is not there"
	done
done
grep -qF "$room/sheet.png" "$room/out" || fail "the sheet is not named"
"$build/tests/helpers-sheet_check" "$room/sheet.png" 2 4 || fail "the sheet"

# The same clip in two rows is noticed, and so is a missing row.
"$build/demo-helper" sheet "$room/twice.png" A "a=$room/clip-night.mp4" "b=$room/clip-night.mp4"
"$build/tests/helpers-sheet_check" "$room/twice.png" 1 2 >/dev/null && fail "equal rows pass"
"$build/tests/helpers-sheet_check" "$room/twice.png" 1 3 >/dev/null && fail "a missing row passes"

if OUT=$room SOURCE=$room/nothing.mp4 BUILD=$build scripts/demo >"$room/out" 2>"$room/err"; then
	fail "a clip that is not there is edited"
fi
grep -q 'nothing.mp4' "$room/err" || fail "no word about the clip that is not there"

exit $((failures > 0))
