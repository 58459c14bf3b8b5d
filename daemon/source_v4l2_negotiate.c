/* A camera's capability, signal, format and rate: what is asked, compared with what comes back. */
#include "daemon/source_v4l2_camera.h"

#include "base/clock.h"
#include "base/util.h"

#include <errno.h>

enum {
	DEFAULT_WIDTH = 1280,
	DEFAULT_HEIGHT = 720,
	DEFAULT_FPS = 30,
	MAX_LIST = 128, /* entries a driver may enumerate per list */
	MAX_TRIES = 8,	/* formats that a driver may promise and not give */
};

/* -------------------------------------------------------------------------------- the node */

static int capability_check(struct source_v4l2_camera *c, struct sana_error *error)
{
	struct v4l2_capability *cap = &c->capability;
	uint32_t caps;
	int r = source_v4l2_control(c, VIDIOC_QUERYCAP, cap);

	if (r < 0)
		return sana_error_set(error, r == -ENOTTY ? -ENODEV : r, "source.no-device",
				      "%s is no V4L2 device: %s.", c->name, strerror(-r));
	cap->card[sizeof(cap->card) - 1] = '\0';
	for (size_t i = 0; cap->card[i]; i++)
		if (cap->card[i] < ' ' || cap->card[i] == 0x7f)
			cap->card[i] = '?';
	caps = cap->capabilities & V4L2_CAP_DEVICE_CAPS ? cap->device_caps : cap->capabilities;
	if (!(caps & V4L2_CAP_VIDEO_CAPTURE))
		return sana_error_set(error, -ENOTSUP, "source.format", "%s: %s.", c->name,
				      caps & V4L2_CAP_VIDEO_CAPTURE_MPLANE ?
					      "the driver has the multi-planar interface only, and "
					      "libv4l2 has no plugin for it (package libv4l-0)" :
					      "this node gives no pictures (metadata, output or "
					      "a virtual camera that nobody feeds)");
	if (!(caps & V4L2_CAP_STREAMING))
		return sana_error_set(error, -ENOTSUP, "source.format",
				      "%s: the driver cannot stream.", c->name);
	return 0;
}

/* ------------------------------------------------------------------------------- the signal */

static int input_read(const struct source_v4l2_camera *c, struct v4l2_input *ret)
{
	int index, r;

	*ret = (struct v4l2_input){ 0 };
	r = source_v4l2_control(c, VIDIOC_G_INPUT, &index);
	if (r < 0)
		return r;
	ret->index = (uint32_t)index;
	return source_v4l2_control(c, VIDIOC_ENUMINPUT, ret);
}

bool source_v4l2_signal_missing(const struct source_v4l2_camera *camera)
{
	struct v4l2_dv_timings timings = { 0 };
	struct v4l2_input input;
	int r;

	if (input_read(camera, &input) == 0 &&
	    input.status & (V4L2_IN_ST_NO_POWER | V4L2_IN_ST_NO_SIGNAL | V4L2_IN_ST_NO_SYNC))
		return true;
	if (!camera->has_timings)
		return false;
	r = source_v4l2_control(camera, VIDIOC_QUERY_DV_TIMINGS, &timings);
	return r == -ENOLINK || r == -ENOLCK;
}

static bool timings_equal(const struct v4l2_dv_timings *a, const struct v4l2_dv_timings *b)
{
	return a->bt.width == b->bt.width && a->bt.height == b->bt.height &&
	       a->bt.interlaced == b->bt.interlaced && a->bt.pixelclock == b->bt.pixelclock;
}

int source_v4l2_signal_changed(const struct source_v4l2_camera *camera)
{
	struct v4l2_dv_timings timings = { 0 };

	if (!camera->has_timings ||
	    source_v4l2_control(camera, VIDIOC_QUERY_DV_TIMINGS, &timings) < 0)
		return 0;
	return !timings_equal(&timings, &camera->timings);
}

static void events_subscribe(struct source_v4l2_camera *c)
{
	struct v4l2_event_subscription wish = { .type = V4L2_EVENT_SOURCE_CHANGE };

	c->has_events = source_v4l2_control(c, VIDIOC_SUBSCRIBE_EVENT, &wish) == 0;
}

