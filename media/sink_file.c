/* Video files and YUV4MPEG2, through libav. */
#include "media/sink_ops.h"

#include "base/file.h"
#include "base/util.h"
#include "media/audio_copy.h"
#include "media/av.h"
#include "media/encoder.h"

#include <errno.h>
#include <fcntl.h>
#include <libavformat/avformat.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

struct container {
	const char *extension;
	const char *muxer;     /* libav's */
	const char *codecs[3]; /* what is written unless asked otherwise: the first there is */
	const char *also[2];   /* what is written when asked */
	bool constant_rate;
};

static const struct container containers[] = {
	{ ".mp4", "mp4", { "h264", "mpeg4" }, { "vp9" }, false },
	{ ".m4v", "mp4", { "h264", "mpeg4" }, { "vp9" }, false },
	{ ".mov", "mov", { "h264", "mpeg4" }, { NULL }, false },
	{ ".mkv", "matroska", { "h264", "vp9", "mpeg4" }, { "ffv1" }, false },
	{ ".webm", "webm", { "vp9" }, { NULL }, false },
	{ ".y4m", "yuv4mpegpipe", { "y4m" }, { NULL }, true },
};

/* How much of a durable file may be lost beside what the encoder holds back. */
static const int64_t DURABLE_NS = 1000000000;

struct file {
	struct media_sink sink;
	char *path, *partial; /* partial: NULL for standard output */
	bool overwrite, failed, durable;
	int sync_fd;	   /* of a durable file; 0: none */
	int64_t synced_ns; /* time stamp up to which all is on the disk */
	bool unfinished;   /* the partial file is there and nobody's but ours */
	AVFormatContext *format;
	AVStream *stream;
	struct media_encoder encoder;
	struct media_audio_copy *audio;
	int64_t end_ns; /* of the last picture */
	int64_t frame_ns;
};

static void file_close(struct media_sink *sink)
{
	struct file *f = (struct file *)sink;

	(void)media_audio_copy_close(f->audio);
	media_encoder_finish(&f->encoder);
	if (f->sync_fd > 0)
		(void)close(f->sync_fd);
	if (f->format)
		(void)avio_closep(&f->format->pb);
	avformat_free_context(f->format);
	/* What is durable is worth keeping: all but the last second can be played. */
	if (f->unfinished && !(f->durable && f->sink.info.frames > 0))
		(void)unlink(f->partial);
	free(f->partial);
	free(f->path);
	free(f);
}

static void file_closep(struct file **file)
{
	if (*file)
		file_close(&(*file)->sink);
}

/* ----------------------------------------------------------------------------------- names */

static const struct container *container_find(const char *path)
{
	const char *dot = strcmp(path, "-") == 0 ? ".y4m" : strrchr(path, '.');

	for (size_t i = 0; dot && i < ARRAY_SIZE(containers); i++)
		if (strcasecmp(dot, containers[i].extension) == 0)
			return &containers[i];
	return NULL;
}

/* "dir/name.mp4" is written as "dir/name.partial.mp4". */
static char *partial_name(const char *path)
{
	const char *dot = strrchr(path, '.');
	char *name = NULL;

	if (asprintf(&name, "%.*s.partial%s", (int)(dot - path), path, dot) < 0)
		return NULL;
	return name;
}

static int target_check(const struct media_sink_wish *wish, struct sana_error *error)
{
	struct stat status;

	if (strcmp(wish->path, "-") == 0 || stat(wish->path, &status) < 0)
		return 0;
	if (S_ISDIR(status.st_mode))
		return sana_error_set(error, -EISDIR, "sink.open",
				      "%s: this is a directory; name a file in it.",
				      file_path_tail(wish->path));
	if (!wish->overwrite)
		return sana_error_set(error, -EEXIST, "sink.exists",
				      "%s: the file exists and is left as it is.",
				      file_path_tail(wish->path));
	return 0;
}

