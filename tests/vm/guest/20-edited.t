#!/bin/sh
# limit: 120 s
# A file in, its edited frames at an independent reader, and a prompt that somebody sets meanwhile.
# What the pictures show is judged outside of the guest: tests/vm/judge makes the same natively.
. /host/guest/lib.sh

# The first frame of the file shall be the first of a chunk, so the source comes when all is warm.
settings sana-streamd '' '"loopback:label=Sana Camera"' 'while-warming = "slate";'
useradd --user-group --groups sana-streamd alice
as() {
	user=$1
	shift
	setpriv --reuid="$user" --regid="$(id -g "$user")" --init-groups "$@"
}
refused() {
	"$@" >/tmp/refused 2>&1 && return 1
	cat /tmp/refused
	grep 'You may not do this' /tmp/refused
}
prompt_is() {
	busctl --system get-property org.sana.Stream1 /org/sana/Stream1 org.sana.Stream1 Prompt |
		grep -F "$1"
}
edited() {
	[ "$(counter frames-edited)" -ge "$1" ]
}

check 'systemctl start' systemctl start sana-streamd
check 'the virtual camera is a camera' until_true 20 is_capture $camera
$bin/helpers-v4l2_read $camera 24 $out/edited.record >$out/edited.frames &
reader=$!
sleep 1
check 'SetSource as root' busctl --system call org.sana.Stream1 /org/sana/Stream1 org.sana.Stream1 \
	SetSource s file:/var/lib/clips/clip.y4m
check 'edited frames come' until_true 15 edited 20
check 'SetPrompt as nobody is refused' refused as nobody busctl --system call org.sana.Stream1 \
	/org/sana/Stream1 org.sana.Stream1 SetPrompt s 'make it noir'
# Kept for polkit's answer it would cost memory.
too_long() {
	as alice busctl --system call org.sana.Stream1 /org/sana/Stream1 org.sana.Stream1 SetPrompt s \
		"$(head -c 70000 /dev/zero | tr '\0' a)" >/tmp/refused 2>&1 && return 1
	cat /tmp/refused
	grep 'longer than anything' /tmp/refused
}
check 'a text of 70,000 bytes is refused before polkit is asked' too_long
check 'the prompt is still the first' prompt_is 'make it sepia'
check 'sana-ctl prompt as a member of the group' as alice sana-ctl --json prompt --wait 'turn day into night'
sed -n 's/.*"chunk": *\([0-9]*\).*/\1/p' /tmp/check.log >$out/edited.chunk
note "the prompt is in force from chunk $(cat $out/edited.chunk) on"
check 'the property follows' prompt_is 'turn day into night'
check 'the reader got frames' wait $reader
note "$(wc -l <$out/edited.frames) frames read, $(cut -d ' ' -f 4 $out/edited.frames | sort -u | wc -l) distinct"
check 'GetStatistics' sh -c "sana-ctl stats >$out/edited.stats"
check 'the model got every frame' sh -c \
	"grep '^frames-edited' $out/edited.stats && ! awk '/^frames-dropped|^frames-skipped|^frames-late/ { n += \$2 } END { exit !n }' $out/edited.stats"
note "$(systemctl show -P StatusText sana-streamd)"
systemctl stop sana-streamd
plan
