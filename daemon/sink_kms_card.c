/* The objects of a graphics card that show one picture. */
#include "daemon/sink_kms_card.h"

#include "base/util.h"
#include "daemon/sink_mode.h"

#include <drm_fourcc.h>
#include <errno.h>
#include <math.h>

static const struct {
	uint32_t object;
	const char *name;
} properties[SINK_KMS_PROPERTY_COUNT] = {
	[SINK_KMS_CONNECTOR_CRTC] = { DRM_MODE_OBJECT_CONNECTOR, "CRTC_ID" },
	[SINK_KMS_CRTC_MODE] = { DRM_MODE_OBJECT_CRTC, "MODE_ID" },
	[SINK_KMS_CRTC_ACTIVE] = { DRM_MODE_OBJECT_CRTC, "ACTIVE" },
	[SINK_KMS_PLANE_FB] = { DRM_MODE_OBJECT_PLANE, "FB_ID" },
	[SINK_KMS_PLANE_CRTC] = { DRM_MODE_OBJECT_PLANE, "CRTC_ID" },
	[SINK_KMS_SRC_X] = { DRM_MODE_OBJECT_PLANE, "SRC_X" },
	[SINK_KMS_SRC_Y] = { DRM_MODE_OBJECT_PLANE, "SRC_Y" },
	[SINK_KMS_SRC_W] = { DRM_MODE_OBJECT_PLANE, "SRC_W" },
	[SINK_KMS_SRC_H] = { DRM_MODE_OBJECT_PLANE, "SRC_H" },
	[SINK_KMS_CRTC_X] = { DRM_MODE_OBJECT_PLANE, "CRTC_X" },
	[SINK_KMS_CRTC_Y] = { DRM_MODE_OBJECT_PLANE, "CRTC_Y" },
	[SINK_KMS_CRTC_W] = { DRM_MODE_OBJECT_PLANE, "CRTC_W" },
	[SINK_KMS_CRTC_H] = { DRM_MODE_OBJECT_PLANE, "CRTC_H" },
};

static void connector_freep(drmModeConnector **connector)
{
	drmModeFreeConnector(*connector);
}

static void resources_freep(drmModeRes **resources)
{
	drmModeFreeResources(*resources);
}

static void planes_freep(drmModePlaneRes **planes)
{
	drmModeFreePlaneResources(*planes);
}

/* -------------------------------------------------------------------------------------- modes */

double sink_kms_mode_rate(const drmModeModeInfo *mode)
{
	const double pixels = (double)mode->htotal * mode->vtotal;

	return pixels > 0.0 ? 1000.0 * mode->clock / pixels : mode->vrefresh;
}

static bool is_interlaced(const drmModeModeInfo *mode)
{
	return mode->flags & DRM_MODE_FLAG_INTERLACE;
}

/* True when `a` is the better answer; NULL is the worst. */
static bool mode_better(const drmModeModeInfo *a, const drmModeModeInfo *b, double hz)
{
	if (!b || is_interlaced(a) != is_interlaced(b))
		return !b || is_interlaced(b);
	if (hz > 0.0)
		return fabs(sink_kms_mode_rate(a) - hz) < fabs(sink_kms_mode_rate(b) - hz);
	return a->type & DRM_MODE_TYPE_PREFERRED && !(b->type & DRM_MODE_TYPE_PREFERRED);
}

const drmModeModeInfo *sink_kms_mode_choose(const drmModeModeInfo *modes, int count,
					    const char *text)
{
	const drmModeModeInfo *best = NULL;
	int width = 0, height = 0;
	double hz = 0.0;

	if (text && !sink_mode_parse(text, &width, &height, &hz))
		return NULL;
	for (int i = 0; i < count; i++) {
		if (text && (modes[i].hdisplay != width || modes[i].vdisplay != height))
			continue;
		if (mode_better(&modes[i], best, hz))
			best = &modes[i];
	}
	/* 59 for 60 is the nearest, 50 is another mode. */
	if (best && hz > 0.0 && fabs(sink_kms_mode_rate(best) - hz) > 1.0)
		return NULL;
	return best;
}

