/* Small clips for tests, made with libav directly. */
#include "tests/common/media_clip.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <math.h>
#include <string.h>

enum { RATE = 48000, MS = 1000, CLIP_FPS = 25 };

struct track {
	AVCodecContext *codec;
	AVStream *stream;
	AVFrame *frame;
};

struct clip {
	const struct clip_wish *wish;
	AVFormatContext *format;
	struct track video, audio;
	AVPacket *packet;
};

int clip_grey(int frame)
{
	return 60 + 4 * (frame % 30);
}

static void check(int r, const char *what)
{
	if (r < 0)
		fail_msg("%s: %s", what, av_err2str(r));
}

static void track_open(struct clip *clip, struct track *track, const char *encoder)
{
	const AVCodec *codec = avcodec_find_encoder_by_name(encoder);
	AVCodecContext *c;

	assert_non_null(codec);
	c = track->codec = avcodec_alloc_context3(codec);
	assert_non_null(c);
	c->time_base = (AVRational){ 1, codec->type == AVMEDIA_TYPE_AUDIO ? RATE : MS };
	c->thread_count = 1;
	if (codec->type == AVMEDIA_TYPE_AUDIO) {
		c->sample_rate = RATE;
		c->sample_fmt = codec->sample_fmts[0];
		av_channel_layout_default(&c->ch_layout, 1);
	} else {
		c->width = clip->wish->width;
		c->height = clip->wish->height;
		c->pix_fmt = AV_PIX_FMT_YUV420P;
		c->framerate = (AVRational){ CLIP_FPS, 1 };
		c->gop_size = 1; /* each picture alone */
		if (clip->wish->aspect_num)
			c->sample_aspect_ratio =
				(AVRational){ clip->wish->aspect_num, clip->wish->aspect_den };
	}
	if (clip->format->oformat->flags & AVFMT_GLOBALHEADER)
		c->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
	check(avcodec_open2(c, codec, NULL), encoder);
	track->stream = avformat_new_stream(clip->format, NULL);
	assert_non_null(track->stream);
	check(avcodec_parameters_from_context(track->stream->codecpar, c), "parameters");
	track->stream->time_base = c->time_base;
	track->stream->avg_frame_rate = c->framerate;
	track->stream->sample_aspect_ratio = c->sample_aspect_ratio;
	track->frame = av_frame_alloc();
	assert_non_null(track->frame);
}

static void track_send(struct clip *clip, struct track *track, AVFrame *frame)
{
	check(avcodec_send_frame(track->codec, frame), "send");
	while (avcodec_receive_packet(track->codec, clip->packet) >= 0) {
		av_packet_rescale_ts(clip->packet, track->codec->time_base,
				     track->stream->time_base);
		clip->packet->stream_index = track->stream->index;
		check(av_interleaved_write_frame(clip->format, clip->packet), "write");
	}
}

static void track_close(struct track *track)
{
	avcodec_free_context(&track->codec);
	av_frame_free(&track->frame);
}

static void picture_draw(AVFrame *frame, int number)
{
	for (int y = 0; y < frame->height; y++)
		for (int x = 0; x < frame->width; x++)
			frame->data[0][y * frame->linesize[0] + x] =
				x < frame->width / 4 && y < frame->height / 4 ?
					235 :
					(uint8_t)clip_grey(number);
	for (int p = 1; p < 3; p++)
		for (int y = 0; y < frame->height / 2; y++)
			memset(frame->data[p] + y * frame->linesize[p], 128,
			       (size_t)frame->width / 2);
}

static void video_write(struct clip *clip)
{
	AVFrame *frame = clip->video.frame;

	frame->format = AV_PIX_FMT_YUV420P;
	frame->width = clip->wish->width;
	frame->height = clip->wish->height;
	check(av_frame_get_buffer(frame, 0), "buffer");
	for (int i = 0; i < clip->wish->frames; i++) {
		check(av_frame_make_writable(frame), "writable");
		picture_draw(frame, i);
		frame->pts = clip->wish->times_ms ? clip->wish->times_ms[i] : i * MS / CLIP_FPS;
		track_send(clip, &clip->video, frame);
	}
	track_send(clip, &clip->video, NULL);
}

