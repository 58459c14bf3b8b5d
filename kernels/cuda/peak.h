/* What the tensor units do at most: products of registers with registers. */
#pragma once

enum {
	PEAK_THREADS = 256,
	PEAK_BLOCKS = 4,       /* a multiprocessor: 32 warps hide the latency of one product */
	PEAK_ACCUMULATORS = 8, /* independent products of one warp */
	PEAK_ROUNDS = 2048,    /* about half a millisecond on a large GPU */
	PEAK_FLOPS = 2 * 16 * 8 * 16, /* of one product */
};

struct peak_params {
	float *sink;	   /* never written: the results are numbers that no sum reaches */
	unsigned int pair; /* every element of both matrices, two BF16 */
	int rounds;
};
