/* Pictures out of files, pipes, sequences and V4L2 devices, through libav. */
#include "media/source_ops.h"

#include "base/file.h"
#include "base/util.h"
#include "media/av.h"
#include "media/colour.h"
#include "media/scaler.h"

#include <ctype.h>
#include <errno.h>
#include <libavcodec/avcodec.h>
#include <libavutil/avstring.h>
#include <libavutil/pixdesc.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>

enum {
	V4L2_MAJOR = 81,
	SEQUENCE_FPS = 24,
	POLL_NS = 2000000,    /* between two looks at a device that has no frame yet */
	MAX_DAMAGED = 100000, /* pictures a decoder may fail on before the source ends */
	MISSING_FRAMES = 4,   /* a clip may end this much early: durations are rounded */
};

static const int64_t SECOND_NS = 1000000000;
static const int64_t STALL_NS = 5000000000;
static const AVRational NANOSECOND = { 1, 1000000000 };

struct file {
	struct media_source source;
	char *path;
	bool device;
	bool (*stopped)(void *context);
	void *stopped_context;
	int64_t deadline_ns; /* of the device's next frame; 0: none */
	struct media_input input;
	AVStream *stream;
	AVCodecContext *codec;
	AVPacket *packet;
	AVFrame *frame;
	int64_t origin;	    /* in units of the stream: instant 0 */
	int64_t frame_ns;   /* expected between two pictures */
	int64_t frames;	    /* given out */
	int64_t last_ns;    /* time stamp of the last one */
	int64_t end_us;	    /* end of the last packet of any stream, container time */
	int64_t packet_end; /* position behind the last packet, bytes */
	bool draining, broken;
	int lost; /* libav error that ended a device; 0: none */
};

static int64_t now_ns(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * SECOND_NS + t.tv_nsec;
}

/* libav asks this while it waits; 1 makes it give up with AVERROR_EXIT. */
static int interrupted(void *context)
{
	const struct file *f = context;

	if (f->stopped && f->stopped(f->stopped_context))
		return 1;
	return f->deadline_ns && now_ns() > f->deadline_ns;
}

static void file_close(struct media_source *source)
{
	struct file *f = (struct file *)source;

	avcodec_free_context(&f->codec);
	av_packet_free(&f->packet);
	av_frame_free(&f->frame);
	media_input_close(&f->input);
	free(f->path);
	free(f);
}

static void file_closep(struct file **file)
{
	if (*file)
		file_close(&(*file)->source);
}

/* ---------------------------------------------------------------------------------- opening */

/* "%d", "%04d": exactly one, and nothing else that starts with a percent sign but "%%". */
static bool path_is_pattern(const char *path)
{
	int numbers = 0;

	for (const char *p = path; *p; p++) {
		if (*p != '%')
			continue;
		p++;
		if (*p == '%')
			continue;
		while (isdigit((unsigned char)*p))
			p++;
		if (*p != 'd')
			return false;
		numbers++;
	}
	return numbers == 1;
}

static bool path_is_device(const char *path)
{
	struct stat status;

	return stat(path, &status) == 0 && S_ISCHR(status.st_mode) &&
	       major(status.st_rdev) == V4L2_MAJOR;
}

static int input_open(struct file *f, const struct media_source_wish *wish,
		      struct sana_error *error)
{
	struct stat status;
	struct media_input_wish input = {
		.path = wish->path,
		.sequence = path_is_pattern(wish->path) && stat(wish->path, &status) < 0,
		.device = path_is_device(wish->path),
		.pipes = wish->pipes,
		.fps_num = wish->fps_num,
		.fps_den = wish->fps_den,
		.interrupt = { interrupted, f },
	};
	int r;

	if (input.sequence && input.fps_num <= 0) {
		input.fps_num = SEQUENCE_FPS;
		input.fps_den = 1;
	}
	f->device = input.device;
	f->deadline_ns = f->device ? now_ns() + STALL_NS : 0;
	f->source.info.live = f->device;
	r = media_input_open(&input, &f->input, error);
	/* Raw YUV4MPEG2 and files carry times; numbered pictures have none. */
	f->source.info.timed = r == 0 && !input.sequence;
	return r;
}

