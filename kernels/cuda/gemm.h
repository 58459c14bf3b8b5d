/*
 * What the launcher of a matrix product tells its kernel, shared by host and device code.
 *
 * One launch makes up to GEMM_PARTS products over one input: rows of `x` are tokens, rows of a
 * weight are output features, both K-contiguous BF16, read by TMA (or, in gemm_any, by pointer):
 *
 *   v[n][o] = activation(Σ_s Σ_k x_s[n][k]·w_s[o][k] + bias[o]) + inner[n][o]
 *   y[n][o] = v, or residual[n][o] + gate[o]·v
 *
 * The sum over s has one term for a linear layer. A temporal convolution has one per tap: the same
 * rows moved by a frame of `shift` rows, frames past the end zero, and the frame before the first
 * one from `left` (or zero). Tiles skip terms of which all rows are zero.
 */
#pragma once

#include <cuda.h>
#include <stdint.h>

enum { GEMM_PARTS = 4, GEMM_K_MULTIPLE = 8 };

/* Of gemm_mma_240.cu: shared memory behind the ring; features in a box of `other` and `inner`. */
enum { GEMM_240_MORE = 8 * 16 * 112, GEMM_240_OTHER = 48 };

/* Tokens of its short tiles; by frames, of the others too. */
enum { GEMM_240_SHORT = 208, GEMM_FRAMES_TOKENS = 224, GEMM_FRAMES_SHORT = 152 };

/*
 * What a kernel does to its sums. Each is a kernel of its own: the code runs once per tile and is
 * unrolled over a thread's sums, so what is not needed costs instruction fetches. All but the last
 * want `vector` parts.
 */
enum gemm_epilogue {
	GEMM_PLAIN,    /* bias */
	GEMM_SILU,     /* bias, SiLU */
	GEMM_RESIDUAL, /* bias, residual, gate */
	GEMM_TEMPORAL, /* inner, residual, gate */
	GEMM_ANY,      /* all of it as the part says, F32 results, rows of any alignment */
	GEMM_EPILOGUES,
};

struct gemm_part {
	CUtensorMap weight;		/* [taps·out][in], box of one tile */
	CUtensorMap other, short_other; /* `residual`, where a kernel reads it by TMA */
	const void *weight_data;
	const float *bias, *gate;
	const void *inner, *residual; /* BF16, strides ld_inner, ld_residual */
	void *y;		      /* BF16, or F32 when y_is_float; stride ldy */
	int64_t ld_inner, ld_residual, ldy;
	int out, activation; /* enum kernel_activation */
	int y_is_float;
	int vector;	  /* BF16, every row start and `out` allow 16-byte access */
	int column_first; /* of this part's tiles, counted over all parts */
};

/*
 * Tiles of two sizes, so that the multiprocessors end together. The blocks take first `tiles` of the kernel's
 * full size, then short ones.
 *
 * In the last round, where it would be short: columns from `short_column` on have short tiles.
 *
 * By frames, of a temporal convolution: no tile has rows of two frames, and the last frame, whose sums have a
 * term less, has short tiles, two of which (`pairs`) are the work of one of the others.
 */
struct gemm_cut {
	int tiles, along, rows; /* in all; in a column, where they are apart by `rows` */
	int frame_tiles;	/* of those in a column, before the next frame begins */
	int short_along, short_rows, short_row, short_column; /* first row, first column of tiles */
	int pairs;
};

struct gemm_params {
	CUtensorMap x, left, inner;	  /* inner: of the first part */
	CUtensorMap short_x, short_inner; /* in boxes of short tiles */
	struct gemm_part part[GEMM_PARTS];
	const void *x_data, *left_data;
	int64_t ldx, ld_left;
	int rows, in, parts;
	int taps;  /* 1, or 3 for a temporal convolution */
	int shift; /* rows of one frame */
	int has_left;
	int box; /* rows read at a time; divides `shift`, so that none straddles two frames; or 0 */
	struct gemm_cut cut;
	int tiles;  /* of all parts; pairs are one */
	int stages; /* of the ring in shared memory, where a kernel has the choice */
};
