/* The DiT's weights, and the modulation tables that depend on the time step alone. */
#include "engine/dit.h"

#include "engine/schedule.h"

#include <errno.h>

static void self_attention_load(struct loader *l, const struct dit_config *config, int i,
				struct dit_block_weights *b)
{
	const int c = config->hidden_size, heads = c / config->head_dim;
	const int taps = config->softmax[i] ? 3 : 1, tap = taps / 2;

	loader_matrix_taps(l, &b->q, c, c, taps, tap, 1, "blocks.%d.attn.q.weight", i);
	loader_matrix_taps(l, &b->k, c, c, taps, tap, 1, "blocks.%d.attn.k.weight", i);
	loader_matrix(l, &b->v, c, c, 1, "blocks.%d.attn.v.weight", i);
	loader_matrix(l, &b->output_gate, c, c, 1, "blocks.%d.attn.output_gate.weight", i);
	loader_matrix(l, &b->proj, c, c, 1, "blocks.%d.attn.proj.weight", i);
	loader_vector(l, &b->output_gate_bias, c, "blocks.%d.attn.output_gate.bias", i);
	loader_vector(l, &b->proj_bias, c, "blocks.%d.attn.proj.bias", i);
	loader_vector(l, &b->q_norm, c, "blocks.%d.attn.q_norm.weight", i);
	loader_vector(l, &b->k_norm, c, "blocks.%d.attn.k_norm.weight", i);
	if (config->softmax[i])
		return;
	loader_matrix(l, &b->beta, heads, c, 1, "blocks.%d.attn.beta_proj.weight", i);
	loader_matrix(l, &b->decay, heads, c, 1, "blocks.%d.attn.gate_proj.weight", i);
	loader_vector(l, &b->beta_bias, heads, "blocks.%d.attn.beta_proj.bias", i);
	loader_vector(l, &b->decay_bias, heads, "blocks.%d.attn.gate_proj.bias", i);
	loader_vector(l, &b->a_log, heads, "blocks.%d.attn.A_log", i);
	loader_vector(l, &b->dt_bias, heads, "blocks.%d.attn.dt_bias", i);
}

static void block_load(struct loader *l, const struct dit_config *config, int i,
		       struct dit_block_weights *b)
{
	const int c = config->hidden_size, f = config->mlp_hidden;

	self_attention_load(l, config, i, b);
	loader_matrix(l, &b->cross_q, c, c, 1, "blocks.%d.cross_attn.q_linear.weight", i);
	loader_matrix(l, &b->cross_kv, 2 * c, c, 1, "blocks.%d.cross_attn.kv_linear.weight", i);
	loader_matrix(l, &b->cross_proj, c, c, 1, "blocks.%d.cross_attn.proj.weight", i);
	loader_vector(l, &b->cross_q_bias, c, "blocks.%d.cross_attn.q_linear.bias", i);
	loader_vector(l, &b->cross_kv_bias, 2 * (size_t)c, "blocks.%d.cross_attn.kv_linear.bias",
		      i);
	loader_vector(l, &b->cross_proj_bias, c, "blocks.%d.cross_attn.proj.bias", i);
	loader_vector(l, &b->cross_q_norm, c, "blocks.%d.cross_attn.q_norm.weight", i);
	loader_vector(l, &b->cross_k_norm, c, "blocks.%d.cross_attn.k_norm.weight", i);
	loader_matrix(l, &b->inverted, 2 * f, c, 1, "blocks.%d.mlp.inverted_conv.conv.weight", i);
	loader_matrix(l, &b->point, c, f, 1, "blocks.%d.mlp.point_conv.conv.weight", i);
	loader_matrix(l, &b->temporal, c, c, 3, "blocks.%d.mlp.t_conv.weight", i);
	loader_vector(l, &b->inverted_bias, 2 * (size_t)f, "blocks.%d.mlp.inverted_conv.conv.bias",
		      i);
	loader_vector(l, &b->depth_bias, 2 * (size_t)f, "blocks.%d.mlp.depth_conv.conv.bias", i);
	loader_vector_transposed(l, &b->depth_weight, 2 * (size_t)f, 9,
				 "blocks.%d.mlp.depth_conv.conv.weight", i);
}

/* The time-step network; needed only while its tables are made. */
struct time_weights {
	struct kernel_weight mlp0, mlp2, block;
	const float *bias0, *bias2, *block_bias;
};

static void time_load(struct loader *l, int c, struct time_weights *t)
{
	loader_matrix(l, &t->mlp0, c, SCHEDULE_SINUSOID, 1, "t_embedder.mlp.0.weight");
	loader_matrix(l, &t->mlp2, c, c, 1, "t_embedder.mlp.2.weight");
	loader_matrix(l, &t->block, 6 * c, c, 1, "t_block.1.weight");
	loader_vector(l, &t->bias0, c, "t_embedder.mlp.0.bias");
	loader_vector(l, &t->bias2, c, "t_embedder.mlp.2.bias");
	loader_vector(l, &t->block_bias, 6 * (size_t)c, "t_block.1.bias");
}

