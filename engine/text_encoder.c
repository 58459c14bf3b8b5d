/* The Gemma-2 decoder stack as a text encoder. */
#include "engine/text_encoder.h"

#include <errno.h>
#include <math.h>

static void layer_load(struct loader *loader, const struct text_config *config, int i,
		       struct text_layer_weights *ret)
{
	const int hidden = config->hidden_size;
	const int wide = config->intermediate_size;
	const int q = config->heads * config->head_dim;
	const int kv = config->kv_heads * config->head_dim;

	loader_vector(loader, &ret->input_norm, hidden, "layers.%d.input_layernorm.weight", i);
	loader_matrix(loader, &ret->q, q, hidden, 1, "layers.%d.self_attn.q_proj.weight", i);
	loader_matrix(loader, &ret->k, kv, hidden, 1, "layers.%d.self_attn.k_proj.weight", i);
	loader_matrix(loader, &ret->v, kv, hidden, 1, "layers.%d.self_attn.v_proj.weight", i);
	loader_matrix(loader, &ret->o, hidden, q, 1, "layers.%d.self_attn.o_proj.weight", i);
	loader_vector(loader, &ret->post_attention_norm, hidden,
		      "layers.%d.post_attention_layernorm.weight", i);
	loader_vector(loader, &ret->pre_feedforward_norm, hidden,
		      "layers.%d.pre_feedforward_layernorm.weight", i);
	loader_matrix(loader, &ret->gate, wide, hidden, 1, "layers.%d.mlp.gate_proj.weight", i);
	loader_matrix(loader, &ret->up, wide, hidden, 1, "layers.%d.mlp.up_proj.weight", i);
	loader_matrix(loader, &ret->down, hidden, wide, 1, "layers.%d.mlp.down_proj.weight", i);
	loader_vector(loader, &ret->post_feedforward_norm, hidden,
		      "layers.%d.post_feedforward_layernorm.weight", i);
}

void text_weights_load(struct loader *loader, const struct text_config *config,
		       struct text_weights *ret)
{
	const bool prepare = loader->prepare;

	/* A few rows of a very tall matrix are looked up per prompt: it stays as it is mapped. */
	loader->prepare = false;
	loader_matrix(loader, &ret->embedding, config->vocab_size, config->hidden_size, 1,
		      "embed_tokens.weight");
	loader->prepare = prepare;
	for (int i = 0; i < config->layers; i++)
		layer_load(loader, config, i, &ret->layer[i]);
	loader_vector(loader, &ret->norm, config->hidden_size, "norm.weight");
}

void text_encoder_layout(struct text_encoder *encoder, const struct backend *backend,
			 struct arena *arena)
{
	static const char tables[] = "text encoder/tables";
	static const char scratch[] = "text encoder/activations";
	const struct text_config *c = encoder->config;
	const size_t rows = (size_t)encoder->max_tokens;
	const size_t act = activation_bytes(backend);
	const size_t lanes = (size_t)c->head_dim;

	encoder->ids = arena_take(arena, tables, rows, sizeof(*encoder->ids));
	encoder->mask = arena_take(arena, tables, rows, sizeof(*encoder->mask));
	encoder->rope_cos = arena_take(arena, tables, rows * (lanes / 2), sizeof(float));
	encoder->rope_sin = arena_take(arena, tables, rows * (lanes / 2), sizeof(float));
	encoder->hidden = arena_take(arena, scratch, rows * (size_t)c->hidden_size, act);
	encoder->normed = arena_take(arena, scratch, rows * (size_t)c->hidden_size, act);
	encoder->q = arena_take(arena, scratch, rows * (size_t)c->heads * lanes, act);
	encoder->k = arena_take(arena, scratch, rows * (size_t)c->kv_heads * lanes, act);
	encoder->v = arena_take(arena, scratch, rows * (size_t)c->kv_heads * lanes, act);
	encoder->attended = arena_take(arena, scratch, rows * (size_t)c->heads * lanes, act);
	encoder->gate = arena_take(arena, scratch, rows * (size_t)c->intermediate_size, act);
	encoder->up = arena_take(arena, scratch, rows * (size_t)c->intermediate_size, act);
	text_layers_layout(encoder, backend, arena);
}

/*
 * Inverse frequencies and angles are F32 products, as in the run that made the expected values; at
 * position 400 an exact angle would differ from those by some 1e−5.
 */
