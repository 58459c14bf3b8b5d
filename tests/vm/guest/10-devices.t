#!/bin/sh
# limit: 120 s
uname -a; modprobe vivid n_devs=1 node_types=0x1 num_inputs=1 input_types=0x3 vid_cap_nr=10; modprobe v4l2loopback exclusive_caps=1 card_label="x y"; modprobe vkms enable_writeback=1
ls -l /dev/video* /dev/dri /dev/dri/by-path /dev/v4l/*; cat /sys/class/video4linux/*/name; id; systemctl --failed; systemd-analyze blame | head; systemd-analyze
systemctl is-system-running
cat /proc/cpuinfo | grep -m1 flags
v4l2-ctl -d /dev/video10 --all | head -60
