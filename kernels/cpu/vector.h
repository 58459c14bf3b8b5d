/*
 * Loops over rows of floats that the compiler turns into vector instructions, in one copy per
 * instruction set, picked when the program starts.
 *
 * The exponential behind them is a polynomial with a relative error below 2e−7 (1.5 ulp), against
 * libm's 0.5: good enough for activations and softmax, not for the sinusoid of a time step. NaN
 * stays NaN; below −87.3 the result is 0, above 88.37 that of 88.37 (2.4e38).
 */
#pragma once

#include <stddef.h>

/* In place or from x to y, which may be the same. */
void cpu_silu_row(const float *x, float *y, int count);
void cpu_sigmoid_row(const float *x, float *y, int count);
void cpu_gelu_row(const float *x, float *y, int count);
void cpu_exp_row(const float *x, float *y, int count);

/* y = silu(x·factor). */
void cpu_silu_scaled_row(const float *x, float factor, float *y, int count);

/* y = a ⊙ silu(gate); y may be a or gate. */
void cpu_multiply_silu_row(const float *a, const float *gate, float *y, int count);

/* y = gelu(gate) ⊙ up; y may be either. */
void cpu_gelu_multiply_row(const float *gate, const float *up, float *y, int count);

/* sum ← sum + a ⊙ b. */
void cpu_multiply_add_row(const float *a, const float *b, float *sum, int count);

/* v ← v + bias. */
void cpu_add_row(const float *bias, float *v, int count);

/* v ← factor·v. */
void cpu_scale_row(float factor, float *v, int count);

/* Largest value, −inf for none; a NaN may be passed over. */
float cpu_largest(const float *x, int count);

/* v ← exp(v − largest); returns the sum of the results. −inf gives 0. */
float cpu_exp_sum_row(float *v, float largest, int count);
