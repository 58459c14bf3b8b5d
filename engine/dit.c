/* One pass of the hybrid diffusion transformer over a chunk. */
#include "engine/dit.h"

#include <math.h>

static const float layer_norm_epsilon = 1e-6f;
static const float self_norm_epsilon = 1e-5f;
static const float cross_norm_epsilon = 1e-6f;
static const float caption_norm_epsilon = 1e-5f;

enum { SHIFT_A, SCALE_A, GATE_A, SHIFT_M, SCALE_M, GATE_M, MODULATION_ROWS };

void dit_scratch_layout(struct dit_scratch *s, const struct dit_config *config,
			const struct backend *backend, int max_tokens, int max_frames,
			struct arena *arena)
{
	const size_t n = (size_t)max_tokens, act = activation_bytes(backend);
	const size_t c = (size_t)config->hidden_size, f = (size_t)config->mlp_hidden;
	const size_t heads = c / (size_t)config->head_dim;
	const size_t latent = (size_t)config->in_channels;

	s->x = arena_take(arena, "DiT scratch/residual and norm", n * c, act);
	s->u = arena_take(arena, "DiT scratch/residual and norm", n * c, act);
	s->wide = arena_take(arena, "DiT scratch/q, k, v, gate or FFN", n * MAX_OF(4 * c, 2 * f),
			     act);
	s->product = arena_take(arena, "DiT scratch/FFN product", n * MAX_OF(f, c), act);
	s->input = arena_take(arena, "DiT scratch/latents in and out",
			      n * (latent + (size_t)config->source_channels), act);
	s->velocity = arena_take(arena, "DiT scratch/latents in and out", n * latent, act);
	s->beta = arena_take(arena, "DiT scratch/GDN gates", n * heads, sizeof(float));
	s->decay = arena_take(arena, "DiT scratch/GDN gates", (size_t)max_frames * heads,
			      sizeof(float));
}

/* ------------------------------------------------------------------------------------ the text */

void dit_text_layout(struct dit_text *text, const struct dit_config *config,
		     const struct backend *backend, struct arena *arena)
{
	const size_t count = (size_t)config->max_tokens * 2 * (size_t)config->hidden_size;

	for (int i = 0; i < config->depth; i++)
		text->kv[i] =
			arena_take(arena, "text keys and values", count, activation_bytes(backend));
}

void dit_text_scratch_layout(struct dit_text_scratch *s, const struct dit_config *config,
			     const struct backend *backend, struct arena *arena)
{
	const size_t rows = (size_t)config->max_tokens, act = activation_bytes(backend);
	const size_t c = (size_t)config->hidden_size;

	s->caption =
		arena_take(arena, "caption scratch", rows * (size_t)config->caption_channels, act);
	s->hidden = arena_take(arena, "caption scratch", rows * c, act);
	s->features = arena_take(arena, "caption scratch", rows * c, act);
}

void dit_text_compute(struct dit_text *text, const struct dit_config *config,
		      const struct dit_weights *w, const struct dit_text_scratch *s,
		      struct op_context *op, const float *caption, int rows)
{
	const int c = config->hidden_size;
	const size_t ld = (size_t)c;