void sink_kms_connector_name(const drmModeConnector *connector, char *ret, size_t bytes)
{
	const char *type = drmModeGetConnectorTypeName(connector->connector_type);

	(void)snprintf(ret, bytes, "%s-%u", type ? type : "Unknown", connector->connector_type_id);
}

/* ----------------------------------------------------------------------------------- finding */

int sink_kms_card_prepare(struct sink_kms_card *card, struct sana_error *error)
{
	if (drmSetClientCap(card->fd, DRM_CLIENT_CAP_UNIVERSAL_PLANES, 1) < 0 ||
	    drmSetClientCap(card->fd, DRM_CLIENT_CAP_ATOMIC, 1) < 0)
		return sana_error_set(error, -ENOTSUP, "sink.format",
				      "%s: the driver has no atomic modesetting.", card->name);
	/* Who opens a card that nobody has is its master already. */
	if (!drmIsMaster(card->fd) && drmSetMaster(card->fd) < 0)
		return sana_error_set(error, -EBUSY, "sink.busy",
				      "%s: another program owns the display (a desktop or a boot "
				      "screen); end it, or use a card of its own.",
				      card->name);
	return 0;
}

static int connector_open(struct sink_kms_card *card, const drmModeRes *resources, const char *name,
			  drmModeConnector **ret, struct sana_error *error)
{
	char here[64];

	for (int i = 0; i < resources->count_connectors; i++) {
		drmModeConnector *c = drmModeGetConnector(card->fd, resources->connectors[i]);
		bool match;

		if (!c)
			continue;
		sink_kms_connector_name(c, here, sizeof(here));
		match = name[0] ? strcmp(here, name) == 0 :
				  c->connection == DRM_MODE_CONNECTED && c->count_modes > 0;
		if (match && (c->connection == DRM_MODE_DISCONNECTED || c->count_modes == 0)) {
			drmModeFreeConnector(c);
			return sana_error_set(error, -ENODEV, "sink.no-device",
					      "%s: nothing is plugged in.", card->name);
		}
		if (match) {
			*ret = c;
			return 0;
		}
		drmModeFreeConnector(c);
	}
	return sana_error_set(error, -ENODEV, "sink.no-device",
			      "%s: the card has no such connector with a display.", card->name);
}

static int mode_fail(const struct sink_kms_card *card, const drmModeConnector *c, const char *wish,
		     struct sana_error *error)
{
	char list[256] = "";
	size_t used = 0;

	for (int i = 0; i < c->count_modes && used + 32 < sizeof(list); i++)
		used += (size_t)snprintf(list + used, sizeof(list) - used, "%s%dx%d@%.4g",
					 used ? ", " : "", c->modes[i].hdisplay,
					 c->modes[i].vdisplay, sink_kms_mode_rate(&c->modes[i]));
	return sana_error_set(error, -EINVAL, "sink.format",
			      "%s: the display has no mode \"%.20s\" (it has: %s).", card->name,
			      wish ? wish : "", list);
}

/* The index of a CRTC in masks. */
static int crtc_index(const drmModeRes *resources, uint32_t crtc)
{
	for (int i = 0; i < resources->count_crtcs; i++)
		if (resources->crtcs[i] == crtc)
			return i;
	return -1;
}

/* CRTCs that show something on other connectors. */
static uint32_t crtcs_in_use(const struct sink_kms_card *card, const drmModeRes *resources)
{
	uint32_t mask = 0;

	for (int i = 0; i < resources->count_connectors; i++) {
		drmModeConnector *c =
			resources->connectors[i] == card->connector ?
				NULL :
				drmModeGetConnectorCurrent(card->fd, resources->connectors[i]);
		drmModeEncoder *e =
			c && c->encoder_id ? drmModeGetEncoder(card->fd, c->encoder_id) : NULL;
		const int index = e ? crtc_index(resources, e->crtc_id) : -1;

		if (index >= 0)
			mask |= UINT32_C(1) << index;
		drmModeFreeEncoder(e);
		drmModeFreeConnector(c);
	}
	return mask;
}

