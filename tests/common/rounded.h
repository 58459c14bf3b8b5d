/*
 * The CPU back end with activations stored as BF16 holds them: after every op of the DiT its outputs of the
 * activation type are rounded to BF16 and kept as F32. Sums, states and what an op keeps to itself are as on
 * the CPU. So the distance between this table and the CPU's is what BF16 activations alone cost a
 * network, whatever kernels then add to it.
 */
#pragma once

#include "kernels/kernels.h"

/* The nearest BF16 value, ties to even. */
float rounded_bf16(float value);

/* The CPU's table with those ops; ops of other networks are the CPU's own. */
const struct kernel_backend *rounded_backend(void);
