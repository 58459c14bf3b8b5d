/* Virtual cameras of the v4l2loopback module as a media sink. */
#include "daemon/sink_loopback.h"

#include "base/util.h"
#include "daemon/device.h"
#include "daemon/sink_loopback_format.h"
#include "media/letterbox.h"
#include "media/sink_ops.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum {
	/* The driver's own event: a program began or ended to stream. Its data is the number. */
	EVENT_CLIENT_USAGE = V4L2_EVENT_PRIVATE_START + 0x08e00000 + 1,
	MAX_EVENTS = 64,
};

struct loopback {
	struct media_sink sink;
	char name[96]; /* for errors: the identity */
	int fd, watch_fd;
	bool has_event;
	int readers;
	bool unsure; /* the count of readers was lost */
	struct sink_loopback_shape shape;
	struct media_letterbox box;
	struct media_target target;
	uint8_t *picture;
};

static int control(const struct loopback *l, unsigned long request, void *argument)
{
	int r;

	do
		r = ioctl(l->fd, request, argument);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : 0;
}

/* ---------------------------------------------------------------------------------- readers */

static void watch_event(struct loopback *l)
{
	struct v4l2_event event;

	for (int i = 0; i < MAX_EVENTS && control(l, VIDIOC_DQEVENT, &event) == 0; i++) {
		uint32_t count;

		memcpy(&count, event.u.data, sizeof(count));
		if (event.type == EVENT_CLIENT_USAGE)
			l->readers = (int)MIN_OF(count, INT32_MAX);
	}
}

static void watch_inotify(struct loopback *l)
{
	_Alignas(struct inotify_event) char text[4096];
	ssize_t n;

	while ((n = read(l->watch_fd, text, sizeof(text))) > 0)
		for (char *p = text; p < text + n;) {
			const struct inotify_event *e = (const void *)p;

			/* Who came and went meanwhile is not known: better one reader too many. */
			if (e->mask & IN_Q_OVERFLOW)
				l->unsure = true;
			else if (e->mask & IN_OPEN)
				l->readers++;
			else if (e->mask & IN_CLOSE && l->readers > 0)
				l->readers--;
			p += sizeof(*e) + e->len;
		}
}

static bool loopback_is_watched(struct media_sink *sink)
{
	struct loopback *l = (struct loopback *)sink;

	if (l->has_event)
		watch_event(l);
	else if (l->watch_fd >= 0)
		watch_inotify(l);
	else
		return true;
	return l->unsure || l->readers > 0;
}

/* `attached`: a reader was there before us. */
static void watch_start(struct loopback *l, const char *node, bool attached)
{
	struct v4l2_event_subscription wish = {
		.type = (uint32_t)EVENT_CLIENT_USAGE,
		.flags = V4L2_EVENT_SUB_FL_SEND_INITIAL,
	};

	l->has_event = control(l, VIDIOC_SUBSCRIBE_EVENT, &wish) == 0;
	if (l->has_event)
		return;
	l->readers = attached;
	l->watch_fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	/* Our own descriptor is open by now and is closed after the watch: it is never counted. */
	if (l->watch_fd >= 0 && inotify_add_watch(l->watch_fd, node, IN_OPEN | IN_CLOSE) < 0) {
		(void)close(l->watch_fd);
		l->watch_fd = -1;
	}
}

/* ---------------------------------------------------------------------------------- opening */

