/* Names of tensors that give a model away. */
#include "tools/import/family.h"

static const struct {
	const char *name, *title;
} parts[PART_COUNT] = {
	[PART_DIT] = { "dit", "the DiT" },
	[PART_VAE] = { "vae", "the VAE" },
	[PART_TEXT] = { "text_encoder", "the text encoder" },
};

const char *part_name(enum part_kind kind)
{
	return kind < 0 || kind >= PART_COUNT ? NULL : parts[kind].name;
}

const char *part_title(enum part_kind kind)
{
	return kind < 0 || kind >= PART_COUNT ? NULL : parts[kind].title;
}

/*
 * The first row all of whose names are there, and none of whose `not`, decides. "model." in front of
 * all names is looked past. A name that ends in "." stands for any name that begins so.
 */
static const struct {
	enum part_kind kind;
	const char *text;
	const char *has[3], *not [2];
} families[] = {
	{ PART_DIT,
	  "the SANA-Streaming DiT",
	  { "blocks.0.attn.q.", "blocks.0.mlp.t_conv." },
	  { 0 } },
	{ PART_VAE,
	  "the LTX-2 video VAE",
	  { "decoder.conv_in.conv.", "encoder.conv_in.conv." },
	  { "decoder.timestep_scale_multiplier", NULL } },
	{ PART_TEXT,
	  "Gemma-2",
	  { "layers.0.pre_feedforward_layernorm.", "layers.0.self_attn." },
	  { "layers.0.self_attn.q_norm.weight", NULL } },
	/* relatives */
	{ PART_NONE,
	  "Gemma-3",
	  { "layers.0.pre_feedforward_layernorm.weight", "layers.0.self_attn.q_norm.weight" },
	  { 0 } },
	{ PART_NONE, "Gemma-3 with a vision tower", { "language_model.", "vision_tower." }, { 0 } },
	{ PART_NONE,
	  "an image or bidirectional SANA transformer, not the streaming one",
	  { "blocks.0.attn.qkv.weight", "blocks.0.cross_attn.q_linear.weight" },
	  { 0 } },
	{ PART_NONE,
	  "an LTX-Video VAE with time-step conditioning, not that of LTX-2",
	  { "decoder.timestep_scale_multiplier" },
	  { 0 } },
	{ PART_NONE, "a LoRA adapter, not a model", { "base_model.model." }, { 0 } },
	{ PART_NONE,
	  "a complete Stable Diffusion checkpoint",
	  { "model.diffusion_model.", "first_stage_model." },
	  { 0 } },
	{ PART_NONE,
	  "a diffusion model in the single-file layout of another family",
	  { "model.diffusion_model." },
	  { 0 } },
	{ PART_NONE, "a FLUX-like transformer", { "double_blocks." }, { 0 } },
	{ PART_NONE,
	  "a transformer in the diffusers layout, such as that of LTX or SD3",
	  { "transformer_blocks." },
	  { 0 } },
	{ PART_NONE, "a Wan video VAE", { "encoder.downsamples.", "decoder.upsamples." }, { 0 } },
	{ PART_NONE,
	  "a picture VAE in the layout of the first latent diffusion models",
	  { "encoder.down.", "decoder.up." },
	  { 0 } },
	{ PART_NONE,
	  "a picture VAE in the diffusers layout",
	  { "encoder.down_blocks.", "decoder.up_blocks.", "decoder.conv_in.weight" },
	  { 0 } },
	{ PART_NONE, "a Stable Diffusion U-Net", { "down_blocks.", "up_blocks." }, { 0 } },
	{ PART_NONE, "a CLIP model", { "text_model.encoder.layers." }, { 0 } },
	{ PART_NONE, "a T5 text encoder", { "encoder.block.0.layer.0.SelfAttention." }, { 0 } },
	{ PART_NONE,
	  "a Llama-like language model, not Gemma-2",
	  { "embed_tokens.weight", "layers.0.self_attn.q_proj.weight" },
	  { 0 } },
	{ PART_NONE, "a BERT-like text encoder", { "encoder.layer.0.attention.self." }, { 0 } },
	{ PART_NONE, "a GPT-2-like language model", { "h.0.attn.c_attn.weight" }, { 0 } },
	{ PART_NONE, "an optimizer's state, not a model", { "state.", "param_groups." }, { 0 } },
	{ PART_NONE, "a ResNet classifier", { "conv1.weight", "fc.weight", "layer1." }, { 0 } },
};

static bool has_prefix(const struct set *set, const char *prefix)
{
	for (size_t i = 0; i < set->count; i++)
		if (strncmp(set->tensor[i].name, prefix, strlen(prefix)) == 0)
			return true;
	return false;
}

static bool has(const struct set *set, const char *name)
{
	const bool prefix = name[strlen(name) - 1] == '.';
	char longer[128];

	(void)snprintf(longer, sizeof(longer), "model.%s", name);
	if (prefix ? has_prefix(set, name) || has_prefix(set, longer) :
		     set_find(set, name) || set_find(set, longer))
		return true;
	/* A bare state dict has lost the prefix already. */
	return strncmp(name, "model.", 6) == 0 && has(set, name + 6);
}

enum part_kind family_of(const struct set *set, const char **ret_text)
{
	for (size_t i = 0; i < ARRAY_SIZE(families); i++) {
		bool fits = true;

		for (size_t n = 0; fits && n < ARRAY_SIZE(families[i].has); n++)
			fits = !families[i].has[n] || has(set, families[i].has[n]);
		for (size_t n = 0; fits && n < ARRAY_SIZE(families[i].not ); n++)
			fits = !families[i].not [n] || !has(set, families[i].not [n]);
		if (!fits)
			continue;
		*ret_text = families[i].text;
		return families[i].kind;
	}
	*ret_text = "no model known here";
	return PART_NONE;
}
