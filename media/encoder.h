/* RGB pictures in, packets of a video codec out. Inside of sinks. */
#pragma once

#include "base/error.h"
#include "media/picture.h"

#include <libavcodec/avcodec.h>

struct media_codec {
	const char *name;	 /* as users write it */
	const char *encoders[3]; /* libav's, the best first */
	enum AVPixelFormat format;
	const char *options; /* of the encoder, "key=value:…" */
	const char *live_options;
	int quality; /* of encoders that take a quantiser; 0: none */
};

/* NULL for a name that is none. */
const struct media_codec *media_codec_find(const char *name);

/* The best encoder of it in this libavcodec; NULL: none. */
const AVCodec *media_codec_encoder(const struct media_codec *codec);

enum { MEDIA_ENCODER_DURATIONS = 512 }; /* more than any encoder looks ahead */

struct media_encoder {
	AVCodecContext *codec;
	struct SwsContext *scaler;
	AVFrame *frame;
	AVPacket *packet;
	int64_t last_pts;
	/* Durations of the pictures inside the encoder, by time stamp. */
	struct {
		int64_t pts, duration;
	} pending[MEDIA_ENCODER_DURATIONS];
	unsigned int next_pending;
};

struct media_encoder_wish {
	bool live; /* pictures come as time passes: little is held back, less is searched */
	const struct media_codec *codec;
	int width, height;
	int fps_num, fps_den;
	int time_base_num, time_base_den;
	int threads;
	bool global_header; /* the container keeps the codec's headers itself */
};

/* "sink.format", "sink.size", "memory". `path` is named in errors. */
int media_encoder_init(struct media_encoder *encoder, const struct media_encoder_wish *wish,
		       const char *path, struct sana_error *error);

/* Accepts a zeroed struct and may be called twice. */
void media_encoder_finish(struct media_encoder *encoder);

/* One picture in; NULL: no more. Then take packets until there are none. */
int media_encoder_send(struct media_encoder *encoder, const uint8_t *rgb, size_t row_bytes,
		       int64_t timestamp_ns, int64_t duration_ns);

/* 1: encoder->packet is filled, in units of codec->time_base; 0: none now. */
int media_encoder_take(struct media_encoder *encoder);
