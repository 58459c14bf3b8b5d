/* The back end that the process before this one had. */
#include "daemon/main_again.h"

#include "base/file.h"
#include "base/util.h"

#include <errno.h>
#include <unistd.h>

enum { PATH_BYTES = 4096 };

static bool path_print(const char *directory, char path[PATH_BYTES])
{
	const int length = directory ? snprintf(path, PATH_BYTES, "%s/backend-before", directory) :
				       -1;

	return length > 0 && length < PATH_BYTES;
}

int main_again_note(const char *directory, const char *backend)
{
	char path[PATH_BYTES];
	FILE *file;
	int r = 0;

	if (!path_print(directory, path))
		return 0;
	file = fopen(path, "we");
	if (!file)
		return -errno;
	if (fputs(backend, file) < 0)
		r = -errno;
	if (fclose(file) < 0 && r == 0)
		r = -errno;
	return r;
}

bool main_again_read(const char *directory, char ret_backend[MAIN_AGAIN_BYTES])
{
	_cleanup_(freep) char *text = NULL;
	char path[PATH_BYTES];
	size_t length;

	if (!path_print(directory, path) ||
	    file_read(path, MAIN_AGAIN_BYTES - 1, "again", &text, &length, NULL) < 0 || !length)
		return false;
	(void)snprintf(ret_backend, MAIN_AGAIN_BYTES, "%s", text);
	return true;
}

void main_again_forget(const char *directory)
{
	char path[PATH_BYTES];

	if (path_print(directory, path))
		(void)unlink(path);
}
