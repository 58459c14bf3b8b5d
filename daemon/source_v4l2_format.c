/* Which of a camera's formats to take, and what its pictures then are. */
#include "daemon/source_v4l2_format.h"

#include "base/util.h"

#include <errno.h>
#include <libavutil/pixfmt.h>
#include <strings.h>

static const struct source_v4l2_layout layouts[] = {
	{ V4L2_PIX_FMT_NV12, "nv12", AV_PIX_FMT_NV12, false, false, 2, 2, 1, 1, false },
	{ V4L2_PIX_FMT_YUV420, "yu12", AV_PIX_FMT_YUV420P, false, false, 3, 2, 1, 1, false },
	{ V4L2_PIX_FMT_YVU420, "yv12", AV_PIX_FMT_YUV420P, false, false, 3, 2, 1, 1, true },
	{ V4L2_PIX_FMT_YUYV, "yuyv", AV_PIX_FMT_YUYV422, false, false, 1, 4, 1, 0, false },
	{ V4L2_PIX_FMT_UYVY, "uyvy", AV_PIX_FMT_UYVY422, false, false, 1, 4, 1, 0, false },
	{ V4L2_PIX_FMT_RGB24, "rgb24", AV_PIX_FMT_RGB24, false, true, 1, 6, 0, 0, false },
	{ V4L2_PIX_FMT_BGR24, "bgr24", AV_PIX_FMT_BGR24, false, true, 1, 6, 0, 0, false },
	{ V4L2_PIX_FMT_GREY, "grey", AV_PIX_FMT_GRAY8, false, false, 1, 2, 0, 0, false },
	{ V4L2_PIX_FMT_MJPEG, "mjpeg", AV_PIX_FMT_NONE, true, false, 0, 0, 0, 0, false },
	{ V4L2_PIX_FMT_JPEG, "jpeg", AV_PIX_FMT_NONE, true, false, 0, 0, 0, 0, false },
};

const struct source_v4l2_layout *source_v4l2_layout_at(int index)
{
	return index >= 0 && (size_t)index < ARRAY_SIZE(layouts) ? &layouts[index] : NULL;
}

const struct source_v4l2_layout *source_v4l2_layout_find(uint32_t fourcc)
{
	for (size_t i = 0; i < ARRAY_SIZE(layouts); i++)
		if (layouts[i].fourcc == fourcc)
			return &layouts[i];
	return NULL;
}

const struct source_v4l2_layout *source_v4l2_layout_named(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(layouts); i++)
		if (strcasecmp(layouts[i].name, name) == 0)
			return &layouts[i];
	return NULL;
}

struct source_v4l2_fourcc source_v4l2_fourcc_text(uint32_t fourcc)
{
	struct source_v4l2_fourcc f = { "" };

	for (int i = 0; i < 4; i++) {
		const char c = (char)(fourcc >> 8 * i & 0x7f);

		f.text[i] = c > ' ' && c < 0x7f ? c : '?';
	}
	return f;
}

/* ---------------------------------------------------------------------------------- choosing */

static double rate(int num, int den)
{
	return num > 0 && den > 0 ? (double)num / den : 0.0;
}

bool source_v4l2_rate_suffices(const struct source_v4l2_target *target, int fps_num, int fps_den)
{
	static const double as_good = 0.999; /* 30000/1001 is sold as 30 */

	return rate(fps_num, fps_den) >= as_good * rate(target->fps_num, target->fps_den);
}

bool source_v4l2_rate_better(const struct source_v4l2_target *target, int a_num, int a_den,
			     int b_num, int b_den)
{
	const bool a = source_v4l2_rate_suffices(target, a_num, a_den);
	const bool b = source_v4l2_rate_suffices(target, b_num, b_den);

	if (a != b)
		return a;
	return a ? rate(a_num, a_den) < rate(b_num, b_den) :
		   rate(a_num, a_den) > rate(b_num, b_den);
}

static int64_t area(const struct source_v4l2_offer *o)
{
	return (int64_t)o->width * o->height;
}