static void rotation_fill(const struct text_encoder *encoder, float *to_cos, float *to_sin)
{
	const int pairs = encoder->config->head_dim / 2;

	for (int i = 0; i < pairs; i++) {
		const float exponent = (float)(2 * i) / (float)encoder->config->head_dim;
		const float frequency =
			1.0f / (float)pow((double)encoder->config->rope_theta, (double)exponent);

		for (int n = 0; n < encoder->max_tokens; n++) {
			const float angle = (float)n * frequency;

			to_cos[(size_t)n * pairs + i] = (float)cos((double)angle);
			to_sin[(size_t)n * pairs + i] = (float)sin((double)angle);
		}
	}
}

int text_encoder_prepare(struct text_encoder *encoder, struct op_context *context)
{
	const size_t count = (size_t)encoder->max_tokens * (encoder->config->head_dim / 2);
	_cleanup_(freep) float *table = NULL;

	if (context->planning)
		return context->status;
	table = malloc(2 * count * sizeof(*table));
	if (!table)
		return -ENOMEM;
	rotation_fill(encoder, table, table + count);
	op_upload(context, encoder->rope_cos, table, count * sizeof(*table));
	op_upload(context, encoder->rope_sin, table + count, count * sizeof(*table));
	op_note(context, text_layers_prepare(encoder, context->backend));
	return op_wait(context);
}

static void norm_run(const struct text_encoder *encoder, struct op_context *context, const void *x,
		     const void *residual, const float *weight, void *y, int tokens)
{
	OP(context, rms_norm,
	   {
		   .x = x,
		   .residual = residual,
		   .weight = weight,
		   .y = y,
		   .weight_offset = 1.0f,
		   .epsilon = encoder->config->rms_norm_eps,
		   .rows = tokens,
		   .channels = encoder->config->hidden_size,
	   });
}

/* A matrix without bias: one input, one output. */
static void linear_run(struct op_context *context, const struct kernel_weight *weight,
		       const void *x, void *y, int tokens)
{
	OP(context, linear,
	   {
		   .x = x,
		   .ldx = (size_t)weight->in,
		   .rows = tokens,
		   .parts = 1,
		   .part = { { .weight = weight, .y = y, .ldy = (size_t)weight->out } },
	   });
}

static void rotate(const struct text_encoder *encoder, struct op_context *context, void *x,
		   int heads, int tokens)
{
	const int lanes = encoder->config->head_dim;

	OP(context, rope_half,
	   {
		   .x = x,
		   .ldx = (size_t)heads * lanes,
		   .cos = encoder->rope_cos,
		   .sin = encoder->rope_sin,
		   .rows = tokens,
		   .heads = heads,
		   .head_dim = lanes,
	   });
}

static void attend(const struct text_encoder *encoder, struct op_context *context, int layer,
		   const uint8_t *mask, int tokens)
{
	const struct text_config *c = encoder->config;
	const size_t q = (size_t)c->heads * c->head_dim;
	const size_t kv = (size_t)c->kv_heads * c->head_dim;

	OP(context, attention,
	   {
		   .q = encoder->q,
		   .y = encoder->attended,
		   .ldq = q,
		   .ldy = q,
		   .segment = { { encoder->k, encoder->v, kv, tokens } },
		   .segments = 1,
		   .rows = tokens,
		   .heads = c->heads,
		   .kv_heads = c->kv_heads,
		   .head_dim = c->head_dim,
		   .scale = 1.0f / sqrtf(c->query_pre_attn_scalar),
		   .softcap = encoder->softcap ? c->attn_logit_softcapping : 0.0f,
		   .causal = true,
		   .window = layer % 2 == 0 ? c->sliding_window : 0,
		   .key_mask = mask,
	   });
}

/* hidden ← hidden + RMS(attention(RMS(hidden))), all norms (1 + w). */
static void attention_run(const struct text_encoder *encoder, struct op_context *context, int layer,
			  const struct text_layer_weights *w, const uint8_t *mask, int tokens)
{
	const struct text_config *c = encoder->config;
	const size_t kv = (size_t)c->kv_heads * c->head_dim;

	norm_run(encoder, context, encoder->hidden, NULL, w->input_norm, encoder->normed, tokens);
	OP(context, linear,
	   {
		   .x = encoder->normed,
		   .ldx = (size_t)c->hidden_size,
		   .rows = tokens,
		   .parts = 3,
		   .part = {
			   {
				   .weight = &w->q,
				   .y = encoder->q,
				   .ldy = (size_t)c->heads * c->head_dim,
			   },
			   { .weight = &w->k, .y = encoder->k, .ldy = kv },
			   { .weight = &w->v, .y = encoder->v, .ldy = kv },
		   },
	   });
	rotate(encoder, context, encoder->q, c->heads, tokens);
	rotate(encoder, context, encoder->k, c->kv_heads, tokens);
	attend(encoder, context, layer, mask, tokens);
	linear_run(context, &w->o, encoder->attended, encoder->normed, tokens);
	norm_run(encoder, context, encoder->normed, encoder->hidden, w->post_attention_norm,
		 encoder->hidden, tokens);
}