static const struct media_codec *codec_among(const char *const *names, size_t count,
					     const char *wanted)
{
	const struct media_codec *codec;

	for (size_t i = 0; i < count && names[i]; i++) {
		codec = media_codec_find(names[i]);
		if (wanted ? strcmp(wanted, names[i]) == 0 : media_codec_encoder(codec) != NULL)
			return codec;
	}
	return NULL;
}

/* The codec asked for where the container takes it, else the best one there is. */
static int codec_pick(struct file *f, const struct container *container,
		      const struct media_sink_wish *wish, const struct media_codec **ret,
		      struct sana_error *error)
{
	const struct media_codec *codec =
		codec_among(container->codecs, ARRAY_SIZE(container->codecs), wish->codec);

	if (!codec && wish->codec)
		codec = codec_among(container->also, ARRAY_SIZE(container->also), wish->codec);
	if (!codec && wish->codec)
		return sana_error_set(error, -EINVAL, "sink.format",
				      "%s: %s cannot be written to a %s file.",
				      file_path_tail(f->path), wish->codec, container->extension);
	if (!codec)
		return sana_error_set(error, -ENOTSUP, "sink.format",
				      "%s: this libavcodec has no encoder for %s files.",
				      file_path_tail(f->path), container->extension);
	if (!wish->codec && codec != media_codec_find(container->codecs[0]))
		(void)snprintf(f->sink.info.note, sizeof(f->sink.info.note),
			       "This libavcodec has no %s encoder: %s is written instead.",
			       container->codecs[0], codec->name);
	*ret = codec;
	return 0;
}

/* --------------------------------------------------------------------------------- opening */

static int encoder_open(struct file *f, const struct container *container,
			const struct media_sink_wish *wish, struct sana_error *error)
{
	struct media_encoder_wish encoder = {
		.width = wish->width,
		.height = wish->height,
		.fps_num = wish->fps_num,
		.fps_den = wish->fps_den,
		/* A constant rate counts frames. */
		.time_base_num = container->constant_rate ? wish->fps_den : wish->time_base_num,
		.time_base_den = container->constant_rate ? wish->fps_num : wish->time_base_den,
		.threads = wish->threads,
		.live = wish->durable,
	};
	int r;

	r = codec_pick(f, container, wish, &encoder.codec, error);
	if (r < 0)
		return r;
	r = avformat_alloc_output_context2(&f->format, NULL, container->muxer, NULL);
	if (r < 0)
		return media_av_fail(error, r, "sink.format", f->path, "cannot be written");
	encoder.global_header = f->format->oformat->flags & AVFMT_GLOBALHEADER;
	r = media_encoder_init(&f->encoder, &encoder, file_path_tail(f->path), error);
	if (r < 0)
		return r;
	f->sink.info.codec = encoder.codec->name;
	f->sink.info.encoder = f->encoder.codec->codec->name;
	f->sink.info.container = container->muxer;
	f->sink.info.constant_rate = container->constant_rate;
	return 0;
}

static int streams_open(struct file *f, const struct media_sink_wish *wish,
			struct sana_error *error)
{
	struct media_sink_info *info = &f->sink.info;
	const size_t used = strlen(info->note);
	int r;

	f->stream = avformat_new_stream(f->format, NULL);
	if (!f->stream ||
	    avcodec_parameters_from_context(f->stream->codecpar, f->encoder.codec) < 0)
		return sana_error_set(error, -ENOMEM, "memory", "Out of memory.");
	f->stream->time_base = f->encoder.codec->time_base;
	f->stream->avg_frame_rate = f->encoder.codec->framerate;
	f->stream->sample_aspect_ratio = f->encoder.codec->sample_aspect_ratio;
	if (!wish->audio_path)
		return 0;
	r = media_audio_copy_open(wish->audio_path, f->format, &f->audio, info->note + used,
				  sizeof(info->note) - used, error);
	info->audio = f->audio != NULL;
	return r;
}

/*
 * Every fragment can be played without what comes after it. Without a trailer, an index of all fragments that
 * readers do well without, libavformat does not have to remember them: 40 bytes a second, for months.
 */
