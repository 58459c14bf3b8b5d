/* RGB pictures in, packets of a video codec out. */
#include "media/encoder.h"

#include "base/util.h"
#include "media/av.h"
#include "media/scaler.h"

#include <errno.h>
#include <libavutil/opt.h>
#include <libavutil/pixdesc.h>

enum { MPEG4_MAX_DENOMINATOR = 65535, MICROSECONDS = 1000000 };

/*
 * No B-frames: packets leave in the order of the pictures, so that any container keeps their time
 * stamps without an edit list, at some percent of size.
 */
static const struct media_codec codecs[] = {
	{ "h264",
	  { "libx264", "libopenh264" },
	  AV_PIX_FMT_YUV420P,
	  "crf=18:preset=medium:bf=0",
	  "crf=18:preset=veryfast:bf=0:rc-lookahead=12",
	  0 },
	{ "mpeg4", { "mpeg4" }, AV_PIX_FMT_YUV420P, "", "", 3 },
	{ "vp9",
	  { "libvpx-vp9" },
	  AV_PIX_FMT_YUV420P,
	  "crf=24:b=0:deadline=good:cpu-used=5:row-mt=1",
	  "crf=24:b=0:deadline=realtime:cpu-used=7:row-mt=1:lag-in-frames=0",
	  0 },
	{ "ffv1", { "ffv1" }, AV_PIX_FMT_0RGB32, "", "", 0 },
	{ "y4m", { "wrapped_avframe" }, AV_PIX_FMT_YUV420P, "", "", 0 },
	{ "png", { "png" }, AV_PIX_FMT_RGB24, "", "", 0 },
	{ "jpeg", { "mjpeg" }, AV_PIX_FMT_YUVJ444P, "", "", 2 },
};

const struct media_codec *media_codec_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(codecs); i++)
		if (strcmp(codecs[i].name, name) == 0)
			return &codecs[i];
	return NULL;
}

const AVCodec *media_codec_encoder(const struct media_codec *codec)
{
	const AVCodec *encoder;

	for (size_t i = 0; i < ARRAY_SIZE(codec->encoders) && codec->encoders[i]; i++) {
		encoder = avcodec_find_encoder_by_name(codec->encoders[i]);
		if (encoder)
			return encoder;
	}
	return NULL;
}

/* What the pictures are, for players: the matrix that fits the size is the one they guess, too. */
static void colours_set(AVCodecContext *c)
{
	const AVPixFmtDescriptor *description = av_pix_fmt_desc_get(c->pix_fmt);
	const bool hd = media_matrix_of_size(c->width, c->height) == MEDIA_MATRIX_709;

	c->color_primaries = hd ? AVCOL_PRI_BT709 : AVCOL_PRI_SMPTE170M;
	c->color_trc = hd ? AVCOL_TRC_BT709 : AVCOL_TRC_SMPTE170M;
	if (description->flags & AV_PIX_FMT_FLAG_RGB) {
		/* A picture file that says anything else is shown in other colours than the stream. */
		c->color_primaries = AVCOL_PRI_BT709;
		c->color_trc = AVCOL_TRC_IEC61966_2_1;
		c->colorspace = AVCOL_SPC_RGB;
		c->color_range = AVCOL_RANGE_JPEG;
	} else if (c->codec_id == AV_CODEC_ID_MJPEG) {
		c->colorspace = AVCOL_SPC_BT470BG;
		c->color_range = AVCOL_RANGE_JPEG;
	} else {
		c->colorspace = hd ? AVCOL_SPC_BT709 : AVCOL_SPC_SMPTE170M;
		c->color_range = AVCOL_RANGE_MPEG;
		c->chroma_sample_location = AVCHROMA_LOC_LEFT;
	}
}

static AVRational time_base_of(const struct media_encoder_wish *wish)
{
	AVRational base = { wish->time_base_num, wish->time_base_den };

	if (base.num <= 0 || base.den <= 0 || base.den / base.num > MICROSECONDS)
		base = (AVRational){ 1, MICROSECONDS };
	if (strcmp(wish->codec->name, "mpeg4") == 0 && base.den > MPEG4_MAX_DENOMINATOR)
		base = (AVRational){ 1, MPEG4_MAX_DENOMINATOR };
	return base;
}

static int codec_open(struct media_encoder *e, const struct media_encoder_wish *wish,
		      const AVCodec *encoder)
{
	AVDictionary *options = NULL;
	AVCodecContext *c;
	int r;

	c = e->codec = avcodec_alloc_context3(encoder);
	if (!c)
		return AVERROR(ENOMEM);
	c->width = wish->width;
	c->height = wish->height;
	c->pix_fmt = wish->codec->format;
	c->sample_aspect_ratio = (AVRational){ 1, 1 };
	c->framerate = (AVRational){ wish->fps_num, wish->fps_den };
	c->time_base = time_base_of(wish);
	c->thread_count = wish->threads;
	colours_set(c);
	if (wish->codec->quality) {
		c->flags |= AV_CODEC_FLAG_QSCALE;
		c->global_quality = FF_QP2LAMBDA * wish->codec->quality;
	}
	if (wish->global_header)
		c->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
	r = av_dict_parse_string(&options,
				 wish->live ? wish->codec->live_options : wish->codec->options, "=",
				 ":", 0);
	if (r >= 0)
		r = avcodec_open2(c, encoder, &options);
	av_dict_free(&options);
	return r;
}

