/*
 * Which cameras, virtual cameras and displays there are, and where one is now, for the identities of
 * media/device.h:
 *
 *	v4l2:by-id/NAME      a link in /dev/v4l/by-id: vendor, product and serial number
 *	v4l2:by-path/NAME    a link in /dev/v4l/by-path: the socket it is plugged into
 *	v4l2:card=NAME       what the driver calls it; of several the first by bus path
 *	loopback:label=NAME  the v4l2loopback device with this card_label
 *	loopback:            the first v4l2loopback device
 *	kms:CONNECTOR        a connector by its kernel name, "HDMI-A-1"
 *	kms:PATH/CONNECTOR   the same on one of several graphics cards: PATH as in udev's ID_PATH
 *	kms:                 the first connector with a display
 *
 * What is there comes from udev; without its database (a bare container) from sysfs and /dev alone.
 */
#pragma once

#include "base/error.h"
#include "media/device.h"

enum device_kind {
	DEVICE_KIND_INVALID = -1,
	DEVICE_BY_ID,
	DEVICE_BY_PATH,
	DEVICE_CARD,
	DEVICE_LOOPBACK, /* name "": any */
	DEVICE_DISPLAY,	 /* name "": any */
	DEVICE_KIND_COUNT,
};

enum { DEVICE_NAME_BYTES = 256, DEVICE_NODE_BYTES = 64 };

struct device_identity {
	enum device_kind kind;
	char name[DEVICE_NAME_BYTES];
	char path[DEVICE_NAME_BYTES]; /* of displays: before the slash; "" for any */
};

/* "device.identity": not one of the forms above, too long, or not printable. */
int device_identity_parse(const char *text, struct device_identity *ret, struct sana_error *error);

/* One device as the system describes it. */
struct device {
	char identity[DEVICE_NAME_BYTES + 16]; /* the most lasting one it has */
	char description[DEVICE_NAME_BYTES];   /* for a person */
	char node[DEVICE_NODE_BYTES];	       /* "/dev/video0" */
	bool present;			       /* of displays: something is plugged in */

	char by_id[DEVICE_NAME_BYTES], by_path[DEVICE_NAME_BYTES], card[DEVICE_NAME_BYTES];
	char sys_path[512]; /* sorts devices by bus */
	bool is_loopback, captures;
	char connector[DEVICE_NAME_BYTES]; /* of displays */
};

bool device_matches(const struct device *device, const struct device_identity *identity);

/*
 * Fills in `identity` and `description` from the rest, with what is unique in the list. Names that are not
 * one line of UTF-8 are made so first (utf8_make_line): by these, a device is matched and shown.
 */
void device_list_name(struct device *devices, int count);

enum { DEVICE_LIST_MAX = 64 };

enum device_class { DEVICE_CAMERAS, DEVICE_LOOPBACKS, DEVICE_DISPLAYS };

/* Sorted by bus path. Opens no node. Returns the number, at most DEVICE_LIST_MAX. */
int device_list(enum device_class class, struct device *ret, int capacity);

/* The same as media/device.h wants it. */
int device_list_media(enum device_class class, struct media_device *ret, int capacity);

/* The first match; −ENODEV and an error called `name` (that says what is there) when there is none. */
int device_find(const struct device_identity *identity, const char *name, struct device *ret,
		struct sana_error *error);
