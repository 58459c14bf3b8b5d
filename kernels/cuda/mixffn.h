/* Depth-wise 3×3 convolution with a gated unit. */
#pragma once

#include <cuda.h>

enum {
	DEPTHWISE_FEATURES = 64, /* of a block: two a lane */
	DEPTHWISE_COLUMNS = 3,	 /* of a stage */
	DEPTHWISE_WARPS = 3,	 /* each with rows of its own */
	DEPTHWISE_ROWS = 12,	 /* of the output, of a block */
	DEPTHWISE_BLOCKS =
		5, /* a multiprocessor, by registers; three by the smaller family's memory */
};

struct depthwise_glu_params {
	CUtensorMap
		map; /* [T][H][W][2][F]; box: all columns of a stage, its rows and their neighbours */
	const void *a;
	const float *weight, *bias;
	void *y;
	int frames, height, width, features;
	int strip; /* columns of output that a block walks */
};