/* The one that is on this connector already; else one that it can have and nobody uses. */
static int crtc_find(struct sink_kms_card *card, const drmModeRes *resources,
		     const drmModeConnector *c)
{
	const uint32_t taken = crtcs_in_use(card, resources);
	int found = -1;

	for (int i = -1; i < c->count_encoders && found < 0; i++) {
		const uint32_t id = i < 0 ? c->encoder_id : c->encoders[i];
		drmModeEncoder *e = id ? drmModeGetEncoder(card->fd, id) : NULL;
		uint32_t possible;

		if (!e)
			continue;
		possible = e->possible_crtcs & ~taken;
		if (i < 0)
			found = crtc_index(resources, e->crtc_id);
		for (int k = 0; i >= 0 && k < resources->count_crtcs && found < 0; k++)
			if (possible & UINT32_C(1) << k)
				found = k;
		drmModeFreeEncoder(e);
	}
	if (found >= 0)
		card->crtc = resources->crtcs[found];
	return found;
}

static uint32_t property_find(int fd, uint32_t object, uint32_t type, const char *name,
			      uint64_t *ret_value)
{
	drmModeObjectProperties *all = drmModeObjectGetProperties(fd, object, type);
	uint32_t id = 0;

	for (uint32_t i = 0; all && i < all->count_props && !id; i++) {
		drmModePropertyRes *p = drmModeGetProperty(fd, all->props[i]);

		if (p && strcmp(p->name, name) == 0) {
			id = p->prop_id;
			if (ret_value)
				*ret_value = all->prop_values[i];
		}
		drmModeFreeProperty(p);
	}
	drmModeFreeObjectProperties(all);
	return id;
}

static bool plane_shows_xrgb(const drmModePlane *plane)
{
	for (uint32_t i = 0; i < plane->count_formats; i++)
		if (plane->formats[i] == DRM_FORMAT_XRGB8888)
			return true;
	return false;
}

static void plane_find(struct sink_kms_card *card, int index)
{
	_cleanup_(planes_freep) drmModePlaneRes *planes = drmModeGetPlaneResources(card->fd);

	for (uint32_t i = 0; planes && i < planes->count_planes && !card->plane; i++) {
		drmModePlane *p = drmModeGetPlane(card->fd, planes->planes[i]);
		uint64_t type = DRM_PLANE_TYPE_OVERLAY;

		if (!p)
			continue;
		(void)property_find(card->fd, p->plane_id, DRM_MODE_OBJECT_PLANE, "type", &type);
		if (type == DRM_PLANE_TYPE_PRIMARY && p->possible_crtcs & UINT32_C(1) << index &&
		    plane_shows_xrgb(p))
			card->plane = p->plane_id;
		drmModeFreePlane(p);
	}
}

static uint32_t object_id(const struct sink_kms_card *card, enum sink_kms_property property)
{
	const uint32_t type = properties[property].object;

	return type == DRM_MODE_OBJECT_CONNECTOR ? card->connector :
	       type == DRM_MODE_OBJECT_CRTC	 ? card->crtc :
						   card->plane;
}

static int properties_find(struct sink_kms_card *card, struct sana_error *error)
{
	for (int i = 0; i < SINK_KMS_PROPERTY_COUNT; i++) {
		card->property[i] = property_find(card->fd,
						  object_id(card, (enum sink_kms_property)i),
						  properties[i].object, properties[i].name, NULL);
		if (!card->property[i])
			return sana_error_set(error, -EPROTO, "sink.format",
					      "%s: the driver has no property %s.", card->name,
					      properties[i].name);
	}
	return 0;
}

int sink_kms_card_find(struct sink_kms_card *card, const char *connector, const char *mode,
		       struct sana_error *error)
{
	_cleanup_(resources_freep) drmModeRes *resources = drmModeGetResources(card->fd);
	_cleanup_(connector_freep) drmModeConnector *c = NULL;
	const drmModeModeInfo *chosen;
	int index, r;

