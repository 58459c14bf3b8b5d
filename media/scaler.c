/* Pixel formats and colours through libswscale. */
#include "media/scaler.h"

#include <errno.h>
#include <libavutil/opt.h>
#include <libavutil/pixdesc.h>

enum {
	/* Chroma positions are given in 1/256 of a luma pixel; 128 lies between two. */
	POSITION_ON = 0,
	POSITION_BETWEEN = 128,
	UNITY = 1 << 16, /* contrast and saturation of libswscale */
	HD_WIDTH = 1280,
	HD_HEIGHT = 720,
};

enum media_matrix media_matrix_of_size(int width, int height)
{
	return width >= HD_WIDTH || height >= HD_HEIGHT ? MEDIA_MATRIX_709 : MEDIA_MATRIX_601;
}

static const int *coefficients(enum media_matrix matrix)
{
	static const int names[MEDIA_MATRIX_COUNT] = {
		[MEDIA_MATRIX_601] = SWS_CS_ITU601,
		[MEDIA_MATRIX_709] = SWS_CS_ITU709,
		[MEDIA_MATRIX_2020] = SWS_CS_BT2020,
		[MEDIA_MATRIX_240M] = SWS_CS_SMPTE240M,
	};

	return sws_getCoefficients(names[matrix]);
}

/* Positions count only along axes that are sub-sampled. */
static void positions_set(struct SwsContext *context, const char *x, const char *y, int format,
			  enum media_siting siting)
{
	const AVPixFmtDescriptor *description = av_pix_fmt_desc_get((enum AVPixelFormat)format);
	const bool is_rgb = description->flags & AV_PIX_FMT_FLAG_RGB;

	if (is_rgb)
		return;
	if (description->log2_chroma_w)
		(void)av_opt_set_int(context, x,
				     siting == MEDIA_SITING_CENTRE ? POSITION_BETWEEN : POSITION_ON,
				     0);
	if (description->log2_chroma_h)
		(void)av_opt_set_int(
			context, y,
			siting == MEDIA_SITING_TOP_LEFT ? POSITION_ON : POSITION_BETWEEN, 0);
}

/* RGB always has all levels. */
static bool is_full(int format, bool full_range)
{
	const AVPixFmtDescriptor *d = av_pix_fmt_desc_get((enum AVPixelFormat)format);

	return (d->flags & AV_PIX_FMT_FLAG_RGB) || full_range;
}

int media_scaler_create(const struct media_scaler_wish *wish, struct SwsContext **ret)
{
	const int *matrix = coefficients(wish->matrix);
	struct SwsContext *context;
	bool from_full, to_full;

	if (!av_pix_fmt_desc_get((enum AVPixelFormat)wish->from) ||
	    !sws_isSupportedInput((enum AVPixelFormat)wish->from) ||
	    !sws_isSupportedOutput((enum AVPixelFormat)wish->to))
		return -ENOTSUP;
	context = sws_alloc_context();
	if (!context)
		return -ENOMEM;
	from_full = is_full(wish->from, wish->full_range);
	to_full = is_full(wish->to, wish->full_range);
	(void)av_opt_set_int(context, "srcw", wish->width, 0);
	(void)av_opt_set_int(context, "srch", wish->height, 0);
	(void)av_opt_set_int(context, "dstw", wish->width, 0);
	(void)av_opt_set_int(context, "dsth", wish->height, 0);
	(void)av_opt_set_int(context, "src_format", wish->from, 0);
	(void)av_opt_set_int(context, "dst_format", wish->to, 0);
	(void)av_opt_set_int(context, "src_range", from_full, 0);
	(void)av_opt_set_int(context, "dst_range", to_full, 0);
	/* The flags that make libswscale interpolate chroma and round: its default does neither. */
	(void)av_opt_set_int(context, "sws_flags",
			     SWS_BILINEAR | SWS_ACCURATE_RND | SWS_FULL_CHR_H_INT |
				     SWS_FULL_CHR_H_INP | SWS_BITEXACT,
			     0);
	positions_set(context, "src_h_chr_pos", "src_v_chr_pos", wish->from, wish->siting);
	positions_set(context, "dst_h_chr_pos", "dst_v_chr_pos", wish->to, wish->siting);
	if (sws_init_context(context, NULL, NULL) < 0) {
		sws_freeContext(context);
		return -ENOTSUP;
	}
	/* Where nothing is to be converted libswscale refuses this, rightly. */
	(void)sws_setColorspaceDetails(context, matrix, from_full, matrix, to_full, 0, UNITY,
				       UNITY);
	*ret = context;
	return 0;
}
