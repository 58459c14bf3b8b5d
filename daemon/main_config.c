/* The configuration as the daemon's parts take it. */
#include "daemon/main_config.h"

#include "base/cache_directory.h"
#include "base/clock.h"
#include "base/util.h"

#include <errno.h>
#include <unistd.h>

/* Relative to the directory the program lies in: installed, then in a build directory. */
static const char *const demo_beside[] = {
	"../share/sana-streamd/models/demo",
	"../../models/demo",
};

static char *demo_find(void)
{
	char program[4096], *path, *found;
	const ssize_t length = readlink("/proc/self/exe", program, sizeof(program) - 1);

	if (length <= 0)
		return NULL;
	program[length] = '\0';
	*strrchr(program, '/') = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(demo_beside); i++) {
		if (asprintf(&path, "%s/%s", program, demo_beside[i]) < 0)
			return NULL;
		/* Resolved, as it is shown to people; NULL where it is not there. */
		found = realpath(path, NULL);
		free(path);
		if (found)
			return found;
	}
	return NULL;
}

/* NULL where the settings leave it to the device. */
static const char *chosen(const char *text)
{
	return *text && strcmp(text, "auto") != 0 ? text : NULL;
}

static enum sana_prompt_switch switch_from_name(const char *name)
{
	static const char *const names[SANA_SWITCH_COUNT] = {
		[SANA_SWITCH_KEEP] = "keep",
		[SANA_SWITCH_RECACHE] = "recache",
		[SANA_SWITCH_RESTART] = "restart",
	};

	for (int i = 0; i < SANA_SWITCH_COUNT; i++)
		if (strcmp(names[i], name) == 0)
			return (enum sana_prompt_switch)i;
	return SANA_SWITCH_INVALID; /* "model" */
}

static void pipeline_settings_fill(const struct settings *s, struct pipeline_settings *p)
{
	p->while_warming = pipeline_show_from_name(s->output.while_warming);
	p->while_lost = pipeline_show_from_name(s->output.while_lost);
	p->while_paused = pipeline_show_from_name(s->output.while_paused);
	p->hold_ns = s->output.hold_ms * CLOCK_MS_NS;
	p->latency_cap_ns = s->output.latency_cap_ms * CLOCK_MS_NS;
	p->sleep_unwatched = s->output.sleep_unwatched;
	p->unwatched_ns = s->output.unwatched_ms * CLOCK_MS_NS;
	p->backoff_min_ns = s->output.backoff_min_ms * CLOCK_MS_NS;
	p->backoff_max_ns = s->output.backoff_max_ms * CLOCK_MS_NS;
}

static void model_fill(struct main_config *config, struct pipeline_options *p)
{
	const struct settings *s = config->settings;

	p->model.directory = *s->model.directory ? s->model.directory : config->demo;
	p->model.backend = chosen(s->model.backend);
	p->model.threads = s->model.threads;
	p->model.deterministic = s->model.deterministic;
	if (cache_directory(config->cache, sizeof(config->cache)) >= 0)
		p->model.tuning_directory = config->cache;
	p->stream.width = s->model.width;
	p->stream.height = s->model.height;
	p->stream.first_chunk_latents = s->model.first_chunk_latents;
	p->stream.prompt_switch = switch_from_name(s->model.prompt_switch);
	p->stream.seed = (uint64_t)s->model.seed;
}

static void stream_fill(struct main_config *config)
{
	const struct settings *s = config->settings;
	struct live_stream_config *stream = &config->stream;
	struct pipeline_options *p = &stream->pipeline;

	pipeline_options_init(p);
	model_fill(config, p);
	p->source_width = s->source.width;
	p->source_height = s->source.height;
	p->source_fps_num = s->source.fps;
	p->source_fps_den = 1;
	p->fps_num = s->output.fps;
	p->fps_den = 1;
	p->sink_codec = chosen(s->output.codec);
	pipeline_settings_fill(s, &p->settings);
	stream->source = s->source.identity;
	stream->prompt = s->prompt.initial;
	stream->policy = s->model.policy;
	stream->autostart = s->autostart;
	stream->sink_count = MIN_OF(s->output.sinks.count, PIPELINE_SINKS);
	for (int i = 0; i < stream->sink_count; i++)
		stream->sinks[i] = s->output.sinks.item[i];
}

static void devices_fill(struct main_config *config)
{
	const struct settings *s = config->settings;

	config->devices = (struct main_devices){
		.source_pixel_format = chosen(s->source.pixel_format),
		.source_matrix = chosen(s->source.matrix),
		.source_range = chosen(s->source.range),
		.sink_pixel_format = chosen(s->output.pixel_format),
		.sink_mode = chosen(s->output.mode),
		.sink_unscaled = s->output.unscaled,
		/* What a crash leaves behind is looked for here; systemd makes it. */
		.state_directory = getenv("RUNTIME_DIRECTORY"),
	};
}

int main_config_load(const char *path, struct main_config **ret, struct settings_report *report,
		     struct sana_error *error)
{
	struct main_config *config = calloc(1, sizeof(*config));
	int r;

	if (!config)
		return sana_error_set(error, -ENOMEM, "memory", "Out of memory.");
	r = settings_load(path, &config->settings, report, error);
	if (r < 0) {
		(void)main_config_free(config);
		return r;
	}
	config->demo = demo_find();
	config->log_level = log_level_from_name(config->settings->log.level);
	stream_fill(config);
	devices_fill(config);
	*ret = config;
	return 0;
}

struct main_config *main_config_free(struct main_config *config)
{
	if (!config)
		return NULL;
	(void)settings_free(config->settings);
	free(config->demo);
	free(config);
	return NULL;
}
