/* The configuration files: published and demo values field by field, and each rule broken. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <jansson.h>

#include "engine/model_config.h"

static void builtin_has_the_published_values(void **state)
{
	static const int down[][6] = { { 128, 256, 4, 1, 2, 2 },
				       { 256, 512, 6, 2, 1, 1 },
				       { 512, 1024, 6, 2, 2, 2 },
				       { 1024, 2048, 2, 2, 2, 2 } };
	static const int up[][6] = { { 1024, 512, 5, 2, 2, 2 },
				     { 512, 256, 5, 2, 2, 2 },
				     { 256, 128, 5, 2, 2, 2 } };
	struct model_config config;
	const struct vae_config *vae = &config.vae;
	const struct dit_config *dit = &config.dit;

	(void)state;
	assert_int_equal(model_config_builtin("2b", &config, NULL), 0);
	assert_int_equal(config.stream.width, 1280);
	assert_int_equal(config.stream.height, 704);
	assert_int_equal(config.stream.steps, 4);
	assert_int_equal(config.stream.timesteps[3], 743);
	assert_true(config.stream.sigmas[1] == 961 / 1000.0f);
	assert_true(config.stream.sigmas[4] == 0);
	assert_int_equal(config.stream.first_chunks, 3);
	assert_int_equal(config.stream.first_chunk_latents[2], 5);
	assert_int_equal(config.stream.on_prompt_switch, SANA_SWITCH_RECACHE);
	assert_false(config.stream.text_softcap);
	assert_true(config.stream.fps == 24);
	assert_int_equal(config.stream.prompts, 0);
	assert_memory_equal(config.stream.chi_prompt, "Given a user prompt, generate", 29);
	assert_string_equal(strrchr(config.stream.chi_prompt, '\n'), "\nUser Prompt: ");

	assert_int_equal(dit->depth, 20);
	assert_int_equal(dit->mlp_hidden, 6720);
	assert_int_equal(dit->in_channels + dit->source_channels, 256);
	assert_int_equal(dit->pairs_t, 20);
	assert_int_equal(dit->pairs_y, 18);
	assert_int_equal(dit->pairs_x, 18);
	for (int i = 0; i < 20; i++)
		assert_int_equal(dit->softmax[i], i % 4 == 3);

	for (int b = 0; b < 4; b++)
		assert_memory_equal(&vae->encoder[b], down[b], sizeof(down[b]));
	for (int b = 0; b < 3; b++)
		assert_memory_equal(&vae->decoder[b], up[b], sizeof(up[b]));
	assert_int_equal(vae->encoder_blocks, 4);
	assert_int_equal(vae->decoder_blocks, 3);
	assert_int_equal(vae->encoder_first, 128);
	assert_int_equal(vae->encoder_mid, 2048);
	assert_int_equal(vae->encoder_mid_resnets, 2);
	assert_int_equal(vae->decoder_mid, 1024);
	assert_int_equal(vae->decoder_mid_resnets, 5);
	assert_int_equal(vae->decoder_last, 128);
	assert_int_equal(vae->spatial_ratio, 32);
	assert_int_equal(vae->temporal_ratio, 8);
	assert_false(vae->encoder_reflect);
	assert_true(vae->decoder_reflect);
	assert_true(vae->decoder_causal);
	assert_true(vae->scaling_factor == 1);

	assert_int_equal(config.text.vocab_size, 256000);
	assert_int_equal(config.text.layers, 26);
	assert_int_equal(config.text.sliding_window, 4096);
	assert_true(config.text.query_pre_attn_scalar == 256);
	assert_true(config.text.attn_logit_softcapping == 50);
	model_config_finish(&config);
	model_config_finish(&config);
}

static void demo_is_read(void **state)
{
	static const int down[][6] = { { 64, 64, 0, 2, 2, 2 }, { 64, 128, 2, 1, 2, 2 } };
	static const int up[][6] = { { 128, 64, 2, 1, 2, 2 }, { 64, 32, 2, 2, 2, 2 } };
	struct sana_error error = { 0 };
	struct model_config config;

	(void)state;
	assert_int_equal(model_config_load("models/demo", &config, &error), 0);
	assert_int_equal(config.stream.prompts, 8);
	assert_string_equal(config.stream.prompt[4].prompt, "a pencil sketch");
	assert_string_equal(config.stream.name, "demo");
	assert_string_equal(config.stream.chi_prompt, "");
	assert_true(config.stream.fps == 0);
	assert_true(config.stream.text_softcap);
	assert_int_equal(config.stream.on_prompt_switch, SANA_SWITCH_RESTART);
	assert_int_equal(config.dit.pairs_t, 6);
	assert_int_equal(config.dit.pairs_y, 5);
	assert_int_equal(config.dit.mlp_hidden, 576);
	assert_false(config.dit.softmax[2]);
	assert_true(config.dit.softmax[3]);
	for (int b = 0; b < 2; b++) {
		assert_memory_equal(&config.vae.encoder[b], down[b], sizeof(down[b]));
		assert_memory_equal(&config.vae.decoder[b], up[b], sizeof(up[b]));
	}
	assert_int_equal(config.vae.encoder_mid_resnets, 0);
	assert_int_equal(config.vae.decoder_mid_resnets, 0);
	assert_int_equal(config.vae.decoder_last, 32);
	assert_int_equal(config.text.kv_heads, 2);
	model_config_finish(&config);
}

static void unknown_shapes_are_refused(void **state)
{
	struct sana_error error = { 0 };
	struct model_config config;

	(void)state;
	assert_int_equal(model_config_builtin("3b", &config, &error), -ENOENT);
	assert_string_equal(error.name, "model.config");
	assert_non_null(strstr(error.text, "\"3b\""));
}

static void switch_names_go_both_ways(void **state)
{
	(void)state;
	for (int i = 0; i < SANA_SWITCH_COUNT; i++)
		assert_int_equal(sana_prompt_switch_from_name(
					 sana_prompt_switch_name((enum sana_prompt_switch)i)),
				 i);
	assert_string_equal(sana_prompt_switch_name(SANA_SWITCH_RESTART), "restart");
	assert_int_equal(sana_prompt_switch_from_name("restart_stream"), SANA_SWITCH_RESTART);
	assert_int_equal(sana_prompt_switch_from_name("Restart"), SANA_SWITCH_INVALID);
	assert_int_equal(sana_prompt_switch_from_name(""), SANA_SWITCH_INVALID);
	assert_int_equal(sana_prompt_switch_from_name(NULL), SANA_SWITCH_INVALID);
	assert_null(sana_prompt_switch_name(SANA_SWITCH_INVALID));
	assert_null(sana_prompt_switch_name(SANA_SWITCH_COUNT));
}

enum file { STREAM, DIT, VAE, TEXT };

static const char *const paths[] = { "models/demo/stream.json", "models/demo/dit/config.json",
				     "models/demo/vae/config.json",
				     "models/demo/text_encoder/config.json" };

/* Parses a file of the demo model with the members of `change` put into it. */
static int parse_changed(enum file file, const char *change, struct model_config *ret,
			 struct sana_error *error)
{
	json_t *object = json_load_file(paths[file], 0, NULL);
	json_t *members = json_loads(change, 0, NULL);
	char *text;
	int r = -1;

