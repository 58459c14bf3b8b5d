#!/bin/sh
# limit: 90 s
# An engine that hangs: the service manager notices and starts the daemon again.
. /host/guest/lib.sh

drop_in=/run/systemd/system/sana-streamd.service.d
mkdir -p $drop_in
# Shorter than the unit's 30 s, to save time.
cat >$drop_in/hang.conf <<EOF
[Service]
WatchdogSec=6s
ExecStart=
ExecStart=$(systemctl cat sana-streamd | sed -n 's/^ExecStart=//p' | tail -n 1) --test-hang-after 30
EOF
systemctl daemon-reload
settings sana-streamd pattern: '"loopback:label=Sana Camera"'
restarts() {
	[ "$(systemctl show -P NRestarts sana-streamd)" -ge "$1" ]
}
check 'systemctl start' systemctl start sana-streamd
check 'it hangs, and is started again' until_true 40 restarts 1
check 'the watchdog it was' sh -c 'journalctl -u sana-streamd --no-pager | grep -i "watchdog timeout"'
# Without the switch the frames stay.
rm -r $drop_in
systemctl daemon-reload
check 'it hangs again' until_true 40 restarts 2
check 'frames are back' until_true 30 frames_move
systemctl stop sana-streamd
plan
