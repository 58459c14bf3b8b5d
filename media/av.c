/* Small helpers over libav. */
#include "media/av.h"

#include "base/file.h"
#include "base/util.h"

#include <errno.h>
#include <libavdevice/avdevice.h>
#include <libavutil/avstring.h>
#include <sys/stat.h>
#include <unistd.h>

int media_av_code(int averror)
{
	/* Below −4096 are libav's own codes, made of four letters. */
	if (averror > -4096)
		return averror;
	if (averror == AVERROR_EXIT)
		return -EINTR;
	if (averror == AVERROR_EOF)
		return -ENODATA;
	if (averror == AVERROR_INVALIDDATA)
		return -EBADMSG;
	return -EIO;
}

int media_av_fail(struct sana_error *error, int averror, const char *name, const char *path,
		  const char *what)
{
	char text[AV_ERROR_MAX_STRING_SIZE] = "";

	(void)av_strerror(averror, text, sizeof(text));
	return sana_error_set(error, media_av_code(averror), name, "%s: %s: %s.",
			      file_path_tail(path), what, text);
}

void media_av_quiet(void)
{
	av_log_set_level(AV_LOG_QUIET);
}

/*
 * Formats that open further files by name, and libav's text art: a clip from outside has no business
 * with either.
 */
static bool format_is_refused(const AVInputFormat *format)
{
	static const char *const names[] = { "hls", "concat", "concatf", "dash", "imf",
					     "tty", "lavfi",  "sdp",	 "rtsp", "sap",
					     "bin", "xbin",   "adf",	 "idf" };

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (av_match_name(names[i], format->name))
			return true;
	return false;
}

/* NULL for a regular file, and for what the wish allows: open(2) waits for the others, unasked. */
static const char *odd_kind(const struct media_input_wish *wish, mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFIFO:
		return wish->pipes ? NULL : "a pipe";
	case S_IFCHR:
		return wish->device ? NULL : "a device and no camera";
	case S_IFBLK:
		return "a disk";
	case S_IFSOCK:
		return "a socket";
	}
	return NULL;
}

/* What stat can say better than libav. */
static int path_check(const struct media_input_wish *wish, struct sana_error *error)
{
	const char *path = wish->path, *odd;
	struct stat status;

	if (stat(path, &status) < 0)
		return sana_error_set(error, -errno, "source.open", "%s: cannot open: %s.",
				      file_path_tail(path), strerror(errno));
	if (S_ISDIR(status.st_mode))
		return sana_error_set(error, -EISDIR, "source.open",
				      "%s: this is a directory; numbered pictures in it are "
				      "written as a pattern, such as %s/%%04d.png.",
				      file_path_tail(path), file_path_tail(path));
	if (S_ISREG(status.st_mode) && status.st_size == 0)
		return sana_error_set(error, -ENODATA, "source.format", "%s: the file is empty.",
				      file_path_tail(path));
	odd = odd_kind(wish, status.st_mode);
	if (odd)
		return sana_error_set(error, -EINVAL, "source.open",
				      "%s: this is %s: name a video file or a camera; other "
				      "programs' pictures come in by a virtual camera.",
				      file_path_tail(path), odd);
	return 0;
}

/* Opens the bytes and finds out what they are. */
static int bytes_open(struct media_input *input, const struct media_input_wish *wish,
		      const char *url, const AVInputFormat **ret_format, struct sana_error *error)
{
	AVDictionary *options = NULL;
	const AVInputFormat *format = NULL;
	int r;

	(void)av_dict_set(&options, "protocol_whitelist", "file,pipe", 0);
	r = avio_open2(&input->bytes, url, AVIO_FLAG_READ, &wish->interrupt, &options);
	av_dict_free(&options);
	if (r < 0)
		return media_av_fail(error, r, "source.open", wish->path, "cannot open");
	r = av_probe_input_buffer2(input->bytes, &format, url, NULL, 0, 0);
	if (r == AVERROR_EXIT)
		return media_av_fail(error, r, "source.interrupted", wish->path, "cannot read");
	if (input->bytes->error < 0)
		return media_av_fail(error, input->bytes->error, "source.open", wish->path,
				     "cannot read");
	if (r < 0 || format_is_refused(format))
		return sana_error_set(error, -EBADMSG, "source.format",
				      "%s: this is no video file that can be read.",
				      file_path_tail(wish->path));
	*ret_format = format;
	return 0;
}

static int stdin_open(struct media_input *input, const struct media_input_wish *wish,
		      const AVInputFormat **ret_format, struct sana_error *error)
{
	int r = bytes_open(input, wish, "pipe:0", ret_format, error);

	if (r == -EBADMSG || (r == 0 && !av_match_name("yuv4mpegpipe", (*ret_format)->name)))
		return sana_error_set(error, -EBADMSG, "source.format",
				      "Standard input holds no YUV4MPEG2 video (.y4m).");
	return r;
}