	text->rows = rows;
	OP(op, rope_shift,
	   { /* to the activation type */
	     .x = caption,
	     .y = s->caption,
	     .x_is_float = true,
	     .rows = (size_t)rows,
	     .heads = 1,
	     .head_dim = config->caption_channels });
	OP(op, linear,
	   { .x = s->caption,
	     .ldx = (size_t)config->caption_channels,
	     .rows = rows,
	     .parts = 1,
	     .part[0] = { .weight = &w->caption_fc1,
			  .bias = w->caption_fc1_bias,
			  .activation = KERNEL_GELU,
			  .y = s->hidden,
			  .ldy = ld } });
	OP(op, linear,
	   { .x = s->hidden,
	     .ldx = ld,
	     .rows = rows,
	     .parts = 1,
	     .part[0] = { .weight = &w->caption_fc2,
			  .bias = w->caption_fc2_bias,
			  .y = s->features,
			  .ldy = ld } });
	OP(op, rms_norm,
	   { .x = s->features,
	     .weight = w->caption_norm,
	     .y = s->features,
	     .epsilon = caption_norm_epsilon,
	     .rows = rows,
	     .channels = c });
	for (int i = 0; i < config->depth; i++) {
		const struct dit_block_weights *b = &w->block[i];

		OP(op, linear,
		   { .x = s->features,
		     .ldx = ld,
		     .rows = rows,
		     .parts = 1,
		     .part[0] = { .weight = &b->cross_kv,
				  .bias = b->cross_kv_bias,
				  .y = text->kv[i],
				  .ldy = 2 * ld } });
		OP(op, qk_norm_rope,
		   { .x = text->kv[i],
		     .ldx = 2 * ld,
		     .weight = b->cross_k_norm,
		     .epsilon = cross_norm_epsilon,
		     .rows = rows,
		     .heads = config->num_heads,
		     .head_dim = c / config->num_heads });
	}
}

/* -------------------------------------------------------------------------------------- blocks */

struct block_run {
	const struct dit_pass *pass;
	const struct dit_block_weights *w;
	struct op_context *op;
	const float *modulation[MODULATION_ROWS];
	struct cache_view view;
	int index, tokens, frames, tokens_per_frame;
	size_t c; /* hidden size */
};

static void tap(const struct block_run *r, enum dit_tap_point point, const void *data)
{
	const struct dit_tap *t = r->pass->tap;

	if (t && !r->op->planning)
		t->block(t->context, r->index, point, data);
}

static void *offset(void *base, size_t elements, const struct op_context *op)
{
	return (void *)((uintptr_t)base + elements * activation_bytes(op->backend));
}

static const void *offset_const(const void *base, size_t elements, const struct op_context *op)
{
	return (const void *)((uintptr_t)base + elements * activation_bytes(op->backend));
}

static void norm_modulate(struct block_run *r, int shift, int scale)
{
	const struct dit_scratch *s = r->pass->scratch;

	OP(r->op, layer_norm_modulate,
	   { .x = s->x,
	     .scale = r->modulation[scale],
	     .shift = r->modulation[shift],
	     .y = s->u,
	     .epsilon = layer_norm_epsilon,
	     .rows = r->tokens,
	     .channels = (int)r->c });
}

/* x ← x + gate ⊙ (W·input + b); a tap sees W·input + b. */
static void project_into_residual(struct block_run *r, const struct kernel_weight *weight,
				  const float *bias, const float *gate, const void *input,
				  bool tapped)
{
	const struct dit_scratch *s = r->pass->scratch;

	if (tapped && r->pass->tap) {
		OP(r->op, linear,
		   { .x = input,
		     .ldx = r->c,
		     .rows = r->tokens,
		     .parts = 1,
		     .part[0] = { .weight = weight, .bias = bias, .y = s->product, .ldy = r->c } });
		tap(r, DIT_X_SELF_ATTN, s->product);
	}
	OP(r->op, linear,
	   { .x = input,
	     .ldx = r->c,
	     .rows = r->tokens,
	     .parts = 1,
	     .part[0] = { .weight = weight,
			  .bias = bias,
			  .residual = s->x,
			  .ld_residual = r->c,
			  .gate = gate,
			  .y = s->x,
			  .ldy = r->c } });
}

