/* stream.json: picture, chunks, schedule, window, prompts. */
#include "engine/config_reader.h"

#include <errno.h>

enum { MAX_SPATIAL_RATIO = 16384, MAX_TEMPORAL_RATIO = 256, MAX_NAME_BYTES = 256 };

static const struct {
	const char *name;
	enum sana_prompt_switch value;
} switch_names[] = {
	{ "keep", SANA_SWITCH_KEEP },
	{ "recache", SANA_SWITCH_RECACHE },
	{ "restart", SANA_SWITCH_RESTART },
	{ "restart_stream", SANA_SWITCH_RESTART }, /* read, never written */
};

const char *sana_prompt_switch_name(enum sana_prompt_switch value)
{
	for (size_t i = 0; i < ARRAY_SIZE(switch_names); i++)
		if (switch_names[i].value == value)
			return switch_names[i].name;
	return NULL;
}

enum sana_prompt_switch sana_prompt_switch_from_name(const char *name)
{
	for (size_t i = 0; name && i < ARRAY_SIZE(switch_names); i++)
		if (strcmp(switch_names[i].name, name) == 0)
			return switch_names[i].value;
	return SANA_SWITCH_INVALID;
}

void stream_config_finish(struct stream_config *config)
{
	free(config->name);
	free(config->chi_prompt);
	for (int i = 0; i < config->prompts; i++) {
		free(config->prompt[i].edit);
		free(config->prompt[i].prompt);
		free(config->prompt[i].meaning);
	}
	*config = (struct stream_config){ 0 };
}

/* Copies a string; a missing one has failed in the reader already. */
static char *copy_text(struct json_reader *reader, const char *key, const char *text)
{
	char *copy = text ? strdup(text) : NULL;

	if (text && !copy)
		(void)json_fail(reader, key, "does not fit into memory.");
	return copy;
}

static void read_picture(struct json_reader *reader, struct stream_config *config)
{
	int ratio = (int)json_get_integer(reader, "vae_spatial_ratio", 1, MAX_SPATIAL_RATIO);

	config->spatial_ratio = ratio;
	config->temporal_ratio =
		(int)json_get_integer(reader, "vae_temporal_ratio", 1, MAX_TEMPORAL_RATIO);
	config->latent_channels =
		(int)json_get_integer(reader, "latent_channels", 1, MODEL_MAX_CHANNELS);
	config->width = (int)json_get_integer(reader, "width", 1, MODEL_MAX_PIXELS);
	config->height = (int)json_get_integer(reader, "height", 1, MODEL_MAX_PIXELS);
	if (config->width % ratio)
		(void)json_fail(reader, "width", "is %d, which is no multiple of %d.",
				config->width, ratio);
	if (config->height % ratio)
		(void)json_fail(reader, "height", "is %d, which is no multiple of %d.",
				config->height, ratio);
	config->fps = json_get_number_or(reader, "fps", 0, 1000, 0);
}

static void read_chunks(struct json_reader *reader, struct stream_config *config)
{
	int *first = config->first_chunk_latents;

	config->chunk_latents =
		(int)json_get_integer(reader, "chunk_latents", 1, MODEL_MAX_CHUNK_LATENTS);
	config->first_chunks = json_get_integers(reader, "first_chunk_latents", 1,
						 MODEL_MAX_CHUNK_LATENTS, 1, MODEL_MAX_FIRST_CHUNKS,
						 first);
	for (int i = 1; i < config->first_chunks; i++)
		if (first[i] <= first[i - 1])
			(void)json_fail(reader, "first_chunk_latents",
					"must ascend, but %d follows %d.", first[i], first[i - 1]);
}

static void read_sigmas(struct json_reader *reader, struct stream_config *config,
			const double *timesteps)
{
	double sigmas[MODEL_MAX_STEPS + 1];
	int steps = config->steps, count;

	if (!json_has(reader, "sigmas")) {
		for (int i = 0; i < steps; i++)
			config->sigmas[i] = (float)timesteps[i] / 1000.0f;
		return; /* the last one is 0 */
	}
	count = json_get_numbers(reader, "sigmas", 0, 1, steps + 1, steps + 1, sigmas);
	for (int i = 0; i < count; i++) {
		if (i > 0 && sigmas[i] >= sigmas[i - 1])
			(void)json_fail(reader, "sigmas", "must descend, but %g follows %g.",
					sigmas[i], sigmas[i - 1]);
		config->sigmas[i] = (float)sigmas[i];
	}
	if (count > 0 && sigmas[count - 1] != 0)
		(void)json_fail(reader, "sigmas", "must end in 0, not in %g.", sigmas[count - 1]);
}

