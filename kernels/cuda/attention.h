/* Softmax attention over up to three key segments. */
#pragma once

#include <cuda.h>
#include <stddef.h>
#include <stdint.h>

enum {
	/* attention_mma_D: eight warps of 32 queries and a warpgroup of which one warp loads */
	ATTENTION_MMA_ROWS = 256,
	ATTENTION_MMA_KEYS =
		48, /* as many as leave all registers in registers; 2640 are 55 of these */
	ATTENTION_MMA_THREADS = 384,
	ATTENTION_MMA_STAGES = 8, /* at most */
	ATTENTION_MMA_SAID = 24,  /* bytes of barriers and a count, of a stage */
	ATTENTION_BOXES = 3,	  /* of 64, 32 and 16 lanes: those that a head's lanes consist of */

	/* attention_wgmma: a warpgroup that loads and two of 64 queries */
	ATTENTION_WGMMA_ROWS = 128,
	ATTENTION_WGMMA_KEYS = 176, /* 880 tokens of a frame are five of these */
	ATTENTION_WGMMA_HEAD = 112,
	ATTENTION_WGMMA_STAGES = 2,
	ATTENTION_WGMMA_THREADS = 384,
	ATTENTION_WGMMA_BOX = 64, /* lanes in 128 bytes */
	ATTENTION_WGMMA_TILE = 2 * ATTENTION_WGMMA_KEYS * 128,
	ATTENTION_WGMMA_SHARED = 2 * ATTENTION_WGMMA_ROWS * 128 +
				 2 * ATTENTION_WGMMA_STAGES * ATTENTION_WGMMA_TILE + 128,

	/* attention_merge: 16 queries of eight lanes a thread */
	ATTENTION_MERGE_ROWS = 16,

	/* attention_any */
	ATTENTION_ANY_WARPS = 4,
	ATTENTION_ANY_MOST = 512, /* largest head */
};

/* Queries, two barriers, two shares; keys and values of each stage, its barriers and count. */
#define ATTENTION_MMA_SHARED(d, stages)                \
	(ATTENTION_MMA_ROWS * (d)*2 + 2 * 8 + 2 * 16 + \
	 (stages) * (2 * ATTENTION_MMA_KEYS * (d)*2 + ATTENTION_MMA_SAID))

struct attention_segment {
	const void *k, *v;
	size_t ld;
	int tokens;
};

/*
 * An item is a block's queries of one head; a step is one tile of its keys. Blocks take whole items in turn, so
 * that neighbours read the same keys at the same time. What does not fill another round is split: the
 * steps of these last items lie on a line of which each block takes an equal part, so that all end
 * together. Then an item may belong to several blocks: each leaves its sum of weighted values, largest
 * score and sum of weights in its part of `parts`, and attention_merge adds them up in order.
 *
 * Where the last queries of each head are at most half of an item, they are the half items behind all
 * others: the halves of a block take every other tile of their keys, so two tiles are one of their steps.
 */
struct attention_split {
	int rows, row_tiles;   /* queries of an item; items of a head, half ones apart */
	int items, fulls;      /* half items are those from `fulls` on */
	int steps, half_steps; /* of one item */
	int blocks, whole;     /* items from `whole` on are split */
	int each, more;	       /* steps of the line a block has; `more` blocks have one more */
	float *parts;	       /* [2·blocks][rows][D + 2] */
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

struct attention_mma_params {
	CUtensorMap q[ATTENTION_BOXES], k[3][ATTENTION_BOXES], v[3][ATTENTION_BOXES];
	struct attention_params p;
	int stages;
};

struct attention_wgmma_params {
	CUtensorMap q, k[3], v[3]; /* [rows][heads][112], boxes of 64 lanes of one head */
	struct attention_params p;
};
