/* Pictures of any source as RGB of one size. */
#include "media/convert.h"

#include "base/util.h"
#include "media/colour.h"
#include "media/resample.h"
#include "media/scaler.h"
#include "media/unpack.h"

#include <errno.h>
#include <libavutil/mem.h>
#include <libavutil/pixdesc.h>

enum { ROW_ALIGN = 64 }; /* what libswscale's vector code likes */

struct media_convert {
	int width, height;
	bool antialias;
	/* What the rest is made for: the last picture's shape. */
	struct media_picture shape;
	bool is_live; /* what `unpack` is for */
	struct media_unpack unpack;
	bool is_stretched;	   /* RGB of limited range */
	struct SwsContext *scaler; /* NULL: the picture is RGB already, or live */
	uint8_t *ycbcr;		   /* stored size, three planes; NULL: libswscale gives RGB */
	size_t ycbcr_row_bytes;
	struct media_colour colour;
	uint8_t *rgb, *turned; /* stored size; as shown, NULL where nothing is turned */
	size_t rgb_row_bytes, turned_row_bytes;
	struct media_resampler resampler;
};

int media_convert_create(int width, int height, bool antialias, struct media_convert **ret,
			 struct sana_error *error)
{
	struct media_convert *c;

	if (width < 1 || height < 1 || width > MEDIA_MAX_SIDE || height > MEDIA_MAX_SIDE)
		return sana_error_set(error, -EINVAL, "picture.size",
				      "Pictures of %dx%d cannot be made.", width, height);
	c = calloc(1, sizeof(*c));
	if (!c)
		return sana_error_set(error, -ENOMEM, "memory", "Out of memory.");
	c->width = width;
	c->height = height;
	c->antialias = antialias;
	*ret = c;
	return 0;
}

static void shape_clear(struct media_convert *c)
{
	sws_freeContext(c->scaler);
	c->scaler = NULL;
	media_unpack_finish(&c->unpack);
	c->is_live = c->is_stretched = false;
	av_freep(&c->ycbcr);
	av_freep(&c->rgb);
	av_freep(&c->turned);
	media_resampler_finish(&c->resampler);
	c->shape = (struct media_picture){ 0 };
}

struct media_convert *media_convert_destroy(struct media_convert *convert)
{
	if (convert) {
		shape_clear(convert);
		free(convert);
	}
	return NULL;
}

static bool orientation_is_same(struct media_orientation a, struct media_orientation b)
{
	return a.transpose == b.transpose && a.flip_x == b.flip_x && a.flip_y == b.flip_y;
}

static bool shape_is_same(const struct media_picture *a, const struct media_picture *b)
{
	return a->format == b->format && a->width == b->width && a->height == b->height &&
	       a->matrix == b->matrix && a->full_range == b->full_range && a->siting == b->siting &&
	       orientation_is_same(a->orientation, b->orientation) &&
	       (int64_t)a->aspect_num * b->aspect_den == (int64_t)b->aspect_num * a->aspect_den;
}

static bool is_turned(const struct media_picture *p)
{
	return p->orientation.transpose || p->orientation.flip_x || p->orientation.flip_y;
}

static int rows_allocate(size_t bytes, int rows, uint8_t **ret, size_t *ret_row_bytes)
{
	const size_t row_bytes = align_up(bytes, ROW_ALIGN);

	*ret = av_malloc(row_bytes * (size_t)rows + ROW_ALIGN);
	*ret_row_bytes = row_bytes;
	return *ret ? 0 : -ENOMEM;
}

/* The colour of cameras: no libswscale. */
static int live_open(struct media_convert *c, const struct media_picture *p)
{
	int r = media_unpack_init(&c->unpack, p);

	if (r == 0)
		r = rows_allocate(3 * (size_t)p->width, p->height, &c->rgb, &c->rgb_row_bytes);
	media_colour_init(&c->colour, p->matrix, p->full_range);
	c->is_live = true;
	return r;
}

