/* A directory of one test, removed with all that is in it. */
#pragma once

#include <stddef.h>

struct scratch {
	char path[64];
};

/* Both fail the running test when the system refuses. */
void scratch_create(struct scratch *scratch);
void scratch_remove(struct scratch *scratch);

/* Writes directory/name and makes the directories in between; replaces a file or link. */
void scratch_write(const struct scratch *scratch, const char *name, const void *data, size_t bytes);
void scratch_write_text(const struct scratch *scratch, const char *name, const char *text);

/* A symbolic link directory/name to the file `target`, relative to the current directory. */
void scratch_link(const struct scratch *scratch, const char *name, const char *target);

/* Removes directory/name, which must be there. */
void scratch_delete(const struct scratch *scratch, const char *name);

/* The whole path of `name`, in a buffer that the next call of the thread reuses. */
const char *scratch_path(const struct scratch *scratch, const char *name);
