/* Gated delta rule: gates, and its three phases (sums over tokens, scan over frames, read-out). */
#pragma once

#include <stddef.h>
#include <vector_types.h>

#include "kernels/cuda/norm.h"

enum {
	GDN_GATE_HEADS = 32, /* at most */
	GDN_GATE_TOKENS = 8, /* of a block of gdn_beta_any */
	GDN_GATE_THREADS = 256,
	GDN_MEAN_CHANNELS = 64, /* of a block of gdn_mean_any: two a lane */
	GDN_INVERSE_THREADS = 256,
	GDN_TOKENS = 32,	/* of a stage of the sums */
	GDN_SUMS_MAKERS = 256,	/* threads of a block of the sums that do not multiply */
	GDN_SUMS_STAGES = 3,	/* in shared memory */
	GDN_SUMS_QUERIES = 224, /* of a block that makes norms, not sums: they take no longer */
	GDN_PAD = 8, /* elements after a row in shared memory: no bank conflicts of ldmatrix */
	GDN_MIRROR_ROW = 24, /* floats of a row of 16 that is turned round in shared memory */
	GDN_SCAN_ROWS = 16,  /* of the state in a block of the scan */
	GDN_READ_TILES = 14, /* of 16 tokens, of a block of the read-out */
	GDN_READ_WARPS = 7,
	/* Kernels for any head. */
	GDN_ANY_THREADS = 128,
	GDN_ANY_TOKENS = 32, /* whose row of a factor lies ready */
	GDN_ANY_QUERIES = 4, /* tokens of a block of the read-out */
};

/* Tokens of a block of gdn_gates: what 48 KB hold of its warps' sums. */
#define GDN_GATE_ROWS(heads) ((heads) <= 24 ? 24 : 16)
/* Threads of a block of the sums: a warp for every 16 lanes, in whole warpgroups, and the makers. */
#define GDN_SUMS_THREADS(d) (((d) / 16 + 3) / 4 * 128 + GDN_SUMS_MAKERS)
/* Rotations of a frame. */
#define GDN_TURNS(pairs_t, pairs_y, pairs_x, height, width) \
	(((size_t)(pairs_t) + (size_t)(pairs_y) * (height) + (size_t)(pairs_x) * (width)) * 8)
/* Stages: two tiles and 24 bytes of every token; one more of v; behind them the rotations. */
#define GDN_SUMS_TILES(d)                                                \
	(GDN_SUMS_STAGES * GDN_TOKENS * (2 * ((d) + GDN_PAD) * 2 + 24) + \
	 (GDN_SUMS_STAGES + 1) * GDN_TOKENS * ((d) + GDN_PAD) * 2)
/* What every thread of a block of the scan needs of P, and both terms of 16 rows of three states. */
#define GDN_SCAN_SHARED(d) ((d) * (d)*4 + 3 * GDN_SCAN_ROWS * (d)*4)
/* State in BF16, norm weights of q and the normaliser; behind them the rotations. */
#define GDN_READ_STATE(d) ((d) * (d)*2 + 2 * (d)*4)

struct gdn_gates_params {
	const void *u, *weight_beta, *weight_decay;
	const float *bias_beta, *bias_decay, *a_log, *dt_bias;
	float *beta, *decay;
	float *mean; /* workspace: [T][blocks][heads] of gdn_gates; [T][C] of gdn_mean_any */
	int frames, tokens, channels, heads;
};

struct gdn_params {
	void *q, *k, *v;
	const void *gate;
	size_t ld;
	const float *q_norm, *k_norm, *beta, *decay;
	struct rope_tables rope;
	const float *state_in, *normaliser_in;
	float *state_out, *normaliser_out;
	void *y;
	float epsilon, kappa;
	float inverse_width; /* of rope.width */
	int frames, tokens, heads, head_dim;

	/* workspace; matrices lie as gdn.cuh says, but for `read` */
	int2 *meetings;	    /* [T][heads] of the two blocks of gdn_sums */
	float *inverse;	    /* [2][T·S] of the norms of q and k */
	float *p, *a, *p_z; /* [T][heads][D][D] */
	float *b;	    /* [T][heads][D] */
	float *history;	    /* [T][heads][D][D] forward states */
	void *read;	    /* BF16 [T][heads][D][D] both directions */
	float *z;	    /* [T][heads][D] both directions */
};
