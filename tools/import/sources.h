/* What lies in the places that were named: files are found by their names, judged by their content. */
#pragma once

#include "base/error.h"

enum source_kind {
	SOURCE_WEIGHTS, /* one file, or an index of shards */
	SOURCE_TOKENIZER,
	SOURCE_STREAM, /* a stream.json */
};

struct source {
	char *path;
	enum source_kind kind;
	bool named; /* itself on the command line, not found in a directory */
};

struct sources {
	struct source *source;
	size_t count;
};

/*
 * Files are taken whatever they are called; directories are searched for checkpoints, at most
 * 8 deep, hidden ones left out, links to files followed. Shards are found through their index.
 */
int sources_find(char *const *places, int count, struct sources *ret, struct sana_error *error);
void sources_finish(struct sources *sources); /* accepts a zeroed one */
