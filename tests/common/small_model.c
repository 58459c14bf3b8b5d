/* A model directory of the smallest sensible sizes. */
#include "tests/common/small_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/util.h"
#include "engine/synthetic.h"
#include "tests/common/tensor_file.h"

enum { WEIGHTS_SEED = 5 };

static const char stream_json[] =
	"{\"name\": \"small\", \"width\": %d, \"height\": %d, \"vae_spatial_ratio\": 16,"
	"\"vae_temporal_ratio\": 2, \"latent_channels\": 8, \"chunk_latents\": 3,"
	"\"first_chunk_latents\": [3, 4, 5], \"timesteps\": [1000, 961, 893, 743],"
	"\"sigmas\": [1.0, 0.961, 0.893, 0.743, 0.0], \"num_cached_blocks\": 2, \"sink\": true,"
	"\"max_tokens\": 8, \"chi_prompt\": \"\", \"on_prompt_switch\": \"keep\"}";

static const char dit_json[] =
	"{\"depth\": 4, \"hidden_size\": 48, \"num_heads\": 2, \"linear_head_dim\": 24,"
	"\"in_channels\": 8, \"additional_inchannels\": 8, \"out_channels\": 8,"
	"\"patch_size\": [1, 1, 1], \"mlp_ratio\": 2, \"caption_channels\": 16,"
	"\"model_max_length\": 8, \"softmax_ratio\": 0.25, \"softmax_layer_indices\": [3],"
	"\"t_kernel_size\": 3, \"rope_lanes_thw\": [8, 8, 8], \"qk_norm\": true,"
	"\"cross_norm\": true, \"y_norm\": true, \"use_pe\": true,"
	"\"attn_type\": \"V2VStateCachedBiGDNAttention\","
	"\"softmax_attn_type\": \"V2VAfterRoPEGatedSoftmaxAttention\","
	"\"ffn_type\": \"CachedGLUMBConvTemp\", \"mlp_acts\": [\"silu\", \"silu\", null],"
	"\"pos_embed_type\": \"casual_wan_rope\", \"learn_sigma\": false, \"pred_sigma\": false,"
	"\"timestep_norm_scale_factor\": 1.0}";

static const char vae_json[] =
	"{\"in_channels\": 3, \"out_channels\": 3, \"latent_channels\": 8,"
	"\"block_out_channels\": [8, 16], \"decoder_block_out_channels\": [8, 16],"
	"\"down_block_types\": [\"LTX2VideoDownBlock3D\", \"LTX2VideoDownBlock3D\"],"
	"\"layers_per_block\": [0, 1, 0], \"decoder_layers_per_block\": [1, 1, 0],"
	"\"spatio_temporal_scaling\": [true, true],"
	"\"decoder_spatio_temporal_scaling\": [true, true],"
	"\"decoder_inject_noise\": [false, false, false],"
	"\"downsample_type\": [\"spatiotemporal\", \"spatial\"],"
	"\"upsample_type\": [\"spatial\", \"spatiotemporal\"],"
	"\"upsample_residual\": [true, true], \"upsample_factor\": [2, 2],"
	"\"timestep_conditioning\": false, \"patch_size\": 4, \"patch_size_t\": 1,"
	"\"scaling_factor\": 1.0, \"encoder_causal\": true, \"decoder_causal\": true,"
	"\"encoder_spatial_padding_mode\": \"zeros\","
	"\"decoder_spatial_padding_mode\": \"reflect\","
	"\"_class_name\": \"AutoencoderKLCausalLTX2Video\"}";

static const char text_json[] =
	"{\"model_type\": \"gemma2\", \"vocab_size\": 512, \"hidden_size\": 16,"
	"\"intermediate_size\": 32, \"num_hidden_layers\": 1, \"num_attention_heads\": 2,"
	"\"num_key_value_heads\": 1, \"head_dim\": 8, \"sliding_window\": 4096,"
	"\"query_pre_attn_scalar\": 8, \"attn_logit_softcapping\": 50.0, \"rms_norm_eps\": 1e-06,"
	"\"rope_theta\": 10000.0, \"hidden_activation\": \"gelu_pytorch_tanh\"}";

static int dit_walk(const void *config, model_key_visit visit, void *context)
{
	return dit_keys_visit(config, visit, context);
}

