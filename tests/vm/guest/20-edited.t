#!/bin/sh
# limit: 100 s
# A file in, and distinct frames at an independent reader. What is on them is not judged here.
. /host/guest/lib.sh
settings sana-streamd file:/var/lib/clips/clip.y4m '"loopback:label=Sana Camera"' \
	'prompt = { initial = "make it sepia"; };'
check 'systemctl start' systemctl start sana-streamd
check 'the virtual camera is a camera' until_true 20 is_capture /dev/sana-camera
$bin/helpers-v4l2_read /dev/sana-camera 15 $out/edited.record >$out/edited.frames
note "$(wc -l <$out/edited.frames) frames read, $(cut -d ' ' -f 4 $out/edited.frames | sort -u | wc -l) distinct"
check 'at least 30 distinct frames came' sh -c \
	"[ \$(cut -d ' ' -f 4 $out/edited.frames | sort -u | wc -l) -ge 30 ]"
note "$(systemctl show -P StatusText sana-streamd)"
plan
