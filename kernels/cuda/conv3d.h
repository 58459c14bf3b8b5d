/*
 * The 3×3×3 convolution as an implicit matrix product: parameters of its kernels.
 *
 * Rows are output pixels, columns output channels, and the sum runs over (kt, ci chunk, kh, kw, ci).
 * A block holds a patch of pixels of one chunk with its border in shared memory and reads it nine times,
 * once per (kh, kw), so that device memory and L2 see each pixel three times (kt) and not 27 times.
 */
#pragma once

#include <cuda.h>

enum {
	/* A tile of output pixels: four patches of 8×8, each with its own border of a pixel. */
	CONV3D_PATCHES = 4,
	CONV3D_TILE_PIXELS = 64 * CONV3D_PATCHES,

	/* conv3d_mma: fits the 99 KiB of a block on the sm_120 family. */
	CONV3D_CHUNK = 32, /* input channels of the pixels that are held, two of these at a time */
	CONV3D_THREADS = 256,
	CONV3D_DEPTH = 16, /* input channels of a stage of weights, three taps (kh) of it */
	CONV3D_B_STAGES = 4,

	/* conv3d_wgmma: one block of 227 KiB. */
	CONV3D_WGMMA_CHUNK = 64,
	CONV3D_WGMMA_THREADS = 384,
	CONV3D_WGMMA_B_STAGES = 6,
	CONV3D_WGMMA_TABLE_BYTES = 4096,

	CONV3D_FINISH_THREADS = 256,
	CONV3D_NORM_THREADS = 256,
	CONV3D_NORM_CHANNELS = 2048, /* most that conv3d_norm holds in registers */

	CONV3D_STAGE_ROWS = 128, /* of results in shared memory at once: two patches */
	CONV3D_STAGE_PAD = 8,	 /* floats: rows of staged results fall into different banks */
};

/* Dynamic shared memory of tiles of n channels: alignment, pixels, weights, tables. */
#define CONV3D_SHARED_BYTES(n)                               \
	(256 + 2 * CONV3D_PATCHES * 100 * CONV3D_CHUNK * 2 + \
	 CONV3D_B_STAGES * 3 * (n)*CONV3D_DEPTH * 2 + 192)
#define CONV3D_WGMMA_SHARED_BYTES(n)                                \
	(1024 + 2 * CONV3D_PATCHES * 100 * CONV3D_WGMMA_CHUNK * 2 + \
	 CONV3D_WGMMA_B_STAGES * (n)*CONV3D_WGMMA_CHUNK * 2 + CONV3D_WGMMA_TABLE_BYTES)

struct conv3d_params {
	/* [kt][kh][kw][rows][cin]; boxes of [1][1][1][N][64] (wgmma) or [1][3][1][N][16] (mma) */
	CUtensorMap weight_map;
	const void *x, *context, *weight, *residual;
	const float *bias;
	void *y;	/* NULL only when y_norm is fused */
	void *y_norm;	/* fused: a block has all channels; NULL otherwise */
	float *partial; /* [split][tile][256][N] when splits > 1 */
	int frames, height, width, cin, cout;
	int channels; /* made by the convolution */
	int rows;     /* of the weight per tap */
	int causal, context_set, reflect;
	int resample, stride_t, stride_h, stride_w, drop; /* enum kernel_resample */
	int patches_h, patches_w, strip;     /* of a frame; rows of patches of a strip */
	int tile_channels, tiles_m, tiles_n; /* N, and how many tiles there are */
	int splits;			     /* of the sum */
};

/* y_norm = silu(x / sqrt(mean(x²) + 1e−8)) per pixel; x may be y_norm. */
struct conv3d_norm_params {
	const void *x;
	void *y;
	unsigned int pixels;
	int channels;
};
