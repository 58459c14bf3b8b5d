/*
 * Any text as one of the four configuration files; the first byte picks which. Refused by name, or
 * a configuration whose keys can be listed without a number overflowing.
 */
#include "engine/model_keys.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds)
{
	if (!holds)
		abort();
}

static int check_key(void *context, const struct model_key *key)
{
	const int64_t limit = INT64_C(1) << 48; /* elements of one tensor */
	int64_t elements = 1;

	(void)context;
	require(key->rank >= 1 && key->rank <= MODEL_KEY_RANK);
	require(strlen(key->name) < MODEL_KEY_NAME_BYTES - 1);
	for (int d = 0; d < key->rank; d++) {
		require(key->shape[d] > 0 && key->shape[d] <= limit / elements);
		elements *= key->shape[d];
	}
	return 0;
}

static void check_stream(const struct stream_config *config)
{
	require(config->width % config->spatial_ratio == 0);
	require(config->height % config->spatial_ratio == 0);
	require(config->first_chunks >= 1 && config->steps >= 1);
	require(config->sigmas[config->steps] == 0);
	for (int i = 0; i < config->steps; i++)
		require(config->sigmas[i] >= config->sigmas[i + 1]);
	require(config->on_prompt_switch >= 0 && config->on_prompt_switch < SANA_SWITCH_COUNT);
	for (int i = 0; i < config->prompts; i++)
		require(config->prompt[i].edit && config->prompt[i].prompt &&
			config->prompt[i].meaning);
	require(config->name && config->chi_prompt);
}

static void check_dit(const struct dit_config *config)
{
	require(config->hidden_size % config->num_heads == 0);
	require(config->hidden_size % config->head_dim == 0);
	require(2 * (config->pairs_t + config->pairs_y + config->pairs_x) == config->head_dim);
	require(dit_keys_visit(config, check_key, NULL) == 0);
}

static void check_vae(const struct vae_config *config)
{
	require(config->encoder[config->encoder_blocks - 1].cout == config->encoder_mid);
	require(config->decoder[0].cin == config->decoder_mid);
	require(config->decoder[config->decoder_blocks - 1].cout == config->decoder_last);
	require(vae_keys_visit(config, true, check_key, NULL) == 0);
}

static int parse(uint8_t kind, const char *text, size_t length, struct sana_error *error)
{
	struct model_config config = { 0 };
	int r;

	switch (kind % 4) {
	case 0:
		r = stream_config_parse(text, length, "input", &config.stream, error);
		if (r >= 0)
			check_stream(&config.stream);
		break;
	case 1:
		r = dit_config_parse(text, length, "input", &config.dit, error);
		if (r >= 0)
			check_dit(&config.dit);
		break;
	case 2:
		r = vae_config_parse(text, length, "input", &config.vae, error);
		if (r >= 0)
			check_vae(&config.vae);
		break;
	default:
		r = text_config_parse(text, length, "input", &config.text, error);
		if (r >= 0)
			require(text_keys_visit(&config.text, check_key, NULL) == 0);
		break;
	}
	if (r < 0)
		require(!config.stream.name && !config.stream.chi_prompt);
	model_config_finish(&config);
	return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sana_error error = { 0 };
	int r;

	if (size == 0)
		return 0;
	r = parse(data[0], (const char *)data + 1, size - 1, &error);
	if (r < 0) {
		require(error.code == r && strcmp(error.name, "model.config") == 0);
		require(strncmp(error.text, "input", 5) == 0 && !strchr(error.text, '\n'));
	}
	return 0;
}