	assert_non_null(object);
	assert_non_null(members);
	assert_int_equal(json_object_update(object, members), 0);
	text = json_dumps(object, 0);
	assert_non_null(text);
	*ret = (struct model_config){ 0 };
	switch (file) {
	case STREAM:
		r = stream_config_parse(text, strlen(text), "FILE", &ret->stream, error);
		break;
	case DIT:
		r = dit_config_parse(text, strlen(text), "FILE", &ret->dit, error);
		break;
	case VAE:
		r = vae_config_parse(text, strlen(text), "FILE", &ret->vae, error);
		break;
	case TEXT:
		r = text_config_parse(text, strlen(text), "FILE", &ret->text, error);
		break;
	}
	free(text);
	json_decref(members);
	json_decref(object);
	return r;
}

static const struct {
	enum file file;
	const char *change, *text; /* text follows "FILE: " */
} refused[] = {
	{ STREAM, "{\"width\":null}", "\"width\" is missing" },
	{ STREAM, "{\"width\":250}", "\"width\" is 250, which is no multiple of 16." },
	{ STREAM, "{\"height\":0}", "\"height\" must be an integer from 1 to 16384, not 0." },
	{ STREAM, "{\"height\":-144}", "\"height\" must be an integer" },
	{ STREAM, "{\"height\":1600000}", "\"height\" must be an integer" },
	{ STREAM, "{\"height\":144.0}", "\"height\" must be an integer" },
	{ STREAM, "{\"vae_spatial_ratio\":0}", "\"vae_spatial_ratio\" must be" },
	{ STREAM, "{\"vae_temporal_ratio\":true}", "\"vae_temporal_ratio\" must be" },
	{ STREAM, "{\"latent_channels\":65537}", "\"latent_channels\" must be" },
	{ STREAM, "{\"chunk_latents\":17}", "\"chunk_latents\" must be" },
	{ STREAM, "{\"first_chunk_latents\":[]}", "\"first_chunk_latents\" must be a list" },
	{ STREAM, "{\"first_chunk_latents\":[3,17]}", "\"first_chunk_latents[1]\" must be" },
	{ STREAM, "{\"first_chunk_latents\":[0]}", "\"first_chunk_latents[0]\" must be" },
	{ STREAM, "{\"first_chunk_latents\":[3,3]}", "\"first_chunk_latents\" must ascend" },
	{ STREAM, "{\"first_chunk_latents\":[1,2,3,4,5,6,7,8,9]}", "\"first_chunk_latents\" must" },
	{ STREAM, "{\"timesteps\":[]}", "\"timesteps\" must be a list of 1 to 64" },
	{ STREAM, "{\"timesteps\":[1000,1000,893,743]}", "\"timesteps\" must descend" },
	{ STREAM, "{\"timesteps\":[1001,961,893,743]}", "\"timesteps[0]\" must be a number" },
	{ STREAM, "{\"timesteps\":[1000,961,893,0]}", "\"timesteps\" must be above 0" },
	{ STREAM, "{\"timesteps\":[1000]}", "\"sigmas\" must be a list of 2" },
	{ STREAM, "{\"sigmas\":[1.0,0.961,0.893,0.743,0.1]}", "\"sigmas\" must end in 0" },
	{ STREAM, "{\"sigmas\":[1.0,0.961,0.961,0.743,0]}", "\"sigmas\" must descend" },
	{ STREAM, "{\"sigmas\":[1.5,0.961,0.893,0.743,0]}", "\"sigmas[0]\" must be a number" },
	{ STREAM, "{\"num_cached_blocks\":3}", "\"num_cached_blocks\" is 3; 2 together" },
	{ STREAM, "{\"sink\":false}", "\"sink\" is false" },
	{ STREAM, "{\"sink\":1}", "\"sink\" must be true or false" },
	{ STREAM, "{\"cfg_scale\":7}", "\"cfg_scale\" must be 1.0" },
	{ STREAM, "{\"max_tokens\":0}", "\"max_tokens\" must be" },
	{ STREAM, "{\"max_tokens\":4097}", "\"max_tokens\" must be" },
	{ STREAM, "{\"chi_prompt\":null}", "\"chi_prompt\" is missing" },
	{ STREAM, "{\"chi_prompt\":[]}", "\"chi_prompt\" must be a string" },
	{ STREAM, "{\"fps\":-1}", "\"fps\" must be a number" },
	{ STREAM, "{\"on_prompt_switch\":\"reload\"}", "\"on_prompt_switch\" must be \"keep\"" },
	{ STREAM, "{\"text_softcap\":\"yes\"}", "\"text_softcap\" must be true or false" },
	{ STREAM, "{\"prompts\":{}}", "\"prompts\" must be a list" },
	{ STREAM, "{\"prompts\":[3]}", "\"prompts\" entry 0 must be an object" },
	{ STREAM, "{\"prompts\":[{\"edit\":\"a\"},{\"prompt\":3}]}",
	  "\"prompts[1].prompt\" must be a string, not 3." },

	{ DIT, "{\"depth\":0}", "\"depth\" must be an integer from 1 to 256, not 0." },
	{ DIT, "{\"depth\":257}", "\"depth\" must be" },
	{ DIT, "{\"depth\":null}", "\"depth\" is missing" },
	{ DIT, "{\"hidden_size\":191}", "\"num_heads\" is 6, which does not divide" },
	{ DIT, "{\"num_heads\":7}", "\"num_heads\" is 7, which does not divide hidden_size 192." },
	{ DIT, "{\"linear_head_dim\":36}", "\"linear_head_dim\" is 36, which does not divide" },
	{ DIT, "{\"linear_head_dim\":3}", "\"linear_head_dim\" is 3; rotary" },
	{ DIT, "{\"rope_lanes_thw\":[10,12,10]}",
	  "\"rope_lanes_thw\" is [10, 12, 10]; a head of 32 lanes is split [12, 10, 10]." },
	{ DIT, "{\"rope_lanes_thw\":[32]}", "\"rope_lanes_thw\" must be a list of 3" },
	{ DIT, "{\"in_channels\":0}", "\"in_channels\" must be" },
	{ DIT, "{\"out_channels\":128}", "\"out_channels\" must be 64, not 128." },
	{ DIT, "{\"additional_inchannels\":0}", "\"additional_inchannels\" must be" },
	{ DIT, "{\"patch_size\":[1,2,2]}", "\"patch_size[1]\" must be 1, not 2." },
	{ DIT, "{\"patch_size\":1}", "\"patch_size\" must be a list of 3" },
	{ DIT, "{\"t_kernel_size\":5}", "\"t_kernel_size\" must be 3, not 5." },
	{ DIT, "{\"mlp_ratio\":0}", "\"mlp_ratio\" makes 0 channels" },
	{ DIT, "{\"mlp_ratio\":65}", "\"mlp_ratio\" must be a number" },
	{ DIT, "{\"hidden_size\":30720,\"num_heads\":6,\"mlp_ratio\":3}",
	  "\"mlp_ratio\" makes 92160 channels" },
	{ DIT, "{\"softmax_layer_indices\":[4]}", "\"softmax_layer_indices[0]\" must be" },
	{ DIT, "{\"softmax_layer_indices\":[-1]}", "\"softmax_layer_indices[0]\" must be" },
	{ DIT, "{\"softmax_layer_indices\":null,\"softmax_ratio\":null}",
	  "\"softmax_ratio\" is missing" },
	{ DIT, "{\"softmax_layer_indices\":null,\"softmax_ratio\":1.5}",
	  "\"softmax_ratio\" must be a number from 0 to 1" },
	{ DIT, "{\"caption_channels\":\"64\"}", "\"caption_channels\" must be" },
	{ DIT, "{\"model_max_length\":5000}", "\"model_max_length\" must be" },

	{ VAE, "{\"latent_channels\":0}", "\"latent_channels\" must be" },
	{ VAE, "{\"in_channels\":4}", "\"in_channels\" must be 3, not 4." },
	{ VAE, "{\"out_channels\":1}", "\"out_channels\" must be 3, not 1." },
	{ VAE, "{\"patch_size\":0}", "\"patch_size\" must be" },
	{ VAE, "{\"patch_size_t\":2}", "\"patch_size_t\" must be 1, not 2." },
	{ VAE, "{\"block_out_channels\":[]}", "\"block_out_channels\" must be a list" },
	{ VAE, "{\"block_out_channels\":[64]}", "\"layers_per_block\" must be a list of 2" },
	{ VAE, "{\"block_out_channels\":[60,128]}", "\"block_out_channels\" entry 0 is 60, which" },
	{ VAE, "{\"block_out_channels\":[192,128]}",
	  "\"block_out_channels\" entry 0 is 192, which does not divide" },
	{ VAE, "{\"layers_per_block\":[0,2]}", "\"layers_per_block\" must be a list of 3" },
	{ VAE, "{\"layers_per_block\":[0,-2,0]}", "\"layers_per_block[1]\" must be" },
	{ VAE, "{\"layers_per_block\":[0,65,0]}", "\"layers_per_block[1]\" must be" },
	{ VAE, "{\"downsample_type\":[\"spatial\"]}", "\"downsample_type\" must be a list of 2" },
	{ VAE, "{\"downsample_type\":[\"spatial\",\"conv\"]}", "\"downsample_type\" entry 1 must" },
	{ VAE, "{\"downsample_type\":[\"spatial\",3]}", "\"downsample_type\" entry 1 must" },
	{ VAE, "{\"downsample_type\":[\"spatial\",\"spatial\"]}",
	  "\"downsample_type\" compresses by 16 in space and 1 in time, but the decoder" },
	{ VAE, "{\"spatio_temporal_scaling\":[true,false]}",
	  "\"spatio_temporal_scaling[1]\" must be true, not false." },
	{ VAE, "{\"spatio_temporal_scaling\":[true]}", "\"spatio_temporal_scaling\" must be a" },
	{ VAE, "{\"decoder_block_out_channels\":[64]}",
	  "\"decoder_layers_per_block\" must be a list of 2" },
	{ VAE, "{\"decoder_block_out_channels\":[32,128]}",
	  "\"decoder_block_out_channels\" has 32 at entry 0, but the up-sampler before it leaves "
	  "64" },
	{ VAE, "{\"decoder_block_out_channels\":[63,126]}",
	  "\"decoder_block_out_channels\" has 126, which the 4 positions" },
	{ VAE, "{\"decoder_block_out_channels\":[62,124]}",
	  "\"decoder_block_out_channels\" has 62, which the 8 positions" },
	{ VAE, "{\"upsample_factor\":[2,3]}",
	  "\"decoder_block_out_channels\" has 128, which the up-sampling factor 3" },
	{ VAE, "{\"upsample_factor\":[2,64]}",
	  "\"upsample_factor\" has 64, which does not divide" },
	{ VAE, "{\"upsample_factor\":[2]}", "\"upsample_factor\" must be a list of 2" },
	{ VAE, "{\"upsample_residual\":[true,false]}", "\"upsample_residual[1]\" must be true" },
	{ VAE, "{\"upsample_type\":[\"spatial\"]}", "\"upsample_type\" must be a list of 2" },
	{ VAE, "{\"upsample_type\":[\"spatial\",\"spatial\"]}", "\"downsample_type\" compresses" },
	{ VAE, "{\"decoder_upsample_type\":[\"spatiotemporal\",\"spatiotemporal\"]}",
	  "\"decoder_upsample_type\" differs" },
	{ VAE, "{\"decoder_spatio_temporal_scaling\":[false,true]}",
	  "\"decoder_spatio_temporal_scaling[0]\" must be true" },
	{ VAE, "{\"decoder_layers_per_block\":[1,2,3,4]}", "\"decoder_layers_per_block\" must" },
	{ VAE, "{\"decoder_inject_noise\":[false,true,false]}",
	  "\"decoder_inject_noise[1]\" must be false" },
	{ VAE, "{\"timestep_conditioning\":true}", "\"timestep_conditioning\" must be false" },
	{ VAE, "{\"encoder_causal\":false}", "\"encoder_causal\" must be true" },
	{ VAE, "{\"decoder_causal\":null}", "\"decoder_causal\" is missing" },
	{ VAE, "{\"encoder_spatial_padding_mode\":\"replicate\"}",
	  "\"encoder_spatial_padding_mode\" must be \"zeros\" or" },
	{ VAE, "{\"decoder_spatial_padding_mode\":null}", "\"decoder_spatial_padding_mode\" is" },
	{ VAE, "{\"scaling_factor\":0}", "\"scaling_factor\" must be a number" },
	{ VAE, "{\"spatial_compression_ratio\":32}",
	  "\"spatial_compression_ratio\" must be 16, not 32." },
	{ VAE, "{\"temporal_compression_ratio\":8}",
	  "\"temporal_compression_ratio\" must be 2, not 8." },

	{ TEXT, "{\"vocab_size\":0}", "\"vocab_size\" must be" },
	{ TEXT, "{\"hidden_size\":null}", "\"hidden_size\" is missing" },
	{ TEXT, "{\"intermediate_size\":1e5}", "\"intermediate_size\" must be" },
	{ TEXT, "{\"num_hidden_layers\":1000}", "\"num_hidden_layers\" must be" },
	{ TEXT, "{\"num_key_value_heads\":3}", "\"num_key_value_heads\" is 3, which does not" },
	{ TEXT, "{\"num_key_value_heads\":8}", "\"num_key_value_heads\" must be an integer" },
	{ TEXT, "{\"head_dim\":15}", "\"head_dim\" is 15; rotary" },
	{ TEXT, "{\"head_dim\":4096,\"num_attention_heads\":32}", "\"head_dim\" is 4096 for 32" },
	{ TEXT, "{\"sliding_window\":-1}", "\"sliding_window\" must be" },
	{ TEXT, "{\"query_pre_attn_scalar\":0}", "\"query_pre_attn_scalar\" must be" },
	{ TEXT, "{\"attn_logit_softcapping\":-50}", "\"attn_logit_softcapping\" must be" },
	{ TEXT, "{\"rms_norm_eps\":2}", "\"rms_norm_eps\" must be" },
	{ TEXT, "{\"rope_theta\":0}", "\"rope_theta\" must be" },
	{ TEXT, "{\"hidden_activation\":\"silu\"}",
	  "\"hidden_activation\" must be \"gelu_pytorch_tanh\"." },
	{ TEXT, "{\"attention_bias\":true}", "\"attention_bias\" must be false" },
};

