#!/bin/sh
# limit: 150 s
# A newer package over a running one, then the package taken away with all it had.
. /host/guest/lib.sh

rm -f $conf/second.conf
settings sana-streamd pattern: '"loopback:label=Sana Camera"'
cp $conf/sana-streamd.conf /tmp/kept.conf
check 'systemctl start' systemctl start sana-streamd
pid=$(systemctl show -P MainPID sana-streamd)
runs_anew() {
	[ "$(systemctl show -P ActiveState sana-streamd)" = active ] &&
		[ "$(systemctl show -P MainPID sana-streamd)" != "$pid" ]
}
check 'the newer package installs' dpkg -i --force-confdef --force-confold /host/package-next.deb
note "$(dpkg-query -W -f '${Version}' sana-streamd)"
check 'the daemon was started anew' until_true 20 runs_anew
check 'frames are back' until_true 30 frames_move
check 'the configuration is the one it was' cmp /tmp/kept.conf $conf/sana-streamd.conf
check 'removed' dpkg --remove sana-streamd
check 'the daemon is stopped' sh -c '! systemctl is-active sana-streamd && ! grep -x sana-streamd /proc/[0-9]*/comm'
check 'the configuration stays' test -s $conf/sana-streamd.conf
check 'purged' dpkg --purge sana-streamd
check 'nothing of it is left' sh -c \
	'! ls -d /etc/sana-streamd /var/lib/sana-streamd /var/log/sana-streamd /var/cache/sana-streamd /usr/lib/systemd/system/sana-streamd* \
		/etc/systemd/system/*/sana-streamd* /usr/share/dbus-1/system.d/org.sana* 2>/dev/null | grep .'
check 'installed again' dpkg -i /host/package.deb
plan
