#!/usr/bin/env bash
# The units as `make install` makes them: nothing for `systemd-analyze verify` to say, and no more open
# to attack than max_exposure by `systemd-analyze security`; both would notice. The system user is made.
set -u
command -v systemd-analyze >/dev/null || {
	echo 'systemd-analyze is not installed'
	exit 77
}

max_exposure=2.0
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
bad=0

say() {
	echo "$*"
	bad=1
}

make install-system DESTDIR="$root" PREFIX=/usr UNIT_DIR=/units >/dev/null || exit 1
units=("$root/units/sana-streamd.service" "$root/units/sana-streamd@.service")
# verify wants every command to be there.
sed -i "s,=/usr/sbin,=$root/usr/sbin," "${units[@]}"
install -D -m 755 /bin/true "$root/usr/sbin/sana-streamd"
if grep -n '@[a-z_]*@' "${units[@]}"; then
	say 'a place of the template was not filled in'
fi

# Pages are installed elsewhere. Of broken units it prints warnings and still exits 0.
verify() {
	systemd-analyze verify --man=no "$@" 2>&1
}

exposure() {
	systemd-analyze security --offline=true --no-pager "$1" |
		sed -n 's/.*Overall exposure level for [^:]*: \([0-9.]*\) .*/\1/p'
}

above() {
	awk -v a="$1" -v b="$max_exposure" 'BEGIN { exit !(a == "" || a + 0 > b + 0) }'
}

for unit in "${units[@]}"; do
	name=$(basename "$unit")
	words=$(verify "$unit")
	[ -z "$words" ] || say "verify $name: $words"
	figure=$(exposure "$unit")
	echo "$name: exposure $figure, at most $max_exposure"
	if above "$figure"; then
		say "$name: too open"
	fi
	# Each opened device says why.
	awk '/^(DeviceAllow|SupplementaryGroups|RestrictAddressFamilies)/ && before !~ /^#|^Restrict/ {
		print "no reason beside: " $0; bad = 1 } { before = $0 } END { exit bad }' "$unit" || bad=1
done

# The drop-ins are units' text, too.
mkdir -p "$root/units/sana-streamd.service.d"
cp systemd/cuda.conf "$root/units/sana-streamd.service.d/"
words=$(verify "${units[0]}")
[ -z "$words" ] || say "verify with cuda.conf: $words"
rm -r "$root/units/sana-streamd.service.d"

# Both checks notice.
sed -i 's/^WatchdogSec=.*/WatchdogSek=1/' "${units[1]}"
[ -n "$(verify "${units[1]}")" ] || say 'verify did not notice an unknown key'
sed -i '/^ProtectSystem\|^CapabilityBoundingSet\|^SystemCallFilter\|^PrivateUsers/d' "${units[0]}"
figure=$(exposure "${units[0]}")
echo "without four of its lines: $figure"
above "$figure" || say 'the limit did not notice a unit without four of its lines'

mkdir -p "$root/etc"
systemd-sysusers --root="$root" "$root"/usr/lib/sysusers.d/sana-streamd.conf
for line in 'passwd:^sana-streamd:.*:/var/lib/sana-streamd:' 'group:^sana-streamd:' \
	'group:^video:.*sana-streamd' 'group:^render:.*sana-streamd'; do
	grep -q "${line#*:}" "$root/etc/${line%%:*}" || say "sysusers: no ${line#*:} in ${line%%:*}"
done
exit $bad