static void every_rule_is_checked(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
		struct sana_error error = { 0 };
		struct model_config config;

		print_message("%s\n", refused[i].change);
		assert_int_equal(parse_changed(refused[i].file, refused[i].change, &config, &error),
				 -EINVAL);
		print_message("  %s\n", error.text);
		assert_string_equal(error.name, "model.config");
		assert_memory_equal(error.text, "FILE: ", 6);
		assert_memory_equal(error.text + 6, refused[i].text, strlen(refused[i].text));
		assert_int_equal(error.text[strlen(error.text) - 1], '.');
		assert_null(config.stream.name);
	}
}

static const struct {
	enum file file;
	const char *change;
} accepted[] = {
	{ STREAM, "{\"sigmas\":null,\"timesteps\":[999.5,500]}" },
	{ STREAM, "{\"cfg_scale\":1,\"name\":null,\"fps\":29.97,\"prompts\":null}" },
	{ STREAM, "{\"prompts\":[{}],\"anything\":{\"a\":[1]}}" },
	{ STREAM, "{\"width\":16384,\"height\":16}" },
	{ DIT, "{\"rope_lanes_thw\":null,\"out_channels\":null,\"mlp_ratio\":2.5}" },
	{ DIT, "{\"softmax_layer_indices\":[]}" },
	{ DIT, "{\"linear_head_dim\":2,\"rope_lanes_thw\":[2,0,0]}" },
	{ VAE, "{\"downsample_type\":[\"spatial\",\"spatiotemporal\"]}" },
	{ VAE, "{\"upsample_type\":[\"spatiotemporal\",\"spatial\"]}" },
	{ VAE, "{\"spatial_compression_ratio\":null,\"temporal_compression_ratio\":null}" },
	{ VAE, "{\"decoder_causal\":false,\"encoder_spatial_padding_mode\":\"reflect\"}" },
	{ VAE, "{\"upsample_factor\":[4,2]}" },
	{ TEXT, "{\"attn_logit_softcapping\":null,\"sliding_window\":null}" },
	{ TEXT, "{\"hidden_activation\":null,\"rope_theta\":1000000}" },
};

