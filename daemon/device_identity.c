/* Names of devices that stay: parsing, matching, giving. */
#include "daemon/device.h"

#include "base/utf8.h"
#include "base/util.h"

#include <errno.h>

enum { QUOTED_BYTES = 100, CARD_BYTES = 120 };

static const struct prefix {
	const char *text;
	enum device_kind kind;
} prefixes[] = {
	{ "v4l2:by-id/", DEVICE_BY_ID },  { "v4l2:by-path/", DEVICE_BY_PATH },
	{ "v4l2:card=", DEVICE_CARD },	  { "loopback:label=", DEVICE_LOOPBACK },
	{ "loopback:", DEVICE_LOOPBACK }, { "kms:", DEVICE_DISPLAY },
};

/* Printable, and no way out of a directory. */
static bool name_is_sane(const char *name, bool slash)
{
	if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return false;
	return utf8_is_line(name) && (slash || !strchr(name, '/'));
}

static int identity_fail(const char *text, struct sana_error *error)
{
	return sana_error_set(error, -EINVAL, "device.identity",
			      "\"%.*s\" names no device; a camera is \"v4l2:by-id/NAME\", "
			      "\"v4l2:by-path/NAME\" or \"v4l2:card=NAME\", a virtual camera "
			      "\"loopback:label=NAME\" or \"loopback:\", a display "
			      "\"kms:CONNECTOR\" or \"kms:\".",
			      utf8_cut(text, QUOTED_BYTES), text);
}

int device_identity_parse(const char *text, struct device_identity *ret, struct sana_error *error)
{
	for (size_t i = 0; i < ARRAY_SIZE(prefixes); i++) {
		const struct prefix *p = &prefixes[i];
		const char *name = text + strlen(p->text), *slash;
		struct device_identity id = { .kind = p->kind };
		const bool any_allowed = strchr(p->text, '\0')[-1] == ':';

		if (strncmp(text, p->text, strlen(p->text)) != 0)
			continue;
		if (p->kind == DEVICE_DISPLAY && (slash = strrchr(name, '/'))) {
			if (slash == name || !slash[1] || (size_t)(slash - name) >= sizeof(id.path))
				return identity_fail(text, error);
			memcpy(id.path, name, (size_t)(slash - name));
			name = slash + 1;
		}
		/* A card or a label may be called anything; the others are names of files. */
		if ((!*name && !any_allowed) || strlen(name) >= sizeof(id.name) ||
		    !name_is_sane(name, p->kind == DEVICE_CARD || p->kind == DEVICE_LOOPBACK) ||
		    !name_is_sane(id.path, false))
			return identity_fail(text, error);
		if (p->kind == DEVICE_LOOPBACK && any_allowed && *name)
			return identity_fail(text, error);
		(void)snprintf(id.name, sizeof(id.name), "%s", name);
		*ret = id;
		return 0;
	}
	return identity_fail(text, error);
}

bool device_matches(const struct device *device, const struct device_identity *identity)
{
	const bool any = !identity->name[0];

	switch (identity->kind) {
	case DEVICE_BY_ID:
		return strcmp(device->by_id, identity->name) == 0;
	case DEVICE_BY_PATH:
		return strcmp(device->by_path, identity->name) == 0;
	case DEVICE_CARD:
		return strcmp(device->card, identity->name) == 0;
	case DEVICE_LOOPBACK:
		return device->is_loopback && (any || strcmp(device->card, identity->name) == 0);
	case DEVICE_DISPLAY:
		if (identity->path[0] && strcmp(device->by_path, identity->path) != 0)
			return false;
		return any ? device->present : strcmp(device->connector, identity->name) == 0;
	case DEVICE_KIND_INVALID:
	case DEVICE_KIND_COUNT:
		break;
	}
	return false;
}

static bool is_unique(const struct device *devices, int count, const struct device_identity *id)
{
	int matches = 0;

	for (int i = 0; i < count; i++)
		matches += device_matches(&devices[i], id);
	return matches == 1;
}

/* A driver says what it likes: its 32 bytes may end in half a character. */
static void names_clean(struct device *d)
{
	char *const names[] = { d->by_id, d->by_path, d->card, d->connector };

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		utf8_make_line(names[i]);
}

static void device_name(struct device *d, const struct device *all, int count)
{
	struct device_identity id = { .kind = DEVICE_DISPLAY };

	(void)snprintf(id.name, sizeof(id.name), "%s", d->connector);
	if (d->connector[0] && d->by_path[0] && !is_unique(all, count, &id))
		(void)snprintf(d->identity, sizeof(d->identity), "kms:%.120s/%.120s", d->by_path,
			       d->connector);
	else if (d->connector[0])
		(void)snprintf(d->identity, sizeof(d->identity), "kms:%s", d->connector);
	else if (d->is_loopback)
		(void)snprintf(d->identity, sizeof(d->identity), "loopback:label=%s", d->card);
	else if (d->by_id[0])
		(void)snprintf(d->identity, sizeof(d->identity), "v4l2:by-id/%s", d->by_id);
	else if (d->by_path[0])
		(void)snprintf(d->identity, sizeof(d->identity), "v4l2:by-path/%s", d->by_path);
	else
		(void)snprintf(d->identity, sizeof(d->identity), "v4l2:card=%s", d->card);
	if (d->connector[0])
		(void)snprintf(d->description, sizeof(d->description), "%.60s on %.60s, %s",
			       d->connector, d->card[0] ? d->card : d->node,
			       d->present ? "connected" : "nothing plugged in");
	else
		(void)snprintf(d->description, sizeof(d->description), "%.*s (%.60s)",
			       utf8_cut(d->card, CARD_BYTES), d->card, d->node);
	utf8_make_line(d->description);
}

void device_list_name(struct device *devices, int count)
{
	for (int i = 0; i < count; i++)
		names_clean(&devices[i]);
	for (int i = 0; i < count; i++)
		device_name(&devices[i], devices, count);
}
