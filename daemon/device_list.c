/* Which cameras, virtual cameras and displays udev knows. */
#include "daemon/device.h"

#include "base/utf8.h"
#include "base/util.h"

#include <errno.h>
#include <libudev.h>

enum { QUOTED_BYTES = 100 };

static void udev_unrefp(struct udev **udev)
{
	(void)udev_unref(*udev);
}

static void enumerate_unrefp(struct udev_enumerate **enumerate)
{
	(void)udev_enumerate_unref(*enumerate);
}

static void copy(char *to, size_t bytes, const char *from)
{
	(void)snprintf(to, bytes, "%s", from ? from : "");
}

/*
 * The part of a link behind a directory; of several the shortest, which is the plainest. Two devices
 * may claim one link: it belongs to the one it leads to.
 */
static void link_take(char *to, size_t bytes, const char *link, const char *directory,
		      const char *node)
{
	const size_t length = strlen(directory);
	_cleanup_(freep) char *real = NULL;

	if (strncmp(link, directory, length) != 0)
		return;
	real = realpath(link, NULL);
	if (!real || strcmp(real, node) != 0)
		return;
	if (!to[0] || strlen(link + length) < strlen(to))
		copy(to, bytes, link + length);
}

static void video_read(struct udev_device *u, struct device *ret)
{
	const char *capabilities = udev_device_get_property_value(u, "ID_V4L_CAPABILITIES");
	const char *product = udev_device_get_property_value(u, "ID_V4L_PRODUCT");
	struct udev_list_entry *entry;

	*ret = (struct device){ .present = true };
	copy(ret->node, sizeof(ret->node), udev_device_get_devnode(u));
	copy(ret->sys_path, sizeof(ret->sys_path), udev_device_get_syspath(u));
	copy(ret->card, sizeof(ret->card),
	     product ? product : udev_device_get_sysattr_value(u, "name"));
	udev_list_entry_foreach(entry, udev_device_get_devlinks_list_entry(u))
	{
		const char *link = udev_list_entry_get_name(entry);

		link_take(ret->by_id, sizeof(ret->by_id), link, "/dev/v4l/by-id/", ret->node);
		link_take(ret->by_path, sizeof(ret->by_path), link, "/dev/v4l/by-path/", ret->node);
	}
	/* This attribute is v4l2loopback's alone. */
	ret->is_loopback = strstr(ret->sys_path, "/virtual/") &&
			   udev_device_get_sysattr_value(u, "max_openers");
	ret->captures = !capabilities || strstr(capabilities, ":capture:");
}

/* "card0-HDMI-A-1" below card0. The writeback connectors show nothing. */
static bool connector_read(struct udev_device *u, struct device *ret)
{
	struct udev_device *card = udev_device_get_parent(u); /* belongs to u */
	const char *name = udev_device_get_sysname(u), *dash = strchr(name, '-');
	const char *status = udev_device_get_sysattr_value(u, "status");
	struct udev_device *bus;

	if (!card || !dash || !status || strncmp(dash, "-Writeback-", 11) == 0)
		return false;
	*ret = (struct device){ .present = strcmp(status, "connected") == 0 };
	copy(ret->connector, sizeof(ret->connector), dash + 1);
	copy(ret->node, sizeof(ret->node), udev_device_get_devnode(card));
	copy(ret->sys_path, sizeof(ret->sys_path), udev_device_get_syspath(u));
	copy(ret->by_path, sizeof(ret->by_path), udev_device_get_property_value(card, "ID_PATH"));
	bus = udev_device_get_parent(card);
	copy(ret->card, sizeof(ret->card), bus ? udev_device_get_driver(bus) : NULL);
	return ret->node[0] != '\0';
}

static int order(const void *a, const void *b)
{
	return strcmp(((const struct device *)a)->sys_path, ((const struct device *)b)->sys_path);
}

static bool device_read(struct udev_device *u, enum device_class class, struct device *ret)
{
	if (class == DEVICE_DISPLAYS)
		return connector_read(u, ret);
	video_read(u, ret);
	return ret->node[0] &&
	       (class == DEVICE_LOOPBACKS ? ret->is_loopback : ret->captures && !ret->is_loopback);
}

int device_list(enum device_class class, struct device *ret, int capacity)
{
	_cleanup_(udev_unrefp) struct udev *udev = udev_new();
	_cleanup_(enumerate_unrefp) struct udev_enumerate *e = udev ? udev_enumerate_new(udev) :
								      NULL;
	struct udev_list_entry *entry;
	int count = 0;

	if (!e ||
	    udev_enumerate_add_match_subsystem(e, class == DEVICE_DISPLAYS ? "drm" :
									     "video4linux") < 0 ||
	    udev_enumerate_scan_devices(e) < 0)
		return 0;
	capacity = MIN_OF(capacity, (int)DEVICE_LIST_MAX);
	udev_list_entry_foreach(entry, udev_enumerate_get_list_entry(e))
	{
		struct udev_device *u;

		if (count == capacity)
			break;
		u = udev_device_new_from_syspath(udev, udev_list_entry_get_name(entry));
		if (!u)
			continue;
		count += device_read(u, class, &ret[count]);
		(void)udev_device_unref(u);
	}
	qsort(ret, (size_t)count, sizeof(*ret), order);
	device_list_name(ret, count);
	return count;
}