static int node_open(struct loopback *l, const char *node, struct sana_error *error)
{
	l->fd = open(node, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (l->fd >= 0)
		return 0;
	if (errno == EACCES || errno == EPERM)
		return sana_error_set(error, -errno, "sink.permission",
				      "%s: %s may not be opened; put the user into the group that "
				      "owns it (usually video), or allow it in the unit.",
				      l->name, node);
	if (errno == EBUSY)
		return sana_error_set(error, -errno, "sink.busy",
				      "%s: as many programs as the module's max_openers have %s "
				      "open.",
				      l->name, node);
	return sana_error_set(error, -errno, "sink.no-device", "%s: %s: %s.", l->name, node,
			      strerror(errno));
}

/* A node that keeps its format although nobody writes has a reader (or keep_format). */
static bool format_is_free(const struct loopback *l)
{
	enum { UNLIKELY_SIDE = 48 };
	struct v4l2_format f = {
		.type = V4L2_BUF_TYPE_VIDEO_OUTPUT,
		.fmt.pix = { .width = UNLIKELY_SIDE,
			     .height = UNLIKELY_SIDE,
			     .pixelformat = V4L2_PIX_FMT_YUYV,
			     .field = V4L2_FIELD_NONE },
	};

	return control(l, VIDIOC_TRY_FMT, &f) == 0 && f.fmt.pix.width == UNLIKELY_SIDE &&
	       f.fmt.pix.height == UNLIKELY_SIDE;
}

static int capability_check(struct loopback *l, bool *ret_attached, struct sana_error *error)
{
	struct v4l2_capability cap = { 0 };
	uint32_t caps;
	int r = control(l, VIDIOC_QUERYCAP, &cap);

	if (r < 0 || memcmp(cap.driver, "v4l2 loopback", sizeof("v4l2 loopback")) != 0)
		return sana_error_set(error, -ENODEV, "sink.no-device",
				      "%s: the node is no virtual camera of v4l2loopback.",
				      l->name);
	caps = cap.capabilities & V4L2_CAP_DEVICE_CAPS ? cap.device_caps : cap.capabilities;
	if (!(caps & V4L2_CAP_VIDEO_OUTPUT))
		return sana_error_set(error, -EBUSY, "sink.busy",
				      "%s: another program writes to it; close that, or make one "
				      "more device.",
				      l->name);
	*ret_attached = caps & V4L2_CAP_VIDEO_CAPTURE && !format_is_free(l);
	return 0;
}

static int format_set(struct loopback *l, const struct media_sink_wish *wish,
		      struct sana_error *error)
{
	struct v4l2_format f = { .type = V4L2_BUF_TYPE_VIDEO_OUTPUT };
	struct v4l2_streamparm parm = { .type = V4L2_BUF_TYPE_VIDEO_OUTPUT };
	int r = sink_loopback_shape_wish(wish, &l->shape, error);

	if (r < 0)
		return r;
	f.fmt.pix = (struct v4l2_pix_format){
		.width = (uint32_t)l->shape.width,
		.height = (uint32_t)l->shape.height,
		.pixelformat = l->shape.fourcc,
		.field = V4L2_FIELD_NONE,
		.sizeimage = (uint32_t)l->shape.bytes,
		.colorspace = V4L2_COLORSPACE_SRGB,
		.priv = V4L2_PIX_FMT_PRIV_MAGIC,
		.ycbcr_enc = V4L2_YCBCR_ENC_601,
		.quantization = V4L2_QUANTIZATION_LIM_RANGE,
	};
	r = control(l, VIDIOC_S_FMT, &f);
	/* Since 0.13 a pinned format is refused instead of given; trying tells which it is. */
	if (r == -EBUSY && control(l, VIDIOC_TRY_FMT, &f) == 0)
		r = control(l, VIDIOC_S_FMT, &f);
	if (r < 0)
		return sana_error_set(error, r, r == -EBUSY ? "sink.busy" : "sink.format",
				      "%s: %s %dx%d cannot be set: %s.", l->name, l->shape.name,
				      l->shape.width, l->shape.height, strerror(-r));
	/* What came back counts: readers and keep_format pin it. */
	r = sink_loopback_shape_read(&f.fmt.pix, &l->shape, error);
	if (r < 0) {
		(void)sana_error_prefix(error, "%s", l->name);
		return r;
	}
	parm.parm.output.timeperframe =
		(struct v4l2_fract){ (uint32_t)wish->fps_den, (uint32_t)wish->fps_num };
	(void)control(l, VIDIOC_S_PARM, &parm);
	return 0;
}

static int memory_take(struct loopback *l, const struct media_sink_wish *wish)
{
	const struct sink_loopback_shape *s = &l->shape;

	l->picture = malloc(s->bytes);
	if (!l->picture)
		return -ENOMEM;
	(void)media_target_init(&l->target, s->format, s->width, s->height, l->picture);
	media_target_clear(&l->target, s->width, s->height);
	return media_letterbox_init(&l->box, wish->width, wish->height, s->width, s->height,
				    !wish->unscaled);
}

/* ---------------------------------------------------------------------------------- writing */

/* Exactly one picture: a longer write shows sheared pictures, a shorter one is no picture. */
static int picture_write(struct loopback *l, struct sana_error *error)
{
	ssize_t n;

	do
		n = write(l->fd, l->picture, l->shape.bytes);
	while (n < 0 && errno == EINTR);
	if (n == (ssize_t)l->shape.bytes)
		return 0;
	if (n < 0 && errno == EAGAIN)
		return sana_error_set(error, -EAGAIN, "sink.write",
				      "%s: the device had no room for a picture.", l->name);
	if (n < 0 && (errno == ENODEV || errno == ENXIO))
		return sana_error_set(error, -ENODEV, "sink.lost",
				      "%s: the virtual camera is gone; the module was unloaded.",
				      l->name);
	if (n < 0 && errno == EBUSY)
		return sana_error_set(error, -EBUSY, "sink.busy",
				      "%s: another program writes to it.", l->name);
	return sana_error_set(error, n < 0 ? -errno : -EPROTO, "sink.write", "%s: %s.", l->name,
			      n < 0 ? strerror(errno) : "the device took only a part of a picture");
}

static int loopback_write(struct media_sink *sink, const uint8_t *rgb, size_t row_bytes,
			  int64_t timestamp_ns, int64_t duration_ns, struct sana_error *error)
{
	struct loopback *l = (struct loopback *)sink;

	(void)timestamp_ns; /* the driver stamps what it gets */
	(void)duration_ns;
	media_letterbox_run(&l->box, rgb, row_bytes, &l->target);
	return picture_write(l, error);
}

static void loopback_close(struct media_sink *sink)
{
	struct loopback *l = (struct loopback *)sink;

	if (l->watch_fd >= 0)
		(void)close(l->watch_fd);
	if (l->fd >= 0)
		(void)close(l->fd);
	media_letterbox_finish(&l->box);
	free(l->picture);
	free(l);
}

static const struct media_sink_ops loopback_ops = {
	.write = loopback_write,
	.close = loopback_close,
	.is_watched = loopback_is_watched,
};

static void info_fill(struct loopback *l, const struct media_sink_wish *wish)
{
	struct media_sink_info *info = &l->sink.info;
	struct sink_loopback_shape wanted;

	info->codec = l->shape.name;
	info->encoder = "";
	info->container = "v4l2loopback";
	info->constant_rate = true;
	info->partial_path = "";
	if (sink_loopback_shape_wish(wish, &wanted, NULL) == 0 &&
	    (wanted.fourcc != l->shape.fourcc || wanted.width != l->shape.width ||
	     wanted.height != l->shape.height))
		(void)snprintf(info->note, sizeof(info->note),
			       "%s is held to %s %dx%d by a reader or keep_format; %s %dx%d was "
			       "asked for.",
			       l->name, l->shape.name, l->shape.width, l->shape.height, wanted.name,
			       wanted.width, wanted.height);
}

static int loopback_start(struct loopback *l, const struct media_sink_wish *wish, const char *node,
			  struct sana_error *error)
{
	int type = V4L2_BUF_TYPE_VIDEO_OUTPUT;
	bool attached = false;
	int r;

	r = node_open(l, node, error);
	if (r == 0)
		r = capability_check(l, &attached, error);
	if (r == 0)
		r = format_set(l, wish, error);
	if (r < 0)
		return r;
	if (memory_take(l, wish) < 0)
		return sana_error_set(error, -ENOMEM, "memory", "Out of memory.");
	/*
	 * Up to 0.12 this is what makes the driver notice that its writer left; later ones refuse it
	 * without mapped buffers and notice by themselves.
	 */
	(void)control(l, VIDIOC_STREAMON, &type);
	watch_start(l, node, attached);
	/* One picture makes the node a camera that programs see (exclusive_caps). */
	return picture_write(l, error);
}

int sink_loopback_open(const struct media_sink_wish *wish, struct media_sink **ret,
		       struct sana_error *error)
{
	struct device_identity identity;
	struct device device;
	struct loopback *l;
	int r;

	r = device_identity_parse(wish->path, &identity, error);
	if (r == 0 && identity.kind != DEVICE_LOOPBACK)
		r = sana_error_set(error, -EINVAL, "device.identity",
				   "\"%.100s\" is no virtual camera: \"loopback:label=NAME\" or "
				   "\"loopback:\" would be.",
				   wish->path);
	if (r == 0)
		r = device_find(&identity, "sink.no-device", &device, error);
	if (r < 0)
		return r;
	l = calloc(1, sizeof(*l));
	if (!l)
		return sana_error_set(error, -ENOMEM, "memory", "Out of memory.");
	l->sink.ops = &loopback_ops;
	l->fd = l->watch_fd = -1;
	(void)snprintf(l->name, sizeof(l->name), "%s", wish->path);
	r = loopback_start(l, wish, device.node, error);
	if (r < 0) {
		loopback_close(&l->sink);
		return r;
	}
	info_fill(l, wish);
	*ret = &l->sink;
	return 0;
}

int sink_loopback_list(struct media_device *ret, int capacity)
{
	return device_list_media(DEVICE_LOOPBACKS, ret, capacity);
}
