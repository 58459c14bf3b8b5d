/* The cache directory, from the environment. */
#include "base/cache_directory.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int join(const char *first, size_t length, const char *rest, char *ret, size_t bytes)
{
	const int n = snprintf(ret, bytes, "%.*s%s", (int)length, first, rest);

	return n < 0 || (size_t)n >= bytes ? -ENAMETOOLONG : 0;
}

int cache_directory(char *ret, size_t bytes)
{
	const char *own = getenv("CACHE_DIRECTORY"), *shared = getenv("XDG_CACHE_HOME");
	const char *home = getenv("HOME");

	/* Several are separated by colons. A relative one is not meant for us (and XDG forbids it). */
	if (own && *own == '/')
		return join(own, strcspn(own, ":"), "", ret, bytes);
	if (shared && *shared == '/')
		return join(shared, strlen(shared), "/sana-streamd", ret, bytes);
	if (home && *home == '/')
		return join(home, strlen(home), "/.cache/sana-streamd", ret, bytes);
	return -ENOENT;
}
