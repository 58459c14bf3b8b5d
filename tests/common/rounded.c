/* The CPU back end with activations rounded to BF16. */
#include "tests/common/rounded.h"

#include <string.h>

float rounded_bf16(float value)
{
	uint32_t bits;

	memcpy(&bits, &value, sizeof(bits));
	/* NaN stays NaN: its quiet bit survives the cut. */
	if (value == value)
		bits += 0x7fff + (bits >> 16 & 1);
	bits &= 0xffff0000u;
	memcpy(&value, &bits, sizeof(value));
	return value;
}

/* `x` has the activation type, F32 here: [rows][columns], rows `ld` apart. */
static void round_rows(void *x, size_t rows, size_t columns, size_t ld)
{
	float *values = x;

	for (size_t r = 0; r < rows; r++)
		for (size_t c = 0; c < columns; c++)
			values[r * ld + c] = rounded_bf16(values[r * ld + c]);
}

static void round_linear(const struct kernel_linear *op)
{
	for (int i = 0; i < op->parts; i++) {
		const struct kernel_linear_part *part = &op->part[i];

		if (!part->y_is_float)
			round_rows(part->y, (size_t)op->rows, (size_t)part->weight->out, part->ldy);
	}
}

static void round_layer_norm_modulate(const struct kernel_layer_norm_modulate *op)
{
	round_rows(op->y, (size_t)op->rows, (size_t)op->channels, (size_t)op->channels);
}

static void round_rms_norm(const struct kernel_rms_norm *op)
{
	round_rows(op->y, (size_t)op->rows, (size_t)op->channels, (size_t)op->channels);
}

static void round_qk_norm_rope(const struct kernel_qk_norm_rope *op)
{
	round_rows(op->x, (size_t)op->rows, (size_t)op->heads * (size_t)op->head_dim, op->ldx);
}

static void round_rope_shift(const struct kernel_rope_shift *op)
{
	const size_t columns = (size_t)op->heads * (size_t)op->head_dim;

	if (!op->y_is_float)
		round_rows(op->y, op->rows, columns, columns);
}

static void round_gdn(const struct kernel_gdn *op)
{
	const struct kernel_rope *rope = op->rope;
	const size_t columns = (size_t)op->heads * (size_t)op->head_dim;

	round_rows(op->y, (size_t)rope->frames * (size_t)rope->height * (size_t)rope->width,
		   columns, columns);
}

static void round_attention(const struct kernel_attention *op)
{
	round_rows(op->y, (size_t)op->rows, (size_t)op->heads * (size_t)op->head_dim, op->ldy);
}

static void round_depthwise_glu(const struct kernel_depthwise_glu *op)
{
	round_rows(op->y, (size_t)op->frames * (size_t)op->height * (size_t)op->width,
		   (size_t)op->features, (size_t)op->features);
}

/* left_out is a copy of what is rounded already. */
static void round_temporal_conv(const struct kernel_temporal_conv *op)
{
	round_rows(op->x, (size_t)op->frames * (size_t)op->tokens_per_frame, (size_t)op->channels,
		   (size_t)op->channels);
}

static void round_concat(const struct kernel_concat *op)
{
	const size_t columns = (size_t)op->channels_a + (size_t)op->channels_b;

	round_rows(op->y, (size_t)op->rows, columns, columns);
}

/* Those of the DiT that write activations. */
#define ROUNDED_OPS(X)         \
	X(linear)              \
	X(layer_norm_modulate) \
	X(rms_norm)            \
	X(qk_norm_rope)        \
	X(rope_shift)          \
	X(gdn)                 \
	X(attention)           \
	X(depthwise_glu)       \
	X(temporal_conv)       \
	X(concat)

#define X(name)                                                                                \
	static int run_##name(struct kernel_device *device, const void *params,                \
			      struct kernel_queue *queue)                                      \
	{                                                                                      \
		const int r = kernel_backend_cpu.run[KERNEL_OP_##name](device, params, queue); \
                                                                                               \
		if (r >= 0)                                                                    \
			round_##name(params);                                                  \
		return r;                                                                      \
	}
ROUNDED_OPS(X)
#undef X

const struct kernel_backend *rounded_backend(void)
{
	static struct kernel_backend table;

	table = kernel_backend_cpu;
#define X(name) table.run[KERNEL_OP_##name] = run_##name;
	ROUNDED_OPS(X)
#undef X
	return &table;
}
