/* Softmax attention over up to three key segments. */
#pragma once

#include <stddef.h>
#include <stdint.h>

enum {
	ATTENTION_ROWS = 64, /* queries of a block: four warps of 16 */
	ATTENTION_KEYS = 64, /* keys of a stage */
	ATTENTION_THREADS = 128,
	ATTENTION_PAD =
		8, /* elements after a row in shared memory: no bank conflicts of ldmatrix */
	ATTENTION_ANY_MOST = 512, /* largest head of the kernel for any head */
};

/* Two stages of keys and values. */
#define ATTENTION_SHARED(d) (2 * 2 * ATTENTION_KEYS * ((d) + ATTENTION_PAD) * 2)

struct attention_segment {
	const void *k, *v;
	size_t ld;
	int tokens;
};

struct attention_params {
	const void *q, *gate;
	void *y;
	size_t ldq, ldg, ldy;
	struct attention_segment segment[3];
	int segments, rows, heads_per_kv, head_dim;
	float scale, softcap;
	int causal, window, query_offset;
	const uint8_t *key_mask;
};