static void gdn_attention(struct block_run *r)
{
	const struct dit_config *config = r->pass->config;
	const struct dit_scratch *s = r->pass->scratch;
	const struct dit_block_weights *w = r->w;
	const size_t ld = 4 * r->c;
	const int heads = (int)r->c / config->head_dim;
	void *q = s->wide, *k = offset(q, r->c, r->op), *v = offset(q, 2 * r->c, r->op);
	void *gate = offset(q, 3 * r->c, r->op);

	OP(r->op, linear,
	   { .x = s->u,
	     .ldx = r->c,
	     .rows = r->tokens,
	     .parts = 4,
	     .part[0] = { .weight = &w->q, .y = q, .ldy = ld },
	     .part[1] = { .weight = &w->k, .y = k, .ldy = ld },
	     .part[2] = { .weight = &w->v, .y = v, .ldy = ld },
	     .part[3] = { .weight = &w->output_gate,
			  .bias = w->output_gate_bias,
			  .y = gate,
			  .ldy = ld } });
	OP(r->op, gdn_gates,
	   { .u = s->u,
	     .weight_beta = &w->beta,
	     .weight_decay = &w->decay,
	     .bias_beta = w->beta_bias,
	     .bias_decay = w->decay_bias,
	     .a_log = w->a_log,
	     .dt_bias = w->dt_bias,
	     .beta = s->beta,
	     .decay = s->decay,
	     .frames = r->frames,
	     .tokens_per_frame = r->tokens_per_frame,
	     .channels = (int)r->c,
	     .heads = heads });
	OP(r->op, gdn,
	   { .q = q,
	     .k = k,
	     .v = v,
	     .gate = gate,
	     .ld = ld,
	     .q_norm = w->q_norm,
	     .k_norm = w->k_norm,
	     .beta = s->beta,
	     .decay = s->decay,
	     .rope = &r->pass->rope,
	     .state_in = r->view.state_in,
	     .normaliser_in = r->view.normaliser_in,
	     .state_out = r->view.state_out,
	     .normaliser_out = r->view.normaliser_out,
	     .y = s->u,
	     .epsilon = self_norm_epsilon,
	     .heads = heads,
	     .head_dim = config->head_dim });
}

static void softmax_attention(struct block_run *r)
{
	const struct dit_config *config = r->pass->config;
	const struct dit_scratch *s = r->pass->scratch;
	const struct dit_block_weights *w = r->w;
	const size_t ld = 4 * r->c;
	const int heads = (int)r->c / config->head_dim;
	const bool save = r->view.k_out;
	void *q = s->wide, *gate = offset(q, 3 * r->c, r->op);
	void *k = save ? r->view.k_out : offset(q, r->c, r->op);
	void *v = save ? r->view.v_out : offset(q, 2 * r->c, r->op);
	const size_t ld_kv = save ? r->c : ld;
	struct kernel_attention attention = {
		.q = q,
		.gate = gate,
		.y = s->u,
		.ldq = ld,
		.ldg = ld,
		.ldy = r->c,
		.segments = r->view.segments,
		.rows = r->tokens,
		.heads = heads,
		.kv_heads = heads,
		.head_dim = config->head_dim,
		.scale = 1.0f / sqrtf((float)config->head_dim),
	};

	OP(r->op, linear,
	   { .x = s->u,
	     .ldx = r->c,
	     .rows = r->tokens,
	     .parts = 4,
	     .part[0] = { .weight = &w->q, .y = q, .ldy = ld },
	     .part[1] = { .weight = &w->k, .y = k, .ldy = ld_kv },
	     .part[2] = { .weight = &w->v, .y = v, .ldy = ld_kv },
	     .part[3] = { .weight = &w->output_gate,
			  .bias = w->output_gate_bias,
			  .y = gate,
			  .ldy = ld } });
	OP(r->op, qk_norm_rope,
	   { .x = q,
	     .ldx = ld,
	     .weight = w->q_norm,
	     .rope = &r->pass->rope,
	     .epsilon = self_norm_epsilon,
	     .rows = r->tokens,
	     .heads = heads,
	     .head_dim = config->head_dim });
	OP(r->op, qk_norm_rope,
	   { .x = k,
	     .ldx = ld_kv,
	     .weight = w->k_norm,
	     .rope = &r->pass->rope,
	     .epsilon = self_norm_epsilon,
	     .rows = r->tokens,
	     .heads = heads,
	     .head_dim = config->head_dim });
	for (int i = 0; i < r->view.segments; i++)
		attention.segment[i] = r->view.segment[i];
	attention.segment[attention.segments++] = (struct kernel_segment){
		.k = k,
		.v = v,
		.ld = ld_kv,
		.tokens = r->tokens,
	};
	op_run(r->op, KERNEL_OP_attention, &attention.workspace);
}

