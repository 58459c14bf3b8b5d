/* One directory, made and removed around a test. */
#include "tests/common/media_scratch.h"

#include "base/util.h"
#include "media/av.h"

struct scratch media_scratch;

int media_scratch_setup(void **state)
{
	(void)state;
	media_av_quiet();
	scratch_create(&media_scratch);
	return 0;
}

int media_scratch_teardown(void **state)
{
	(void)state;
	scratch_remove(&media_scratch);
	return 0;
}

const char *media_scratch_path(const char *name)
{
	static char paths[8][256];
	static unsigned int next;
	char *path = paths[next++ % ARRAY_SIZE(paths)];

	(void)snprintf(path, sizeof(paths[0]), "%s", scratch_path(&media_scratch, name));
	return path;
}
