#include "tests/common/scratch.h"

#include <ftw.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

void scratch_create(struct scratch *scratch)
{
	*scratch = (struct scratch){ "/tmp/sana-test-XXXXXX" };
	assert_non_null(mkdtemp(scratch->path));
}

static int remove_entry(const char *path, const struct stat *status, int kind, struct FTW *walk)
{
	(void)status;
	(void)kind;
	(void)walk;
	return remove(path);
}

void scratch_remove(struct scratch *scratch)
{
	assert_int_equal(nftw(scratch->path, remove_entry, 16, FTW_DEPTH | FTW_PHYS), 0);
}

const char *scratch_path(const struct scratch *scratch, const char *name)
{
	static _Thread_local char path[PATH_MAX];

	(void)snprintf(path, sizeof(path), "%s/%s", scratch->path, name);
	return path;
}

/* Makes the directories of `name` and clears its place. */
static const char *place_make(const struct scratch *scratch, const char *name)
{
	char directory[PATH_MAX];

	for (const char *slash = strchr(name, '/'); slash; slash = strchr(slash + 1, '/')) {
		(void)snprintf(directory, sizeof(directory), "%s/%.*s", scratch->path,
			       (int)(slash - name), name);
		(void)mkdir(directory, 0700); /* it may be there */
	}
	(void)unlink(scratch_path(scratch, name)); /* nothing may be there */
	return scratch_path(scratch, name);
}

void scratch_write(const struct scratch *scratch, const char *name, const void *data, size_t bytes)
{
	FILE *file = fopen(place_make(scratch, name), "wb");

	assert_non_null(file);
	assert_int_equal(fwrite(data, 1, bytes, file), bytes);
	assert_int_equal(fclose(file), 0);
}

void scratch_write_text(const struct scratch *scratch, const char *name, const char *text)
{
	scratch_write(scratch, name, text, strlen(text));
}

void scratch_link(const struct scratch *scratch, const char *name, const char *target)
{
	char whole[PATH_MAX];

	assert_non_null(realpath(target, whole));
	assert_int_equal(symlink(whole, place_make(scratch, name)), 0);
}

void scratch_delete(const struct scratch *scratch, const char *name)
{
	assert_int_equal(unlink(scratch_path(scratch, name)), 0);
}