static void cross_attention(struct block_run *r)
{
	const struct dit_config *config = r->pass->config;
	const struct dit_scratch *s = r->pass->scratch;
	const struct dit_text *text = r->pass->text;
	const struct dit_block_weights *w = r->w;
	const int heads = config->num_heads, head_dim = (int)r->c / heads;
	const void *kv = text->kv[r->index];

	OP(r->op, linear,
	   { .x = s->x,
	     .ldx = r->c,
	     .rows = r->tokens,
	     .parts = 1,
	     .part[0] = {
		     .weight = &w->cross_q, .bias = w->cross_q_bias, .y = s->u, .ldy = r->c } });
	OP(r->op, qk_norm_rope,
	   { .x = s->u,
	     .ldx = r->c,
	     .weight = w->cross_q_norm,
	     .epsilon = cross_norm_epsilon,
	     .rows = r->tokens,
	     .heads = heads,
	     .head_dim = head_dim });
	OP(r->op, attention,
	   { .q = s->u,
	     .y = s->u,
	     .ldq = r->c,
	     .ldy = r->c,
	     .segment[0] = { .k = kv,
			     .v = offset_const(kv, r->c, r->op),
			     .ld = 2 * r->c,
			     .tokens = text->rows },
	     .segments = 1,
	     .rows = r->tokens,
	     .heads = heads,
	     .kv_heads = heads,
	     .head_dim = head_dim,
	     .scale = 1.0f / sqrtf((float)head_dim) });
	project_into_residual(r, &w->cross_proj, w->cross_proj_bias, NULL, s->u, false);
}

/* The last block of a cache pass only has to leave r_{T−1} behind: nothing reads its output. */
static void mix_ffn(struct block_run *r, bool output_unread)
{
	const struct dit_config *config = r->pass->config;
	const struct dit_scratch *s = r->pass->scratch;
	const struct dit_block_weights *w = r->w;
	const size_t f = (size_t)config->mlp_hidden, frame = r->c * (size_t)r->tokens_per_frame;

	OP(r->op, linear,
	   { .x = s->u,
	     .ldx = r->c,
	     .rows = r->tokens,
	     .parts = 1,
	     .part[0] = { .weight = &w->inverted,
			  .bias = w->inverted_bias,
			  .activation = KERNEL_SILU,
			  .y = s->wide,
			  .ldy = 2 * f } });
	OP(r->op, depthwise_glu,
	   { .a = s->wide,
	     .weight = w->depth_weight,
	     .bias = w->depth_bias,
	     .y = s->product,
	     .frames = r->frames,
	     .height = r->pass->rope.height,
	     .width = r->pass->rope.width,
	     .features = config->mlp_hidden });
	OP(r->op, linear,
	   { .x = s->product,
	     .ldx = f,
	     .rows = r->tokens,
	     .parts = 1,
	     .part[0] = { .weight = &w->point, .y = s->u, .ldy = r->c } });
	if (output_unread) {
		op_copy(r->op, r->view.left_out,
			offset_const(s->u, frame * (size_t)(r->frames - 1), r->op),
			frame * activation_bytes(r->op->backend));
		return;
	}
	OP(r->op, temporal_conv,
	   { .x = s->x,
	     .r = s->u,
	     .left = r->view.left_in,
	     .left_out = r->view.left_out,
	     .weight = &w->temporal,
	     .gate = r->modulation[GATE_M],
	     .frames = r->frames,
	     .tokens_per_frame = r->tokens_per_frame,
	     .channels = (int)r->c });
}

static void block_run(struct block_run *r, bool output_unread)
{
	const struct dit_scratch *s = r->pass->scratch;

	tap(r, DIT_X_IN, s->x);
	norm_modulate(r, SHIFT_A, SCALE_A);
	if (r->pass->config->softmax[r->index])
		softmax_attention(r);
	else
		gdn_attention(r);
	project_into_residual(r, &r->w->proj, r->w->proj_bias, r->modulation[GATE_A], s->u, true);
	cross_attention(r);
	tap(r, DIT_X_CROSS_ATTN, s->x);
	norm_modulate(r, SHIFT_M, SCALE_M);
	mix_ffn(r, output_unread);
	tap(r, DIT_X_FFN, s->x);
}

