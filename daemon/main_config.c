/* The configuration file as the daemon's parts take it. */
#include "daemon/main_config.h"

#include "base/clock.h"
#include "base/util.h"

#include <errno.h>
#include <libconfig.h>
#include <unistd.h>

/* Relative to the directory the program lies in: installed, then in a build directory. */
static const char *const demo_beside[] = {
	"../share/sana-streamd/models/demo",
	"../../models/demo",
};

struct owner {
	config_t file;
	char *demo; /* the demo model's directory, where no other is given */
};

static char *demo_find(void)
{
	char program[4096], *path;
	const ssize_t length = readlink("/proc/self/exe", program, sizeof(program) - 1);

	if (length <= 0)
		return NULL;
	program[length] = '\0';
	*strrchr(program, '/') = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(demo_beside); i++) {
		if (asprintf(&path, "%s/%s", program, demo_beside[i]) < 0)
			return NULL;
		if (access(path, R_OK) == 0)
			return path;
		free(path);
	}
	return NULL;
}

static void text(const config_t *file, const char *key, const char **ret)
{
	(void)config_lookup_string(file, key, ret);
}

static void number(const config_t *file, const char *key, int *ret)
{
	(void)config_lookup_int(file, key, ret);
}

static void milliseconds(const config_t *file, const char *key, int64_t *ret_ns)
{
	int ms;

	if (config_lookup_int(file, key, &ms))
		*ret_ns = ms * CLOCK_MS_NS;
}

static void flag(const config_t *file, const char *key, bool *ret)
{
	int value;

	if (config_lookup_bool(file, key, &value))
		*ret = value != 0;
}

static void show(const config_t *file, const char *key, enum pipeline_show *ret)
{
	const char *name;

	if (config_lookup_string(file, key, &name) &&
	    pipeline_show_from_name(name) != PIPELINE_SHOW_INVALID)
		*ret = pipeline_show_from_name(name);
}

static void settings_read(const config_t *file, struct pipeline_settings *s)
{
	show(file, "output.while-warming", &s->while_warming);
	show(file, "output.while-lost", &s->while_lost);
	show(file, "output.while-paused", &s->while_paused);
	milliseconds(file, "output.hold-ms", &s->hold_ns);
	milliseconds(file, "output.latency-cap-ms", &s->latency_cap_ns);
	flag(file, "output.sleep-unwatched", &s->sleep_unwatched);
	milliseconds(file, "output.unwatched-ms", &s->unwatched_ns);
}

static void sinks_read(const config_t *file, struct live_stream_config *stream)
{
	const config_setting_t *list = config_lookup(file, "output.sinks");
	const int count = list ? config_setting_length(list) : 0;

	for (int i = 0; i < MIN_OF(count, PIPELINE_SINKS); i++)
		stream->sinks[stream->sink_count++] = config_setting_get_string_elem(list, i);
}

static void stream_read(const config_t *file, struct live_stream_config *stream)
{
	struct pipeline_options *p = &stream->pipeline;
	int seed = 0;

	text(file, "model.directory", &p->model.directory);
	text(file, "model.backend", &p->model.backend);
	if (p->model.backend && strcmp(p->model.backend, "auto") == 0)
		p->model.backend = NULL;
	number(file, "model.threads", &p->model.threads);
	number(file, "model.width", &p->stream.width);
	number(file, "model.height", &p->stream.height);
	number(file, "model.first-chunk-latents", &p->stream.first_chunk_latents);
	number(file, "model.seed", &seed);
	p->stream.seed = (uint64_t)seed;
	text(file, "source.identity", &stream->source);
	number(file, "source.width", &p->source_width);
	number(file, "source.height", &p->source_height);
	number(file, "source.fps", &p->source_fps_num);
	p->source_fps_den = 1;
	number(file, "output.fps", &p->fps_num);
	p->fps_den = 1;
	text(file, "output.codec", &p->sink_codec);
	text(file, "prompt.initial", &stream->prompt);
	flag(file, "autostart", &stream->autostart);
	settings_read(file, &p->settings);
	sinks_read(file, stream);
}

int main_config_load(const char *path, struct main_config **ret, struct sana_error *error)
{
	struct main_config *config = calloc(1, sizeof(*config));
	struct owner *owner = calloc(1, sizeof(*owner));

	if (!config || !owner) {
		free(config);
		free(owner);
		return sana_error_set(error, -ENOMEM, "memory", "Out of memory.");
	}
	config->owner = owner;
	config->log_level = LOG_LEVEL_INFO;
	config_init(&owner->file);
	if (path && config_read_file(&owner->file, path) != CONFIG_TRUE) {
		const int line = config_error_line(&owner->file);

		(void)sana_error_set(error, -EINVAL, "config.syntax", "%s:%d: %s.", path, line,
				     config_error_text(&owner->file));
		(void)main_config_free(config);
		return -EINVAL;
	}
	pipeline_options_init(&config->stream.pipeline);
	config->stream.source = config->stream.prompt = "";
	config->stream.autostart = true;
	stream_read(&owner->file, &config->stream);
	if (!config->stream.pipeline.model.directory)
		config->stream.pipeline.model.directory = owner->demo = demo_find();
	*ret = config;
	return 0;
}

struct main_config *main_config_free(struct main_config *config)
{
	struct owner *owner;

	if (!config)
		return NULL;
	owner = config->owner;
	config_destroy(&owner->file);
	free(owner->demo);
	free(owner);
	free(config);
	return NULL;
}
