/* The tensors of the three networks, name by name, from their configurations. */
#include "engine/model_keys.h"

#include <stdarg.h>

/* Width of the sinusoid that the time step becomes, and side of the unused position table. */
enum { TIME_CHANNELS = 256, POSITION_ROWS = 484 };

/* One walk: sticks at the first negative answer. */
struct key_walk {
	model_key_visit visit;
	void *context;
	int status;
};

enum { KEY_REQUIRED, KEY_OPTIONAL };

static void walk_shape(struct key_walk *walk, const char *name, bool optional, int rank,
		       const int64_t *shape)
{
	struct model_key key = { .rank = rank, .optional = optional };
	int r;

	if (walk->status < 0)
		return;
	(void)snprintf(key.name, sizeof(key.name), "%s", name);
	memcpy(key.shape, shape, sizeof(key.shape[0]) * (size_t)rank);
	r = walk->visit(walk->context, &key);
	if (r < 0)
		walk->status = r;
}

#define KEY_SHAPE(walk, optional, name, ...)                                          \
	walk_shape(walk, name, optional,                                              \
		   (int)(sizeof((const int64_t[]){ __VA_ARGS__ }) / sizeof(int64_t)), \
		   (const int64_t[]){ __VA_ARGS__ })
#define KEY(walk, name, ...) KEY_SHAPE(walk, KEY_REQUIRED, name, __VA_ARGS__)

/* Joins name parts; the longest is far below MODEL_KEY_NAME_BYTES. */
static const char *name_join(char *to, const char *format, ...) _printf_(2, 3);

static const char *name_join(char *to, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	(void)vsnprintf(to, MODEL_KEY_NAME_BYTES, format, arguments);
	va_end(arguments);
	return to;
}

/* prefix.weight [out, in] and, where there is one, prefix.bias [out] */
static void walk_linear(struct key_walk *walk, const char *prefix, int64_t out, int64_t in,
			bool bias)
{
	char name[MODEL_KEY_NAME_BYTES];

	KEY(walk, name_join(name, "%s.weight", prefix), out, in);
	if (bias)
		KEY(walk, name_join(name, "%s.bias", prefix), out);
}

/* -------------------------------------------------------------------------------------- DiT */

static void walk_gdn(struct key_walk *walk, const struct dit_config *config, int block)
{
	int64_t c = config->hidden_size, heads = config->hidden_size / config->head_dim;
	char name[MODEL_KEY_NAME_BYTES];

	KEY(walk, name_join(name, "blocks.%d.attn.A_log", block), heads);
	KEY(walk, name_join(name, "blocks.%d.attn.dt_bias", block), heads);
	walk_linear(walk, name_join(name, "blocks.%d.attn.beta_proj", block), heads, c, true);
	walk_linear(walk, name_join(name, "blocks.%d.attn.gate_proj", block), heads, c, true);
}

static void walk_self_attention(struct key_walk *walk, const struct dit_config *config, int block)
{
	int64_t c = config->hidden_size;
	int64_t taps = config->softmax[block] ? config->t_kernel_size : 1;
	char name[MODEL_KEY_NAME_BYTES];

	if (!config->softmax[block])
		walk_gdn(walk, config, block);
	KEY(walk, name_join(name, "blocks.%d.attn.q_norm.weight", block), c);
	KEY(walk, name_join(name, "blocks.%d.attn.k_norm.weight", block), c);
	KEY(walk, name_join(name, "blocks.%d.attn.q.weight", block), c, c, taps);
	KEY(walk, name_join(name, "blocks.%d.attn.k.weight", block), c, c, taps);
	walk_linear(walk, name_join(name, "blocks.%d.attn.v", block), c, c, false);
	walk_linear(walk, name_join(name, "blocks.%d.attn.output_gate", block), c, c, true);
	walk_linear(walk, name_join(name, "blocks.%d.attn.proj", block), c, c, true);
}

static void walk_cross_attention(struct key_walk *walk, const struct dit_config *config, int block)
{
	int64_t c = config->hidden_size;
	char name[MODEL_KEY_NAME_BYTES];

	walk_linear(walk, name_join(name, "blocks.%d.cross_attn.q_linear", block), c, c, true);
	walk_linear(walk, name_join(name, "blocks.%d.cross_attn.kv_linear", block), 2 * c, c, true);
	walk_linear(walk, name_join(name, "blocks.%d.cross_attn.proj", block), c, c, true);
	KEY(walk, name_join(name, "blocks.%d.cross_attn.q_norm.weight", block), c);
	KEY(walk, name_join(name, "blocks.%d.cross_attn.k_norm.weight", block), c);
}

