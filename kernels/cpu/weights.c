/* Weights as F32 panels: what the file holds, widened and with the taps in front of the inputs. */
#include "kernels/cpu/internal.h"

/*
 * A panel is shared by all threads. 64 MiB hold every linear layer of the 2 B model whole, and 300
 * rows of its widest convolution; fewer rows than PANEL_MIN_ROWS would starve the products.
 */
enum { PANEL_BYTES = 64 << 20, PANEL_MIN_ROWS = 64 };

static float widen_bf16(uint16_t half)
{
	const uint32_t bits = (uint32_t)half << 16;
	float value;

	memcpy(&value, &bits, sizeof(value));
	return value;
}

static float widen_f16(uint16_t half)
{
	const uint32_t sign = (uint32_t)(half & 0x8000) << 16;
	const uint32_t magnitude = (uint32_t)(half & 0x7fff) << 13;
	uint32_t bits = magnitude;
	float value;

	if ((half & 0x7c00) == 0x7c00) { /* infinities and NaN: the exponent is all ones */
		bits |= 0x7f800000;
		memcpy(&value, &bits, sizeof(value));
	} else {
		memcpy(&value, &bits, sizeof(value));
		value *= 0x1p112f; /* from bias 15 to bias 127, subnormal numbers included */
	}
	memcpy(&bits, &value, sizeof(bits));
	bits |= sign;
	memcpy(&value, &bits, sizeof(value));
	return value;
}

/* count values, `step` elements apart; the source may start at any byte. */
static void widen(enum kernel_dtype dtype, const char *from, size_t step, int count, float *to)
{
	const size_t stride = step * kernel_dtype_bytes(dtype);
	uint16_t half;

	switch (dtype) {
	case KERNEL_F32:
		for (int i = 0; i < count; i++)
			memcpy(&to[i], from + i * stride, sizeof(*to));
		break;
	case KERNEL_BF16:
		for (int i = 0; i < count; i++) {
			memcpy(&half, from + i * stride, sizeof(half));
			to[i] = widen_bf16(half);
		}
		break;
	case KERNEL_F16:
		for (int i = 0; i < count; i++) {
			memcpy(&half, from + i * stride, sizeof(half));
			to[i] = widen_f16(half);
		}
		break;
	case KERNEL_U8:
	case KERNEL_DTYPE_INVALID:
	case KERNEL_DTYPE_COUNT:
		break;
	}
}

bool cpu_weight_valid(const struct kernel_weight *weight)
{
	if (!weight || (!weight->data && !weight->prepared))
		return false;
	if (weight->dtype != KERNEL_F32 && weight->dtype != KERNEL_BF16 &&
	    weight->dtype != KERNEL_F16)
		return false;
	return weight->out >= 1 && weight->in >= 1 && weight->taps >= 1 && weight->tap_first >= 0 &&
	       weight->tap_count >= 1 && weight->tap_count <= weight->taps - weight->tap_first;
}

static size_t row_floats(const struct kernel_weight *weight)
{
	return (size_t)weight->tap_count * weight->in;
}

int cpu_weight_panel_rows(const struct kernel_weight *weight)
{
	size_t rows;

	if (weight->prepared)
		return weight->out;
	rows = PANEL_BYTES / (row_floats(weight) * sizeof(float));
	if (rows < PANEL_MIN_ROWS)
		rows = PANEL_MIN_ROWS;
	return rows < (size_t)weight->out ? (int)rows : weight->out;
}

size_t cpu_weight_panel_floats(const struct kernel_weight *weight)
{
	return weight->prepared ? 0 : cpu_weight_panel_rows(weight) * row_floats(weight);
}

void cpu_weight_convert(const struct kernel_weight *weight, int first, int count, float *to)
{
	const size_t element = kernel_dtype_bytes(weight->dtype);
	const size_t source_row = (size_t)weight->in * weight->taps;

	for (int i = 0; i < count; i++) {
		const char *row = (const char *)weight->data + (first + i) * source_row * element;

		for (int tap = 0; tap < weight->tap_count; tap++) {
			widen(weight->dtype, row + (weight->tap_first + tap) * element,
			      weight->taps, weight->in, to);
			to += weight->in;
		}
	}
}

/* F32 in the layout of a panel, readable where it is. */
static const float *rows_in_place(const struct kernel_weight *weight, int first)
{
	const void *rows = weight->prepared;

	if (!rows) {
		if (weight->dtype != KERNEL_F32 || weight->taps != 1 ||
		    (uintptr_t)weight->data % sizeof(float) != 0)
			return NULL;
		rows = weight->data;
	}
	return (const float *)rows + first * row_floats(weight);
}

const float *cpu_weight_panel(const struct kernel_weight *weight, int first, int count,
			      float *panel)
{
	const float *in_place = rows_in_place(weight, first);

	if (in_place)
		return in_place;
		/* Nobody reads the panel that was there any more. */
#pragma omp barrier
#pragma omp for schedule(static)
	for (int i = 0; i < count; i++)
		cpu_weight_convert(weight, first + i, 1, panel + i * row_floats(weight));
	return panel;
}
