/* Picks the kind of a sink. */
#include "media/sink_ops.h"

#include "base/util.h"

#include <strings.h>

static bool is_image(const char *path)
{
	static const char *const extensions[] = { ".png", ".jpg", ".jpeg" };
	const char *dot = strrchr(path, '.');

	for (size_t i = 0; dot && i < ARRAY_SIZE(extensions); i++)
		if (strcasecmp(dot, extensions[i]) == 0)
			return true;
	return false;
}

int media_sink_open(const struct media_sink_wish *wish, struct media_sink **ret,
		    struct sana_error *error)
{
	return is_image(wish->path) ? media_sink_images_open(wish, ret, error) :
				      media_sink_file_open(wish, ret, error);
}

int media_sink_write(struct media_sink *sink, const uint8_t *rgb, size_t row_bytes,
		     int64_t timestamp_ns, int64_t duration_ns, struct sana_error *error)
{
	int r = sink->ops->write(sink, rgb, row_bytes, timestamp_ns, duration_ns, error);

	sink->info.frames += r >= 0;
	return r;
}

int media_sink_finish(struct media_sink *sink, enum media_finish how, struct sana_error *error)
{
	return sink->ops->finish ? sink->ops->finish(sink, how, error) : 0;
}

struct media_sink *media_sink_close(struct media_sink *sink)
{
	if (sink)
		sink->ops->close(sink);
	return NULL;
}

bool media_sink_is_watched(struct media_sink *sink)
{
	return !sink->ops->is_watched || sink->ops->is_watched(sink);
}

const struct media_sink_info *media_sink_info(const struct media_sink *sink)
{
	return &sink->info;
}