/* hidden ← hidden + RMS((gelu(m·Wg) ⊙ m·Wu)·Wd), m = RMS(hidden). */
static void feedforward_run(const struct text_encoder *encoder, struct op_context *context,
			    const struct text_layer_weights *w, int tokens)
{
	const struct text_config *c = encoder->config;
	const size_t wide = (size_t)c->intermediate_size;

	norm_run(encoder, context, encoder->hidden, NULL, w->pre_feedforward_norm, encoder->normed,
		 tokens);
	OP(context, linear,
	   {
		   .x = encoder->normed,
		   .ldx = (size_t)c->hidden_size,
		   .rows = tokens,
		   .parts = 2,
		   .part = {
			   { .weight = &w->gate, .y = encoder->gate, .ldy = wide },
			   { .weight = &w->up, .y = encoder->up, .ldy = wide },
		   },
	   });
	OP(context, glu_gelu,
	   {
		   .gate = encoder->gate,
		   .up = encoder->up,
		   .y = encoder->gate,
		   .rows = tokens,
		   .columns = c->intermediate_size,
	   });
	linear_run(context, &w->down, encoder->gate, encoder->normed, tokens);
	norm_run(encoder, context, encoder->normed, encoder->hidden, w->post_feedforward_norm,
		 encoder->hidden, tokens);
}

/* Waits, so that the caller's arrays are his own again when the run returns. */
static int inputs_upload(struct text_encoder *encoder, struct op_context *context,
			 const int32_t *ids, const uint8_t *mask, int tokens,
			 const struct kernel_weight **ret_embedding)
{
	int32_t looked_up[2 * MODEL_MAX_TOKENS]; /* as in struct prompt_tokens */

	if (tokens < 1 || tokens > encoder->max_tokens || (size_t)tokens > ARRAY_SIZE(looked_up))
		return -EINVAL;
	for (int i = 0; i < tokens && !context->planning; i++)
		if (ids[i] < 0 || ids[i] >= encoder->config->vocab_size)
			return -EINVAL;
	*ret_embedding = text_rows_bring(encoder, context, ids, tokens, looked_up);
	op_upload(context, encoder->ids, looked_up, (size_t)tokens * sizeof(*looked_up));
	if (mask)
		op_upload(context, encoder->mask, mask, (size_t)tokens * sizeof(*mask));
	return op_wait(context);
}

static void tap_hidden(const struct text_encoder *encoder, const struct op_context *context,
		       int index, const void *data, int tokens)
{
	if (encoder->tap && !context->planning && context->status >= 0)
		encoder->tap->hidden(encoder->tap->context, index, data, tokens);
}

int text_encoder_run(struct text_encoder *encoder, struct op_context *context, const int32_t *ids,
		     const uint8_t *mask, int tokens, const void **ret_hidden)
{
	const struct text_config *c = encoder->config;
	const uint8_t *key_mask = mask ? encoder->mask : NULL;
	const struct text_layer_weights *w;
	const struct kernel_weight *embedding;
	int r;

	r = inputs_upload(encoder, context, ids, mask, tokens, &embedding);
	if (r < 0)
		return r;
	text_layers_begin(encoder, context);
	OP(context, embedding,
	   {
		   .table = embedding,
		   .ids = encoder->ids,
		   .scale = sqrtf((float)c->hidden_size),
		   .y = encoder->hidden,
		   .rows = tokens,
	   });
	tap_hidden(encoder, context, 0, encoder->hidden, tokens);
	for (int i = 0; i < c->layers; i++) {
		w = text_layers_take(encoder, context, i);
		attention_run(encoder, context, i, w, key_mask, tokens);
		feedforward_run(encoder, context, w, tokens);
		text_layers_next(encoder, context, i);
		if (i + 1 < c->layers)
			tap_hidden(encoder, context, i + 1, encoder->hidden, tokens);
	}
	norm_run(encoder, context, encoder->hidden, NULL, encoder->weights->norm, encoder->normed,
		 tokens);
	tap_hidden(encoder, context, c->layers, encoder->normed, tokens);
	if (context->status < 0)
		return context->status;
	*ret_hidden = encoder->normed;
	return 0;
}
