#!/bin/sh
# limit: 120 s
# Two cameras, two daemons, two virtual cameras. One camera breaks; the other daemon takes no notice.
. /host/guest/lib.sh

# A second camera: a virtual one that something else writes to.
systemctl stop sana-streamd
modprobe -r v4l2loopback
modprobe v4l2loopback devices=3 exclusive_caps=1,1,1 card_label="Sana Camera,Sana Camera 2,Field Camera"
check 'three virtual cameras are there' until_true 10 loopback 'Field Camera'
$bin/helpers-devices show 'loopback:label=Field Camera' 100000 64x48 12 >/tmp/field.log 2>&1 &
field=$!
check 'one of them has pictures' until_true 10 is_capture "$(loopback 'Field Camera')"
settings sana-streamd 'v4l2:card=Field Camera' '"loopback:label=Sana Camera"'
settings second v4l2:by-path/platform-vivid.0-video-index0 '"loopback:label=Sana Camera 2"'
second_is() {
	INSTANCE=second state_is "$1"
}
# The longest time between two frames of a record, and how often its picture changed.
gaps() {
	awk '{ if (last && $2 - last > most) most = $2 - last; last = $2; n += $4 != picture; picture = $4 }
		END { print most + 0, n + 0 }' "$1"
}
check 'both start' systemctl start sana-streamd sana-streamd@second
check 'both have a name on the bus' sh -c \
	'busctl --system list --no-legend | grep "^org.sana.Stream1 " && busctl --system list --no-legend | grep "^org.sana.Stream1.second "'
check 'the first runs' until_true 30 state_is running
check 'the second runs' until_true 30 second_is running
frames_read 8
read -r most changes <<EOF
$(gaps /tmp/frames)
EOF
note "both well: longest gap $most ms, $changes pictures in 8 s"
$bin/helpers-v4l2_read $camera 8 >/tmp/beside.frames &
reader=$!
sleep 1
echo vivid.0 >/sys/bus/platform/drivers/vivid/unbind
check 'the second has lost its camera' until_true 6 second_is degraded
check 'the first runs on' state_is running
wait $reader
read -r beside_most beside_changes <<EOF
$(gaps /tmp/beside.frames)
EOF
note "the second broken: longest gap $beside_most ms, $beside_changes pictures in 8 s"
check 'its frames came as before' test "$beside_changes" -ge $((changes * 8 / 10)) -a \
	"$beside_most" -le $((2 * most + 200))
check 'no fault was seen by the first' sh -c "sana-ctl stats >/tmp/first.stats && ! grep '^fault-source' /tmp/first.stats"
echo vivid.0 >/sys/bus/platform/drivers/vivid/bind
check 'the second recovers' until_true 12 second_is running
check 'the second gives pictures, too' sh -c "$bin/helpers-v4l2_read $(loopback 'Sana Camera 2') 2 | cut -d ' ' -f 4 | sort -u | awk 'END { exit NR < 4 }'"
systemctl stop sana-streamd sana-streamd@second
kill $field
plan