static int stream_find(struct file *f, struct sana_error *error)
{
	AVFormatContext *format = f->input.format;
	unsigned int audio = 0;
	int best;

	for (unsigned int i = 0; i < format->nb_streams; i++) {
		audio += format->streams[i]->codecpar->codec_type == AVMEDIA_TYPE_AUDIO;
		/* Cover pictures of music are no video. */
		if (format->streams[i]->disposition & AV_DISPOSITION_ATTACHED_PIC)
			format->streams[i]->discard = AVDISCARD_ALL;
	}
	f->source.info.has_audio = audio > 0;
	best = av_find_best_stream(format, AVMEDIA_TYPE_VIDEO, -1, -1, NULL, 0);
	if (best < 0 || format->streams[best]->disposition & AV_DISPOSITION_ATTACHED_PIC)
		return sana_error_set(
			error, -ENODATA, "source.format", "%s: %s.", file_path_tail(f->path),
			audio ? "there is sound in it, but no video" : "there is no video in it");
	f->stream = format->streams[best];
	return 0;
}

static int size_check(const struct file *f, int width, int height, struct sana_error *error)
{
	if (width < 1 || height < 1)
		return sana_error_set(error, -EBADMSG, "source.format",
				      "%s: nothing in it says how large its pictures are.",
				      file_path_tail(f->path));
	if (width > MEDIA_MAX_SIDE || height > MEDIA_MAX_SIDE ||
	    (int64_t)width * height > MEDIA_MAX_PIXELS)
		return sana_error_set(error, -EFBIG, "source.size",
				      "%s: its pictures of %dx%d are larger than %dx%d or %d "
				      "megapixels; scale it down first.",
				      file_path_tail(f->path), width, height, MEDIA_MAX_SIDE,
				      MEDIA_MAX_SIDE, MEDIA_MAX_PIXELS >> 20);
	return 0;
}

static int decoder_open(struct file *f, int threads, struct sana_error *error)
{
	const AVCodecParameters *parameters = f->stream->codecpar;
	const AVCodec *codec = avcodec_find_decoder(parameters->codec_id);
	int r;

	r = size_check(f, parameters->width, parameters->height, error);
	if (r < 0)
		return r;
	if (!codec)
		return sana_error_set(error, -ENOTSUP, "source.format",
				      "%s: there is no decoder here for its codec, %s.",
				      file_path_tail(f->path),
				      avcodec_get_name(parameters->codec_id));
	f->codec = avcodec_alloc_context3(codec);
	f->packet = av_packet_alloc();
	f->frame = av_frame_alloc();
	if (!f->codec || !f->packet || !f->frame)
		return sana_error_set(error, -ENOMEM, "memory", "Out of memory.");
	r = avcodec_parameters_to_context(f->codec, parameters);
	f->codec->pkt_timebase = f->stream->time_base;
	f->codec->thread_count = threads;
	f->codec->max_pixels = MEDIA_MAX_PIXELS;
	if (r >= 0)
		r = avcodec_open2(f->codec, codec, NULL);
	if (r < 0)
		return media_av_fail(error, r, "source.format", f->path,
				     "its video cannot be decoded");
	return 0;
}

/* ----------------------------------------------------------------------------- description */

static struct media_orientation orientation_of(const int32_t *m)
{
	struct media_orientation o = { 0 };

	/* x' = m[0]·x + m[3]·y, y' = m[1]·x + m[4]·y: the larger pair says which axes are meant. */
	if (llabs(m[0]) + llabs(m[4]) >= llabs(m[1]) + llabs(m[3])) {
		o.flip_x = m[0] < 0;
		o.flip_y = m[4] < 0;
	} else {
		o.transpose = true;
		o.flip_x = m[3] < 0;
		o.flip_y = m[1] < 0;
	}
	return o;
}

/* The picture's own word (H.264, JPEG) counts more than the container's. */
static struct media_orientation frame_orientation(const struct file *f, const AVFrame *frame)
{
	const AVFrameSideData *own =
		frame ? av_frame_get_side_data(frame, AV_FRAME_DATA_DISPLAYMATRIX) : NULL;
	const uint8_t *side = NULL;
	int32_t matrix[9];

	if (own && own->size >= sizeof(matrix))
		side = own->data;
	else
		side = av_stream_get_side_data(f->stream, AV_PKT_DATA_DISPLAYMATRIX, NULL);
	if (!side)
		return (struct media_orientation){ 0 };
	memcpy(matrix, side, sizeof(matrix));
	return orientation_of(matrix);
}

static AVRational aspect_or_square(AVRational aspect)
{
	const double shape = aspect.den > 0 ? av_q2d(aspect) : 0.0;

	/* Beyond this it is a broken header, not a lens. */
	return shape >= 0.1 && shape <= 10.0 ? aspect : (AVRational){ 1, 1 };
}