static void walk_mlp(struct key_walk *walk, const struct dit_config *config, int block)
{
	int64_t c = config->hidden_size, f = config->mlp_hidden;
	char name[MODEL_KEY_NAME_BYTES];

	KEY(walk, name_join(name, "blocks.%d.mlp.inverted_conv.conv.weight", block), 2 * f, c, 1,
	    1);
	KEY(walk, name_join(name, "blocks.%d.mlp.inverted_conv.conv.bias", block), 2 * f);
	KEY(walk, name_join(name, "blocks.%d.mlp.depth_conv.conv.weight", block), 2 * f, 1, 3, 3);
	KEY(walk, name_join(name, "blocks.%d.mlp.depth_conv.conv.bias", block), 2 * f);
	KEY(walk, name_join(name, "blocks.%d.mlp.point_conv.conv.weight", block), c, f, 1, 1);
	KEY(walk, name_join(name, "blocks.%d.mlp.t_conv.weight", block), c, c,
	    config->t_kernel_size, 1);
}

static void walk_embedders(struct key_walk *walk, const struct dit_config *config)
{
	int64_t c = config->hidden_size;

	KEY_SHAPE(walk, KEY_OPTIONAL, "pos_embed", 1, POSITION_ROWS, c);
	KEY(walk, "x_embedder.proj.weight", c, config->in_channels + config->source_channels, 1, 1,
	    1);
	KEY(walk, "x_embedder.proj.bias", c);
	walk_linear(walk, "t_embedder.mlp.0", c, TIME_CHANNELS, true);
	walk_linear(walk, "t_embedder.mlp.2", c, c, true);
	walk_linear(walk, "t_block.1", 6 * c, c, true);
	KEY_SHAPE(walk, KEY_OPTIONAL, "y_embedder.y_embedding", config->max_tokens,
		  config->caption_channels);
	walk_linear(walk, "y_embedder.y_proj.fc1", c, config->caption_channels, true);
	walk_linear(walk, "y_embedder.y_proj.fc2", c, c, true);
	KEY(walk, "attention_y_norm.weight", c);
}

int dit_keys_visit(const struct dit_config *config, model_key_visit visit, void *context)
{
	struct key_walk walk = { .visit = visit, .context = context };
	char name[MODEL_KEY_NAME_BYTES];

	walk_embedders(&walk, config);
	for (int block = 0; block < config->depth; block++) {
		KEY(&walk, name_join(name, "blocks.%d.scale_shift_table", block), 6,
		    config->hidden_size);
		walk_self_attention(&walk, config, block);
		walk_cross_attention(&walk, config, block);
		walk_mlp(&walk, config, block);
	}
	KEY(&walk, "final_layer.scale_shift_table", 2, config->hidden_size);
	walk_linear(&walk, "final_layer.linear", config->in_channels, config->hidden_size, true);
	return walk.status;
}

/* -------------------------------------------------------------------------------------- VAE */

/* prefix.conv.weight [out, in, 3, 3, 3] and prefix.conv.bias [out] */
static void walk_conv(struct key_walk *walk, const char *prefix, int64_t out, int64_t in)
{
	char name[MODEL_KEY_NAME_BYTES];

	KEY(walk, name_join(name, "%s.conv.weight", prefix), out, in, 3, 3, 3);
	KEY(walk, name_join(name, "%s.conv.bias", prefix), out);
}

static void walk_resnets(struct key_walk *walk, const char *prefix, int count, int64_t width)
{
	char name[MODEL_KEY_NAME_BYTES];

	for (int i = 0; i < count; i++) {
		walk_conv(walk, name_join(name, "%s.resnets.%d.conv1", prefix, i), width, width);
		walk_conv(walk, name_join(name, "%s.resnets.%d.conv2", prefix, i), width, width);
	}
}

static int64_t block_phases(const struct vae_block *block)
{
	return (int64_t)block->stride_t * block->stride_h * block->stride_w;
}