/* libswscale gets chroma to every pixel, or RGB out of what is no Y'CbCr; the matrix is ours. */
static int scaler_open(struct media_convert *c, const struct media_picture *p)
{
	const bool ycbcr = media_colour_is_ycbcr(p->format);
	const struct media_scaler_wish wish = {
		.width = p->width,
		.height = p->height,
		.from = p->format,
		.to = ycbcr ? AV_PIX_FMT_YUV444P : AV_PIX_FMT_RGB24,
		.matrix = p->matrix,
		.full_range = p->full_range,
		.siting = p->siting,
	};
	int r = 0;

	c->is_stretched = !ycbcr && !p->full_range;
	if (p->format == AV_PIX_FMT_RGB24 && p->row_bytes[0] > 0) {
		if (c->is_stretched)
			r = rows_allocate(3 * (size_t)p->width, p->height, &c->rgb,
					  &c->rgb_row_bytes);
		return r;
	}
	if (media_unpack_knows(p))
		return live_open(c, p);
	r = media_scaler_create(&wish, &c->scaler);
	if (r == 0)
		r = rows_allocate(3 * (size_t)p->width, p->height, &c->rgb, &c->rgb_row_bytes);
	if (r == 0 && ycbcr)
		r = rows_allocate((size_t)p->width, 3 * p->height, &c->ycbcr, &c->ycbcr_row_bytes);
	if (ycbcr)
		media_colour_init(&c->colour, p->matrix, p->full_range);
	return r;
}

/* c->rgb, from the picture itself or in place. */
static void rgb_stretch(struct media_convert *c, const struct media_picture *p)
{
	for (int y = 0; y < p->height; y++) {
		uint8_t *row = c->rgb + c->rgb_row_bytes * (size_t)y;

		media_colour_stretch(c->scaler ? row :
						 p->plane[0] + (size_t)p->row_bytes[0] * (size_t)y,
				     row, 3 * p->width);
	}
}

/* Fills c->rgb. */
static void rgb_make(struct media_convert *c, const struct media_picture *p)
{
	const size_t plane = c->ycbcr_row_bytes * (size_t)p->height;
	const int row_bytes = (int)c->ycbcr_row_bytes;

	if (c->is_live) {
		media_unpack_run(&c->unpack, &c->colour, p, 0, p->height, c->rgb, c->rgb_row_bytes);
		return;
	}
	if (!c->ycbcr) {
		if (c->scaler)
			(void)sws_scale(c->scaler, p->plane, p->row_bytes, 0, p->height,
					(uint8_t *[]){ c->rgb }, (int[]){ (int)c->rgb_row_bytes });
		if (c->is_stretched)
			rgb_stretch(c, p);
		return;
	}
	(void)sws_scale(c->scaler, p->plane, p->row_bytes, 0, p->height,
			(uint8_t *[]){ c->ycbcr, c->ycbcr + plane, c->ycbcr + 2 * plane },
			(int[]){ row_bytes, row_bytes, row_bytes });
	for (int y = 0; y < p->height; y++) {
		const uint8_t *row = c->ycbcr + c->ycbcr_row_bytes * (size_t)y;

		media_colour_run(&c->colour, row, row + plane, row + 2 * plane,
				 c->rgb + c->rgb_row_bytes * (size_t)y, p->width);
	}
}

static int shape_set(struct media_convert *c, const struct media_picture *p)
{
	const int width = p->orientation.transpose ? p->height : p->width;
	const int height = p->orientation.transpose ? p->width : p->height;
	double aspect = (double)p->aspect_num / p->aspect_den;
	struct media_fit fit;
	int r;

	shape_clear(c);
	r = scaler_open(c, p);
	if (r == 0 && is_turned(p))
		r = rows_allocate(3 * (size_t)width, height, &c->turned, &c->turned_row_bytes);
	if (r < 0)
		return r;
	if (p->orientation.transpose)
		aspect = 1.0 / aspect;
	fit = media_fit_cover(width, height, aspect, c->width, c->height);
	r = media_resampler_init(&c->resampler, width, height, &fit, c->width, c->height,
				 c->antialias);
	if (r == 0)
		c->shape = *p;
	return r;
}

