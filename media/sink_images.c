/* Numbered pictures: one PNG or JPEG file for each. */
#include "media/sink_ops.h"

#include "base/file.h"
#include "base/util.h"
#include "media/av.h"
#include "media/encoder.h"

#include <errno.h>
#include <libavformat/avformat.h>
#include <strings.h>
#include <unistd.h>

enum { NAME_BYTES = 4096, SUFFIX_BYTES = 16 };

struct images {
	struct media_sink sink;
	char *pattern;
	bool overwrite, failed;
	struct media_encoder encoder;
	int number; /* of the next picture */
};

static void images_close(struct media_sink *sink)
{
	struct images *s = (struct images *)sink;

	media_encoder_finish(&s->encoder);
	free(s->pattern);
	free(s);
}

static int write_fail(struct images *s, int r, const char *name, struct sana_error *error)
{
	s->failed = true;
	return sana_error_set(error, r, "sink.write", "%s: cannot write: %s.", file_path_tail(name),
			      strerror(-r));
}

/* Written whole under another name first, so that each picture that is there can be used. */
static int image_write(struct images *s, const char *name, struct sana_error *error)
{
	char temporary[NAME_BYTES + SUFFIX_BYTES];
	FILE *file;
	int r = 0;

	(void)snprintf(temporary, sizeof(temporary), "%s.partial", name);
	file = fopen(temporary, "wbe");
	if (!file)
		return write_fail(s, -errno, name, error);
	if (fwrite(s->encoder.packet->data, 1, (size_t)s->encoder.packet->size, file) !=
	    (size_t)s->encoder.packet->size)
		r = -errno;
	if (fclose(file) != 0 && r == 0)
		r = -errno;
	if (r == 0 && rename(temporary, name) < 0)
		r = -errno;
	if (r == 0)
		return 0;
	(void)unlink(temporary);
	return write_fail(s, r, name, error);
}

static int image_name(struct images *s, char *name, size_t bytes, struct sana_error *error)
{
	if (av_get_frame_filename2(name, (int)bytes, s->pattern, s->number, 0) < 0)
		return sana_error_set(
			error, -EINVAL, "sink.format",
			"%s: this names one picture; numbered pictures are written as "
			"a pattern, such as %%04d.png.",
			file_path_tail(s->pattern));
	if (!s->overwrite && access(name, F_OK) == 0)
		return sana_error_set(error, -EEXIST, "sink.exists",
				      "%s: the file exists and is left as it is.",
				      file_path_tail(name));
	return 0;
}

static int images_write(struct media_sink *sink, const uint8_t *rgb, size_t row_bytes,
			int64_t timestamp_ns, int64_t duration_ns, struct sana_error *error)
{
	struct images *s = (struct images *)sink;
	char name[NAME_BYTES];
	int r;

	(void)timestamp_ns;
	(void)duration_ns;
	r = image_name(s, name, sizeof(name), error);
	if (r < 0)
		return r;
	/* The encoder wants growing times; the number of the picture will do. */
	r = media_encoder_send(&s->encoder, rgb, row_bytes, s->number * INT64_C(1000000000), 0);
	if (r >= 0)
		r = media_encoder_take(&s->encoder);
	if (r <= 0) {
		s->failed = true;
		return media_av_fail(error, r < 0 ? r : AVERROR(EIO), "sink.write", name,
				     "cannot encode");
	}
	r = image_write(s, name, error);
	av_packet_unref(s->encoder.packet);
	s->number++;
	return r;
}

static int images_finish(struct media_sink *sink, enum media_finish how, struct sana_error *error)
{
	const struct images *s = (struct images *)sink;

	(void)how;
	return s->failed ? sana_error_set(error, -EIO, "sink.write", "%s: writing failed before.",
					  file_path_tail(s->pattern)) :
			   0;
}

static const struct media_sink_ops images_ops = {
	.write = images_write,
	.finish = images_finish,
	.close = images_close,
};

static int images_open(struct images *s, const struct media_sink_wish *wish,
		       struct sana_error *error)
{
	const char *dot = strrchr(wish->path, '.');
	const struct media_encoder_wish encoder = {
		.codec = media_codec_find(strcasecmp(dot, ".png") == 0 ? "png" : "jpeg"),
		.width = wish->width,
		.height = wish->height,
		.fps_num = 1,
		.fps_den = 1,
		.time_base_num = 1,
		.time_base_den = 1,
		.threads = 1, /* more would hold pictures back */
	};
	char name[NAME_BYTES];
	int r;

	s->overwrite = wish->overwrite;
	s->number = 1;
	s->pattern = strdup(wish->path);
	if (!s->pattern)
		return sana_error_set(error, -ENOMEM, "memory", "Out of memory.");
	if (wish->codec && strcmp(wish->codec, encoder.codec->name) != 0)
		return sana_error_set(error, -EINVAL, "sink.format",
				      "%s: %s cannot be written to pictures.",
				      file_path_tail(s->pattern), wish->codec);
	r = image_name(s, name, sizeof(name), error);
	if (r == 0)
		r = media_encoder_init(&s->encoder, &encoder, file_path_tail(s->pattern), error);
	if (r < 0)
		return r;
	s->sink.info = (struct media_sink_info){
		.codec = encoder.codec->name,
		.encoder = s->encoder.codec->codec->name,
		.container = "pictures",
		.constant_rate = true,
		.partial_path = "",
	};
	return 0;
}

int media_sink_images_open(const struct media_sink_wish *wish, struct media_sink **ret,
			   struct sana_error *error)
{
	struct images *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return sana_error_set(error, -ENOMEM, "memory", "Out of memory.");
	s->sink.ops = &images_ops;
	r = images_open(s, wish, error);
	if (r < 0)
		images_close(&s->sink);
	else
		*ret = &s->sink;
	return r;
}