static void walk_encoder(struct key_walk *walk, const struct vae_config *config)
{
	int64_t patch_channels = (int64_t)config->pixel_channels * config->patch * config->patch;
	char prefix[64], name[MODEL_KEY_NAME_BYTES];

	walk_conv(walk, "encoder.conv_in", config->encoder_first, patch_channels);
	for (int b = 0; b < config->encoder_blocks; b++) {
		const struct vae_block *block = &config->encoder[b];

		(void)snprintf(prefix, sizeof(prefix), "encoder.down_blocks.%d", b);
		walk_resnets(walk, prefix, block->resnets, block->cin);
		walk_conv(walk, name_join(name, "%s.downsamplers.0.conv", prefix),
			  block->cout / block_phases(block), block->cin);
	}
	walk_resnets(walk, "encoder.mid_block", config->encoder_mid_resnets, config->encoder_mid);
	/* the last channel is a shared log-variance */
	walk_conv(walk, "encoder.conv_out", config->latent_channels + 1, config->encoder_mid);
}

static void walk_decoder(struct key_walk *walk, const struct vae_config *config)
{
	int64_t patch_channels = (int64_t)config->pixel_channels * config->patch * config->patch;
	char prefix[64], name[MODEL_KEY_NAME_BYTES];

	walk_conv(walk, "decoder.conv_in", config->decoder_mid, config->latent_channels);
	walk_resnets(walk, "decoder.mid_block", config->decoder_mid_resnets, config->decoder_mid);
	for (int b = 0; b < config->decoder_blocks; b++) {
		const struct vae_block *block = &config->decoder[b];

		(void)snprintf(prefix, sizeof(prefix), "decoder.up_blocks.%d", b);
		walk_conv(walk, name_join(name, "%s.upsamplers.0.conv", prefix),
			  block->cout * block_phases(block), block->cin);
		walk_resnets(walk, prefix, block->resnets, block->cout);
	}
	walk_conv(walk, "decoder.conv_out", patch_channels, config->decoder_last);
}

int vae_keys_visit(const struct vae_config *config, bool with_statistics, model_key_visit visit,
		   void *context)
{
	struct key_walk walk = { .visit = visit, .context = context };

	if (with_statistics) {
		KEY(&walk, "latents_mean", config->latent_channels);
		KEY(&walk, "latents_std", config->latent_channels);
	}
	walk_encoder(&walk, config);
	walk_decoder(&walk, config);
	return walk.status;
}

/* ------------------------------------------------------------------------------------- text */

static void walk_text_layer(struct key_walk *walk, const struct text_config *config, int layer)
{
	static const char *const norms[] = { "input_layernorm", "post_attention_layernorm",
					     "pre_feedforward_layernorm",
					     "post_feedforward_layernorm" };
	int64_t c = config->hidden_size, f = config->intermediate_size;
	int64_t q = (int64_t)config->heads * config->head_dim;
	int64_t kv = (int64_t)config->kv_heads * config->head_dim;
	char name[MODEL_KEY_NAME_BYTES];

	KEY(walk, name_join(name, "layers.%d.self_attn.q_proj.weight", layer), q, c);
	KEY(walk, name_join(name, "layers.%d.self_attn.k_proj.weight", layer), kv, c);
	KEY(walk, name_join(name, "layers.%d.self_attn.v_proj.weight", layer), kv, c);
	KEY(walk, name_join(name, "layers.%d.self_attn.o_proj.weight", layer), c, q);
	KEY(walk, name_join(name, "layers.%d.mlp.gate_proj.weight", layer), f, c);
	KEY(walk, name_join(name, "layers.%d.mlp.up_proj.weight", layer), f, c);
	KEY(walk, name_join(name, "layers.%d.mlp.down_proj.weight", layer), c, f);
	for (size_t i = 0; i < ARRAY_SIZE(norms); i++)
		KEY(walk, name_join(name, "layers.%d.%s.weight", layer, norms[i]), c);
}

int text_keys_visit(const struct text_config *config, model_key_visit visit, void *context)
{
	struct key_walk walk = { .visit = visit, .context = context };

	KEY(&walk, "embed_tokens.weight", config->vocab_size, config->hidden_size);
	for (int layer = 0; layer < config->layers; layer++)
		walk_text_layer(&walk, config, layer);
	KEY(&walk, "norm.weight", config->hidden_size);
	return walk.status;
}
