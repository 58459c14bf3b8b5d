# Sourced by guest/*.t: TAP on stdout, and what several scenes need. POSIX sh.
# A scene's first lines have "# limit: N s".
bin=/host/bin
export LD_LIBRARY_PATH=$bin
out=/host/out
model=/usr/local/share/sana-model
conf=/etc/sana-streamd
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
	echo "# $*"
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

# Settings of an instance, beside what all scenes have in common.
# settings INSTANCE SOURCE SINKS [LINE]...
settings() {
	instance=$1 source=$2 sinks=$3
	shift 3
	{
		echo "model = { directory = \"$model\"; threads = 1; seed = 7L; };"
		echo "source = { identity = \"$source\"; };"
		echo "output = { sinks = [ $sinks ]; fps = 12; latency-cap-ms = 20000; unscaled = true; };"
		printf '%s\n' "$@"
	} >"$conf/$instance.conf"
}

is_capture() {
	v4l2-ctl -d "$1" -D | sed -n '/Device Caps/,$p' | grep -q 'Video Capture'
}
