/* Closed forms of the ops' arithmetic and memory traffic. */
#include "kernels/cost.h"

static const double float_bytes = 4;

static double weight_elements(const struct kernel_weight *w)
{
	return (double)w->out * w->in * w->tap_count;
}

static struct kernel_cost linear_cost(const void *block, const struct kernel_storage *s)
{
	const struct kernel_linear *p = block;
	const double rows = p->rows, act = (double)s->activation_bytes;
	struct kernel_cost cost = { 0 };

	for (int i = 0; i < p->parts; i++) {
		const struct kernel_linear_part *part = &p->part[i];
		const double out = rows * part->weight->out;

		if (i == 0)
			cost.bytes += rows * part->weight->in * act;
		cost.flops += 2 * rows * weight_elements(part->weight);
		cost.bytes += weight_elements(part->weight) * (double)s->weight_bytes;
		cost.bytes += out * (part->y_is_float ? float_bytes : act);
		cost.bytes += part->residual ? out * act : 0;
	}
	return cost;
}

static struct kernel_cost embedding_cost(const void *block, const struct kernel_storage *s)
{
	const struct kernel_embedding *p = block;

	return (struct kernel_cost){ .bytes = (double)p->rows * p->table->in *
					      (double)(s->weight_bytes + s->activation_bytes) };
}

static struct kernel_cost layer_norm_modulate_cost(const void *block,
						   const struct kernel_storage *s)
{
	const struct kernel_layer_norm_modulate *p = block;

	return (struct kernel_cost){ .bytes = 2.0 * p->rows * p->channels *
					      (double)s->activation_bytes };
}

static struct kernel_cost rms_norm_cost(const void *block, const struct kernel_storage *s)
{
	const struct kernel_rms_norm *p = block;

	return (struct kernel_cost){ .bytes = (p->residual ? 3.0 : 2.0) * p->rows * p->channels *
					      (double)s->activation_bytes };
}

static struct kernel_cost qk_norm_rope_cost(const void *block, const struct kernel_storage *s)
{
	const struct kernel_qk_norm_rope *p = block;

	return (struct kernel_cost){ .bytes = 2.0 * p->rows * p->heads * p->head_dim *
					      (double)s->activation_bytes };
}

static struct kernel_cost rope_half_cost(const void *block, const struct kernel_storage *s)
{
	const struct kernel_rope_half *p = block;

	return (struct kernel_cost){ .bytes = 2.0 * p->rows * p->heads * p->head_dim *
					      (double)s->activation_bytes };
}

static struct kernel_cost rope_shift_cost(const void *block, const struct kernel_storage *s)
{
	const struct kernel_rope_shift *p = block;
	const double in = p->x_is_float ? float_bytes : (double)s->activation_bytes;
	const double out = p->y_is_float ? float_bytes : (double)s->activation_bytes;

	return (struct kernel_cost){ .bytes = (double)p->rows * p->heads * p->head_dim *
					      (in + out) };
}

static struct kernel_cost gdn_gates_cost(const void *block, const struct kernel_storage *s)
{
	const struct kernel_gdn_gates *p = block;
	const double tokens = (double)p->frames * p->tokens_per_frame;

	/* W_decay is applied to every token in dit §7: the mean of products is the product of means. */
	return (struct kernel_cost){
		.flops = 2 * 2 * tokens * p->channels * p->heads,
		.bytes = tokens * p->channels * (double)s->activation_bytes +
			 tokens * p->heads * float_bytes,
	};
}

static struct kernel_cost gdn_cost(const void *block, const struct kernel_storage *s)
{
	const struct kernel_gdn *p = block;
	const double frames = p->rope->frames;
	const double tokens = frames * p->rope->height * p->rope->width;
	const double d = p->head_dim, c = d * p->heads;

	/* P, A, P_z over tokens; T forward and T − 1 reverse steps of the scan; read-out. */
	return (struct kernel_cost){
		.flops = 2 * (3 * tokens * d * c + (2 * frames - 1) * d * d * c + tokens * d * c),
		.bytes = 5 * tokens * c * (double)s->activation_bytes +
			 tokens * p->heads * float_bytes +
			 (p->state_in ? c * (d + 1) * float_bytes : 0) +
			 (p->state_out ? c * (d + 1) * float_bytes : 0),
	};
}

static struct kernel_cost attention_cost(const void *block, const struct kernel_storage *s)
{
	const struct kernel_attention *p = block;
	const double act = (double)s->activation_bytes, rows = p->rows;
	const double q = rows * p->heads * p->head_dim;
	double keys = 0, pairs;

	for (int i = 0; i < p->segments; i++)
		keys += p->segment[i].tokens;
	pairs = rows * keys;
	/* Row i sees query_offset + i + 1 keys at most; windows and masks are not looked into. */
	if (p->causal)
		pairs = rows * (p->query_offset + (rows + 1) / 2);
	return (struct kernel_cost){
		.flops = 2 * 2 * pairs * p->heads * p->head_dim,
		.bytes = (p->gate ? 3 : 2) * q * act + 2 * keys * p->kv_heads * p->head_dim * act,
	};
}