struct time_buffers {
	float *sinusoid; /* F32 [entries][256] */
	void *input, *hidden, *tau_silu;
	float *tau, *t0;	   /* F32 [entries][C], [entries][6C] */
	void *mlp0, *mlp2, *block; /* prepared matrices, where a back end wants them so */
};

static size_t prepared_bytes(const struct backend *b, const struct kernel_weight *w)
{
	return b->table->weights_on_device ? b->table->weight_prepare_bytes(b->device, w) : 0;
}

static void time_layout(struct arena *a, const struct backend *b, const struct time_weights *w,
			int entries, int c, struct time_buffers *t)
{
	const size_t rows = (size_t)entries, act = activation_bytes(b);

	t->sinusoid = arena_take(a, "time", rows * SCHEDULE_SINUSOID, sizeof(float));
	t->input = arena_take(a, "time", rows * SCHEDULE_SINUSOID, act);
	t->hidden = arena_take(a, "time", rows * c, act);
	t->tau_silu = arena_take(a, "time", rows * c, act);
	t->tau = arena_take(a, "time", rows * c, sizeof(float));
	t->t0 = arena_take(a, "time", rows * 6 * c, sizeof(float));
	t->mlp0 = arena_take(a, "time", prepared_bytes(b, &w->mlp0), 1);
	t->mlp2 = arena_take(a, "time", prepared_bytes(b, &w->mlp2), 1);
	t->block = arena_take(a, "time", prepared_bytes(b, &w->block), 1);
}

/* The matrices stay where they are in the file unless ops cannot read them there. */
static void time_prepare(struct op_context *op, const struct time_buffers *t,
			 struct time_weights *w)
{
	const struct backend *b = op->backend;

	if (!b->table->weights_on_device)
		return;
	op_note(op, b->table->weight_prepare(b->device, &w->mlp0, t->mlp0, op->queue));
	op_note(op, b->table->weight_prepare(b->device, &w->mlp2, t->mlp2, op->queue));
	op_note(op, b->table->weight_prepare(b->device, &w->block, t->block, op->queue));
}

/* τ = W2·silu(W0·e + b0) + b2;  t0 = t_block(silu(τ)). (dit §3.3) */
static void time_run(struct op_context *op, const struct time_weights *w,
		     const struct time_buffers *t, int entries, int c)
{
	OP(op, rope_shift,
	   { .x = t->sinusoid,
	     .y = t->input,
	     .x_is_float = true,
	     .rows = (size_t)entries,
	     .heads = 1,
	     .head_dim = SCHEDULE_SINUSOID });
	OP(op, linear,
	   { .x = t->input,
	     .ldx = SCHEDULE_SINUSOID,
	     .rows = entries,
	     .parts = 1,
	     .part[0] = { .weight = &w->mlp0,
			  .bias = w->bias0,
			  .activation = KERNEL_SILU,
			  .y = t->hidden,
			  .ldy = (size_t)c } });
	OP(op, linear,
	   { .x = t->hidden,
	     .ldx = (size_t)c,
	     .rows = entries,
	     .parts = 2,
	     .part[0] = { .weight = &w->mlp2,
			  .bias = w->bias2,
			  .y = t->tau,
			  .ldy = (size_t)c,
			  .y_is_float = true },
	     .part[1] = { .weight = &w->mlp2,
			  .bias = w->bias2,
			  .activation = KERNEL_SILU,
			  .y = t->tau_silu,
			  .ldy = (size_t)c } });
	OP(op, linear,
	   { .x = t->tau_silu,
	     .ldx = (size_t)c,
	     .rows = entries,
	     .parts = 1,
	     .part[0] = { .weight = &w->block,
			  .bias = w->block_bias,
			  .y = t->t0,
			  .ldy = 6 * (size_t)c,
			  .y_is_float = true } });
}

/* Host copies of τ and t0 for all entries. */
static int time_compute(struct loader *l, const struct time_weights *w, const float *sinusoid,
			int entries, int c, float *ret_tau, float *ret_t0)
{
	const struct kernel_backend *table = l->backend->table;
	struct op_context op = { .backend = l->backend, .queue = l->queue, .planning = true };
	struct time_weights placed = *w;
	struct time_buffers buffers;
	struct arena arena;
	void *memory;
	size_t bytes;
	int r;

	arena_measure(&arena);
	time_layout(&arena, l->backend, w, entries, c, &buffers);
	time_run(&op, w, &buffers, entries, c);
	(void)arena_take(&arena, "workspace", op.workspace.bytes, 1);
	if (op.status < 0 || arena.overflowed)
		return op.status < 0 ? op.status : -EOVERFLOW;
	bytes = arena.used;
	r = table->allocate(l->backend->device, bytes, &memory);
	if (r < 0)
		return r;
	arena_place(&arena, memory, bytes);
	time_layout(&arena, l->backend, w, entries, c, &buffers);
	op.workspace.data = arena_take(&arena, "workspace", op.workspace.bytes, 1);
	op.planning = false;
	op_upload(&op, buffers.sinusoid, sinusoid,
		  (size_t)entries * SCHEDULE_SINUSOID * sizeof(float));
	time_prepare(&op, &buffers, &placed);
	time_run(&op, &placed, &buffers, entries, c);
	op_download(&op, ret_tau, buffers.tau, (size_t)entries * c * sizeof(float));
	op_download(&op, ret_t0, buffers.t0, (size_t)entries * 6 * c * sizeof(float));
	r = op_wait(&op);
	table->release(l->backend->device, memory, bytes);
	return r;
}

