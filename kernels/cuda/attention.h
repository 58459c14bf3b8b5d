/* Softmax attention over up to three key segments. */
#pragma once

#include <cuda.h>
#include <stddef.h>
#include <stdint.h>

enum {
	ATTENTION_ROWS = 128, /* queries of an item: the work of one block at a time */
	ATTENTION_PAD =
		8, /* elements after a row in shared memory: no bank conflicts of ldmatrix */
	ATTENTION_ANY_MOST = 512, /* largest head of the kernel for any head */

	/* attention_D: four warps of 32 queries, two blocks on a multiprocessor */
	ATTENTION_KEYS = 48, /* as many as leave all registers in registers */
	ATTENTION_THREADS = 128,

	/* attention_wgmma: a warpgroup that loads and two of 64 queries */
	ATTENTION_WGMMA_KEYS = 176, /* 880 tokens of a frame are five of these */
	ATTENTION_WGMMA_HEAD = 112,
	ATTENTION_WGMMA_STAGES = 2,
	ATTENTION_WGMMA_THREADS = 384,
	ATTENTION_WGMMA_BOX = 64, /* lanes in 128 bytes */
	ATTENTION_WGMMA_TILE = 2 * ATTENTION_WGMMA_KEYS * 128,
	ATTENTION_WGMMA_SHARED =
		2 * ATTENTION_ROWS * 128 + 2 * ATTENTION_WGMMA_STAGES * ATTENTION_WGMMA_TILE + 128,

	/* attention_merge: 16 queries of eight lanes a thread */
	ATTENTION_MERGE_ROWS = 16,
};

/* Queries, and a tile each of keys and values. */
#define ATTENTION_SHARED(d) ((ATTENTION_ROWS + 2 * ATTENTION_KEYS) * ((d) + ATTENTION_PAD) * 2)

struct attention_segment {
	const void *k, *v;
	size_t ld;
	int tokens;
};

/*
 * An item is 128 queries of one head; a step is one tile of its keys. Blocks take whole items in turn, so
 * that neighbours read the same keys at the same time. What does not fill another round is split: the
 * steps of these last items lie on a line of which each block takes an equal part, so that all end
 * together. Then an item may belong to several blocks: each leaves its sum of weighted values, largest
 * score and sum of weights in its part of `parts`, and attention_merge adds them up in order.
 */
struct attention_split {
	int row_tiles, items, steps; /* steps of one item */
	int blocks, whole;	     /* items from `whole` on are split */
	float *parts;		     /* [2·blocks][ATTENTION_ROWS][D + 2] */
};

struct attention_params {
	const void *q, *gate;
	void *y;
	size_t ldq, ldg, ldy;
	struct attention_segment segment[3];
	int segments, rows, heads_per_kv, head_dim;
	float scale, softcap;
	float scale_log2; /* the same for powers of two */
	int causal, window, query_offset;
	const uint8_t *key_mask;
	struct attention_split split;
};

struct attention_wgmma_params {
	CUtensorMap q, k[3], v[3]; /* [rows][heads][112], boxes of 64 lanes of one head */
	struct attention_params p;
};
