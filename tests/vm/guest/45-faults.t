#!/bin/sh
# limit: 200 s
# Every way in which the driver of the camera can be told to fail, three times each, counted by kind on
# the bus; after each the stream runs again by itself. The camera is the one of 40-camera.
. /host/guest/lib.sh

source=v4l2:by-path/platform-vivid.0-video-index0
node=/dev/video40
press() {
	v4l2-ctl -d $node -c "$1"
}
# Buffers, and starting, are asked for when the camera is opened.
reopen() {
	sana-ctl stop
	sana-ctl start
}
counted() {
	[ "$(counter "fault-$kind")" -ge "$1" ]
}
# fault KIND COMMAND...: the count of the kind grows, the stream runs again; `mend` ends the cause.
fault() {
	kind=$1
	shift
	had=$(counter "fault-$kind") || return 1
	"$@"
	until_true 12 counted $((had + 1)) || {
		sana-ctl status
		sana-ctl stats | grep fault
		return 1
	}
	mend
	until_true 15 state_is running
}
three() {
	name=$1
	shift
	for time in 1 2 3; do
		check "$name, time $time" fault "$@"
	done
}
mend() { :; }
reqbufs() { press inject_vidioc_reqbufs_error=1; reopen; }
streamon() { press inject_vidioc_streamon_error=1; reopen; }
no_signal() { press dv_timings_signal_mode=1; }
stalled() { press percentage_of_dropped_buffers=100; }

settings sana-streamd $source '"loopback:label=Sana Camera"' '' 'first-chunk-latents = 3;'
check 'systemctl start' systemctl start sana-streamd
check 'edited frames come' until_true 20 state_is running
three 'no buffers' source.buffer reqbufs
three 'a buffer refused' source.buffer press inject_vidioc_qbuf_error=1
three 'no start' source.protocol streamon
three 'a damaged picture' source.damaged press inject_v4l2_buf_flag_error=1
three 'a fatal error' source.failed press inject_fatal_streaming_error=1
three 'disconnected' source.lost press disconnect=1
mend() { press dv_timings_signal_mode=0; }
three 'no signal' source.no-signal no_signal
mend() { press percentage_of_dropped_buffers=0; }
three 'no pictures' source.stalled stalled
sana-ctl stats | awk '/^fault-/ { print "# " $1, $2 }'
systemctl stop sana-streamd
plan
