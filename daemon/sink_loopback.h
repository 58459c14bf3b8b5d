/*
 * Virtual cameras of the v4l2loopback module as a media sink (media/sink.h).
 *
 * wish->path is "loopback:label=NAME" or "loopback:". Pictures are written as BT.601 limited range, in
 * wish->pixel_format and wish->mode (its size) if the device takes them: a reader that is there already
 * and the module's keep_format pin a format, which is then used, with the picture scaled into it.
 *
 * The node belongs to the group video; where several programs write to one node and the module was
 * not loaded with exclusive_caps=1, it cannot be told, and readers get both.
 *
 * Whether anybody looks is told by the driver's own event (v4l2loopback 0.13 and later: programs that
 * stream), else by inotify on the node (programs that have it open). A reader that was there before
 * counts as one until somebody leaves.
 *
 * Names of failures: "sink.no-device", "sink.permission", "sink.busy" (somebody else writes),
 * "sink.format", "sink.lost" (module unloaded), "sink.write".
 */
#pragma once

#include "media/device.h"
#include "media/sink.h"

int sink_loopback_open(const struct media_sink_wish *wish, struct media_sink **ret,
		       struct sana_error *error);

/* Virtual cameras that are there. Opens no node. */
int sink_loopback_list(struct media_device *ret, int capacity);
