/*
 * Displays as a media sink (media/sink.h): KMS with atomic modesetting, dumb buffers, page flips on
 * vertical blank.
 *
 * wish->path is "kms:CONNECTOR", "kms:PATH/CONNECTOR" or "kms:". The mode is wish->mode, else the one
 * the display prefers. The picture is as large as fits, in the middle, scaled by the plane where the
 * hardware can and else by us; wish->unscaled leaves its size as it is.
 *
 * Writing never waits for the display: a picture that the display had no time for is replaced by the
 * next one (info.replaced). A thread of the sink's own sends the flips and takes their events.
 *
 * What was on the screen before comes back with the close. After a crash the kernel shows its console
 * when it has one; what it cannot bring back is kept in wish->state_directory and comes back with the
 * close of the next sink on this connector.
 *
 * Names of failures: "sink.no-device" (no such connector, no display on it), "sink.permission",
 * "sink.busy" (a desktop or boot screen owns the card), "sink.format" (mode, driver without atomic
 * modesetting), "sink.unplugged", "sink.lost" (the card is gone), "sink.protocol". With −EAGAIN, write
 * on: "sink.master-lost", another program owns the card now; asked for again after 0.25 s, then twice as
 * long each time, up to 4 s.
 */
#pragma once

#include "media/device.h"
#include "media/sink.h"

int sink_kms_open(const struct media_sink_wish *wish, struct media_sink **ret,
		  struct sana_error *error);

/* Connectors that are there; present: with a display. Opens no node. */
int sink_kms_list(struct media_device *ret, int capacity);
