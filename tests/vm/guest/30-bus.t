#!/bin/sh
# limit: 100 s
# The bus with its installed policy, and the service manager's watch. sana-streamd runs (20-edited).
. /host/guest/lib.sh
set_prompt() {
	busctl --system call org.sana.Stream1 /org/sana/Stream1 org.sana.Stream1 SetPrompt s "$1"
}
as_nobody() {
	setpriv --reuid=nobody --regid=nogroup --clear-groups busctl --system call org.sana.Stream1 \
		/org/sana/Stream1 org.sana.Stream1 SetPrompt s 'make it sepia'
}
prompt_is() {
	busctl --system get-property org.sana.Stream1 /org/sana/Stream1 org.sana.Stream1 Prompt |
		grep -qF "$1"
}
frames_come() {
	timeout 10 $bin/helpers-v4l2_read /dev/sana-camera 3 >/tmp/frames &&
		[ "$(cut -d ' ' -f 4 /tmp/frames | sort -u | wc -l)" -ge 3 ]
}
refused() {
	as_nobody >/tmp/refused 2>&1 && return 1
	cat /tmp/refused
	grep -q 'You may not do this' /tmp/refused
}
check 'SetPrompt as root' set_prompt 'turn day into night'
check 'the property follows' until_true 20 prompt_is 'turn day into night'
check 'SetPrompt as nobody is refused' refused
check 'the prompt is still the old one' prompt_is 'turn day into night'
before=$(systemctl show -P MainPID sana-streamd)
kill -9 "$before"
restarted() {
	[ "$(systemctl show -P ActiveState sana-streamd)" = active ] &&
		[ "$(systemctl show -P MainPID sana-streamd)" != "$before" ]
}
check 'kill -9: systemd starts it again' until_true 40 restarted
check 'and frames are back' until_true 30 frames_come
check 'systemctl stop' systemctl stop sana-streamd
check 'purge' dpkg --purge sana-streamd
check 'nothing of it is left in /etc and /var/lib' sh -c \
	'! ls -d /etc/sana-streamd /var/lib/sana-streamd 2>/dev/null'
plan