static void audio_write(struct clip *clip)
{
	const AVCodecContext *c = clip->audio.codec;
	const int step = c->frame_size ? c->frame_size : 1024;
	AVFrame *frame = clip->audio.frame;

	frame->format = c->sample_fmt;
	frame->sample_rate = RATE;
	frame->nb_samples = step;
	check(av_channel_layout_copy(&frame->ch_layout, &c->ch_layout), "layout");
	check(av_frame_get_buffer(frame, 0), "buffer");
	for (int64_t at = 0; at < (int64_t)clip->wish->audio_ms * RATE / MS; at += step) {
		check(av_frame_make_writable(frame), "writable");
		for (int i = 0; i < step; i++) {
			const double wave = 0.3 * sin((double)(at + i) * 0.05);

			if (c->sample_fmt == AV_SAMPLE_FMT_FLTP)
				((float *)frame->data[0])[i] = (float)wave;
			else
				((int16_t *)frame->data[0])[i] = (int16_t)(wave * 32767);
		}
		frame->pts = at;
		track_send(clip, &clip->audio, frame);
	}
	track_send(clip, &clip->audio, NULL);
}

void clip_make(const struct clip_wish *wish)
{
	struct clip clip = { .wish = wish, .packet = av_packet_alloc() };
	const size_t bytes = 9 * sizeof(int32_t);
	AVDictionary *options = NULL;

	assert_non_null(clip.packet);
	check(avformat_alloc_output_context2(&clip.format, NULL, NULL, wish->path), wish->path);
	if (wish->codec)
		track_open(&clip, &clip.video, wish->codec);
	if (wish->audio)
		track_open(&clip, &clip.audio, wish->audio);
	if (wish->matrix)
		memcpy(av_stream_new_side_data(clip.video.stream, AV_PKT_DATA_DISPLAYMATRIX, bytes),
		       wish->matrix, bytes);
	check(avio_open(&clip.format->pb, wish->path, AVIO_FLAG_WRITE), wish->path);
	check(av_dict_parse_string(&options, wish->options, "=", ":", 0), "options");
	check(avformat_write_header(clip.format, &options), "header");
	av_dict_free(&options);
	if (wish->codec)
		video_write(&clip);
	if (wish->audio)
		audio_write(&clip);
	check(av_write_trailer(clip.format), "trailer");
	check(avio_closep(&clip.format->pb), "close");
	track_close(&clip.video);
	track_close(&clip.audio);
	av_packet_free(&clip.packet);
	avformat_free_context(clip.format);
}

/* FNV-1a, continued. */
static uint64_t digest(uint64_t hash, const void *data, size_t bytes)
{
	const uint8_t *byte = data;

	for (size_t i = 0; i < bytes; i++)
		hash = (hash ^ byte[i]) * UINT64_C(0x100000001b3);
	return hash;
}

struct clip_track clip_read_track(const char *path, bool audio)
{
	struct clip_track track = { .payload = 1, .times = 1 };
	AVPacket *packet = av_packet_alloc();
	AVFormatContext *format = NULL;
	int best;

	assert_non_null(packet);
	check(avformat_open_input(&format, path, NULL, NULL), path);
	check(avformat_find_stream_info(format, NULL), path);
	best = av_find_best_stream(format, audio ? AVMEDIA_TYPE_AUDIO : AVMEDIA_TYPE_VIDEO, -1, -1,
				   NULL, 0);
	while (best >= 0 && av_read_frame(format, packet) >= 0) {
		const AVRational base = format->streams[packet->stream_index]->time_base;

		if (packet->stream_index == best) {
			const int64_t ms = av_rescale_q(packet->pts, base, (AVRational){ 1, MS });

			track.packets++;
			track.payload = digest(track.payload, packet->data, (size_t)packet->size);
			track.times = digest(track.times, &ms, sizeof(ms));
			track.end_ms = av_rescale_q(packet->pts + packet->duration, base,
						    (AVRational){ 1, MS });
		}
		av_packet_unref(packet);
	}
	av_packet_free(&packet);
	avformat_close_input(&format);
	return track;
}