	if (!resources)
		return sana_error_set(error, -ENOTSUP, "sink.format",
				      "%s: the card has no displays: %s.", card->name,
				      strerror(errno));
	r = connector_open(card, resources, connector, &c, error);
	if (r < 0)
		return r;
	card->connector = c->connector_id;
	chosen = sink_kms_mode_choose(c->modes, c->count_modes, mode);
	if (!chosen)
		return mode_fail(card, c, mode, error);
	card->mode = *chosen;
	index = crtc_find(card, resources, c);
	if (index >= 0)
		plane_find(card, index);
	if (!card->plane)
		return sana_error_set(error, -EBUSY, "sink.busy",
				      "%s: other displays use all of the card's pipelines.",
				      card->name);
	r = properties_find(card, error);
	if (r == 0 && drmModeCreatePropertyBlob(card->fd, &card->mode, sizeof(card->mode),
						&card->mode_blob) < 0)
		r = sana_error_set(error, -errno, "sink.protocol", "%s: %s.", card->name,
				   strerror(errno));
	return r;
}

bool sink_kms_card_is_connected(const struct sink_kms_card *card)
{
	/* The kernel's own knowledge: asking the display takes long. */
	drmModeConnector *c = drmModeGetConnectorCurrent(card->fd, card->connector);
	const bool connected = c && c->connection != DRM_MODE_DISCONNECTED;

	drmModeFreeConnector(c);
	return connected;
}

/* --------------------------------------------------------------------------------- requests */

/* A request that remembers its first failure. */
struct request {
	const struct sink_kms_card *card;
	drmModeAtomicReq *atomic;
	int status;
};

static void request_add(struct request *q, enum sink_kms_property property, uint64_t value)
{
	int r;

	if (q->status < 0)
		return;
	r = drmModeAtomicAddProperty(q->atomic, object_id(q->card, property),
				     q->card->property[property], value);
	q->status = r < 0 ? r : 0;
}

static int request_commit(struct request *q, uint32_t flags, void *context)
{
	int r = q->status;

	if (r == 0)
		r = drmModeAtomicCommit(q->card->fd, q->atomic, flags, context);
	drmModeAtomicFree(q->atomic);
	return r < 0 && r > -4096 ? r : r < 0 ? -EIO : 0;
}

static struct request request_begin(const struct sink_kms_card *card)
{
	struct request q = { .card = card, .atomic = drmModeAtomicAlloc() };

	q.status = q.atomic ? 0 : -ENOMEM;
	return q;
}

int sink_kms_card_set(const struct sink_kms_card *card, uint32_t framebuffer,
		      const struct sink_kms_rectangle *source,
		      const struct sink_kms_rectangle *target, uint32_t flags)
{
	struct request q = request_begin(card);

	request_add(&q, SINK_KMS_CONNECTOR_CRTC, card->crtc);
	request_add(&q, SINK_KMS_CRTC_MODE, card->mode_blob);
	request_add(&q, SINK_KMS_CRTC_ACTIVE, 1);
	request_add(&q, SINK_KMS_PLANE_FB, framebuffer);
	request_add(&q, SINK_KMS_PLANE_CRTC, card->crtc);
	/* 16.16 fixed point. */
	request_add(&q, SINK_KMS_SRC_X, (uint64_t)source->x << 16);
	request_add(&q, SINK_KMS_SRC_Y, (uint64_t)source->y << 16);
	request_add(&q, SINK_KMS_SRC_W, (uint64_t)source->width << 16);
	request_add(&q, SINK_KMS_SRC_H, (uint64_t)source->height << 16);
	request_add(&q, SINK_KMS_CRTC_X, (uint64_t)target->x);
	request_add(&q, SINK_KMS_CRTC_Y, (uint64_t)target->y);
	request_add(&q, SINK_KMS_CRTC_W, (uint64_t)target->width);
	request_add(&q, SINK_KMS_CRTC_H, (uint64_t)target->height);
	return request_commit(&q, flags | DRM_MODE_ATOMIC_ALLOW_MODESET, NULL);
}

int sink_kms_card_flip(const struct sink_kms_card *card, uint32_t framebuffer, void *context)
{
	struct request q = request_begin(card);

	request_add(&q, SINK_KMS_PLANE_FB, framebuffer);
	return request_commit(&q, DRM_MODE_ATOMIC_NONBLOCK | DRM_MODE_PAGE_FLIP_EVENT, context);
}