static void patch_embed(const struct dit_pass *pass, struct op_context *op, int tokens)
{
	const struct dit_config *config = pass->config;
	const struct dit_scratch *s = pass->scratch;

	OP(op, concat,
	   { .a = pass->noisy,
	     .b = pass->source,
	     .y = s->input,
	     .rows = tokens,
	     .channels_a = config->in_channels,
	     .channels_b = config->source_channels });
	OP(op, linear,
	   { .x = s->input,
	     .ldx = (size_t)(config->in_channels + config->source_channels),
	     .rows = tokens,
	     .parts = 1,
	     .part[0] = { .weight = &pass->weights->patch,
			  .bias = pass->weights->patch_bias,
			  .y = s->x,
			  .ldy = (size_t)config->hidden_size } });
}

static void final_layer(const struct dit_pass *pass, struct op_context *op, int tokens)
{
	const struct dit_config *config = pass->config;
	const struct dit_scratch *s = pass->scratch;
	const size_t c = (size_t)config->hidden_size;
	const float *modulation = pass->weights->final_modulation + 2 * c * (size_t)pass->entry;

	OP(op, layer_norm_modulate,
	   { .x = s->x,
	     .shift = modulation,
	     .scale = modulation + c,
	     .y = s->u,
	     .epsilon = layer_norm_epsilon,
	     .rows = tokens,
	     .channels = (int)c });
	OP(op, linear,
	   { .x = s->u,
	     .ldx = c,
	     .rows = tokens,
	     .parts = 1,
	     .part[0] = { .weight = &pass->weights->final,
			  .bias = pass->weights->final_bias,
			  .y = s->velocity,
			  .ldy = (size_t)config->in_channels } });
	if (pass->tap && !op->planning)
		pass->tap->velocity(pass->tap->context, s->velocity);
}

void dit_run(const struct dit_pass *pass, struct op_context *op)
{
	const struct dit_config *config = pass->config;
	const struct kernel_rope *rope = &pass->rope;
	const size_t c = (size_t)config->hidden_size;
	const bool velocity_unread = pass->save && !pass->tap;
	struct block_run r = {
		.pass = pass,
		.op = op,
		.frames = rope->frames,
		.tokens_per_frame = rope->height * rope->width,
		.c = c,
	};

	r.tokens = r.frames * r.tokens_per_frame;
	patch_embed(pass, op, r.tokens);
	for (int i = 0; i < config->depth; i++) {
		const size_t row = (size_t)pass->entry * (size_t)config->depth + (size_t)i;

		r.index = i;
		r.w = &pass->weights->block[i];
		for (size_t m = 0; m < MODULATION_ROWS; m++)
			r.modulation[m] =
				pass->weights->modulation + (row * MODULATION_ROWS + m) * c;
		cache_view(pass->cache, i, pass->save, pass->redo, &r.view);
		block_run(&r, velocity_unread && i == config->depth - 1);
	}
	if (!velocity_unread)
		final_layer(pass, op, r.tokens);
}

double dit_pass_flops(const struct dit_config *config, int frames, int tokens_per_frame,
		      int cached_tokens, int text_rows)
{
	const double n = (double)frames * tokens_per_frame, c = config->hidden_size;
	const double d = config->head_dim, f = config->mlp_hidden, heads = c / d;
	const double latents = 2.0 * config->in_channels + config->source_channels;
	/* q, k, v, gate, proj; cross q, proj; cross core; expand, depth-wise, point, three taps. */
	const double common = n * c * c * 5 + n * c * c * 2 + 2 * n * text_rows * c +
			      n * c * 2 * f + n * 2 * f * 9 + n * f * c + 3 * n * c * c;
	const double gdn =
		2 * n * c * heads + 3 * n * d * c + (2.0 * frames - 1) * d * d * c + n * c * d;
	const double softmax = 2 * n * (n + cached_tokens) * c;
	double macs = n * c * latents;

	for (int i = 0; i < config->depth; i++)
		macs += common + (config->softmax[i] ? softmax : gdn);
	return 2 * macs;
}
