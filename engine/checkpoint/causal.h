/*
 * From the taps of a bidirectional 3×3×3 convolution to those of a causal one, in time
 * (docs/model/vae.md §7): k0 = 0, k1 = w0, k2 = w1 + w2. A stand-in: exact only where neighbouring
 * frames are equal.
 */
#pragma once

#include "engine/checkpoint/safetensors.h"

enum { CAUSAL_TAPS = 3, CAUSAL_KERNEL = 27 };

/*
 * Whole kernels [count][3][3][3] (t, h, w) in place, little endian F32, F16 or BF16 at any alignment.
 * Sums are made in F32 and rounded to nearest even. −EINVAL for any other type.
 */
int causal_convert(enum safetensors_dtype dtype, void *kernels, size_t count);