int device_list_media(enum device_class class, struct media_device *ret, int capacity)
{
	_cleanup_(freep) struct device *all = calloc(DEVICE_LIST_MAX, sizeof(*all));
	const int count = all ? device_list(class, all, MIN_OF(capacity, (int)DEVICE_LIST_MAX)) : 0;

	for (int i = 0; i < count; i++) {
		ret[i] = (struct media_device){ .present = all[i].present };
		copy(ret[i].identity, sizeof(ret[i].identity), all[i].identity);
		utf8_make_line(ret[i].identity); /* it is shorter here */
		copy(ret[i].description, sizeof(ret[i].description), all[i].description);
	}
	return count;
}

/* -------------------------------------------------------------------------------- finding */

static enum device_class class_of(const struct device_identity *identity)
{
	switch (identity->kind) {
	case DEVICE_LOOPBACK:
		return DEVICE_LOOPBACKS;
	case DEVICE_DISPLAY:
		return DEVICE_DISPLAYS;
	case DEVICE_BY_ID:
	case DEVICE_BY_PATH:
	case DEVICE_CARD:
	case DEVICE_KIND_INVALID:
	case DEVICE_KIND_COUNT:
		break;
	}
	return DEVICE_CAMERAS;
}

static int none(const struct device_identity *identity, const struct device *all, int count,
		const char *name, struct sana_error *error)
{
	static const char *const what[] = { "camera", "virtual camera", "connector" };
	const enum device_class class = class_of(identity);
	char there[256] = "";
	size_t used = 0;

	if (count == 0 && class == DEVICE_LOOPBACKS)
		return sana_error_set(error, -ENODEV, name,
				      "There is no virtual camera; load the module: modprobe "
				      "v4l2loopback exclusive_caps=1 card_label=NAME.");
	if (count == 0)
		return sana_error_set(error, -ENODEV, name, "There is no %s.", what[class]);
	for (int i = 0; i < count && used < sizeof(there); i++)
		used += (size_t)snprintf(there + used, sizeof(there) - used, "%s%s",
					 used ? ", " : "", all[i].identity);
	utf8_make_line(there);
	if (class == DEVICE_DISPLAYS && !identity->name[0])
		return sana_error_set(error, -ENODEV, name,
				      "No connector has a display plugged in (there are: %s).",
				      there);
	return sana_error_set(error, -ENODEV, name, "No %s is called \"%.*s\" (there are: %s).",
			      what[class], utf8_cut(identity->name, QUOTED_BYTES), identity->name,
			      there);
}

static struct device *match(struct device *all, int count, const struct device_identity *identity)
{
	for (int i = 0; i < count; i++)
		if (device_matches(&all[i], identity))
			return &all[i];
	return NULL;
}

/* Without udev's database its links may still be there. */
static bool link_follow(const struct device_identity *identity, struct device *ret)
{
	const bool by_id = identity->kind == DEVICE_BY_ID;
	_cleanup_(freep) char *real = NULL;
	char link[DEVICE_NAME_BYTES + 32];

	if (!by_id && identity->kind != DEVICE_BY_PATH)
		return false;
	(void)snprintf(link, sizeof(link), "/dev/v4l/%s/%s", by_id ? "by-id" : "by-path",
		       identity->name);
	real = realpath(link, NULL);
	if (!real || strlen(real) >= sizeof(ret->node))
		return false;
	*ret = (struct device){ .present = true, .captures = true };
	copy(ret->node, sizeof(ret->node), real);
	return true;
}

int device_find(const struct device_identity *identity, const char *name, struct device *ret,
		struct sana_error *error)
{
	_cleanup_(freep) struct device *all = calloc(DEVICE_LIST_MAX, sizeof(*all));
	struct device *found;
	int count;

	if (!all)
		return sana_error_set(error, -ENOMEM, "memory", "Out of memory.");
	count = device_list(class_of(identity), all, DEVICE_LIST_MAX);
	found = match(all, count, identity);
	/* A virtual camera that another program feeds is a camera to who asks for it by name. */
	if (!found && class_of(identity) == DEVICE_CAMERAS) {
		found = match(all, device_list(DEVICE_LOOPBACKS, all, DEVICE_LIST_MAX), identity);
		if (!found)
			count = device_list(DEVICE_CAMERAS, all, DEVICE_LIST_MAX);
	}
	if (!found && link_follow(identity, ret))
		return 0;
	if (!found)
		return none(identity, all, count, name, error);
	*ret = *found;
	return 0;
}