static int shape_check(const struct media_picture *p, struct sana_error *error)
{
	if (p->width < 1 || p->height < 1 || p->width > MEDIA_MAX_SIDE ||
	    p->height > MEDIA_MAX_SIDE || (int64_t)p->width * p->height > MEDIA_MAX_PIXELS)
		return sana_error_set(error, -EINVAL, "picture.size",
				      "A picture of %dx%d is larger than %dx%d or %d megapixels.",
				      p->width, p->height, MEDIA_MAX_SIDE, MEDIA_MAX_SIDE,
				      MEDIA_MAX_PIXELS >> 20);
	return 0;
}

static int shape_fail(const struct media_picture *p, int r, struct sana_error *error)
{
	const char *name = av_get_pix_fmt_name((enum AVPixelFormat)p->format);

	if (r == -ENOMEM)
		return sana_error_set(error, r, "memory", "A picture of %dx%d: out of memory.",
				      p->width, p->height);
	return sana_error_set(error, r, "picture.format", "Pictures in %s cannot be converted.",
			      name ? name : "an unknown pixel format");
}

/* Writes the picture as it is shown; `width` and `height` are the stored ones. */
static void turn(struct media_orientation o, int width, int height, const uint8_t *from,
		 size_t from_row_bytes, uint8_t *to, size_t to_row_bytes)
{
	const int shown_width = o.transpose ? height : width;
	const int shown_height = o.transpose ? width : height;

	for (int y = 0; y < shown_height; y++) {
		uint8_t *out = to + to_row_bytes * (size_t)y;
		const int v = o.flip_y ? shown_height - 1 - y : y;

		for (int x = 0; x < shown_width; x++, out += 3) {
			const int u = o.flip_x ? shown_width - 1 - x : x;
			const size_t row = (size_t)(o.transpose ? u : v);
			const size_t column = (size_t)(o.transpose ? v : u);

			memcpy(out, from + from_row_bytes * row + 3 * column, 3);
		}
	}
}

int media_convert_run(struct media_convert *convert, const struct media_picture *picture,
		      uint8_t *rgb, size_t row_bytes, struct sana_error *error)
{
	struct media_convert *c = convert;
	const uint8_t *from = picture->plane[0];
	size_t from_row_bytes;
	int r;

	r = shape_check(picture, error);
	if (r < 0)
		return r;
	if (!c->shape.width || !shape_is_same(&c->shape, picture) ||
	    (!c->scaler && !c->is_live && picture->row_bytes[0] < 0)) {
		r = shape_set(c, picture);
		if (r < 0) {
			shape_clear(c);
			return shape_fail(picture, r, error);
		}
	}
	/* A camera of the target's width is written where it belongs, but for what is cropped. */
	if (c->is_live && !c->turned && c->resampler.copy && picture->width == c->width) {
		media_unpack_run(&c->unpack, &c->colour, picture, c->resampler.y0, c->height, rgb,
				 row_bytes);
		return 0;
	}
	from_row_bytes = (size_t)picture->row_bytes[0];
	if (c->scaler || c->is_live || c->is_stretched) {
		rgb_make(c, picture);
		from = c->rgb;
		from_row_bytes = c->rgb_row_bytes;
	}
	if (c->turned) {
		turn(picture->orientation, picture->width, picture->height, from, from_row_bytes,
		     c->turned, c->turned_row_bytes);
		from = c->turned;
		from_row_bytes = c->turned_row_bytes;
	}
	media_resampler_run(&c->resampler, from, from_row_bytes, rgb, row_bytes);
	return 0;
}