static void info_set_size(struct file *f)
{
	struct media_source_info *info = &f->source.info;
	const AVCodecParameters *p = f->stream->codecpar;
	const AVRational aspect =
		aspect_or_square(av_guess_sample_aspect_ratio(f->input.format, f->stream, NULL));
	const struct media_orientation o = frame_orientation(f, NULL);
	const int width = (int)av_rescale(p->width, aspect.num, aspect.den);

	info->width = o.transpose ? p->height : width;
	info->height = o.transpose ? width : p->height;
	(void)snprintf(info->description, sizeof(info->description), "%s in %s, %dx%d%s",
		       avcodec_get_name(p->codec_id), f->input.format->iformat->name, info->width,
		       info->height, o.transpose || o.flip_x || o.flip_y ? ", turned" : "");
}

static void info_set_times(struct file *f)
{
	struct media_source_info *info = &f->source.info;
	const AVFormatContext *format = f->input.format;
	AVRational rate = f->stream->avg_frame_rate;

	if (rate.num <= 0 || rate.den <= 0)
		rate = f->stream->r_frame_rate;
	info->fps_num = rate.num > 0 && rate.den > 0 ? rate.num : 0;
	info->fps_den = info->fps_num ? rate.den : 1;
	info->time_base_num = f->stream->time_base.num;
	info->time_base_den = f->stream->time_base.den;
	f->frame_ns = info->fps_num ? av_rescale(SECOND_NS, rate.den, rate.num) :
				      SECOND_NS / SEQUENCE_FPS;
	f->origin = media_input_origin(&f->input, f->stream);
	if (info->live)
		return;
	if (f->stream->duration > 0)
		info->duration_ns =
			av_rescale_q(f->stream->duration, f->stream->time_base, NANOSECOND);
	else if (format->duration > 0)
		info->duration_ns = av_rescale_q(format->duration, AV_TIME_BASE_Q, NANOSECOND);
	if (f->stream->nb_frames > 0)
		info->frames = f->stream->nb_frames;
	else if (info->fps_num && info->duration_ns)
		info->frames = av_rescale(info->duration_ns, rate.num, rate.den * SECOND_NS);
}

/* -------------------------------------------------------------------------------- reading */

static enum media_matrix matrix_of(const struct file *f, const AVFrame *frame)
{
	switch ((int)frame->colorspace) {
	case AVCOL_SPC_BT709:
		return MEDIA_MATRIX_709;
	case AVCOL_SPC_BT470BG:
	case AVCOL_SPC_SMPTE170M:
		return MEDIA_MATRIX_601;
	case AVCOL_SPC_SMPTE240M:
		return MEDIA_MATRIX_240M;
	case AVCOL_SPC_BT2020_NCL:
	case AVCOL_SPC_BT2020_CL:
		return MEDIA_MATRIX_2020;
	}
	/* JPEG is BT.601 at any size, and cameras that say nothing are, too. */
	if (f->device || frame->color_range == AVCOL_RANGE_JPEG ||
	    f->stream->codecpar->codec_id == AV_CODEC_ID_MJPEG)
		return MEDIA_MATRIX_601;
	return media_matrix_of_size(frame->width, frame->height);
}

/* The "J" formats are old names of the plain ones at full range. */
static int format_of(const AVFrame *frame, bool *ret_full)
{
	static const int old[][2] = {
		{ AV_PIX_FMT_YUVJ420P, AV_PIX_FMT_YUV420P },
		{ AV_PIX_FMT_YUVJ422P, AV_PIX_FMT_YUV422P },
		{ AV_PIX_FMT_YUVJ444P, AV_PIX_FMT_YUV444P },
		{ AV_PIX_FMT_YUVJ440P, AV_PIX_FMT_YUV440P },
		{ AV_PIX_FMT_YUVJ411P, AV_PIX_FMT_YUV411P },
	};
	const AVPixFmtDescriptor *description =
		av_pix_fmt_desc_get((enum AVPixelFormat)frame->format);

	*ret_full = frame->color_range == AVCOL_RANGE_JPEG;
	for (size_t i = 0; i < ARRAY_SIZE(old); i++)
		if (frame->format == old[i][0]) {
			*ret_full = true;
			return old[i][1];
		}
	/* RGB has all levels, whatever a stream says. */
	if (!media_colour_is_ycbcr(frame->format))
		*ret_full = true;
	/* Grey pictures of still formats say nothing and mean all levels. */
	if (description && description->nb_components < 3 &&
	    frame->color_range == AVCOL_RANGE_UNSPECIFIED)
		*ret_full = true;
	return frame->format;
}