static void durable_options(struct file *f, AVDictionary **options)
{
	f->sync_fd = open(f->partial, O_WRONLY | O_CLOEXEC);
	f->format->flags |= AVFMT_FLAG_FLUSH_PACKETS;
	(void)av_dict_set(options, "movflags", "empty_moov+default_base_moof+skip_trailer", 0);
	(void)av_dict_set_int(options, "frag_duration", DURABLE_NS / 1000, 0);
	(void)av_dict_set_int(options, "cluster_time_limit", DURABLE_NS / 1000000, 0);
}

static int header_write(struct file *f, struct sana_error *error)
{
	const char *path = f->partial ? f->partial : "pipe:1";
	AVDictionary *options = NULL;
	char *url = NULL;
	int r;

	if (f->partial && asprintf(&url, "file:%s", path) < 0)
		return sana_error_set(error, -ENOMEM, "memory", "Out of memory.");
	r = avio_open2(&f->format->pb, url ? url : path, AVIO_FLAG_WRITE, NULL, NULL);
	free(url);
	if (r < 0)
		return media_av_fail(error, r, "sink.open", f->path, "cannot write");
	f->unfinished = f->partial != NULL;
	/* Matroska: nothing random in the file, the same input gives the same bytes. */
	f->format->flags |= AVFMT_FLAG_BITEXACT;
	if (f->durable && f->partial)
		durable_options(f, &options);
	r = avformat_write_header(f->format, &options);
	av_dict_free(&options);
	if (r >= 0)
		r = f->format->pb->error;
	return r < 0 ? media_av_fail(error, r, "sink.open", f->path, "cannot write") : 0;
}

/* --------------------------------------------------------------------------------- writing */

static int write_fail(struct file *f, int r, struct sana_error *error)
{
	f->failed = true;
	return media_av_fail(error, r, "sink.write", f->path, "cannot write");
}

/* Moves what the encoder has to the file, sound along with it. */
static int packets_write(struct file *f)
{
	AVPacket *packet = f->encoder.packet;
	int64_t at_ns;
	int r;

	while ((r = media_encoder_take(&f->encoder)) > 0) {
		at_ns = av_rescale_q(packet->pts, f->encoder.codec->time_base,
				     (AVRational){ 1, 1000000000 });
		av_packet_rescale_ts(packet, f->encoder.codec->time_base, f->stream->time_base);
		packet->stream_index = f->stream->index;
		if (f->audio)
			r = media_audio_copy_until(f->audio, f->format, at_ns);
		if (r >= 0)
			r = av_interleaved_write_frame(f->format, packet);
		av_packet_unref(packet);
		if (r >= 0)
			r = f->format->pb->error; /* a full disk shows here first */
		if (r < 0)
			return r;
	}
	return r;
}

/* A disk that cannot says so at the next write, or never. */
static void durable_sync(struct file *f)
{
	if (f->sync_fd <= 0 || f->end_ns - f->synced_ns < DURABLE_NS)
		return;
	(void)fdatasync(f->sync_fd);
	f->synced_ns = f->end_ns;
}

static int file_write(struct media_sink *sink, const uint8_t *rgb, size_t row_bytes,
		      int64_t timestamp_ns, int64_t duration_ns, struct sana_error *error)
{
	struct file *f = (struct file *)sink;
	int r;

	r = media_encoder_send(&f->encoder, rgb, row_bytes, timestamp_ns, duration_ns);
	if (r >= 0)
		r = packets_write(f);
	/* YUV4MPEG2 goes to a reader who waits for it. */
	if (r >= 0 && sink->info.constant_rate) {
		avio_flush(f->format->pb);
		r = f->format->pb->error;
	}
	f->end_ns = timestamp_ns + (duration_ns > 0 ? duration_ns : f->frame_ns);
	durable_sync(f);
	return r < 0 ? write_fail(f, r, error) : 0;
}

/* ------------------------------------------------------------------------------- finishing */

/* On the disk before it gets its name: a crash then leaves the old file or the whole new one. */
static int sync_path(const char *path)
{
	const int fd = open(path, O_RDONLY | O_CLOEXEC);
	int r;

	if (fd < 0)
		return -errno;
	r = fsync(fd) < 0 && errno != EINVAL ? -errno : 0;
	(void)close(fd);
	return r;
}

