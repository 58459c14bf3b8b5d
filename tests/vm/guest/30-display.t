#!/bin/sh
# limit: 120 s
# A display beside the virtual camera: the same pictures on both, and the console before and after.
# Which pictures the display showed is read back by its own hardware, compared by tests/vm/judge.
. /host/guest/lib.sh

scanned_out() {
	grep -h 'allocated by' /sys/kernel/debug/dri/0/state | sort
}
shows_daemon() {
	scanned_out | grep -v fbcon | grep '='
}
as_before() {
	[ "$(scanned_out)" = "$before" ]
}
restarted() {
	[ "$(systemctl show -P ActiveState sana-streamd)" = active ] &&
		[ "$(systemctl show -P MainPID sana-streamd)" != "$pid" ]
}

mountpoint -q /sys/kernel/debug || mount -t debugfs debugfs /sys/kernel/debug
modprobe vkms enable_writeback=1
check 'the display is there' until_true 10 test -e /sys/kernel/debug/dri/0/state
sleep 1
before=$(scanned_out)
note "before: $before"
# vkms says that a picture is on the screen before it has read it, and reads for up to half a second when
# the host is busy: at three a second its buffer is not drawn again meanwhile.
FPS=3
settings sana-streamd file:/var/lib/clips/clip.y4m '"loopback:label=Sana Camera", "kms:Virtual-1"'
check 'systemctl start' systemctl start sana-streamd
check 'edited frames come' until_true 20 state_is running
check 'sana-ctl lists the display' sh -c 'sana-ctl sinks | grep kms:'
check 'the display shows them' until_true 10 shows_daemon
pid=$(systemctl show -P MainPID sana-streamd)
$bin/helpers-v4l2_read $camera 90 $out/display-camera.record >$out/display.frames &
reader=$!
sleep 1
# The picture in the middle of the display's 1024x768.
check 'the display is read back' $bin/helpers-kms_writeback "$pid" 24 480,360,64x48 $out/display.record
note "$(cat /tmp/check.log)"
sleep 1
kill "$reader"
check 'the reader got frames' wait $reader

kill -9 "$pid"
check 'kill -9: systemd starts it again' until_true 40 restarted
check 'and edited frames are back' until_true 30 frames_move
check 'on the display too' until_true 10 shows_daemon
check 'systemctl stop' systemctl stop sana-streamd
check 'the console is as it was' until_true 5 as_before
note "after: $(scanned_out)"
plan
