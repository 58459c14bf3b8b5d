/* What is plugged in and out, from udev. */
#include "daemon/hotplug.h"

#include "base/util.h"

#include <errno.h>
#include <libudev.h>

struct hotplug {
	struct udev *udev;
	struct udev_monitor *monitor;
};

int hotplug_create(struct hotplug **ret, struct sana_error *error)
{
	struct hotplug *h = calloc(1, sizeof(*h));

	if (!h)
		return sana_error_set(error, -ENOMEM, "memory", "Out of memory.");
	h->udev = udev_new();
	/* udev's own messages, not the kernel's: its links and permissions are there by then. */
	h->monitor = h->udev ? udev_monitor_new_from_netlink(h->udev, "udev") : NULL;
	if (!h->monitor ||
	    udev_monitor_filter_add_match_subsystem_devtype(h->monitor, "video4linux", NULL) < 0 ||
	    udev_monitor_filter_add_match_subsystem_devtype(h->monitor, "drm", NULL) < 0 ||
	    udev_monitor_enable_receiving(h->monitor) < 0) {
		(void)hotplug_destroy(h);
		return sana_error_set(error, -ENOTSUP, "hotplug.unsupported",
				      "udev does not tell what is plugged in; devices are found "
				      "by trying.");
	}
	*ret = h;
	return 0;
}

struct hotplug *hotplug_destroy(struct hotplug *hotplug)
{
	if (hotplug) {
		(void)udev_monitor_unref(hotplug->monitor);
		(void)udev_unref(hotplug->udev);
		free(hotplug);
	}
	return NULL;
}

int hotplug_fd(const struct hotplug *hotplug)
{
	return udev_monitor_get_fd(hotplug->monitor);
}

bool hotplug_event_read(const char *subsystem, const char *action, const char *node,
			struct hotplug_event *ret)
{
	const bool display = subsystem && strcmp(subsystem, "drm") == 0;
	const bool added = action && strcmp(action, "add") == 0;
	const bool removed = action && strcmp(action, "remove") == 0;

	/* What is plugged into a connector changes a card. */
	if (!node || !(added || removed || (display && action && strcmp(action, "change") == 0)))
		return false;
	*ret = (struct hotplug_event){
		.kind = display ? HOTPLUG_DISPLAY : HOTPLUG_VIDEO,
		.added = !removed,
	};
	(void)snprintf(ret->node, sizeof(ret->node), "%s", node);
	return true;
}

bool hotplug_next(struct hotplug *hotplug, struct hotplug_event *ret)
{
	struct udev_device *device;

	while ((device = udev_monitor_receive_device(hotplug->monitor))) {
		const bool matters = hotplug_event_read(udev_device_get_subsystem(device),
							udev_device_get_action(device),
							udev_device_get_devnode(device), ret);

		(void)udev_device_unref(device);
		if (matters)
			return true;
	}
	return false;
}