static int table_add(const struct loader *l, const char *name, const float *add, size_t add_period,
		     size_t count, float *ret)
{
	const struct weight_tensor *tensor = weights_find(l->table, name);

	if (!tensor)
		return -ENOENT;
	weights_read_float(tensor, ret, count);
	for (size_t i = 0; i < count; i++)
		ret[i] += add[i % add_period];
	return 0;
}

/* modulation[e][block] = scale_shift_table + t0(e); final[e] = table + τ(e). (dit §4.1, §4.8) */
static int modulation_compute(struct loader *l, const struct dit_config *config,
			      const struct stream_config *stream, const struct time_weights *time,
			      float *modulation, float *final_modulation)
{
	const int entries = stream->steps + 1, c = config->hidden_size;
	const size_t six = 6 * (size_t)c, two = 2 * (size_t)c;
	_cleanup_(freep) float *sinusoid = malloc(sizeof(float) * SCHEDULE_SINUSOID * entries);
	_cleanup_(freep) float *tau = malloc(sizeof(float) * c * entries);
	_cleanup_(freep) float *t0 = malloc(sizeof(float) * six * entries);
	char name[MODEL_KEY_NAME_BYTES];
	int r;

	if (!sinusoid || !tau || !t0)
		return -ENOMEM;
	for (int e = 0; e < entries; e++)
		schedule_sinusoid(e < stream->steps ? stream->timesteps[e] : 0,
				  sinusoid + (size_t)e * SCHEDULE_SINUSOID);
	r = time_compute(l, time, sinusoid, entries, c, tau, t0);
	for (int e = 0; e < entries && r >= 0; e++) {
		for (int i = 0; i < config->depth && r >= 0; i++) {
			(void)snprintf(name, sizeof(name), "blocks.%d.scale_shift_table", i);
			r = table_add(l, name, t0 + six * e, six, six,
				      modulation + six * ((size_t)e * config->depth + i));
		}
		if (r >= 0)
			r = table_add(l, "final_layer.scale_shift_table", tau + (size_t)c * e, c,
				      two, final_modulation + two * e);
	}
	return r;
}

static void modulation_load(struct loader *l, const struct dit_config *config,
			    const struct stream_config *stream, const struct time_weights *time,
			    struct dit_weights *ret)
{
	const size_t entries = (size_t)stream->steps + 1, c = (size_t)config->hidden_size;
	const size_t blocks = entries * config->depth * 6 * c, last = entries * 2 * c;
	_cleanup_(freep) float *modulation = NULL;
	_cleanup_(freep) float *final_modulation = NULL;
	int r;

	if (!l->measuring && l->status >= 0) {
		modulation = malloc(blocks * sizeof(float));
		final_modulation = malloc(last * sizeof(float));
		r = modulation && final_modulation ?
			    modulation_compute(l, config, stream, time, modulation,
					       final_modulation) :
			    -ENOMEM;
		if (r < 0)
			l->status = r;
	}
	loader_floats(l, &ret->modulation, modulation, blocks);
	loader_floats(l, &ret->final_modulation, final_modulation, last);
}

void dit_weights_load(struct loader *l, const struct dit_config *config,
		      const struct stream_config *stream, struct dit_weights *ret)
{
	const int c = config->hidden_size;
	const bool prepare = l->prepare;
	struct time_weights time;

	loader_matrix(l, &ret->patch, c, config->in_channels + config->source_channels, 1,
		      "x_embedder.proj.weight");
	loader_matrix(l, &ret->final, config->in_channels, c, 1, "final_layer.linear.weight");
	loader_vector(l, &ret->patch_bias, c, "x_embedder.proj.bias");
	loader_vector(l, &ret->final_bias, config->in_channels, "final_layer.linear.bias");
	loader_matrix(l, &ret->caption_fc1, c, config->caption_channels, 1,
		      "y_embedder.y_proj.fc1.weight");
	loader_matrix(l, &ret->caption_fc2, c, c, 1, "y_embedder.y_proj.fc2.weight");
	loader_vector(l, &ret->caption_fc1_bias, c, "y_embedder.y_proj.fc1.bias");
	loader_vector(l, &ret->caption_fc2_bias, c, "y_embedder.y_proj.fc2.bias");
	loader_vector(l, &ret->caption_norm, c, "attention_y_norm.weight");
	for (int i = 0; i < config->depth; i++)
		block_load(l, config, i, &ret->block[i]);
	/* Used once, a few rows: not worth a widened copy. */
	l->prepare = false;
	time_load(l, c, &time);
	l->prepare = prepare;
	modulation_load(l, config, stream, &time, ret);
}