static void other_models_are_accepted(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(accepted); i++) {
		struct sana_error error = { 0 };
		struct model_config config;

		print_message("%s\n", accepted[i].change);
		if (parse_changed(accepted[i].file, accepted[i].change, &config, &error) < 0)
			print_message("  %s\n", error.text);
		assert_int_equal(error.code, 0);
		model_config_finish(&config);
	}
}

static void schedule_without_sigmas(void **state)
{
	struct model_config config;

	(void)state;
	assert_int_equal(parse_changed(STREAM, "{\"sigmas\":null,\"timesteps\":[999.5,500]}",
				       &config, NULL),
			 0);
	assert_int_equal(config.stream.steps, 2);
	assert_int_equal(config.stream.timesteps[0], 999);
	assert_true(config.stream.sigmas[0] == 0.9995f);
	assert_true(config.stream.sigmas[1] == 0.5f);
	assert_true(config.stream.sigmas[2] == 0);
	model_config_finish(&config);
}

/* Blocks that the rule of docs/model/dit.md names, worked out by hand. */
static void softmax_blocks_follow_the_ratio(void **state)
{
	static const struct {
		int depth;
		const char *ratio;
		const char *blocks; /* x where softmax */
	} cases[] = {
		{ 20, "0.25", "...x...x...x...x...x" },
		{ 5, "0.25", "....x" },
		{ 4, "0.25", "...x" },
		{ 3, "0.25", "..x" },
		{ 4, "0", "...." },
		{ 4, "1", "xxxx" },
		{ 10, "0.35", "..x..x...x" },
		{ 7, "0.5", ".x.x..x" },
		{ 1, "0.01", "x" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct model_config config;
		char change[128];

		(void)snprintf(change, sizeof(change),
			       "{\"depth\":%d,\"softmax_ratio\":%s,\"softmax_layer_indices\":null}",
			       cases[i].depth, cases[i].ratio);
		print_message("%s: %s\n", change, cases[i].blocks);
		assert_int_equal(parse_changed(DIT, change, &config, NULL), 0);
		for (int b = 0; b < MODEL_MAX_DEPTH; b++)
			assert_int_equal(config.dit.softmax[b],
					 b < cases[i].depth && cases[i].blocks[b] == 'x');
	}
}

static void the_list_wins_over_the_ratio(void **state)
{
	struct model_config config;

	(void)state;
	assert_int_equal(parse_changed(DIT, "{\"softmax_layer_indices\":[0,2],\"softmax_ratio\":1}",
				       &config, NULL),
			 0);
	for (int b = 0; b < 4; b++)
		assert_int_equal(config.dit.softmax[b], b % 2 == 0);
}

static void rope_lanes_follow_the_head(void **state)
{
	static const int cases[][3] = { { 112, 20, 18 }, { 80, 14, 13 }, { 32, 6, 5 },
					{ 2, 1, 0 },	 { 64, 12, 10 }, { 6, 1, 1 } };
	char change[128];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct model_config config;

		(void)snprintf(change, sizeof(change),
			       "{\"hidden_size\":%d,\"num_heads\":1,\"linear_head_dim\":%d,"
			       "\"rope_lanes_thw\":null}",
			       cases[i][0] * 3, cases[i][0]);
		assert_int_equal(parse_changed(DIT, change, &config, NULL), 0);
		assert_int_equal(config.dit.pairs_t, cases[i][1]);
		assert_int_equal(config.dit.pairs_y, cases[i][2]);
		assert_int_equal(config.dit.pairs_x, cases[i][2]);
		assert_int_equal(2 * (config.dit.pairs_t + 2 * config.dit.pairs_y), cases[i][0]);
	}
}

static void parsers_accept_no_error_struct(void **state)
{
	struct dit_config dit;

	(void)state;
	assert_int_equal(dit_config_parse("{}", 2, "FILE", &dit, NULL), -EINVAL);
	assert_int_equal(dit_config_parse("", 0, "FILE", &dit, NULL), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(builtin_has_the_published_values),
		cmocka_unit_test(demo_is_read),
		cmocka_unit_test(unknown_shapes_are_refused),
		cmocka_unit_test(switch_names_go_both_ways),
		cmocka_unit_test(every_rule_is_checked),
		cmocka_unit_test(other_models_are_accepted),
		cmocka_unit_test(schedule_without_sigmas),
		cmocka_unit_test(softmax_blocks_follow_the_ratio),
		cmocka_unit_test(the_list_wins_over_the_ratio),
		cmocka_unit_test(rope_lanes_follow_the_head),
		cmocka_unit_test(parsers_accept_no_error_struct),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