static void read_schedule(struct json_reader *reader, struct stream_config *config)
{
	double timesteps[MODEL_MAX_STEPS];

	config->steps =
		json_get_numbers(reader, "timesteps", 0, 1000, 1, MODEL_MAX_STEPS, timesteps);
	for (int i = 0; i < config->steps; i++) {
		if (i > 0 && timesteps[i] >= timesteps[i - 1])
			(void)json_fail(reader, "timesteps", "must descend, but %g follows %g.",
					timesteps[i], timesteps[i - 1]);
		if (timesteps[i] <= 0)
			(void)json_fail(reader, "timesteps", "must be above 0.");
		config->timesteps[i] = (int)timesteps[i];
	}
	if (reader->status == 0)
		read_sigmas(reader, config, timesteps);
}

static void read_policy(struct json_reader *reader, struct stream_config *config)
{
	const char *name;

	config->num_cached_blocks = (int)json_get_integer(reader, "num_cached_blocks", 0, 1 << 20);
	config->sink = json_get_bool(reader, "sink");
	if (config->num_cached_blocks != 2)
		(void)json_fail(reader, "num_cached_blocks",
				"is %d; 2 together with a sink is the one window supported.",
				config->num_cached_blocks);
	if (!config->sink)
		(void)json_fail(reader, "sink",
				"is false; a window without a sink is not supported.");
	if (json_get_number_or(reader, "cfg_scale", -1e6, 1e6, 1) != 1)
		(void)json_fail(reader, "cfg_scale",
				"must be 1.0: guidance is not supported, 1.0 is the only mode.");
	name = json_get_string_or(reader, "on_prompt_switch", MAX_NAME_BYTES, "recache");
	config->on_prompt_switch = sana_prompt_switch_from_name(name);
	if (config->on_prompt_switch == SANA_SWITCH_INVALID)
		(void)json_fail(reader, "on_prompt_switch",
				"must be \"keep\", \"recache\" or \"restart\".");
}

static void read_prompts(struct json_reader *reader, struct stream_config *config)
{
	const json_t *list = NULL, *value;
	char prefix[32];
	size_t i;

	if (json_has(reader, "prompts"))
		list = json_get_list(reader, "prompts", 0, MODEL_MAX_PROMPTS);
	json_array_foreach((json_t *)list, i, value)
	{
		struct model_prompt *prompt = &config->prompt[i];
		struct json_reader entry = *reader;

		if (!json_is_object(value)) {
			(void)json_fail(reader, "prompts", "entry %zu must be an object.", i);
			return;
		}
		(void)snprintf(prefix, sizeof(prefix), "prompts[%zu].", i);
		entry.object = value;
		entry.prefix = prefix;
		config->prompts = (int)i + 1;
		prompt->edit = copy_text(&entry, "edit",
					 json_get_string_or(&entry, "edit", MAX_NAME_BYTES, ""));
		prompt->prompt =
			copy_text(&entry, "prompt",
				  json_get_string_or(&entry, "prompt", CONFIG_MAX_TEXT_BYTES, ""));
		prompt->meaning =
			copy_text(&entry, "meaning",
				  json_get_string_or(&entry, "meaning", CONFIG_MAX_TEXT_BYTES, ""));
		reader->status = entry.status;
		if (reader->status < 0)
			return;
	}
}

int stream_config_parse(const char *text, size_t length, const char *where,
			struct stream_config *ret, struct sana_error *error)
{
	_cleanup_(stream_config_finish) struct stream_config config = { 0 };
	_cleanup_(json_decrefp) json_t *object = NULL;
	struct json_reader reader;
	int r;

	r = config_open(text, length, where, error, &object, &reader);
	if (r < 0)
		return r;
	config.name =
		copy_text(&reader, "name", json_get_string_or(&reader, "name", MAX_NAME_BYTES, ""));
	read_picture(&reader, &config);
	read_chunks(&reader, &config);
	read_schedule(&reader, &config);
	read_policy(&reader, &config);
	config.max_tokens = (int)json_get_integer(&reader, "max_tokens", 1, MODEL_MAX_TOKENS);
	config.chi_prompt =
		copy_text(&reader, "chi_prompt",
			  json_get_string(&reader, "chi_prompt", CONFIG_MAX_TEXT_BYTES));
	config.text_softcap = json_get_bool_or(&reader, "text_softcap", false);
	read_prompts(&reader, &config);
	if (reader.status < 0)
		return reader.status;
	*ret = config;
	config = (struct stream_config){ 0 };
	return 0;
}
