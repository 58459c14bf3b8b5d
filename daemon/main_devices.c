/* Which code opens which identity. */
#include "daemon/main_devices.h"

#include "base/util.h"
#include "daemon/sink_kms.h"
#include "daemon/sink_loopback.h"
#include "daemon/source_v4l2.h"

#include <errno.h>
#include <unistd.h>

enum { FILE_NAMES = 10000 };

static bool has_scheme(const char *identity, const char *scheme)
{
	return strncmp(identity, scheme, strlen(scheme)) == 0;
}

static const char *file_path(const char *identity)
{
	return identity + strlen("file:");
}

/* ---------------------------------------------------------------------------------------- sources */

static int source_open(void *context, const struct media_source_wish *wish,
		       struct media_source **ret, struct sana_error *error)
{
	const struct main_devices *devices = context;
	struct media_source_wish own = *wish;

	if (has_scheme(wish->path, "v4l2:")) {
		own.pixel_format = devices->source_pixel_format;
		own.matrix = devices->source_matrix;
		own.range = devices->source_range;
		return source_v4l2_open(&own, ret, error);
	}
	if (has_scheme(wish->path, "file:"))
		own.path = file_path(wish->path);
	else if (!has_scheme(wish->path, "pattern:"))
		return sana_error_set(error, -EINVAL, "source.identity",
				      "\"%.100s\" names no kind of source.", wish->path);
	return media_source_open(&own, ret, error);
}

/* ------------------------------------------------------------------------------------------ sinks */

/* "film.mp4" is taken, too, while there is a "film.partial.mp4": what a crash left of a recording. */
static bool is_taken(const char *path, int stem)
{
	_cleanup_(freep) char *partial = NULL;

	if (access(path, F_OK) == 0)
		return true;
	if (asprintf(&partial, "%.*s.partial%s", stem, path, path + stem) < 0) {
		partial = NULL;
		return true;
	}
	return access(partial, F_OK) == 0;
}

/* "film.mp4", "film-2.mp4", …: a recording never takes the place of another one. */
static int file_name_free(const char *path, char **ret)
{
	const char *slash = strrchr(path, '/');
	const char *dot = strrchr(path, '.');
	const int stem = dot && dot > slash ? (int)(dot - path) : (int)strlen(path);
	char *name;

	for (int n = 1; n < FILE_NAMES; n++) {
		const int r = n == 1 ? asprintf(&name, "%s", path) :
				       asprintf(&name, "%.*s-%d%s", stem, path, n, path + stem);

		if (r < 0)
			return -ENOMEM;
		if (!is_taken(name, (int)(strlen(name) - strlen(path + stem)))) {
			*ret = name;
			return 0;
		}
		free(name);
	}
	return -EEXIST;
}

static int file_open(const struct media_sink_wish *wish, struct media_sink **ret,
		     struct sana_error *error)
{
	_cleanup_(freep) char *path = NULL;
	struct media_sink_wish own = *wish;
	int r;

	r = file_name_free(file_path(wish->path), &path);
	if (r < 0)
		return sana_error_set(error, r, "sink.exists",
				      "%.200s: no name is left; move old recordings away.",
				      file_path(wish->path));
	own.path = path;
	own.durable = true;
	return media_sink_open(&own, ret, error);
}

static int sink_open(void *context, const struct media_sink_wish *wish, struct media_sink **ret,
		     struct sana_error *error)
{
	const struct main_devices *devices = context;
	struct media_sink_wish own = *wish;

	own.mode = devices->sink_mode;
	own.pixel_format = devices->sink_pixel_format;
	own.unscaled = devices->sink_unscaled;
	own.state_directory = devices->state_directory;
	if (has_scheme(wish->path, "loopback:"))
		return sink_loopback_open(&own, ret, error);
	if (has_scheme(wish->path, "kms:"))
		return sink_kms_open(&own, ret, error);
	if (has_scheme(wish->path, "file:"))
		return file_open(wish, ret, error);
	return sana_error_set(error, -EINVAL, "sink.identity", "\"%.100s\" names no kind of sink.",
			      wish->path);
}

struct pipeline_devices main_devices_functions(struct main_devices *devices)
{
	return (struct pipeline_devices){ source_open, sink_open, devices };
}

/* ------------------------------------------------------------------------------------------ lists */

int main_devices_list_sources(struct media_device *ret, int capacity)
{
	const int count = source_v4l2_list(ret, capacity);

	if (count < capacity)
		ret[count] = (struct media_device){ .identity = "pattern:",
						    .description = "Test pattern: moving bars",
						    .present = true };
	return count + 1;
}

int main_devices_list_sinks(struct media_device *ret, int capacity)
{
	const int virtual = sink_loopback_list(ret, capacity);
	const int there = MIN_OF(virtual, capacity);

	return virtual + sink_kms_list(ret + there, capacity - there);
}