static enum media_siting siting_of(const struct file *f, const AVFrame *frame)
{
	switch ((int)frame->chroma_location) {
	case AVCHROMA_LOC_LEFT:
		return MEDIA_SITING_LEFT;
	case AVCHROMA_LOC_CENTER:
		return MEDIA_SITING_CENTRE;
	case AVCHROMA_LOC_TOPLEFT:
		return MEDIA_SITING_TOP_LEFT;
	}
	return f->device || frame->color_range == AVCOL_RANGE_JPEG ? MEDIA_SITING_CENTRE :
								     MEDIA_SITING_LEFT;
}

static int64_t stamp(struct file *f, const AVFrame *frame)
{
	int64_t ns;

	if (frame->best_effort_timestamp != AV_NOPTS_VALUE) {
		ns = av_rescale_q(frame->best_effort_timestamp - f->origin, f->stream->time_base,
				  NANOSECOND);
		if (f->frames == 0 || ns > f->last_ns)
			return ns;
	}
	f->source.info.restamped++;
	return f->frames == 0 ? 0 : f->last_ns + f->frame_ns;
}

static int picture_fill(struct file *f, struct media_picture *ret, struct sana_error *error)
{
	const AVFrame *frame = f->frame;
	const AVRational aspect = aspect_or_square(
		av_guess_sample_aspect_ratio(f->input.format, f->stream, f->frame));
	struct media_picture p = {
		.width = frame->width,
		.height = frame->height,
		.matrix = matrix_of(f, frame),
		.siting = siting_of(f, frame),
		.orientation = frame_orientation(f, frame),
		.aspect_num = aspect.num,
		.aspect_den = aspect.den,
	};
	int r;

	r = size_check(f, frame->width, frame->height, error);
	if (r < 0)
		return r;
	for (int i = 0; i < MEDIA_PLANES; i++) {
		p.plane[i] = frame->data[i];
		p.row_bytes[i] = frame->linesize[i];
	}
	p.format = format_of(frame, &p.full_range);
	p.timestamp_ns = stamp(f, frame);
	p.duration_ns = frame->pkt_duration > 0 ? av_rescale_q(frame->pkt_duration,
							       f->stream->time_base, NANOSECOND) :
						  0;
	f->last_ns = p.timestamp_ns;
	f->frames++;
	*ret = p;
	return 1;
}

/* Notes how far the container got, to see a file that was cut off. */
static void packet_note(struct file *f)
{
	const AVPacket *packet = f->packet;
	const AVStream *stream = f->input.format->streams[packet->stream_index];
	const int64_t at = packet->pts != AV_NOPTS_VALUE ? packet->pts : packet->dts;

	if (packet->pos >= 0)
		f->packet_end = packet->pos + packet->size;
	if (at != AV_NOPTS_VALUE)
		f->end_us = MAX_OF(f->end_us, av_rescale_q(at + packet->duration, stream->time_base,
							   AV_TIME_BASE_Q));
	if (packet->flags & AV_PKT_FLAG_CORRUPT)
		f->broken = true;
}

/* True when the file promised more than it held. */
static bool is_cut_off(const struct file *f)
{
	const AVFormatContext *format = f->input.format;
	int64_t end_us, slack_us;

	if (f->broken)
		return true;
	if (f->device)
		return false;
	/* A YUV4MPEG2 frame that ends early is dropped by libav without a word. */
	if (av_match_name("yuv4mpegpipe", format->iformat->name))
		return f->packet_end && avio_tell(format->pb) > f->packet_end;
	if (format->duration <= 0 ||
	    format->duration_estimation_method == AVFMT_DURATION_FROM_BITRATE)
		return false;
	end_us = format->duration + (format->start_time == AV_NOPTS_VALUE ? 0 : format->start_time);
	slack_us = MISSING_FRAMES * f->frame_ns / 1000 + AV_TIME_BASE / 10;
	return f->end_us + slack_us < end_us;
}

