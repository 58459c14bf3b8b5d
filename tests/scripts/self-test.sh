#!/usr/bin/env bash
# sana-bench --self-test without a GPU: the CPU against known results, the refusal of a GPU that is not there, and
# reports that are intact, changed, cut, hostile.
set -u
cd "$(dirname "$0")/../.." || exit 1
bench=$PWD/${BUILD:-build}/bin/sana-bench
directory=$(mktemp -d) || exit 1
trap 'rm -rf "$directory"' EXIT
failures=0 tried=0

# expect STATUS WORDS ARGUMENT...: exit status, and words in what is said
expect() {
	local status=$1 words=$2 said got

	shift 2
	said=$("$bench" "$@" 2>&1)
	got=$?
	tried=$((tried + 1))
	if [ "$got" -ne "$status" ] || ! grep -qF -- "$words" <<<"$said"; then
		printf 'FAIL  %s: status %d instead of %d, or no "%s" in:\n%s\n' "$*" "$got" "$status" "$words" "$said"
		failures=$((failures + 1))
	fi
}

report=$directory/report.json
expect 0 'All right' --self-test "$report" --backend cpu
expect 0 'intact' --verify-report "$report"
expect 1 'not "metal"' --self-test "$directory/no.json" --backend metal
expect 1 'cannot be written' --self-test "$directory/none/report.json" --backend cpu
if [ ! -e /dev/nvidiactl ]; then
	expect 1 'No GPU to test' --self-test "$directory/no.json"
	expect 1 'No GPU to test' --self-test "$directory/no.json" --backend cuda-portable
fi
[ ! -e "$directory/no.json" ] || { echo 'FAIL  a refused test left a report'; failures=$((failures + 1)); }
[ "$(find "$directory" -type f | wc -l)" -eq 1 ] || { echo 'FAIL  half a file was left'; failures=$((failures + 1)); }

sed 's/"right"/"wrong"/' "$report" >"$directory/changed.json"
expect 1 'not what was written' --verify-report "$directory/changed.json"
head -c 150 "$report" >"$directory/cut.json"
expect 1 'damaged' --verify-report "$directory/cut.json"
tr '\n' ' ' <"$report" >"$directory/reformatted.json"
expect 0 'intact' --verify-report "$directory/reformatted.json"
: >"$directory/empty.json"
expect 1 'damaged' --verify-report "$directory/empty.json"
expect 1 'cannot open' --verify-report "$directory/absent.json"
expect 1 'no report' --verify-report "$directory"
expect 1 'no report' --verify-report /dev/zero
for text in '[]' '{}' '{"report": 1, "sha256": 2}' '{"report": {"result": 1}, "sha256": "00"}' \
	'{"report": null, "sha256": ""}'; do
	echo "$text" >"$directory/odd.json"
	expect 1 'no report' --verify-report "$directory/odd.json"
done
echo '{"report": {"a": 1, "a": 2}, "sha256": ""}' >"$directory/twice.json"
expect 1 'damaged' --verify-report "$directory/twice.json"
head -c 200000 /dev/zero | tr '\0' '[' >"$directory/deep.json"
expect 1 'damaged' --verify-report "$directory/deep.json"
head -c 17000000 /dev/zero | tr '\0' ' ' >"$directory/large.json"
expect 1 'larger than' --verify-report "$directory/large.json"
# Control characters of a report do not reach the terminal.
printf '{"report": {"result": "\\u001b[2Jx"}, "sha256": "\\u001b[2J"}' >"$directory/escape.json"
expect 1 'not plain text' --verify-report "$directory/escape.json"

echo "$tried calls, $failures failures"
[ "$failures" -eq 0 ]