static int buffers_open(struct media_encoder *e)
{
	const AVCodecContext *c = e->codec;
	const struct media_scaler_wish wish = {
		.width = c->width,
		.height = c->height,
		.from = AV_PIX_FMT_RGB24,
		.to = c->pix_fmt,
		.matrix = c->colorspace == AVCOL_SPC_BT709 ? MEDIA_MATRIX_709 : MEDIA_MATRIX_601,
		.full_range = c->color_range == AVCOL_RANGE_JPEG,
		.siting = c->codec_id == AV_CODEC_ID_MJPEG ? MEDIA_SITING_CENTRE :
							     MEDIA_SITING_LEFT,
	};
	int r;

	e->frame = av_frame_alloc();
	e->packet = av_packet_alloc();
	if (!e->frame || !e->packet)
		return AVERROR(ENOMEM);
	e->frame->format = c->pix_fmt;
	e->frame->width = c->width;
	e->frame->height = c->height;
	e->frame->colorspace = c->colorspace;
	e->frame->color_range = c->color_range;
	e->frame->color_primaries = c->color_primaries;
	e->frame->color_trc = c->color_trc;
	e->frame->chroma_location = c->chroma_sample_location;
	if (c->codec->id == AV_CODEC_ID_MJPEG)
		e->frame->quality = c->global_quality;
	r = av_frame_get_buffer(e->frame, 0);
	return r < 0 ? r : media_scaler_create(&wish, &e->scaler);
}

static int size_check(const struct media_encoder_wish *wish, const char *path,
		      struct sana_error *error)
{
	const AVPixFmtDescriptor *d = av_pix_fmt_desc_get(wish->codec->format);

	if (wish->width < 1 || wish->height < 1 || wish->width > MEDIA_MAX_SIDE ||
	    wish->height > MEDIA_MAX_SIDE)
		return sana_error_set(error, -EINVAL, "sink.size",
				      "%s: pictures of %dx%d cannot be written.", path, wish->width,
				      wish->height);
	if (wish->width % (1 << d->log2_chroma_w) || wish->height % (1 << d->log2_chroma_h))
		return sana_error_set(error, -EINVAL, "sink.size",
				      "%s: %s wants even sizes, not %dx%d.", path,
				      wish->codec->name, wish->width, wish->height);
	return 0;
}

int media_encoder_init(struct media_encoder *encoder, const struct media_encoder_wish *wish,
		       const char *path, struct sana_error *error)
{
	const AVCodec *found = media_codec_encoder(wish->codec);
	int r;

	*encoder = (struct media_encoder){ .last_pts = INT64_MIN };
	r = size_check(wish, path, error);
	if (r < 0)
		return r;
	if (!found)
		return sana_error_set(error, -ENOTSUP, "sink.format",
				      "%s: this libavcodec has no encoder for %s.", path,
				      wish->codec->name);
	r = codec_open(encoder, wish, found);
	if (r >= 0)
		r = buffers_open(encoder);
	if (r < 0) {
		media_encoder_finish(encoder);
		return media_av_fail(error, r, "sink.format", path,
				     "the encoder refuses these pictures");
	}
	return 0;
}

void media_encoder_finish(struct media_encoder *encoder)
{
	avcodec_free_context(&encoder->codec);
	sws_freeContext(encoder->scaler);
	encoder->scaler = NULL;
	av_frame_free(&encoder->frame);
	av_packet_free(&encoder->packet);
}

int media_encoder_send(struct media_encoder *encoder, const uint8_t *rgb, size_t row_bytes,
		       int64_t timestamp_ns, int64_t duration_ns)
{
	static const AVRational nanosecond = { 1, 1000000000 };
	struct media_encoder *e = encoder;
	AVFrame *frame = e->frame;
	unsigned int at;
	int r;

	if (!rgb)
		return avcodec_send_frame(e->codec, NULL);
	r = av_frame_make_writable(frame); /* the encoder may still look at the last one */
	if (r < 0)
		return r;
	(void)sws_scale(e->scaler, (const uint8_t *[]){ rgb }, (int[]){ (int)row_bytes }, 0,
			frame->height, frame->data, frame->linesize);
	frame->pts = av_rescale_q(timestamp_ns, nanosecond, e->codec->time_base);
	if (frame->pts <= e->last_pts)
		frame->pts = e->last_pts + 1;
	e->last_pts = frame->pts;
	at = e->next_pending++ % MEDIA_ENCODER_DURATIONS;
	e->pending[at].pts = frame->pts;
	e->pending[at].duration =
		duration_ns > 0 ?
			av_rescale_q(duration_ns, nanosecond, e->codec->time_base) :
			av_rescale_q(1, av_inv_q(e->codec->framerate), e->codec->time_base);
	return avcodec_send_frame(e->codec, frame);
}

int media_encoder_take(struct media_encoder *encoder)
{
	struct media_encoder *e = encoder;
	const unsigned int count = MIN_OF(e->next_pending, (unsigned int)MEDIA_ENCODER_DURATIONS);
	int r = avcodec_receive_packet(e->codec, e->packet);

	if (r == AVERROR(EAGAIN) || r == AVERROR_EOF)
		return 0;
	if (r < 0)
		return r;
	for (unsigned int i = 0; i < count; i++)
		if (e->pending[i].pts == e->packet->pts)
			e->packet->duration = e->pending[i].duration;
	return 1;
}
