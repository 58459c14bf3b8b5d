#!/bin/sh
# limit: 120 s
# A camera in. It is unplugged while it streams, and plugged in again.
. /host/guest/lib.sh

modprobe vivid n_devs=1 node_types=0x1 num_inputs=1 input_types=0x3 vid_cap_nr=40
source=v4l2:by-path/platform-vivid.0-video-index0
listed() {
	sana-ctl sources | grep -F "$source"
}
driver() {
	echo vivid.0 >/sys/bus/platform/drivers/vivid/"$1"
}

check 'the camera is there' until_true 10 test -c /dev/v4l/by-path/platform-vivid.0-video-index0
check 'sana-edit takes it, too' timeout 60 sana-edit /dev/video40 $out/camera.y4m --model $model --duration 2s \
	--prompt 'make it sepia' --threads 1 --quiet
check 'and leaves an edited film' sh -c "[ \$(grep -ac FRAME $out/camera.y4m) -ge 10 ]"
note "$(grep -ac FRAME $out/camera.y4m) pictures in 2 s"
settings sana-streamd $source '"loopback:label=Sana Camera"'
check 'systemctl start' systemctl start sana-streamd
check 'the camera is listed by its place' listed
check 'edited frames come' until_true 20 frames_move
note "$(systemctl show -P StatusText sana-streamd)"

$bin/helpers-v4l2_read $camera 34 $out/camera.record >$out/camera.frames &
reader=$!
sleep 4
gone=$(uptime_ms)
driver unbind
check 'unplugged: the stream says so' until_true 4 state_is degraded
note "$(sana-ctl status | grep Fault)"
sleep 5
back=$(uptime_ms)
driver bind
check 'plugged in: the stream runs again' until_true 10 state_is running
sleep 5
kill $reader
wait $reader
# The card stands for seconds before the camera is back: when did it come, and when after that did pictures
# move again, each of five unlike the one before it within a second?
awk -v gone="$gone" -v back="$back" '
	$2 < back { if ($4 != card) { card = $4; came = $2 } next }
	$4 != before { changed[++n] = $2; before = $4 }
	n > 5 && !after && changed[n] - changed[n - 4] < 1000 { after = changed[n - 4] }
	END { printf "%d %d %d %s\n", came - gone, back - came, after - back, card }' \
	$out/camera.frames >/tmp/times
read -r card stood after hash </tmp/times
note "card $card ms after the camera was gone, stood for $stood ms; moving pictures $after ms after it was back"
check 'a card within 2 s' test "$card" -gt 0 -a "$card" -le 2000 -a "$stood" -ge 2000
# The card is a picture of its own: it was never there before.
check 'and no picture of before' sh -c \
	"awk -v gone=$gone -v hash=$hash '\$2 < gone && \$4 == hash { exit 1 }' $out/camera.frames"
check 'edited frames within 10 s' test "$after" -gt 0 -a "$after" -le 10000
echo "$gone $back" >$out/camera.times
check 'the loss was counted' sh -c "[ \$(sana-ctl stats | awk '\$1 == \"source-opens\" { print \$2 }') -ge 2 ]"
systemctl stop sana-streamd
plan
