/* Gated delta rule: gates, and its three phases (sums over tokens, scan over frames, read-out). */
#pragma once

#include <stddef.h>

#include "kernels/cuda/norm.h"

enum {
	GDN_GATE_TOKENS = 8, /* of a block of gdn_beta */
	GDN_GATE_THREADS = 256,
	GDN_MEAN_CHANNELS = 64, /* of a block of gdn_mean: two a lane */
	GDN_TOKENS = 64,	/* of a stage of the sums and of a block of the read-out */
	GDN_PAD = 8, /* elements after a row in shared memory: no bank conflicts of ldmatrix */
	GDN_SCAN_ROWS = 8,	/* of the state in a block of the scan */
	GDN_SCAN_THREADS = 128, /* one for each column: heads of up to 128 */
	GDN_READ_THREADS = 128,
};

/* Two operands of a stage, and the normaliser's partial sums. */
#define GDN_SUMS_SHARED(d) (2 * GDN_TOKENS * ((d) + GDN_PAD) * 2 + 16 * (d)*4)
/* Queries, state, normaliser and denominators. */
#define GDN_READ_SHARED(d) ((GDN_TOKENS + (d)) * ((d) + GDN_PAD) * 2 + (d)*4 + GDN_TOKENS * 4)

struct gdn_gates_params {
	const void *u, *weight_beta, *weight_decay;
	const float *bias_beta, *bias_decay, *a_log, *dt_bias;
	float *beta, *decay;
	float *mean; /* workspace [T][C] */
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
	float *p, *a, *p_z; /* [T][heads][D][D] */
	float *b;	    /* [T][heads][D] */
	float *history;	    /* [T][heads][D][D] forward states */
	void *read;	    /* BF16 [T][heads][D][D] both directions */
	float *z;	    /* [T][heads][D] both directions */
};