static int end_of(const struct file *f, struct sana_error *error)
{
	const double announced = (double)f->source.info.duration_ns / (double)SECOND_NS;
	const double end = (double)(f->last_ns + f->frame_ns) / (double)SECOND_NS;

	if (f->lost)
		return media_av_fail(error, f->lost, "source.lost", f->path,
				     f->lost == AVERROR(ENODEV) ? "the camera was unplugged" :
								  "the camera stopped");
	if (f->frames == 0)
		return sana_error_set(error, -ENODATA, "source.empty",
				      "%s: no picture in it could be decoded.",
				      file_path_tail(f->path));
	if (!is_cut_off(f))
		return 0;
	if (announced > end + 0.01)
		return sana_error_set(error, -ENODATA, "source.truncated",
				      "%s: the file is cut off or damaged: it ends after %lld "
				      "frames, %.2f s, and announces %.2f s.",
				      file_path_tail(f->path), (long long)f->frames, end,
				      announced);
	return sana_error_set(error, -ENODATA, "source.truncated",
			      "%s: the file is cut off or damaged: it ends in the middle of frame "
			      "%lld.",
			      file_path_tail(f->path), (long long)f->frames + 1);
}

static int interruption(const struct file *f, struct sana_error *error)
{
	if (f->deadline_ns && now_ns() > f->deadline_ns)
		return sana_error_set(error, -ETIMEDOUT, "source.stalled",
				      "%s: no picture for %d s.", file_path_tail(f->path),
				      (int)(STALL_NS / SECOND_NS));
	return sana_error_set(error, -EINTR, "source.interrupted", "%s: reading was interrupted.",
			      file_path_tail(f->path));
}

/* A device without a frame: libav gives no descriptor to wait on, so look again shortly. */
static void device_wait(void)
{
	const struct timespec pause = { 0, POLL_NS };

	(void)nanosleep(&pause, NULL);
}

/* Feeds the decoder one packet, or the end. Damage is counted and passed over. */
static int packet_feed(struct file *f, struct sana_error *error)
{
	int r = av_read_frame(f->input.format, f->packet);

	if (interrupted(f) || r == AVERROR_EXIT)
		return interruption(f, error);
	if (r == AVERROR(EAGAIN)) {
		device_wait();
		return 0;
	}
	if (r < 0) {
		f->draining = true;
		f->broken |= r != AVERROR_EOF;
		f->lost = f->device ? r : 0;
		r = avcodec_send_packet(f->codec, NULL);
		return r < 0 && r != AVERROR_EOF ?
			       media_av_fail(error, r, "source.format", f->path, "cannot decode") :
			       0;
	}
	packet_note(f);
	r = 0;
	if (f->packet->stream_index == f->stream->index)
		r = avcodec_send_packet(f->codec, f->packet);
	av_packet_unref(f->packet);
	if (r == AVERROR(ENOMEM))
		return sana_error_set(error, -ENOMEM, "memory", "Out of memory.");
	f->source.info.damaged += r < 0 && r != AVERROR(EAGAIN);
	return 0;
}

static int file_read_picture(struct media_source *source, struct media_picture *ret,
			     struct sana_error *error)
{
	struct file *f = (struct file *)source;
	int r;

	f->deadline_ns = f->device ? now_ns() + STALL_NS : 0;
	for (;;) {
		r = avcodec_receive_frame(f->codec, f->frame);
		if (r >= 0)
			return picture_fill(f, ret, error);
		if (r == AVERROR_EOF)
			return end_of(f, error);
		if (r == AVERROR(EAGAIN)) {
			r = packet_feed(f, error);
			if (r < 0)
				return r;
			continue;
		}
		/* A picture that cannot be decoded: the decoder goes on behind it, if it can. */
		if (++f->source.info.damaged > MAX_DAMAGED)
			return end_of(f, error);
	}
}

static const struct media_source_ops file_ops = { file_read_picture, file_close };

int media_source_file_open(const struct media_source_wish *wish, struct media_source **ret,
			   struct sana_error *error)
{
	_cleanup_(file_closep) struct file *f = calloc(1, sizeof(*f));
	int r;

	if (f)
		f->path = strdup(strcmp(wish->path, "-") == 0 ? "standard input" : wish->path);
	if (!f || !f->path)
		return sana_error_set(error, -ENOMEM, "memory", "Out of memory.");
	f->source.ops = &file_ops;
	f->stopped = wish->stopped;
	f->stopped_context = wish->stopped_context;
	r = input_open(f, wish, error);
	if (r == 0)
		r = stream_find(f, error);
	if (r == 0)
		r = decoder_open(f, wish->threads, error);
	if (r < 0)
		return interrupted(f) ? interruption(f, error) : r;
	info_set_size(f);
	info_set_times(f);
	*ret = &f->source;
	f = NULL;
	return 0;
}
