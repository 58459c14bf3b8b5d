/* Depth-wise 3×3 convolution with a gated unit. */
#pragma once

struct depthwise_glu_params {
	const void *a;
	const float *weight, *bias;
	void *y;
	int frames, height, width, features;
	int strip; /* columns that one thread walks */
};
