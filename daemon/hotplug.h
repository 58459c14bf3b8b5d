/*
 * What is plugged in and out: cameras, virtual cameras, graphics cards, displays, from udev.
 *
 *	poll(hotplug_fd(h));
 *	while (hotplug_next(h, &event))
 *		…
 *
 * For the thread that owns the event loop. Lists of what is there come from source_v4l2_list,
 * sink_loopback_list and sink_kms_list; an event is a reason to ask them again, and to open what waits
 * for its device without waiting for the end of a back-off.
 */
#pragma once

#include "base/error.h"

struct hotplug;

enum hotplug_kind {
	HOTPLUG_VIDEO,	 /* a camera or virtual camera came or went */
	HOTPLUG_DISPLAY, /* a graphics card came or went, or something on a connector */
};

struct hotplug_event {
	enum hotplug_kind kind;
	bool added;    /* else it went; of displays: look again */
	char node[64]; /* "/dev/video0"; for logs, never an identity */
};

/* −ENOTSUP "hotplug.unsupported" where there is no udev: devices are then found by trying. */
int hotplug_create(struct hotplug **ret, struct sana_error *error);

/* NULL accepted; returns NULL. */
struct hotplug *hotplug_destroy(struct hotplug *hotplug);

int hotplug_fd(const struct hotplug *hotplug);

/* False: nothing more for now. */
bool hotplug_next(struct hotplug *hotplug, struct hotplug_event *ret);

/* From udev's words for one event: false for what does not matter ("change" of a camera, "bind"). */
bool hotplug_event_read(const char *subsystem, const char *action, const char *node,
			struct hotplug_event *ret);
