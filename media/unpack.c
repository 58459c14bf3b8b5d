/* Live pictures to rows of RGB. */
#include "media/unpack.h"

#include "base/util.h"

#include <errno.h>
#include <libavutil/pixfmt.h>
#include <libyuv.h>

enum {
	ALIGN = 64,
	PAD = 32, /* samples in front of a line, so that sample −1 is there and lines stay aligned */
	NEUTRAL = 128,
};

static bool is_packed(int format)
{
	return format == AV_PIX_FMT_YUYV422 || format == AV_PIX_FMT_UYVY422;
}

bool media_unpack_knows(const struct media_picture *picture)
{
	switch (picture->format) {
	case AV_PIX_FMT_GRAY8:
	case AV_PIX_FMT_YUV444P:
		return true;
	case AV_PIX_FMT_YUYV422:
	case AV_PIX_FMT_UYVY422:
	case AV_PIX_FMT_YUV422P:
	case AV_PIX_FMT_YUV420P:
	case AV_PIX_FMT_NV12:
		return picture->siting == MEDIA_SITING_CENTRE;
	}
	return false;
}

int media_unpack_init(struct media_unpack *unpack, const struct media_picture *picture)
{
	const size_t line = align_up((size_t)picture->width + 2 * PAD, ALIGN);
	uint8_t *at;

	*unpack = (struct media_unpack){
		.format = picture->format,
		.width = picture->width,
		.height = picture->height,
	};
	/* One line each of luma, four halves, two full chroma, three colours; two sums of 16 bits. */
	at = aligned_alloc(ALIGN, 14 * line);
	if (!at)
		return -ENOMEM;
	memset(at, NEUTRAL, 14 * line);
	unpack->memory = at;
	unpack->luma = at;
	for (int i = 0; i < 4; i++)
		unpack->half[i] = at + (size_t)(1 + i) * line;
	for (int i = 0; i < 2; i++)
		unpack->chroma[i] = at + (size_t)(5 + i) * line;
	unpack->red = at + 7 * line;
	unpack->green = at + 8 * line;
	unpack->blue = at + 9 * line;
	for (int i = 0; i < 2; i++)
		unpack->sum[i] = (uint16_t *)(void *)(at + (size_t)(10 + 2 * i) * line) + PAD;
	return 0;
}

void media_unpack_finish(struct media_unpack *unpack)
{
	free(unpack->memory);
	*unpack = (struct media_unpack){ 0 };
}

static const uint8_t *row_of(const struct media_picture *p, int plane, int y)
{
	return p->plane[plane] + (ptrdiff_t)p->row_bytes[plane] * y;
}

/* 3·near + far, so that a whole sample weighs 4; edges repeated. */
static void rows_blend(const uint8_t *restrict near, const uint8_t *restrict far,
		       uint16_t *restrict sum, int count)
{
	for (int i = 0; i < count; i++)
		sum[i] = (uint16_t)(3 * near[i] + far[i]);
	sum[-1] = sum[0];
	sum[count] = sum[count - 1];
}

/* To every column, from sums that weigh 4: sixteenths, rounded. An odd width leaves one unused. */
static void columns_blend(const uint16_t *restrict sum, uint8_t *restrict to, int count)
{
	for (int i = 0; i < count; i++) {
		to[2 * i] = (uint8_t)((sum[i - 1] + 3 * sum[i] + 8) >> 4);
		to[2 * i + 1] = (uint8_t)((3 * sum[i] + sum[i + 1] + 8) >> 4);
	}
}

/* Points `half` at the four rows of chroma that make row y; the far ones may be the near ones. */
static void chroma_rows(struct media_unpack *s, const struct media_picture *p, int y,
			const uint8_t **half)
{
	const int count = (s->width + 1) / 2, rows = (s->height + 1) / 2;
	const int near = y / 2;
	const int far = MAX_OF(0, MIN_OF(y % 2 ? near + 1 : near - 1, rows - 1));

	for (int i = 0; i < 4; i++)
		half[i] = s->half[i];
	switch (s->format) {
	case AV_PIX_FMT_YUYV422:
		(void)YUY2ToI422(row_of(p, 0, y), 0, s->luma, 0, s->half[0], 0, s->half[1], 0,
				 s->width, 1);
		break;
	case AV_PIX_FMT_UYVY422:
		(void)UYVYToI422(row_of(p, 0, y), 0, s->luma, 0, s->half[0], 0, s->half[1], 0,
				 s->width, 1);
		break;
	case AV_PIX_FMT_NV12:
		SplitUVPlane(row_of(p, 1, near), 0, s->half[0], 0, s->half[1], 0, count, 1);
		SplitUVPlane(row_of(p, 1, far), 0, s->half[2], 0, s->half[3], 0, count, 1);
		return;
	case AV_PIX_FMT_YUV420P:
		for (int i = 0; i < 2; i++) {
			half[i] = row_of(p, 1 + i, near);
			half[2 + i] = row_of(p, 1 + i, far);
		}
		return;
	default: /* YUV422P: an AVPixelFormat, not an enum of ours */
		for (int i = 0; i < 2; i++)
			half[i] = row_of(p, 1 + i, y);
	}
	half[2] = half[0];
	half[3] = half[1];
}

static void row_unpack(struct media_unpack *s, const struct media_picture *p, int y,
		       const uint8_t **ret_luma, const uint8_t **ret_u, const uint8_t **ret_v)
{
	const int count = (s->width + 1) / 2;
	const uint8_t *half[4];

	*ret_luma = is_packed(s->format) ? s->luma : row_of(p, 0, y);
	*ret_u = s->chroma[0];
	*ret_v = s->chroma[1];
	if (s->format == AV_PIX_FMT_GRAY8)
		return;
	if (s->format == AV_PIX_FMT_YUV444P) {
		*ret_u = row_of(p, 1, y);
		*ret_v = row_of(p, 2, y);
		return;
	}
	chroma_rows(s, p, y, half);
	for (int i = 0; i < 2; i++) {
		rows_blend(half[i], half[2 + i], s->sum[i], count);
		columns_blend(s->sum[i], s->chroma[i], count);
	}
}

void media_unpack_run(struct media_unpack *unpack, const struct media_colour *colour,
		      const struct media_picture *picture, int first, int rows, uint8_t *rgb,
		      size_t row_bytes)
{
	struct media_unpack *s = unpack;
	const uint8_t *y, *u, *v;

	for (int i = 0; i < rows; i++) {
		row_unpack(s, picture, first + i, &y, &u, &v);
		media_colour_run_fast(colour, y, u, v, s->red, s->green, s->blue, s->width);
		MergeRGBPlane(s->red, 0, s->green, 0, s->blue, 0, rgb + row_bytes * (size_t)i, 0,
			      s->width, 1);
	}
}
