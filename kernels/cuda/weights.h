/* Weights from the file's layout to that of the kernels (cuda_weight_tap). */
#pragma once

#include <stddef.h>

enum cuda_weights_type { CUDA_WEIGHTS_F32, CUDA_WEIGHTS_BF16, CUDA_WEIGHTS_F16 };

/* from [rows][in][taps] of `type`, to BF16 [tap_count][out][in] beginning at row `row_first`. */
struct weights_pack_params {
	const void *from;
	void *to;
	int type; /* enum cuda_weights_type */
	int rows, row_first, out, in, taps, tap_first, tap_count;
};
