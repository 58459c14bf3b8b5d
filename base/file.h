/* Whole files: mapped read-only, or read into memory up to a limit. */
#pragma once

#include "base/error.h"

/*
 * The last 200 bytes or so of a longer path, for errors: the file's own name tells most.
 * Points into `path`.
 */
const char *file_path_tail(const char *path);

/* `data` is never NULL while open; an empty file has size 0. */
struct file_map {
	const void *data;
	size_t size;
};

/*
 * Only regular files are opened, so that a pipe or a device cannot stop or feed the caller.
 * On failure a negative errno and an error called `name`, whose sentence starts with the path.
 */
int file_map(const char *path, const char *name, struct file_map *ret, struct sana_error *error);

/* Accepts a zeroed struct and may be called twice. */
void file_unmap(struct file_map *map);

/* The text ends in a NUL that is not counted in *ret_size. The caller frees it. −EFBIG over limit. */
int file_read(const char *path, size_t limit_bytes, const char *name, char **ret_text,
	      size_t *ret_size, struct sana_error *error);