int source_v4l2_offer_compare(const struct source_v4l2_target *target,
			      const struct source_v4l2_offer *a, const struct source_v4l2_offer *b)
{
	/* A driver that does not tell its rates is believed to have the wanted one. */
	const bool a_fast = !a->fps_num ||
			    source_v4l2_rate_suffices(target, a->fps_num, a->fps_den);
	const bool b_fast = !b->fps_num ||
			    source_v4l2_rate_suffices(target, b->fps_num, b->fps_den);
	const bool a_covers = a->width >= target->width && a->height >= target->height;
	const bool b_covers = b->width >= target->width && b->height >= target->height;
	const double a_rate = rate(a->fps_num, a->fps_den), b_rate = rate(b->fps_num, b->fps_den);

	if (a_fast != b_fast)
		return a_fast ? -1 : 1;
	if (!a_fast && a_rate != b_rate)
		return a_rate > b_rate ? -1 : 1;
	if (a_covers != b_covers)
		return a_covers ? -1 : 1;
	if (area(a) != area(b))
		return (area(a) < area(b)) == a_covers ? -1 : 1;
	if (a->emulated != b->emulated)
		return a->emulated ? 1 : -1;
	if (a->layout != b->layout)
		return a->layout < b->layout ? -1 : 1; /* the table is in order of cost */
	return a->width != b->width ? (a->width > b->width ? -1 : 1) : 0;
}

int source_v4l2_offers_sort(const struct source_v4l2_target *target,
			    struct source_v4l2_offer *offers, int count)
{
	int kept = 0;

	for (int i = 0; i < count; i++)
		if (!target->layout || offers[i].layout == target->layout)
			offers[kept++] = offers[i];
	/* By insertion: a few dozen, and qsort has no place for the target. */
	for (int i = 1; i < kept; i++) {
		const struct source_v4l2_offer o = offers[i];
		int k = i;

		for (; k > 0 && source_v4l2_offer_compare(target, &o, &offers[k - 1]) < 0; k--)
			offers[k] = offers[k - 1];
		offers[k] = o;
	}
	return kept;
}

int source_v4l2_size_step(int wanted, uint32_t low, uint32_t high, uint32_t step)
{
	int64_t size;

	high = MIN_OF(high, (uint32_t)MEDIA_MAX_SIDE);
	low = MAX_OF(1u, MIN_OF(low, high));
	step = MAX_OF(1u, MIN_OF(step, (uint32_t)MEDIA_MAX_SIDE));
	if (wanted <= (int)low)
		return (int)low;
	size = low + ((int64_t)wanted - low + step - 1) / step * step;
	if (size > high)
		size = low + (int64_t)(high - low) / step * step;
	return (int)size;
}

/* ------------------------------------------------------------------------------ what it is */

/* The fields of a single-planar format count only with the magic number (V4L2 manual). */
static int matrix_of(const struct source_v4l2_layout *layout, const struct v4l2_pix_format *pix,
		     enum media_matrix *ret)
{
	const bool extended = pix->priv == V4L2_PIX_FMT_PRIV_MAGIC;
	uint32_t colorspace = pix->colorspace;
	uint32_t encoding = extended ? pix->ycbcr_enc : V4L2_YCBCR_ENC_DEFAULT;

	if (colorspace == V4L2_COLORSPACE_DEFAULT)
		colorspace = V4L2_MAP_COLORSPACE_DEFAULT(false, false);
	/* JFIF is BT.601, whatever the colour space, unless the driver says otherwise itself. */
	if (encoding == V4L2_YCBCR_ENC_DEFAULT && layout->jpeg)
		encoding = V4L2_YCBCR_ENC_601;
	if (encoding == V4L2_YCBCR_ENC_DEFAULT)
		encoding = V4L2_MAP_YCBCR_ENC_DEFAULT(colorspace);
	switch (encoding) {
	case V4L2_YCBCR_ENC_709:
	case V4L2_YCBCR_ENC_XV709:
		*ret = MEDIA_MATRIX_709;
		return 0;
	case V4L2_YCBCR_ENC_BT2020:
		*ret = MEDIA_MATRIX_2020;
		return 0;
	case V4L2_YCBCR_ENC_SMPTE240M:
		*ret = MEDIA_MATRIX_240M;
		return 0;
	case V4L2_YCBCR_ENC_BT2020_CONST_LUM:
		return layout->rgb ? 0 : -ENOTSUP;
	}
	*ret = MEDIA_MATRIX_601;
	return 0;
}

static bool range_of(const struct source_v4l2_layout *layout, const struct v4l2_pix_format *pix)
{
	const bool extended = pix->priv == V4L2_PIX_FMT_PRIV_MAGIC;
	const uint32_t quantization = extended ? pix->quantization : V4L2_QUANTIZATION_DEFAULT;

	if (quantization != V4L2_QUANTIZATION_DEFAULT)
		return quantization == V4L2_QUANTIZATION_FULL_RANGE;
	/* sRGB says nothing of the range of Y'CbCr: limited. Grey is what a sensor gives: all levels. */
	return layout->jpeg || layout->fourcc == V4L2_PIX_FMT_GREY || layout->rgb ||
	       pix->colorspace == V4L2_COLORSPACE_JPEG;
}