/* HDMI and the like: what comes in decides the size, and has to be set. */
static int signal_lock(struct source_v4l2_camera *c, struct sana_error *error)
{
	struct v4l2_input input;
	int r;

	if (input_read(c, &input) < 0 || !(input.capabilities & V4L2_IN_CAP_DV_TIMINGS))
		return 0;
	c->has_timings = true;
	events_subscribe(c);
	r = source_v4l2_control(c, VIDIOC_QUERY_DV_TIMINGS, &c->timings);
	if (r == -ENOLINK || r == -ENOLCK)
		return sana_error_set(error, r, "source.no-signal",
				      "%s: no signal comes in%s; check the cable and the device "
				      "behind it.",
				      c->name, r == -ENOLCK ? " that can be locked to" : "");
	if (r == -ERANGE)
		return sana_error_set(error, r, "source.format",
				      "%s: the signal has a timing that this hardware cannot take; "
				      "choose another mode at its source.",
				      c->name);
	/* Without a way to ask, what is set already has to do. */
	if (r < 0)
		r = source_v4l2_control(c, VIDIOC_G_DV_TIMINGS, &c->timings);
	else
		r = source_v4l2_control(c, VIDIOC_S_DV_TIMINGS, &c->timings);
	if (r < 0)
		return source_v4l2_fail(c, r, r == -EBUSY ? "source.busy" : "source.format",
					"the signal's timing cannot be set", error);
	return 0;
}

/* ------------------------------------------------------------------------------- the offers */

struct offers {
	struct source_v4l2_offer *list;
	int count;
};

static void offer_add(struct offers *o, const struct source_v4l2_offer *offer)
{
	if (o->count < SOURCE_V4L2_MAX_OFFERS && offer->width > 0 && offer->height > 0 &&
	    offer->width <= MEDIA_MAX_SIDE && offer->height <= MEDIA_MAX_SIDE)
		o->list[o->count++] = *offer;
}

static bool fract_is_sane(struct v4l2_fract f)
{
	return f.numerator > 0 && f.denominator > 0 && f.numerator <= INT32_MAX &&
	       f.denominator <= INT32_MAX;
}

/* The rate of one offer: the slowest that suffices, of a list or of a range. */
static void rate_find(const struct source_v4l2_camera *c, struct source_v4l2_offer *offer)
{
	for (uint32_t i = 0; i < MAX_LIST; i++) {
		struct v4l2_frmivalenum e = {
			.index = i,
			.pixel_format = offer->layout->fourcc,
			.width = (uint32_t)offer->width,
			.height = (uint32_t)offer->height,
		};
		struct v4l2_fract f;
		int num, den;

		if (source_v4l2_control(c, VIDIOC_ENUM_FRAMEINTERVALS, &e) < 0)
			return;
		/* Of a range the shortest interval is the fastest rate; any slower one goes. */
		f = e.type == V4L2_FRMIVAL_TYPE_DISCRETE ? e.discrete : e.stepwise.min;
		if (fract_is_sane(f)) {
			num = (int)f.denominator;
			den = (int)f.numerator;
			if (e.type != V4L2_FRMIVAL_TYPE_DISCRETE &&
			    source_v4l2_rate_suffices(&c->target, num, den)) {
				num = c->target.fps_num;
				den = c->target.fps_den;
			}
			if (!offer->fps_num ||
			    source_v4l2_rate_better(&c->target, num, den, offer->fps_num,
						    offer->fps_den)) {
				offer->fps_num = num;
				offer->fps_den = den;
			}
		}
		if (e.type != V4L2_FRMIVAL_TYPE_DISCRETE)
			return;
	}
}

/*
 * A size out of a range. What an input scales to keeps the shape of the signal, so that nothing is
 * squeezed: it covers the target, and the rest is cropped later.
 */
static void size_of_range(const struct source_v4l2_camera *c,
			  const struct v4l2_frmsize_stepwise *range,
			  struct source_v4l2_offer *offer)
{
	int width = c->target.width, height = c->target.height;
	const int64_t w = c->timings.bt.width, h = c->timings.bt.height;

	if (c->has_timings && w > 0 && h > 0 && w <= MEDIA_MAX_SIDE && h <= MEDIA_MAX_SIDE) {
		if (width * h > height * w)
			height = (int)((width * h + w - 1) / w);
		else
			width = (int)((height * w + h - 1) / h);
	}
	offer->width = source_v4l2_size_step(width, range->min_width, range->max_width,
					     MAX_OF(range->step_width, 2u));
	offer->height = source_v4l2_size_step(height, range->min_height, range->max_height,
					      MAX_OF(range->step_height, 2u));
}