static struct kernel_cost depthwise_glu_cost(const void *block, const struct kernel_storage *s)
{
	const struct kernel_depthwise_glu *p = block;
	const double tokens = (double)p->frames * p->height * p->width;

	return (struct kernel_cost){
		.flops = 2 * 9 * tokens * 2 * p->features,
		.bytes = 3 * tokens * p->features * (double)s->activation_bytes,
	};
}

static struct kernel_cost temporal_conv_cost(const void *block, const struct kernel_storage *s)
{
	const struct kernel_temporal_conv *p = block;
	const double frame = (double)p->tokens_per_frame * p->channels;
	const double act = (double)s->activation_bytes;

	return (struct kernel_cost){
		.flops = 2 * 3 * p->frames * frame * p->channels,
		.bytes = (3.0 * p->frames + (p->left != NULL) + (p->left_out != NULL)) * frame *
				 act +
			 weight_elements(p->weight) * (double)s->weight_bytes,
	};
}

static struct kernel_cost glu_gelu_cost(const void *block, const struct kernel_storage *s)
{
	const struct kernel_glu_gelu *p = block;

	return (struct kernel_cost){ .bytes = 3.0 * p->rows * p->columns *
					      (double)s->activation_bytes };
}

static struct kernel_cost concat_cost(const void *block, const struct kernel_storage *s)
{
	const struct kernel_concat *p = block;

	return (struct kernel_cost){ .bytes = (double)p->rows * (p->channels_a + p->channels_b) *
					      (float_bytes + (double)s->activation_bytes) };
}

static struct kernel_cost euler_step_cost(const void *block, const struct kernel_storage *s)
{
	const struct kernel_euler_step *p = block;

	return (struct kernel_cost){ .bytes = (double)p->count *
					      (2 * float_bytes + (double)s->activation_bytes) };
}

static struct kernel_cost noise_cost(const void *block, const struct kernel_storage *s)
{
	const struct kernel_noise *p = block;

	(void)s;
	return (struct kernel_cost){ .bytes = (double)p->frames * p->height * p->width *
					      p->channels * float_bytes };
}

static struct kernel_cost health_cost(const void *block, const struct kernel_storage *s)
{
	const struct kernel_health *p = block;

	return (struct kernel_cost){ .bytes = (double)p->count *
					      (p->x_is_float ? float_bytes :
							       (double)s->activation_bytes) };
}

static struct kernel_cost channel_affine_cost(const void *block, const struct kernel_storage *s)
{
	const struct kernel_channel_affine *p = block;
	const double in = p->x_is_float ? float_bytes : (double)s->activation_bytes;
	const double out = p->y_is_float ? float_bytes : (double)s->activation_bytes;

	return (struct kernel_cost){ .bytes = (double)p->rows * p->channels * (in + out) };
}

static struct kernel_cost conv3d_cost(const void *block, const struct kernel_storage *s)
{
	const struct kernel_conv3d *p = block;
	const double act = (double)s->activation_bytes;
	const double pixels = (double)p->frames * p->height * p->width;
	const double phases = p->resample == KERNEL_RESAMPLE_NONE ?
				      1 :
				      (double)p->stride_t * p->stride_h * p->stride_w;
	double made = p->cout; /* channels that the convolution itself makes */
	double outputs = p->y || p->y_norm ? (p->y != NULL) + (p->y_norm != NULL) : 1;

	if (p->resample == KERNEL_SPACE_TO_DEPTH)
		made = p->cout / phases;
	else if (p->resample == KERNEL_DEPTH_TO_SPACE)
		made = p->cout * phases;
	return (struct kernel_cost){
		.flops = 2 * pixels * made * 27 * p->cin,
		.bytes = pixels * p->cin * act + outputs * pixels * made * act +
			 (p->residual ? pixels * made * act : 0) +
			 (p->context ? 4.0 * p->height * p->width * p->cin * act : 0) +
			 made * 27 * p->cin * (double)s->weight_bytes,
	};
}

static double pixel_bytes(bool is_float)
{
	return is_float ? float_bytes : 1;
}

static struct kernel_cost patchify_cost(const void *block, const struct kernel_storage *s)
{
	const struct kernel_patchify *p = block;

	return (struct kernel_cost){
		.bytes = (double)p->frames * p->height * p->width * p->channels *
			 (pixel_bytes(p->pixels_are_float) + (double)s->activation_bytes)
	};
}

static struct kernel_cost unpatchify_cost(const void *block, const struct kernel_storage *s)
{
	const struct kernel_unpatchify *p = block;

	return (struct kernel_cost){
		.bytes = (double)p->frames * p->height * p->width * p->channels *
			 (pixel_bytes(p->pixels_are_float) + (double)s->activation_bytes)
	};
}

struct kernel_cost kernel_op_cost(enum kernel_op op, const struct kernel_workspace *params,
				  const struct kernel_storage *storage)
{
	static struct kernel_cost (*const costs[KERNEL_OP_COUNT])(const void *,
								  const struct kernel_storage *) = {
#define X(name) [KERNEL_OP_##name] = name##_cost,
		KERNEL_OPS(X)
#undef X
	};

	if ((unsigned int)op >= KERNEL_OP_COUNT)
		return (struct kernel_cost){ 0 };
	return costs[op](params, storage);
}
