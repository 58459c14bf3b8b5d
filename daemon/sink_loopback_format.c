/* What a virtual camera is asked for, and what its answer means. */
#include "daemon/sink_loopback_format.h"

#include "base/util.h"
#include "daemon/sink_mode.h"
#include "media/pack.h"

#include <errno.h>
#include <libavutil/pixfmt.h>
#include <strings.h>

/* In the order of how many programs take them. */
static const struct {
	uint32_t fourcc;
	int format;
	const char *name;
	int luma_bytes; /* per pixel of the first plane */
} formats[] = {
	{ V4L2_PIX_FMT_YUYV, AV_PIX_FMT_YUYV422, "yuyv", 2 },
	{ V4L2_PIX_FMT_YUV420, AV_PIX_FMT_YUV420P, "yu12", 1 },
	{ V4L2_PIX_FMT_NV12, AV_PIX_FMT_NV12, "nv12", 1 },
};

enum { LARGEST = 8192, MODEL_ROWS = 704, USUAL_ROWS = 720, USUAL_COLUMNS = 1280 };

static void shape_size(struct sink_loopback_shape *s)
{
	struct media_target none;

	s->bytes = media_target_init(&none, s->format, s->width, s->height, NULL);
}

int sink_loopback_shape_wish(const struct media_sink_wish *wish, struct sink_loopback_shape *ret,
			     struct sana_error *error)
{
	const char *name = wish->pixel_format ? wish->pixel_format : formats[0].name;
	struct sink_loopback_shape s = { .width = wish->width, .height = wish->height };
	double hz = 0.0;
	size_t i = 0;

	while (i < ARRAY_SIZE(formats) && strcasecmp(formats[i].name, name) != 0)
		i++;
	if (i == ARRAY_SIZE(formats))
		return sana_error_set(error, -EINVAL, "sink.format",
				      "\"%.20s\" is no pixel format of a virtual camera: yuyv, "
				      "yu12, nv12.",
				      name);
	s.fourcc = formats[i].fourcc;
	s.format = formats[i].format;
	s.name = formats[i].name;
	/* Many programs only look at usual sizes. */
	if (s.width == USUAL_COLUMNS && s.height == MODEL_ROWS)
		s.height = USUAL_ROWS;
	s.width = (s.width + 1) & ~1;
	s.height = (s.height + 1) & ~1;
	/* The rate is for displays, which may share the wish. */
	if (wish->mode && !sink_mode_parse(wish->mode, &s.width, &s.height, &hz))
		return sana_error_set(error, -EINVAL, "sink.format",
				      "\"%.20s\" is no size of a virtual camera; write it as "
				      "1280x720.",
				      wish->mode);
	if (s.width % 2 || s.height % 2 || s.width < 2 || s.height < 2 || s.width > LARGEST ||
	    s.height > LARGEST)
		return sana_error_set(error, -EINVAL, "sink.format",
				      "A virtual camera cannot be %dx%d: even sizes up to %dx%d.",
				      s.width, s.height, LARGEST, LARGEST);
	shape_size(&s);
	*ret = s;
	return 0;
}

int sink_loopback_shape_read(const struct v4l2_pix_format *pix, struct sink_loopback_shape *ret,
			     struct sana_error *error)
{
	struct sink_loopback_shape s = { .fourcc = pix->pixelformat };
	size_t i = 0;

	while (i < ARRAY_SIZE(formats) && formats[i].fourcc != pix->pixelformat)
		i++;
	if (i == ARRAY_SIZE(formats))
		return sana_error_set(error, -ENOTSUP, "sink.format",
				      "The virtual camera is held to the format %.4s, which cannot "
				      "be written; close the programs that read from it.",
				      (const char *)&pix->pixelformat);
	if (pix->width < 2 || pix->height < 2 || pix->width > LARGEST || pix->height > LARGEST ||
	    pix->width % 2 || pix->height % 2)
		return sana_error_set(error, -ENOTSUP, "sink.format",
				      "The virtual camera is held to %ux%u; even sizes up to %dx%d "
				      "can be written.",
				      pix->width, pix->height, LARGEST, LARGEST);
	s.format = formats[i].format;
	s.name = formats[i].name;
	s.width = (int)pix->width;
	s.height = (int)pix->height;
	shape_size(&s);
	if ((pix->bytesperline &&
	     pix->bytesperline != pix->width * (uint32_t)formats[i].luma_bytes) ||
	    (pix->sizeimage && pix->sizeimage < s.bytes))
		return sana_error_set(
			error, -EPROTO, "sink.format",
			"The virtual camera announces %ux%u in rows of %u and pictures "
			"of %u bytes, which cannot be.",
			pix->width, pix->height, pix->bytesperline, pix->sizeimage);
	*ret = s;
	return 0;
}