static int rename_to(const char *from, const char *to, bool overwrite)
{
	if (overwrite)
		return rename(from, to) < 0 ? -errno : 0;
	if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0)
		return 0;
	if (errno != EINVAL && errno != ENOSYS)
		return -errno;
	/* A file system without the flag. */
	return rename(from, to) < 0 ? -errno : 0;
}

static int trailer_write(struct file *f, enum media_finish how)
{
	const int64_t audio_end_ns = how == MEDIA_FINISH_COMPLETE ? INT64_MAX : f->end_ns;
	int r;

	r = media_encoder_send(&f->encoder, NULL, 0, 0, 0);
	if (r >= 0)
		r = packets_write(f);
	if (r >= 0 && f->audio)
		r = media_audio_copy_until(f->audio, f->format, audio_end_ns);
	if (r >= 0)
		r = av_write_trailer(f->format);
	if (r >= 0)
		avio_flush(f->format->pb);
	if (r >= 0)
		r = f->format->pb->error;
	if (r >= 0)
		r = avio_closep(&f->format->pb);
	if (r >= 0 && f->partial)
		r = sync_path(f->partial);
	return r;
}

static int file_finish(struct media_sink *sink, enum media_finish how, struct sana_error *error)
{
	struct file *f = (struct file *)sink;
	int r;

	if (f->failed)
		return sana_error_set(error, -EIO, "sink.write", "%s: writing failed before.",
				      file_path_tail(f->path));
	r = trailer_write(f, how);
	if (r < 0)
		return write_fail(f, r, error);
	/* Whole: from here on it is never removed, whatever happens to its name. */
	f->unfinished = false;
	if (!f->partial || how == MEDIA_FINISH_PARTIAL)
		return 0;
	r = rename_to(f->partial, f->path, f->overwrite);
	if (r < 0)
		return sana_error_set(error, r, r == -EEXIST ? "sink.exists" : "sink.write",
				      "%s: cannot give the file this name: %s; it stays %s.",
				      file_path_tail(f->path), strerror(-r),
				      file_path_tail(f->partial));
	return 0;
}

static const struct media_sink_ops file_ops = {
	.write = file_write,
	.finish = file_finish,
	.close = file_close,
};

int media_sink_file_open(const struct media_sink_wish *wish, struct media_sink **ret,
			 struct sana_error *error)
{
	const struct container *container = container_find(wish->path);
	_cleanup_(file_closep) struct file *f = NULL;
	int r;

	media_av_quiet();
	if (!container)
		return sana_error_set(
			error, -EINVAL, "sink.format",
			"%s: the extension is none of .mp4 .m4v .mov .mkv .webm .y4m, "
			"and no pattern of .png or .jpg pictures.",
			file_path_tail(wish->path));
	r = target_check(wish, error);
	if (r < 0)
		return r;
	f = calloc(1, sizeof(*f));
	if (f)
		f->path = strdup(strcmp(wish->path, "-") == 0 ? "standard output" : wish->path);
	if (!f || !f->path)
		return sana_error_set(error, -ENOMEM, "memory", "Out of memory.");
	f->sink.ops = &file_ops;
	f->overwrite = wish->overwrite;
	f->durable = wish->durable;
	f->frame_ns = av_rescale(1000000000, wish->fps_den, wish->fps_num);
	r = encoder_open(f, container, wish, error);
	if (r == 0)
		r = streams_open(f, wish, error);
	if (r < 0)
		return r;
	f->sink.info.partial_path = "";
	if (strcmp(wish->path, "-") != 0) {
		f->partial = partial_name(wish->path);
		if (!f->partial)
			return sana_error_set(error, -ENOMEM, "memory", "Out of memory.");
		f->sink.info.partial_path = f->partial;
	}
	r = header_write(f, error);
	if (r < 0)
		return r;
	*ret = &f->sink;
	f = NULL;
	return 0;
}