static void sizes_list(const struct source_v4l2_camera *c, struct offers *o,
		       const struct source_v4l2_offer *format)
{
	for (uint32_t i = 0; i < MAX_LIST && o->count < SOURCE_V4L2_MAX_OFFERS; i++) {
		struct v4l2_frmsizeenum e = { .index = i, .pixel_format = format->layout->fourcc };
		struct source_v4l2_offer offer = *format;

		if (source_v4l2_control(c, VIDIOC_ENUM_FRAMESIZES, &e) < 0) {
			/* A driver without the list: S_FMT will say what there is. */
			offer.width = c->target.width;
			offer.height = c->target.height;
			if (i == 0)
				offer_add(o, &offer);
			return;
		}
		if (e.type == V4L2_FRMSIZE_TYPE_DISCRETE) {
			offer.width = (int)MIN_OF(e.discrete.width, INT32_MAX);
			offer.height = (int)MIN_OF(e.discrete.height, INT32_MAX);
		} else {
			size_of_range(c, &e.stepwise, &offer);
		}
		rate_find(c, &offer);
		offer_add(o, &offer);
		if (e.type != V4L2_FRMSIZE_TYPE_DISCRETE)
			return;
	}
}

/* Also writes the names of what the driver has and we do not know, for the error. */
static void formats_list(const struct source_v4l2_camera *c, struct offers *o, char *unknown,
			 size_t bytes)
{
	size_t used = 0;

	unknown[0] = '\0';
	for (uint32_t i = 0; i < MAX_LIST && o->count < SOURCE_V4L2_MAX_OFFERS; i++) {
		struct v4l2_fmtdesc e = { .index = i, .type = V4L2_BUF_TYPE_VIDEO_CAPTURE };
		struct source_v4l2_offer offer = { 0 };

		if (source_v4l2_control(c, VIDIOC_ENUM_FMT, &e) < 0)
			return;
		offer.layout = source_v4l2_layout_find(e.pixelformat);
		offer.emulated = e.flags & V4L2_FMT_FLAG_EMULATED;
		if (offer.layout)
			sizes_list(c, o, &offer);
		else if (used + 8 < bytes)
			used += (size_t)snprintf(unknown + used, bytes - used, " %s",
						 source_v4l2_fourcc_text(e.pixelformat).text);
	}
}

/* ------------------------------------------------------------------------------ the choice */

/* 1: set, and it is what was asked for; 0: the driver made something else of it. */
static int offer_set(struct source_v4l2_camera *c, const struct source_v4l2_offer *offer,
		     struct sana_error *error)
{
	struct v4l2_format f = {
		.type = V4L2_BUF_TYPE_VIDEO_CAPTURE,
		.fmt.pix = {
			.width = (uint32_t)offer->width,
			.height = (uint32_t)offer->height,
			.pixelformat = offer->layout->fourcc,
			.field = V4L2_FIELD_NONE,
			.priv = V4L2_PIX_FMT_PRIV_MAGIC,
		},
	};
	int r = source_v4l2_control(c, VIDIOC_S_FMT, &f);

	if (r == -EBUSY)
		return sana_error_set(error, r, "source.busy",
				      "%s: another program streams from it; close it.", c->name);
	if (r == -EINVAL)
		return 0;
	if (r < 0)
		return source_v4l2_fail(c, r, "source.format", "the format cannot be set", error);
	if (f.fmt.pix.pixelformat != offer->layout->fourcc)
		return 0;
	/* Another size is taken as it comes: pictures are scaled anyway. */
	r = source_v4l2_shape_read(&f.fmt.pix, &c->shape, error);
	if (r < 0) {
		(void)sana_error_prefix(error, "%s", c->name);
		return r;
	}
	return 1;
}

static int shape_override(struct source_v4l2_shape *s, const struct media_source_wish *wish,
			  struct sana_error *error)
{
	static const char *const matrices[MEDIA_MATRIX_COUNT] = {
		[MEDIA_MATRIX_601] = "601",
		[MEDIA_MATRIX_709] = "709",
		[MEDIA_MATRIX_2020] = "2020",
		[MEDIA_MATRIX_240M] = "240m",
	};

	for (int i = 0; wish->matrix && i <= MEDIA_MATRIX_COUNT; i++) {
		if (i == MEDIA_MATRIX_COUNT)
			return sana_error_set(
				error, -EINVAL, "source.format",
				"\"%.20s\" is no colour matrix: 601, 709, 2020, 240m.",
				wish->matrix);
		if (strcmp(wish->matrix, matrices[i]) == 0) {
			s->matrix = (enum media_matrix)i;
			break;
		}
	}
	if (!wish->range)
		return 0;
	s->full_range = strcmp(wish->range, "full") == 0;
	if (!s->full_range && strcmp(wish->range, "limited") != 0)
		return sana_error_set(error, -EINVAL, "source.format",
				      "\"%.20s\" is no colour range: limited, full.", wish->range);
	return 0;
}

