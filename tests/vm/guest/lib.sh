# Sourced by guest/*.t: TAP on stdout, and what several scenes need. POSIX sh.
# A scene's first lines have "# limit: N s".
# shellcheck shell=sh disable=SC2034 # used by the scenes
bin=/host/bin
export LD_LIBRARY_PATH=$bin
out=/host/out
model=/usr/local/share/sana-model
conf=/etc/sana-streamd
camera=/dev/sana-camera
number=0

# check NAME COMMAND...: one line of TAP
check() {
	check_name=$1
	shift
	number=$((number + 1))
	if "$@" >/tmp/check.log 2>&1; then
		echo "ok $number - $check_name"
	else
		echo "not ok $number - $check_name"
		sed 's/^/# /' /tmp/check.log
		echo "# failed: $*"
	fi
}

# Says a figure beside the lines of TAP.
note() {
	printf '%s\n' "$*" | sed 's/^/# /'
}

plan() {
	echo "1..$number"
}

uptime_ms() {
	awk '{ printf "%d", $1 * 1000 }' /proc/uptime
}

# until_true SECONDS COMMAND...: asks five times a second
until_true() {
	end=$(($(uptime_ms) + $1 * 1000))
	shift
	while ! "$@" >/dev/null 2>&1; do
		[ "$(uptime_ms)" -lt "$end" ] || return 1
		sleep 0.2
	done
}

# Prints the node of the virtual camera with this label.
loopback() {
	for label in /sys/class/video4linux/video*/name; do
		if [ "$(cat "$label")" = "$1" ]; then
			label=${label%/name}
			echo "/dev/${label##*/}"
			return 0
		fi
	done
	return 1
}

# Settings of an instance, beside what all scenes have in common. OUTPUT, MODEL: more keys of those groups.
# FPS: of the output, 12 when it is not set.
# settings INSTANCE SOURCE SINKS [OUTPUT [MODEL]]
settings() {
	{
		echo "model = { directory = \"$model\"; threads = 1; seed = 7L; ${5:-} };"
		echo "source = { identity = \"$2\"; width = 160; height = 120; };"
		echo "output = { sinks = [ $3 ]; fps = ${FPS:-12}; latency-cap-ms = 20000; unscaled = true; ${4:-} };"
		echo 'prompt = { initial = "make it sepia"; };'
	} >"$conf/$1.conf"
}

is_capture() {
	v4l2-ctl -d "$1" -D | sed -n '/Device Caps/,$p' | grep -q 'Video Capture'
}

# The daemon, or the one of INSTANCE=NAME.
ctl() {
	sana-ctl ${INSTANCE:+--instance "$INSTANCE"} "$@"
}

# A counter of GetStatistics; 0 when there is none of that name, nothing and an error without an answer.
counter() {
	ctl stats >/tmp/stats && awk -v key="$1" '$1 == key { n = $2 } END { print n + 0 }' /tmp/stats
}

state_is() {
	ctl status | awk '$1 == "State" { print $2 }' | grep -qx "$1"
}

# Reads the virtual camera: the lines of tests/helpers/v4l2_read.c are in /tmp/frames.
# frames_read SECONDS [FILE]
frames_read() {
	$bin/helpers-v4l2_read $camera "$1" ${2:+"$2"} >/tmp/frames
}

# frames_come LEAST [SECONDS]: so many pictures that differ
frames_come() {
	frames_read "${2:-3}"
	[ "$(cut -d ' ' -f 4 /tmp/frames | sort -u | wc -l)" -ge "$1" ]
}

# The picture moves: for until_true.
frames_move() {
	state_is running && frames_come 4 1
}
