#!/bin/sh
# limit: 90 s
# Readers come and go; while there is none, camera and model rest. The camera is the one of 40-camera.
. /host/guest/lib.sh

settings sana-streamd v4l2:by-path/platform-vivid.0-video-index0 '"loopback:label=Sana Camera"' \
	'sleep-unwatched = true; unwatched-ms = 1000;'
at_rest() {
	first=$(counter frames-captured) || return 1
	sleep 1
	[ "$(counter frames-captured)" = "$first" ]
}
processor_ms() {
	awk '{ print ($14 + $15) * 10 }' "/proc/$(systemctl show -P MainPID sana-streamd)/stat"
}
check 'systemctl start' systemctl start sana-streamd
check 'the virtual camera is a camera' until_true 20 is_capture $camera
check 'nobody looks: all rests' until_true 10 at_rest
for time in 1 2 3; do
	check "reader $time sees edited frames" until_true 15 frames_come 8 3
	check "reader $time is gone: all rests again" until_true 10 at_rest
done
before=$(processor_ms)
sleep 5
spent=$(($(processor_ms) - before))
note "at rest: $spent ms of processor time in 5 s (of an emulated processor)"
check 'rest costs next to nothing' test "$spent" -le 250
# Two at once, one leaves, the other goes on.
$bin/helpers-v4l2_read $camera 12 >/tmp/first.frames &
reader=$!
sleep 4
check 'a second reader beside the first' frames_come 2 2
wait $reader
check 'the first saw frames all the time' sh -c "awk '{ if (last && \$2 - last > 3000 && NR > 20) bad = 1; last = \$2 } NR == 1 { begin = \$2 } END { exit bad || last < begin + 11000 }' /tmp/first.frames"
note "$(wc -l </tmp/first.frames) frames"
systemctl stop sana-streamd
plan
