/* dit/config.json: the sizes of the diffusion transformer. */
#include "engine/config_reader.h"

enum { T_KERNEL_SIZE = 3, MAX_MLP_RATIO = 64 };

/*
 * n blocks, evenly spread, the last one of each stretch. The step is a real number and each index
 * is truncated on its own: this is how the published indices come about (docs/model/dit.md §1).
 */
static void softmax_from_ratio(struct dit_config *config, double ratio)
{
	int count = (int)(config->depth * ratio);
	double step;

	if (ratio == 0)
		return;
	count = MAX_OF(count, 1);
	step = (double)config->depth / count;
	for (int i = 0; i < count; i++)
		config->softmax[(int)((i + 1) * step) - 1] = true;
}

static void read_softmax(struct json_reader *reader, struct dit_config *config)
{
	int index[MODEL_MAX_DEPTH], count;

	if (!json_has(reader, "softmax_layer_indices")) {
		softmax_from_ratio(config, json_get_number(reader, "softmax_ratio", 0, 1));
		return;
	}
	count = json_get_integers(reader, "softmax_layer_indices", 0, config->depth - 1, 0,
				  config->depth, index);
	for (int i = 0; i < count; i++)
		config->softmax[index[i]] = true;
}

/* y and x get 2·⌊D/6⌋ lanes each, t the rest. */
static void read_rope(struct json_reader *reader, struct dit_config *config)
{
	int lanes[3] = { 0 };

	config->pairs_y = config->pairs_x = config->head_dim / 6;
	config->pairs_t = config->head_dim / 2 - 2 * config->pairs_y;
	if (!json_has(reader, "rope_lanes_thw"))
		return;
	if (json_get_integers(reader, "rope_lanes_thw", 0, MODEL_MAX_CHANNELS, 3, 3, lanes) != 3)
		return;
	if (lanes[0] != 2 * config->pairs_t || lanes[1] != 2 * config->pairs_y ||
	    lanes[2] != 2 * config->pairs_x)
		(void)json_fail(reader, "rope_lanes_thw",
				"is [%d, %d, %d]; a head of %d lanes is split [%d, %d, %d].",
				lanes[0], lanes[1], lanes[2], config->head_dim, 2 * config->pairs_t,
				2 * config->pairs_y, 2 * config->pairs_x);
}

static void read_heads(struct json_reader *reader, struct dit_config *config)
{
	int hidden = (int)json_get_integer(reader, "hidden_size", 2, MODEL_MAX_CHANNELS);

	config->hidden_size = hidden;
	config->num_heads = (int)json_get_integer(reader, "num_heads", 1, hidden);
	config->head_dim = (int)json_get_integer(reader, "linear_head_dim", 2, hidden);
	if (hidden % config->num_heads)
		(void)json_fail(reader, "num_heads", "is %d, which does not divide hidden_size %d.",
				config->num_heads, hidden);
	if (hidden % config->head_dim)
		(void)json_fail(reader, "linear_head_dim",
				"is %d, which does not divide hidden_size %d.", config->head_dim,
				hidden);
	if (config->head_dim % 2)
		(void)json_fail(reader, "linear_head_dim",
				"is %d; rotary positions need an even number.", config->head_dim);
}

static void read_mlp(struct json_reader *reader, struct dit_config *config)
{
	double width = config->hidden_size * json_get_number(reader, "mlp_ratio", 0, MAX_MLP_RATIO);

	if (width < 1 || width > MODEL_MAX_CHANNELS)
		(void)json_fail(reader, "mlp_ratio", "makes %g channels; 1 to %d are possible.",
				width, MODEL_MAX_CHANNELS);
	else
		config->mlp_hidden = (int)width;
}

/* What the network could in principle have otherwise, and this engine does not. */
static void check_fixed(struct json_reader *reader, const struct dit_config *config)
{
	int patch[3];

	(void)json_get_integers(reader, "patch_size", 1, 1, 3, 3, patch);
	(void)json_get_integer(reader, "t_kernel_size", T_KERNEL_SIZE, T_KERNEL_SIZE);
	(void)json_get_integer_or(reader, "out_channels", config->in_channels, config->in_channels,
				  config->in_channels);
}

int dit_config_parse(const char *text, size_t length, const char *where, struct dit_config *ret,
		     struct sana_error *error)
{
	_cleanup_(json_decrefp) json_t *object = NULL;
	struct dit_config config = { .t_kernel_size = T_KERNEL_SIZE };
	struct json_reader reader;
	int r;

	r = config_open(text, length, where, error, &object, &reader);
	if (r < 0)
		return r;
	config.depth = (int)json_get_integer(&reader, "depth", 1, MODEL_MAX_DEPTH);
	config.in_channels = (int)json_get_integer(&reader, "in_channels", 1, MODEL_MAX_CHANNELS);
	config.source_channels =
		(int)json_get_integer(&reader, "additional_inchannels", 1, MODEL_MAX_CHANNELS);
	config.caption_channels =
		(int)json_get_integer(&reader, "caption_channels", 1, MODEL_MAX_CHANNELS);
	config.max_tokens = (int)json_get_integer(&reader, "model_max_length", 1, MODEL_MAX_TOKENS);
	read_heads(&reader, &config);
	if (reader.status == 0) {
		read_rope(&reader, &config);
		read_mlp(&reader, &config);
		read_softmax(&reader, &config);
		check_fixed(&reader, &config);
	}
	if (reader.status < 0)
		return reader.status;
	*ret = config;
	return 0;
}