static int vae_walk(const void *config, model_key_visit visit, void *context)
{
	return vae_keys_visit(config, true, visit, context);
}

static int text_walk(const void *config, model_key_visit visit, void *context)
{
	return text_keys_visit(config, visit, context);
}

static void weights_write(const struct scratch *scratch, const char *network, weights_key_walk walk,
			  const void *config, const char *name)
{
	struct tensor_file *file = tensor_file_create();
	_cleanup_(weights_destroyp) struct weights *weights = NULL;
	struct sana_error error = { 0 };

	if (synthetic_weights(network, WEIGHTS_SEED, walk, config, &weights, &error) < 0)
		fail_msg("%s", error.text);
	for (size_t i = 0; i < weights_count(weights); i++) {
		const struct weight_tensor *tensor = weights_at(weights, i);
		size_t count = 1;

		for (int d = 0; d < tensor->rank; d++)
			count *= (size_t)tensor->shape[d];
		tensor_file_add(file, tensor->name, tensor->dtype == KERNEL_F32 ? "F32" : "BF16",
				tensor->rank, tensor->shape, tensor->data,
				count * kernel_dtype_bytes(tensor->dtype));
	}
	tensor_file_write(file, scratch, name);
	tensor_file_destroy(file);
}

static void networks_write(const struct scratch *scratch, bool with_text)
{
	struct sana_error error = { 0 };
	struct model_config config;

	if (model_config_load(scratch->path, &config, &error) < 0)
		fail_msg("%s", error.text);
	weights_write(scratch, "dit", dit_walk, &config.dit, "dit/model.safetensors");
	weights_write(scratch, "vae", vae_walk, &config.vae,
		      "vae/diffusion_pytorch_model.safetensors");
	if (with_text)
		weights_write(scratch, "text", text_walk, &config.text,
			      "text_encoder/model.safetensors");
	model_config_finish(&config);
}

static void tokenizer_write(const struct scratch *scratch, const char *tokenizer)
{
	struct file_map map = { 0 };
	struct sana_error error = { 0 };

	if (file_map(tokenizer, "tokenizer", &map, &error) < 0)
		fail_msg("%s", error.text);
	scratch_write(scratch, "text_encoder/tokenizer.model", map.data, map.size);
	file_unmap(&map);
}

static void small_configs_write(const struct scratch *scratch, int width, int height)
{
	char text[sizeof(stream_json) + 32];

	(void)snprintf(text, sizeof(text), stream_json, width, height);
	scratch_write_text(scratch, "stream.json", text);
	scratch_write_text(scratch, "dit/config.json", dit_json);
	scratch_write_text(scratch, "vae/config.json", vae_json);
	scratch_write_text(scratch, "text_encoder/config.json", text_json);
}

void small_model_write(const struct scratch *scratch)
{
	small_configs_write(scratch, SMALL_MODEL_SIDE, SMALL_MODEL_SIDE);
	networks_write(scratch, false);
}

void small_model_write_whole(const struct scratch *scratch, int width, int height,
			     const char *tokenizer)
{
	small_configs_write(scratch, width, height);
	networks_write(scratch, true);
	tokenizer_write(scratch, tokenizer);
}

void published_model_write(const struct scratch *scratch, const char *tokenizer)
{
	static const char *const names[] = { "stream.json", "dit/config.json", "vae/config.json",
					     "text_encoder/config.json" };

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		size_t length;
		const char *text = model_config_builtin_text("2b", names[i], &length);

		assert_non_null(text);
		scratch_write(scratch, names[i], text, length);
	}
	networks_write(scratch, true);
	tokenizer_write(scratch, tokenizer);
}

struct sana_prompt *small_model_prompt(struct sana_model *model, int which)
{
	enum { COUNT = SMALL_MODEL_CAPTION_ROWS * SMALL_MODEL_CAPTION_CHANNELS };
	struct sana_error error = { 0 };
	struct sana_prompt *prompt;
	float rows[COUNT];

	synthetic_fill("small", "caption", 0, 1.7, (size_t)which * COUNT, COUNT, rows);
	if (sana_prompt_from_features(model, rows, SMALL_MODEL_CAPTION_ROWS, &prompt, &error) < 0)
		fail_msg("%s: %s", error.name, error.text);
	return prompt;
}
