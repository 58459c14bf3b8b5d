/*
 * Which of a camera's formats to take, and what its pictures then are. No device is touched here.
 *
 * The rules, the first that decides:
 *	1. Formats that are known here, or the one that was asked for by name.
 *	2. At least the wanted rate; where nothing has it, the highest rate.
 *	3. At least the wanted size: the smallest of those; where nothing is that large, the largest.
 *	4. What costs least to turn into RGB and to bring over a bus: NV12, YU12, YV12, YUYV, UYVY,
 *	   RGB, grey, JPEG; formats that libraries or drivers emulate come after all native ones.
 * Of the rates at one size the slowest is taken that is not below the wanted one.
 */
#pragma once

#include "base/error.h"
#include "daemon/source_v4l2.h"

#include <linux/videodev2.h>

struct source_v4l2_layout {
	uint32_t fourcc;
	const char *name;
	int format; /* enum AVPixelFormat; of JPEG: decided by each picture */
	bool jpeg, rgb;
	int planes;
	/* Of a row, for width w: bytes·w/2 in the first plane. */
	int half_pixel_bytes;
	int even_x, even_y; /* 1: sub-sampled along this axis, sizes must be even */
	bool swap_chroma;   /* Cr before Cb */
};

/* In order of cost. NULL: not known. */
const struct source_v4l2_layout *source_v4l2_layout_find(uint32_t fourcc);
const struct source_v4l2_layout *source_v4l2_layout_named(const char *name);
const struct source_v4l2_layout *source_v4l2_layout_at(int index); /* NULL behind the last one */

/* "YUYV", "?" for what cannot be printed. */
struct source_v4l2_fourcc {
	char text[5];
};
struct source_v4l2_fourcc source_v4l2_fourcc_text(uint32_t fourcc);

enum { SOURCE_V4L2_MAX_OFFERS = 512 };

struct source_v4l2_offer {
	const struct source_v4l2_layout *layout;
	bool emulated;
	int width, height;
	/* The rate that would be taken; 0/1: the driver does not say. */
	int fps_num, fps_den;
};

struct source_v4l2_target {
	int width, height;
	int fps_num, fps_den;
	const struct source_v4l2_layout *layout; /* NULL: any */
};

/* Negative: `a` is the better one. A strict order on offers that differ. */
int source_v4l2_offer_compare(const struct source_v4l2_target *target,
			      const struct source_v4l2_offer *a, const struct source_v4l2_offer *b);

/* Best first; offers of other formats than the wanted one are dropped. Returns how many stay. */
int source_v4l2_offers_sort(const struct source_v4l2_target *target,
			    struct source_v4l2_offer *offers, int count);

/* Whether rate a/b is what `target` wants (a thousandth less counts as equal: 29.97 for 30). */
bool source_v4l2_rate_suffices(const struct source_v4l2_target *target, int fps_num, int fps_den);

/* True when rate a is the better choice for the target than rate b: the slowest that suffices. */
bool source_v4l2_rate_better(const struct source_v4l2_target *target, int a_num, int a_den,
			     int b_num, int b_den);

/* A size of a range with steps, nearest at or above `wanted`, inside [low, high]. */
int source_v4l2_size_step(int wanted, uint32_t low, uint32_t high, uint32_t step);

/* What the pictures are, once a format is set. */
struct source_v4l2_shape {
	const struct source_v4l2_layout *layout;
	int width, height;
	int row_bytes; /* of the first plane */
	size_t bytes;  /* of a whole raw picture; JPEG: 0 */
	enum media_matrix matrix;
	bool full_range;
};

/*
 * From what S_FMT or G_FMT returned, every field suspected. "source.format": unknown FourCC, a size
 * that is not possible, rows shorter than pixels, a buffer shorter than the picture, fields that
 * alternate, BT.2020 with constant luminance.
 */
int source_v4l2_shape_read(const struct v4l2_pix_format *pix, struct source_v4l2_shape *ret,
			   struct sana_error *error);

/* The picture in a buffer of shape->bytes bytes. */
void source_v4l2_shape_picture(const struct source_v4l2_shape *shape, const uint8_t *data,
			       struct media_picture *ret);
