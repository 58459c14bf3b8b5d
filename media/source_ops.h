/* Inside of sources: the table each kind fills, and what all kinds share. */
#pragma once

#include "media/source.h"

struct media_source_ops {
	int (*read)(struct media_source *source, struct media_picture *ret,
		    struct sana_error *error);
	void (*close)(struct media_source *source); /* frees the source itself, too */
};

/* First member of each kind's own struct. */
struct media_source {
	const struct media_source_ops *ops;
	struct media_source_info info;
};

int media_source_file_open(const struct media_source_wish *wish, struct media_source **ret,
			   struct sana_error *error);
int media_source_endless_open(const struct media_source_wish *wish, struct media_source **ret,
			      struct sana_error *error);
int media_source_pattern_open(const struct media_source_wish *wish, struct media_source **ret,
			      struct sana_error *error);
