#!/bin/sh
# limit: 120 s
# The package: what it leaves, and that the service runs as it should.
. /host/guest/lib.sh

start=$(uptime_ms)
check 'the package installs, with its dependencies there' dpkg -i /host/package.deb
note "dpkg took $(($(uptime_ms) - start)) ms"
check 'the system user is there' id sana-streamd
check 'it is in the groups video and render' sh -c 'id -nG sana-streamd | grep -w video | grep -w render'
check 'the configuration is in /etc' test -s $conf/sana-streamd.conf
check 'nothing opens a camera unasked' sh -c \
	'! systemctl is-active sana-streamd && ! systemctl is-enabled sana-streamd'
check 'the module of virtual cameras is loaded' until_true 10 test -d /sys/module/v4l2loopback
check 'the virtual camera has its label' loopback 'Sana Camera'
check 'udev gave it its name' until_true 10 test -c $camera
check 'the group video owns it' sh -c \
	"stat -Lc '%G %a' $camera | tee /dev/stderr | grep -x 'video 660'"
check 'sana-streamd reads its own configuration' sana-streamd --check-config $conf/sana-streamd.conf

# All that runs here runs with a model for slow machines.
mkdir -p /var/lib/clips $(dirname $model)
cp -r /host/model $model
cp /host/clip.y4m /var/lib/clips/
chmod -R a+rX $model /var/lib/clips
settings sana-streamd pattern: '"loopback:label=Sana Camera"'
check 'systemctl start waits for the first warm chunk' systemctl start sana-streamd
note "$(systemctl show -P StatusText sana-streamd)"
check 'it runs as its own user' sh -c \
	'stat -c %U /proc/$(systemctl show -P MainPID sana-streamd) | tee /dev/stderr | grep -x sana-streamd'
check 'the virtual camera is a camera now' until_true 20 is_capture $camera
check 'frames come' until_true 10 frames_move
note "$(systemctl show -P StatusText sana-streamd)"
check 'sana-ctl doctor finds nothing wrong' sana-ctl doctor
check 'systemctl stop' systemctl stop sana-streamd
check 'it ended well' sh -c \
	'systemctl show -P Result sana-streamd | tee /dev/stderr | grep -x success'
state_get() {
	busctl --system get-property org.sana.Stream1 /org/sana/Stream1 org.sana.Stream1 State
}
looked() {
	! state_get && ! sana-ctl status && ! systemctl is-active sana-streamd
}
check 'a look does not start it' looked
check 'systemctl enable' systemctl enable sana-streamd
check 'enabled, sana-ctl status does not start it' sh -c '! sana-ctl status && ! systemctl is-active sana-streamd'
check 'a call does' state_get
check 'it runs' until_true 10 systemctl is-active sana-streamd
check 'systemctl disable' systemctl disable --now sana-streamd
plan