static void options_set(const struct media_input_wish *wish, AVDictionary **options)
{
	char rate[32];

	(void)av_dict_set(options, "protocol_whitelist", "file,pipe", 0);
	if (wish->sequence)
		(void)av_dict_set(options, "pattern_type", "sequence", 0);
	if ((wish->sequence || wish->device) && wish->fps_num > 0) {
		(void)snprintf(rate, sizeof(rate), "%d/%d", wish->fps_num, wish->fps_den);
		(void)av_dict_set(options, "framerate", rate, 0);
	}
}

/* Picks the format, and the name libav is to open. */
static int target_find(struct media_input *input, const struct media_input_wish *wish, char *url,
		       size_t bytes, const AVInputFormat **ret_format, struct sana_error *error)
{
	int r;

	/* "file:" keeps "http://…" and "a:b" from being more than file names. */
	(void)snprintf(url, bytes, "%s%s", wish->device ? "" : "file:", wish->path);
	if (wish->sequence) {
		*ret_format = av_find_input_format("image2");
		return *ret_format ? 0 : -ENOTSUP;
	}
	if (strcmp(wish->path, "-") == 0)
		return stdin_open(input, wish, ret_format, error);
	r = path_check(wish, error);
	if (r < 0)
		return r;
	if (wish->device) {
		avdevice_register_all();
		*ret_format = av_find_input_format("video4linux2");
		return *ret_format ? 0 : -ENOTSUP;
	}
	return bytes_open(input, wish, url, ret_format, error);
}

/* Opens one of the numbered pictures, which are files. */
static int picture_open(AVFormatContext *format, AVIOContext **ret, const char *url, int flags,
			AVDictionary **options)
{
	AVDictionary *own = NULL;
	struct stat status;
	const char *path;
	int r;

	(void)options;
	if (!av_strstart(url, "file:", &path) || stat(path, &status) < 0)
		return AVERROR(ENOENT);
	if (!S_ISREG(status.st_mode))
		return AVERROR(EINVAL);
	(void)av_dict_set(&own, "protocol_whitelist", "file", 0);
	r = avio_open2(ret, url, flags, &format->interrupt_callback, &own);
	av_dict_free(&own);
	return r;
}

/* What the system's words for a device mean to whoever named it. */
static int device_fail(struct sana_error *error, int averror, const char *path)
{
	/* Outputs and metadata nodes of cameras answer some of a camera's requests, but not all. */
	if (averror == AVERROR(ENOTTY) || averror == AVERROR(ENODEV))
		return sana_error_set(error, averror, "source.open",
				      "%s: this device is no camera: it gives no pictures.",
				      file_path_tail(path));
	if (averror == AVERROR(EBUSY))
		return sana_error_set(error, averror, "source.open",
				      "%s: another program is using this camera.",
				      file_path_tail(path));
	return media_av_fail(error, averror, "source.open", path, "cannot be used as a camera");
}

int media_input_open(const struct media_input_wish *wish, struct media_input *ret,
		     struct sana_error *error)
{
	struct media_input input = { 0 };
	const AVInputFormat *format = NULL;
	AVDictionary *options = NULL;
	char url[4096];
	int r;

	if (strlen(wish->path) + sizeof("file:") > sizeof(url))
		return sana_error_set(error, -ENAMETOOLONG, "source.open",
				      "The name of the source is too long.");
	r = target_find(&input, wish, url, sizeof(url), &format, error);
	if (r < 0)
		goto close;
	input.format = avformat_alloc_context();
	if (!input.format) {
		r = sana_error_set(error, -ENOMEM, "memory", "Out of memory.");
		goto close;
	}
	input.format->interrupt_callback = wish->interrupt;
	input.format->pb = input.bytes;
	if (wish->device)
		input.format->flags |= AVFMT_FLAG_NONBLOCK;
	if (wish->sequence)
		input.format->io_open = picture_open;
	options_set(wish, &options);
	r = avformat_open_input(&input.format, url, format, &options);
	av_dict_free(&options);
	if (r >= 0)
		r = avformat_find_stream_info(input.format, NULL);
	/* Of a file that could be read libav's codes say little, and are wrong at times. */
	if (r < 0 && r != AVERROR_EXIT && r != AVERROR(ENOMEM) && r != AVERROR(EIO) &&
	    input.bytes) {
		r = sana_error_set(
			error, -EBADMSG, "source.format",
			"%s: this is no video file that can be read, or one that was cut "
			"off or never finished.",
			file_path_tail(wish->path));
		goto close;
	}
	if (r < 0 && r != AVERROR_EXIT && wish->device) {
		r = device_fail(error, r, wish->path);
		goto close;
	}
	if (r < 0) {
		r = media_av_fail(error, r,
				  r == AVERROR_EXIT ? "source.interrupted" : "source.format",
				  wish->path, "cannot be read as video");
		goto close;
	}
	*ret = input;
	return 0;

close:
	media_input_close(&input);
	return r;
}

void media_input_close(struct media_input *input)
{
	avformat_close_input(&input->format);
	(void)avio_closep(&input->bytes);
}

int64_t media_input_origin(const struct media_input *input, const AVStream *stream)
{
	if (input->format->start_time == AV_NOPTS_VALUE)
		return stream->start_time == AV_NOPTS_VALUE ? 0 : stream->start_time;
	return av_rescale_q(input->format->start_time, AV_TIME_BASE_Q, stream->time_base);
}
