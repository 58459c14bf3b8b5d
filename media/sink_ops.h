/* Inside of sinks: the table each kind fills, and what all kinds share. */
#pragma once

#include "media/sink.h"

struct media_sink_ops {
	int (*write)(struct media_sink *sink, const uint8_t *rgb, size_t row_bytes,
		     int64_t timestamp_ns, int64_t duration_ns, struct sana_error *error);
	/* NULL: nothing to complete (devices) */
	int (*finish)(struct media_sink *sink, enum media_finish how, struct sana_error *error);
	void (*close)(struct media_sink *sink);	     /* frees the sink itself, too */
	bool (*is_watched)(struct media_sink *sink); /* NULL: always */
};

/* First member of each kind's own struct. */
struct media_sink {
	const struct media_sink_ops *ops;
	struct media_sink_info info;
};

int media_sink_file_open(const struct media_sink_wish *wish, struct media_sink **ret,
			 struct sana_error *error);
int media_sink_images_open(const struct media_sink_wish *wish, struct media_sink **ret,
			   struct sana_error *error);
