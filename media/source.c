/* Picks the kind of a source. */
#include "media/source_ops.h"

#include "base/util.h"

int media_source_open(const struct media_source_wish *wish, struct media_source **ret,
		      struct sana_error *error)
{
	static const char pattern[] = "pattern:";

	if (strncmp(wish->path, pattern, sizeof(pattern) - 1) == 0)
		return media_source_pattern_open(wish, ret, error);
	/* Standard input cannot be read twice. */
	if (wish->endless && strcmp(wish->path, "-") != 0)
		return media_source_endless_open(wish, ret, error);
	return media_source_file_open(wish, ret, error);
}

struct media_source *media_source_close(struct media_source *source)
{
	if (source)
		source->ops->close(source);
	return NULL;
}

int media_source_read(struct media_source *source, struct media_picture *ret,
		      struct sana_error *error)
{
	return source->ops->read(source, ret, error);
}

const struct media_source_info *media_source_info(const struct media_source *source)
{
	return &source->info;
}