static int target_set(struct source_v4l2_camera *c, const struct media_source_wish *wish,
		      struct sana_error *error)
{
	c->target = (struct source_v4l2_target){
		.width = wish->width > 0 ? MIN_OF(wish->width, (int)MEDIA_MAX_SIDE) : DEFAULT_WIDTH,
		.height = wish->height > 0 ? MIN_OF(wish->height, (int)MEDIA_MAX_SIDE) :
					     DEFAULT_HEIGHT,
		.fps_num = wish->fps_num > 0 && wish->fps_den > 0 ? wish->fps_num : DEFAULT_FPS,
		.fps_den = wish->fps_num > 0 && wish->fps_den > 0 ? wish->fps_den : 1,
	};
	if (!wish->pixel_format)
		return 0;
	c->target.layout = source_v4l2_layout_named(wish->pixel_format);
	if (!c->target.layout)
		return sana_error_set(error, -EINVAL, "source.format",
				      "\"%.20s\" is no pixel format: nv12, yu12, yv12, yuyv, uyvy, "
				      "rgb24, bgr24, grey, mjpeg, jpeg.",
				      wish->pixel_format);
	return 0;
}

static int format_choose(struct source_v4l2_camera *c, struct sana_error *error)
{
	_cleanup_(freep) struct source_v4l2_offer *list =
		calloc(SOURCE_V4L2_MAX_OFFERS, sizeof(*list));
	struct offers o = { list, 0 };
	char unknown[128];
	int count, r;

	if (!list)
		return sana_error_set(error, -ENOMEM, "memory", "Out of memory.");
	formats_list(c, &o, unknown, sizeof(unknown));
	count = source_v4l2_offers_sort(&c->target, list, o.count);
	for (int i = 0; i < MIN_OF(count, (int)MAX_TRIES); i++) {
		r = offer_set(c, &list[i], error);
		if (r != 0)
			return r < 0 ? r : 0;
	}
	if (o.count > 0 && count == 0)
		return sana_error_set(error, -ENOTSUP, "source.format", "%s: the camera has no %s.",
				      c->name, c->target.layout->name);
	if (count > 0)
		return sana_error_set(error, -EPROTO, "source.format",
				      "%s: the driver offers %s %dx%d, and sets something else.",
				      c->name, list[0].layout->name, list[0].width, list[0].height);
	return sana_error_set(error, -ENOTSUP, "source.format",
			      "%s: none of its formats is supported (it has:%s).", c->name,
			      unknown[0] ? unknown : " none");
}

/* ---------------------------------------------------------------------------------- the rate */

static void rate_set(struct source_v4l2_camera *c)
{
	struct source_v4l2_offer offer = {
		.layout = c->shape.layout,
		.width = c->shape.width,
		.height = c->shape.height,
	};
	struct v4l2_streamparm parm = { .type = V4L2_BUF_TYPE_VIDEO_CAPTURE };
	struct v4l2_fract *f = &parm.parm.capture.timeperframe;
	struct media_source_info *info = &c->source.info;

	/* Of the size that was set in the end; a driver without rates has one of its own. */
	rate_find(c, &offer);
	if (source_v4l2_control(c, VIDIOC_G_PARM, &parm) == 0 &&
	    parm.parm.capture.capability & V4L2_CAP_TIMEPERFRAME) {
		*f = (struct v4l2_fract){
			(uint32_t)(offer.fps_num ? offer.fps_den : c->target.fps_den),
			(uint32_t)(offer.fps_num ? offer.fps_num : c->target.fps_num),
		};
		(void)source_v4l2_control(c, VIDIOC_S_PARM, &parm);
	}
	/* What came back counts, not what was asked. */
	if (!fract_is_sane(*f) || (double)f->denominator / f->numerator > 1000.0)
		return;
	info->fps_num = (int)f->denominator;
	info->fps_den = (int)f->numerator;
	c->frame_ns = (int64_t)((double)CLOCK_SECOND_NS * f->numerator / f->denominator);
}

int source_v4l2_negotiate(struct source_v4l2_camera *camera, const struct media_source_wish *wish,
			  struct sana_error *error)
{
	int r = target_set(camera, wish, error);

	if (r == 0)
		r = capability_check(camera, error);
	if (r == 0)
		r = signal_lock(camera, error);
	if (r == 0)
		r = format_choose(camera, error);
	if (r == 0)
		r = shape_override(&camera->shape, wish, error);
	if (r == 0)
		rate_set(camera);
	return r;
}
