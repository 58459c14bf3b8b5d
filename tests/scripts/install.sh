#!/usr/bin/env bash
# `make install` puts every file where its reader looks, and nothing else anywhere; the package's
# version is the tree's.
set -u
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
bad=0

make install DESTDIR="$root" PREFIX=/usr SYSCONFDIR=/etc UNIT_DIR=/lib/systemd/system UDEV_DIR=/lib/udev \
	SYSUSERS_DIR=/usr/lib/sysusers.d MODULES_LOAD_DIR=/usr/lib/modules-load.d \
	DBUS_DIR=/usr/share/dbus-1 POLKIT_DIR=/usr/share/polkit-1/ SYSTEMD_VERSION=252 >/dev/null || exit 1

# What has to be there: mode and path.
wanted=$(mktemp -p "$root")
cat >"$wanted" <<'END'
644 lib/systemd/system/sana-streamd.service
644 lib/systemd/system/sana-streamd@.service
644 lib/udev/rules.d/70-sana-streamd.rules
644 usr/lib/modprobe.d/sana-streamd.conf
644 usr/lib/modules-load.d/sana-streamd.conf
644 usr/lib/sysusers.d/sana-streamd.conf
755 usr/sbin/sana-streamd
755 usr/bin/sana-bench
755 usr/bin/sana-ctl
755 usr/bin/sana-edit
755 usr/bin/sana-import
644 usr/share/doc/sana-streamd/README.md
644 usr/share/doc/sana-streamd/LICENSE
644 usr/share/doc/sana-streamd/examples/cuda.conf
644 usr/share/man/man1/sana-edit.1
644 usr/share/bash-completion/completions/sana-edit
644 usr/share/sana-streamd/models/demo/stream.json
END
# Rooms whose every file is meant to be there.
rooms='^(usr/share/(doc/sana-streamd|man/man[1578]|bash-completion/completions|sana-streamd/models/demo)/'
rooms+='|usr/share/dbus-1/(interfaces|system.d|system-services)/org\.sana\.Stream1'
rooms+='|usr/share/polkit-1/(actions/org\.sana\.Stream1|rules\.d/[0-9]+-sana)|etc/sana-streamd/)'

there=$(cd "$root" && find . -type f ! -path "./${wanted##*/}" -printf '%m %P\n')
while read -r line; do
	grep -qxF "$line" <<<"$there" || {
		echo "missing, or with another mode: $line"
		bad=1
	}
done <"$wanted"
while read -r mode path; do
	if ! grep -qxF "$mode $path" "$wanted" && ! grep -Eq "$rooms" <<<"$path"; then
		echo "not expected: $mode $path"
		bad=1
	fi
	case $mode in
	644 | 755) ;;
	*) echo "mode $mode: $path"; bad=1 ;;
	esac
done <<<"$there"
echo "$(wc -l <<<"$there") files are installed, $(wc -l <"$wanted") of them named here"

version=$(sed -n '1s/.*(\(.*\)).*/\1/p' debian/changelog)
echo "version $(cat VERSION), package $version"
[ "$version" = "$(cat VERSION)" ] || bad=1
exit $bad
