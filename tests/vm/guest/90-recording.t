#!/bin/sh
# limit: 60 s
# A recording under way when the machine is switched off, right after this scene: guest/main. Whether it
# plays is judged outside of the guest.
. /host/guest/lib.sh

mkdir -p /run/systemd/system/sana-streamd.service.d
# The share is outside of what the unit may write.
cat >/run/systemd/system/sana-streamd.service.d/recordings.conf <<EOF
[Service]
ReadWritePaths=$out/recordings
EOF
systemctl daemon-reload
chown sana-streamd: $out/recordings
settings sana-streamd pattern: "\"loopback:label=Sana Camera\", \"file:$out/recordings/film.mp4\""
check 'systemctl start' systemctl start sana-streamd
check 'frames come' until_true 20 frames_move
pid=$(systemctl show -P MainPID sana-streamd)
kill -9 "$pid"
frames_after() {
	[ "$(systemctl show -P MainPID sana-streamd)" != "$pid" ] && frames_move
}
check 'killed: a second recording beside the first' until_true 40 frames_after
sleep 3
ls -l $out/recordings | sed 's/^/# /'
plan
