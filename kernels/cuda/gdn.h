/* Gated delta rule: gates, and its three phases (sums over tokens, scan over frames, read-out). */
#pragma once

#include <stddef.h>
#include <vector_types.h>

#include "kernels/cuda/norm.h"

enum {
	GDN_GATE_ROWS = 16,    /* tokens of a block of gdn_gates */
	GDN_GATE_COLUMNS = 64, /* of its products: 32 heads */
	GDN_GATE_TOKENS = 8,   /* of a block of gdn_beta_any */
	GDN_GATE_THREADS = 256,
	GDN_MEAN_CHANNELS = 64, /* of a block of gdn_mean_any: two a lane */
	GDN_INVERSE_THREADS = 256,
	GDN_TOKENS = 32, /* of a stage of the sums */
	GDN_SUMS_TILES = 13,
	GDN_PAD = 8, /* elements after a row in shared memory: no bank conflicts of ldmatrix */
	GDN_SCAN_ROWS = 16,   /* of the state in a block of the scan */
	GDN_READ_TOKENS = 64, /* of a block of the read-out, 16 a warp */
	GDN_READ_THREADS = 128,
};

/* Tiles of a stage, weights of the norm, β of two stages: 98.2 KB for heads of 112. */
#define GDN_SUMS_SHARED(d) \
	(GDN_SUMS_TILES * GDN_TOKENS * ((d) + GDN_PAD) * 2 + (d)*4 + 2 * GDN_TOKENS * 4)
/* What every thread of a block of the scan needs of P. */
#define GDN_SCAN_SHARED(d) ((d) * (d)*4)
/* Queries and state; later the products, each row four elements longer. */
#define GDN_READ_OPERANDS(d) ((GDN_READ_TOKENS + (d)) * ((d) + GDN_PAD) * 2)
#define GDN_READ_PRODUCTS(d) (GDN_READ_TOKENS * ((d) + 4) * 4)
#define GDN_READ_TILES(d) \
	(GDN_READ_OPERANDS(d) > GDN_READ_PRODUCTS(d) ? GDN_READ_OPERANDS(d) : GDN_READ_PRODUCTS(d))
/* And the normaliser and denominators. */
#define GDN_READ_SHARED(d) (GDN_READ_TILES(d) + (d)*4 + GDN_READ_TOKENS * 4)

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
	int frames, tokens, heads, head_dim;

	/* workspace */
	int2 *meetings;	    /* [T][heads] of the two blocks of gdn_sums */
	float *inverse;	    /* [2][T·S] of the norms of q and k */
	float2 *rotation;   /* [T·S][D/2] cosine and sine */
	float *p, *a, *p_z; /* [T][heads][D][D] */
	float *b;	    /* [T][heads][D] */
	float *history;	    /* [T][heads][D][D] forward states */
	void *read;	    /* BF16 [T][heads][D][D] both directions */
	float *z;	    /* [T][heads][D] both directions */
};