static int size_check(const struct source_v4l2_layout *layout, const struct v4l2_pix_format *pix,
		      struct sana_error *error)
{
	const uint32_t side = MEDIA_MAX_SIDE;

	if (pix->width < 1 || pix->height < 1 || pix->width > side || pix->height > side ||
	    (uint64_t)pix->width * pix->height > MEDIA_MAX_PIXELS)
		return sana_error_set(error, -EPROTO, "source.format",
				      "The driver announces pictures of %ux%u.", pix->width,
				      pix->height);
	if ((layout->even_x && pix->width % 2) || (layout->even_y && pix->height % 2))
		return sana_error_set(
			error, -EPROTO, "source.format",
			"The driver announces %s of %ux%u, which cannot be: chroma is "
			"for pairs of pixels.",
			source_v4l2_fourcc_text(pix->pixelformat).text, pix->width, pix->height);
	return 0;
}

/* Bytes of a whole picture; 0 for rows that are too short or absurdly long. */
static size_t raw_bytes(const struct source_v4l2_layout *layout, int height, int row_bytes,
			int least)
{
	const size_t rows = (size_t)height;

	if (row_bytes < least || row_bytes > 16 * MEDIA_MAX_SIDE ||
	    (layout->planes == 3 && row_bytes % 2))
		return 0;
	return (size_t)row_bytes * (layout->planes > 1 ? rows + rows / 2 : rows);
}

int source_v4l2_shape_read(const struct v4l2_pix_format *pix, struct source_v4l2_shape *ret,
			   struct sana_error *error)
{
	const struct source_v4l2_layout *layout = source_v4l2_layout_find(pix->pixelformat);
	struct source_v4l2_shape s = { .layout = layout };
	int least, r;

	if (!layout)
		return sana_error_set(error, -ENOTSUP, "source.format",
				      "The driver gives pictures in %s, which is not supported.",
				      source_v4l2_fourcc_text(pix->pixelformat).text);
	r = size_check(layout, pix, error);
	if (r < 0)
		return r;
	if (pix->field != V4L2_FIELD_NONE && pix->field != V4L2_FIELD_ANY &&
	    pix->field != V4L2_FIELD_INTERLACED && pix->field != V4L2_FIELD_INTERLACED_TB &&
	    pix->field != V4L2_FIELD_INTERLACED_BT)
		return sana_error_set(error, -ENOTSUP, "source.format",
				      "The driver gives single fields (%u), not whole pictures.",
				      pix->field);
	s.width = (int)pix->width;
	s.height = (int)pix->height;
	r = matrix_of(layout, pix, &s.matrix);
	if (r < 0)
		return sana_error_set(error, r, "source.format",
				      "BT.2020 with constant luminance is not supported.");
	s.full_range = range_of(layout, pix);
	if (!layout->jpeg) {
		least = s.width * layout->half_pixel_bytes / 2;
		/* Old drivers leave it 0 and mean no padding. */
		s.row_bytes = pix->bytesperline ? (int)MIN_OF(pix->bytesperline, INT32_MAX) : least;
		s.bytes = raw_bytes(layout, s.height, s.row_bytes, least);
		if (!s.bytes || (pix->sizeimage && pix->sizeimage < s.bytes))
			return sana_error_set(error, -EPROTO, "source.format",
					      "The driver announces %s of %ux%u in rows of %u and "
					      "buffers of %u bytes, which cannot be.",
					      source_v4l2_fourcc_text(pix->pixelformat).text,
					      pix->width, pix->height, pix->bytesperline,
					      pix->sizeimage);
	}
	*ret = s;
	return 0;
}

void source_v4l2_shape_picture(const struct source_v4l2_shape *shape, const uint8_t *data,
			       struct media_picture *ret)
{
	const struct source_v4l2_layout *layout = shape->layout;
	const size_t luma = (size_t)shape->row_bytes * (size_t)shape->height;

	*ret = (struct media_picture){
		.plane = { data },
		.row_bytes = { shape->row_bytes },
		.format = layout->format,
		.width = shape->width,
		.height = shape->height,
		.matrix = shape->matrix,
		.full_range = shape->full_range,
		.siting = MEDIA_SITING_CENTRE,
		.aspect_num = 1,
		.aspect_den = 1,
	};
	if (layout->planes == 2) {
		ret->plane[1] = data + luma;
		ret->row_bytes[1] = shape->row_bytes;
	} else if (layout->planes == 3) {
		ret->plane[layout->swap_chroma ? 2 : 1] = data + luma;
		ret->plane[layout->swap_chroma ? 1 : 2] = data + luma + luma / 4;
		ret->row_bytes[1] = ret->row_bytes[2] = shape->row_bytes / 2;
	}
}
