/* text_encoder/config.json: the sizes of the Gemma-2 text encoder. */
#include "engine/config_reader.h"

enum { MAX_VOCABULARY = 1 << 20, MAX_WINDOW = 1 << 30 };

static const char activation[] = "gelu_pytorch_tanh";

static void read_heads(struct json_reader *reader, struct text_config *config)
{
	config->heads = (int)json_get_integer(reader, "num_attention_heads", 1, 4096);
	config->kv_heads = (int)json_get_integer(reader, "num_key_value_heads", 1, config->heads);
	config->head_dim = (int)json_get_integer(reader, "head_dim", 2, 4096);
	if (config->heads % config->kv_heads)
		(void)json_fail(reader, "num_key_value_heads",
				"is %d, which does not divide num_attention_heads %d.",
				config->kv_heads, config->heads);
	if (config->head_dim % 2)
		(void)json_fail(reader, "head_dim", "is %d; rotary positions need an even number.",
				config->head_dim);
	if (config->heads * config->head_dim > MODEL_MAX_CHANNELS)
		(void)json_fail(reader, "head_dim", "is %d for %d heads: at most %d channels.",
				config->head_dim, config->heads, MODEL_MAX_CHANNELS);
}

/* What the architecture can have otherwise, and this engine does not. */
static void check_fixed(struct json_reader *reader)
{
	const char *name =
		json_get_string_or(reader, "hidden_activation", CONFIG_MAX_TEXT_BYTES, activation);

	if (name && strcmp(name, activation) != 0)
		(void)json_fail(reader, "hidden_activation", "must be \"%s\".", activation);
	if (json_get_bool_or(reader, "attention_bias", false))
		(void)json_fail(reader, "attention_bias",
				"must be false: the layers have no biases here.");
}

int text_config_parse(const char *text, size_t length, const char *where, struct text_config *ret,
		      struct sana_error *error)
{
	_cleanup_(json_decrefp) json_t *object = NULL;
	struct text_config config = { 0 };
	struct json_reader reader;
	int r;

	r = config_open(text, length, where, error, &object, &reader);
	if (r < 0)
		return r;
	config.vocab_size = (int)json_get_integer(&reader, "vocab_size", 1, MAX_VOCABULARY);
	config.hidden_size = (int)json_get_integer(&reader, "hidden_size", 1, MODEL_MAX_CHANNELS);
	config.intermediate_size =
		(int)json_get_integer(&reader, "intermediate_size", 1, MODEL_MAX_CHANNELS);
	config.layers = (int)json_get_integer(&reader, "num_hidden_layers", 1, MODEL_MAX_DEPTH);
	read_heads(&reader, &config);
	config.sliding_window =
		(int)json_get_integer_or(&reader, "sliding_window", 0, MAX_WINDOW, 0);
	config.query_pre_attn_scalar =
		(float)json_get_number(&reader, "query_pre_attn_scalar", 1e-3, 1e6);
	config.attn_logit_softcapping =
		(float)json_get_number_or(&reader, "attn_logit_softcapping", 0, 1e6, 0);
	config.rms_norm_eps = (float)json_get_number(&reader, "rms_norm_eps", 0, 1);
	config.rope_theta = (float)json_get_number(&reader, "rope_theta", 1, 1e9);
	check_fixed(&reader);
	if (reader.status < 0)
		return reader.status;
	*ret = config;
	return 0;
}
