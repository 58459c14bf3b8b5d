/* Loops over rows of floats, compiled once per instruction set. */
#include "kernels/cpu/vector.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

/*
 * The resolvers that pick a copy run before a sanitizer is ready, so its builds have one copy.
 */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
	!defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define CLONES __attribute__((target_clones("default", "avx2", "avx512f")))
#else
#define CLONES
#endif

#define INLINE static inline __attribute__((always_inline))

enum { LANES = 16 };

static const float largest_argument = 88.37f, smallest_argument = -87.3f;

/*
 * exp(x) = 2ⁿ·exp(r), n = round(x/ln 2), r = x − n·ln 2 in two parts, exp(r) by the Taylor series to
 * the seventh power (|r| ≤ 0.347: the rest is below 1e−8). Adding 1.5·2²³ rounds to a whole number
 * and leaves it in the low bits.
 */
INLINE float exponential(float x)
{
	const float to_integer = 12582912.0f, log2_e = 1.44269504088896341f;
	const float ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
	const float capped = x > largest_argument ? largest_argument : x;
	const float limited = capped < smallest_argument ? smallest_argument : capped;
	const float shifted = limited * log2_e + to_integer;
	const float n = shifted - to_integer;
	const float r = (limited - n * ln2_high) - n * ln2_low;
	float p = 1.0f / 5040, power;
	uint32_t bits;

	p = p * r + 1.0f / 720;
	p = p * r + 1.0f / 120;
	p = p * r + 1.0f / 24;
	p = p * r + 1.0f / 6;
	p = p * r + 0.5f;
	p = p * (r * r) + r + 1.0f;
	memcpy(&bits, &shifted, sizeof(bits));
	bits = (bits + 127) << 23; /* 2ⁿ, −126 ≤ n ≤ 127 */
	memcpy(&power, &bits, sizeof(power));
	return x < smallest_argument ? 0.0f : p * power;
}

INLINE float sigmoid(float a)
{
	return 1.0f / (1.0f + exponential(-a));
}

INLINE float silu(float a)
{
	return a / (1.0f + exponential(-a));
}

INLINE float gelu(float a)
{
	const float root = 0.79788456080286535588f; /* √(2/π) */

	/* ½·(1 + tanh(z)) = sigmoid(2z), which loses no digits where tanh is near −1. */
	return a * sigmoid(2.0f * root * (a + 0.044715f * a * a * a));
}

CLONES void cpu_silu_row(const float *x, float *y, int count)
{
	for (int i = 0; i < count; i++)
		y[i] = silu(x[i]);
}

CLONES void cpu_sigmoid_row(const float *x, float *y, int count)
{
	for (int i = 0; i < count; i++)
		y[i] = sigmoid(x[i]);
}

CLONES void cpu_gelu_row(const float *x, float *y, int count)
{
	for (int i = 0; i < count; i++)
		y[i] = gelu(x[i]);
}

CLONES void cpu_exp_row(const float *x, float *y, int count)
{
	for (int i = 0; i < count; i++)
		y[i] = exponential(x[i]);
}

CLONES void cpu_silu_scaled_row(const float *x, float factor, float *y, int count)
{
	for (int i = 0; i < count; i++)
		y[i] = silu(x[i] * factor);
}

CLONES void cpu_multiply_silu_row(const float *a, const float *gate, float *y, int count)
{
	for (int i = 0; i < count; i++)
		y[i] = a[i] * silu(gate[i]);
}

CLONES void cpu_gelu_multiply_row(const float *gate, const float *up, float *y, int count)
{
	for (int i = 0; i < count; i++)
		y[i] = gelu(gate[i]) * up[i];
}

CLONES void cpu_multiply_add_row(const float *a, const float *b, float *sum, int count)
{
	for (int i = 0; i < count; i++)
		sum[i] += a[i] * b[i];
}

CLONES void cpu_add_row(const float *bias, float *v, int count)
{
	for (int i = 0; i < count; i++)
		v[i] += bias[i];
}

CLONES void cpu_scale_row(float factor, float *v, int count)
{
	for (int i = 0; i < count; i++)
		v[i] *= factor;
}

CLONES float cpu_largest(const float *x, int count)
{
	float lane[LANES], largest = -INFINITY;
	int i = 0;

	for (int j = 0; j < LANES; j++)
		lane[j] = -INFINITY;
	for (; i + LANES <= count; i += LANES)
		for (int j = 0; j < LANES; j++)
			lane[j] = x[i + j] > lane[j] ? x[i + j] : lane[j];
	for (; i < count; i++)
		largest = x[i] > largest ? x[i] : largest;
	for (int j = 0; j < LANES; j++)
		largest = lane[j] > largest ? lane[j] : largest;
	return largest;
}

CLONES float cpu_exp_sum_row(float *v, float largest, int count)
{
	float lane[LANES] = { 0 };
	double sum = 0;
	int i = 0;

	for (; i + LANES <= count; i += LANES)
		for (int j = 0; j < LANES; j++) {
			const float e = exponential(v[i + j] - largest);

			v[i + j] = e;
			lane[j] += e;
		}
	for (; i < count; i++) {
		v[i] = exponential(v[i] - largest);
		sum += v[i];
	}
	for (int j = 0; j < LANES; j++)
		sum += lane[j];
	return (float)sum;
}
