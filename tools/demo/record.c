/* Some seconds of a camera in a file, so that several edits can be made of the same pictures. */
#include "tools/demo/demo.h"

#include <errno.h>

#include "media/convert.h"
#include "media/sink.h"
#include "media/source.h"

struct recorder {
	struct media_source *source;
	struct media_convert *convert;
	struct media_sink *sink;
	uint8_t *rgb;
	size_t row_bytes;
};

static int recorder_open(struct recorder *recorder, const char *path, const char *out,
			 struct sana_error *error)
{
	const struct media_source_wish wish = { .path = path };
	const struct media_source_info *info;
	struct media_sink_wish to = { .path = out, .overwrite = true };
	int r;

	r = media_source_open(&wish, &recorder->source, error);
	if (r < 0)
		return r;
	info = media_source_info(recorder->source);
	/* Encoders want even sides. */
	to.width = info->width & ~1;
	to.height = info->height & ~1;
	to.fps_num = info->fps_num > 0 ? info->fps_num : 24;
	to.fps_den = info->fps_num > 0 ? info->fps_den : 1;
	recorder->row_bytes = 3 * (size_t)to.width;
	recorder->rgb = malloc(recorder->row_bytes * (size_t)to.height);
	if (!recorder->rgb)
		return -ENOMEM;
	r = media_convert_create(to.width, to.height, true, &recorder->convert, error);
	return r < 0 ? r : media_sink_open(&to, &recorder->sink, error);
}

static int recorder_run(struct recorder *recorder, int seconds, struct sana_error *error)
{
	struct media_picture picture;
	int64_t first_ns = -1;
	int r;

	while ((r = media_source_read(recorder->source, &picture, error)) > 0) {
		if (first_ns < 0)
			first_ns = picture.timestamp_ns;
		if (picture.timestamp_ns - first_ns >= (int64_t)seconds * 1000000000)
			break;
		r = media_convert_run(recorder->convert, &picture, recorder->rgb,
				      recorder->row_bytes, error);
		if (r >= 0)
			r = media_sink_write(recorder->sink, recorder->rgb, recorder->row_bytes,
					     picture.timestamp_ns - first_ns, 0, error);
		if (r < 0)
			return r;
	}
	return r < 0 ? r : media_sink_finish(recorder->sink, MEDIA_FINISH_COMPLETE, error);
}

int demo_record(const char *source, const char *out, int seconds, struct sana_error *error)
{
	struct recorder recorder = { 0 };
	int r;

	r = recorder_open(&recorder, source, out, error);
	if (r >= 0)
		r = recorder_run(&recorder, seconds, error);
	(void)media_sink_close(recorder.sink);
	(void)media_convert_destroy(recorder.convert);
	(void)media_source_close(recorder.source);
	free(recorder.rgb);
	return r;
}
