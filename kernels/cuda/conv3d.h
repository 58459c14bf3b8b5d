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

	/* conv3d_mma: fits the 99 KiB of a block on the sm_120 family; more was no faster where there is more. */
	CONV3D_CHUNK = 32, /* input channels of the pixels that are held, in two buffers */
	CONV3D_BUFFERS = 2,
	CONV3D_PATCH_BYTES = 104 * CONV3D_CHUNK * 2, /* 10×10, to a multiple of 512 */
	CONV3D_PIXELS_BYTES = CONV3D_PATCHES * CONV3D_PATCH_BYTES,
	CONV3D_MMA_THREADS = 384,
	CONV3D_DEPTH = 16, /* input channels of a stage of weights, three taps (kh) of it */
	CONV3D_WEIGHTS_BYTES =
		3 * 3 * 128 * CONV3D_DEPTH * 2, /* three stages, or six of 64 channels */
	CONV3D_ROOM_PITCH = 36, /* floats; eight rows of 32 are a warp's room for odd results */
	CONV3D_ROOM_WARP = 8 * CONV3D_ROOM_PITCH * 4,
	CONV3D_ROOM_BYTES = 8 * CONV3D_ROOM_WARP,
	CONV3D_BARRIERS_BYTES = 128,
	CONV3D_SHARED_BYTES = CONV3D_BUFFERS * CONV3D_PIXELS_BYTES + CONV3D_WEIGHTS_BYTES +
			      CONV3D_ROOM_BYTES + CONV3D_BARRIERS_BYTES,

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

/*
 * Where conv3d_mma leaves results: in their place, blocks of 8 channels; in a resampler's cells, by its
 * strides; or anywhere.
 */
enum {
	CONV3D_FINISH_BLOCKS,
	CONV3D_FINISH_122,
	CONV3D_FINISH_211,
	CONV3D_FINISH_222,
	CONV3D_FINISH_UP,
	CONV3D_FINISH_ANY,
};

/* Dynamic shared memory of tiles of n channels: alignment, pixels, weights, tables. */
#define CONV3D_WGMMA_SHARED_BYTES(n)                                \
	(1024 + 2 * CONV3D_PATCHES * 100 * CONV3D_WGMMA_CHUNK * 2 + \
	 CONV3D_WGMMA_B_STAGES * (n)*CONV3D_WGMMA_CHUNK * 2 + CONV3D_WGMMA_TABLE_BYTES)

struct conv3d_params {
	/* [kt][kh][kw][rows][cin]; boxes of [1][1][1][N][64] (wgmma) or [1][3][1][N][16] (mma) */
	CUtensorMap weight_map;
	CUtensorMap x_map, context_map; /* [t][h][w][cin]; boxes of [1][10][10][32] (mma) */
	const void *x, *context, *weight, *residual;
	const float *bias;
	void *y;	/* NULL only when y_norm is fused */
	void *y_norm;	/* fused: a block makes all channels; NULL otherwise */
	float *partial; /* [split][tile][256][N], or [part][256][N]: two of each block */
	int frames, height, width, cin, cout;
	int channels; /* made by the convolution */
	int rows;     /* of the weight per tap */
	int causal, context_set, reflect;
	int resample, stride_t, stride_h, stride_w, drop; /* enum kernel_resample */
	int patches_h, patches_w, strip;     /* of a frame; rows of patches of a strip */
	int tile_channels, tiles_m, tiles_n; /* N, and how many tiles there are */
	int splits;			     /* of the sum, wgmma: blockIdx.y */
	/* mma: whole tiles, those behind them whose sums some blocks share, chunks of a sum */
	int tiles, rest, part_blocks, chunks;
	int group; /* tiles that follow each other in one block: all of a pixel's where they are normed */
};

/* y_norm = silu(x / sqrt(mean(x²) + 1e−8)) per pixel; x may be y_norm. */
struct conv3d_norm_params {
	const void *x;
	void *y;
	unsigned int pixels;
	int channels;
};
