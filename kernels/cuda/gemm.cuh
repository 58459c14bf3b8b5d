/* What the matrix kernels share: which tile is whose, the loading warp, the activations. */
#pragma once

#include "kernels/cuda/gemm.h"
#include "kernels/cuda/mma.cuh"

/* The terms of the sum over s, in order; a linear layer has only GEMM_CENTRE. */
enum { GEMM_LEFT, GEMM_BEFORE, GEMM_CENTRE, GEMM_AFTER, GEMM_TERMS };

struct gemm_tile {
	int part, row, column; /* first token, first output feature */
	unsigned int terms;    /* bit s: term s has rows that are not zero */
};

static __device__ __forceinline__ unsigned int gemm_terms(const struct gemm_params *p, int row,
							  int row_end)
{
	unsigned int terms = 1u << GEMM_CENTRE;

	if (p->taps == 1)
		return terms;
	if (p->has_left && row < p->shift && !p->box)
		terms |= 1u << GEMM_LEFT;
	if (row_end > p->shift || (p->has_left && p->box))
		terms |= 1u << GEMM_BEFORE;
	if (row < p->rows - p->shift)
		terms |= 1u << GEMM_AFTER;
	return terms;
}

/* Rows fastest: the tiles of one moment share few weights, and the whole input stays in L2. */
static __device__ __forceinline__ struct gemm_tile gemm_tile_at(const struct gemm_params *p,
								int index, int rows, int columns)
{
	struct gemm_tile t = { 0, 0, 0, 0 };
	int row_end;

	while (t.part + 1 < p->parts && index >= p->part[t.part + 1].tile_first)
		t.part++;
	index -= p->part[t.part].tile_first;
	t.row = index % p->row_tiles * rows;
	t.column = index / p->row_tiles * columns;
	row_end = t.row + rows < p->rows ? t.row + rows : p->rows;
	t.terms = gemm_terms(p, t.row, row_end);
	return t;
}

/* Steps along K of a tile. */
static __device__ __forceinline__ int gemm_steps(const struct gemm_params *p,
						 const struct gemm_tile *t, int depth)
{
	return __popc(t->terms) * ((p->in + depth - 1) / depth);
}

/* A ring of stages in shared memory: `full` counts loads, `empty` counts readers. */
struct gemm_ring {
	uint32_t data, full, empty; /* shared addresses; barriers are 8 bytes each */
	int stages, stage;
	uint32_t parity;
};

static __device__ __forceinline__ void gemm_ring_next(struct gemm_ring *r)
{
	if (++r->stage == r->stages) {
		r->stage = 0;
		r->parity ^= 1;
	}
}

static __device__ __forceinline__ void gemm_ring_init(const struct gemm_ring *r, int readers)
{
	for (int i = 0; i < r->stages; i++) {
		mbarrier_init(r->full + 8 * i, 1);
		mbarrier_init(r->empty + 8 * i, readers);
	}
	mbarrier_init_fence();
}

/*
 * Where loading stands: some of the steps of all tiles of a block, in order. Warps that take turns in
 * loading each keep one of these, and pass over the steps of the others.
 */
struct gemm_feed {
	struct gemm_ring ring;
	struct gemm_tile tile;
	int index, term, step; /* tile; term of its sum; step along K of that */
};

static __device__ __forceinline__ int gemm_next_term(unsigned int terms, int after)
{
	return __ffs(terms >> (after + 1) << (after + 1)) - 1;
}

template <int ROWS, int COLUMNS>
static __device__ __forceinline__ void gemm_feed_tile(const struct gemm_params *p,
						      struct gemm_feed *f)
{
	if (f->index >= p->tiles)
		return;
	f->tile = gemm_tile_at(p, f->index, ROWS, COLUMNS);
	f->term = gemm_next_term(f->tile.terms, -1);
	f->step = 0;
}

template <int ROWS, int COLUMNS>
static __device__ __forceinline__ void
gemm_feed_init(const struct gemm_params *p, const struct gemm_ring *ring, struct gemm_feed *f)
{
	f->ring = *ring;
	f->index = blockIdx.x;
	gemm_feed_tile<ROWS, COLUMNS>(p, f);
}

/* Where the step that comes next is read from. */
struct gemm_source {
	const CUtensorMap *x, *weight;
	int x_row, weight_row;
};

static __device__ __forceinline__ struct gemm_source gemm_feed_source(const struct gemm_params *p,
								      const struct gemm_feed *f)
{
	const struct gemm_part *part = &p->part[f->tile.part];
	const bool left = f->term == GEMM_LEFT;
	const int tap = p->taps == 1 || left ? 0 : f->term - GEMM_BEFORE;

	return {
		.x = left ? &p->left : &p->x,
		.weight = &part->weight,
		.x_row = f->tile.row + (left ? 0 : (f->term - GEMM_CENTRE) * p->shift),
		.weight_row = tap * part->out + f->tile.column,
	};
}

/* Loads the step into the ring once its stage has been read. By a whole warp, for one thread's sake. */
template <int ROWS, int COLUMNS, int DEPTH>
static __device__ __forceinline__ void gemm_feed_load(const struct gemm_params *p,
						      const struct gemm_feed *f)
{
	constexpr int x_bytes = ROWS * DEPTH * 2, bytes = x_bytes + COLUMNS * DEPTH * 2;
	const struct gemm_source from = gemm_feed_source(p, f);
	const uint32_t to = f->ring.data + f->ring.stage * bytes;
	const uint32_t full = f->ring.full + 8 * f->ring.stage;

	if (f->index >= p->tiles)
		return;
	mbarrier_wait(f->ring.empty + 8 * f->ring.stage, f->ring.parity ^ 1);
	if (elect_one()) {
		mbarrier_arrive_expect(full, bytes);
		tma_load_2d(to, from.x, full, f->step * DEPTH, from.x_row);
		tma_load_2d(to + x_bytes, from.weight, full, f->step * DEPTH, from.weight_row);
	}
	__syncwarp();
}

/* Passes over `count` steps. */
template <int ROWS, int COLUMNS, int DEPTH>
static __device__ __forceinline__ void gemm_feed_pass(const struct gemm_params *p,
						      struct gemm_feed *f, int count)
{
	const int steps = (p->in + DEPTH - 1) / DEPTH;

	f->ring.stage += count;
	while (f->ring.stage >= f->ring.stages) {
		f->ring.stage -= f->ring.stages;
		f->ring.parity ^= 1;
	}
	f->step += count;
	while (f->step >= steps && f->index < p->tiles) {
		const int over = f->step - steps;

		f->term = gemm_next_term(f->tile.terms, f->term);
		if (f->term < 0) {
			f->index += gridDim.x;
			gemm_feed_tile<ROWS, COLUMNS>(p, f);
		}
		f->step = over;
	}
}

/* ----------------------------------------------------------------------------------- epilogues */

/*
 * 1 / (1 + exp(−a)) of two values with one division: the argument is held above −40, where the
 * result is 4e-18 and the product of two denominators still far from overflow.
 */
static __device__ __forceinline__ void sigmoid_pair(float *a, float *b)
{
	const float log2e = 1.4426950408889634f;
	const float d = 1.0f + exp2_approx(-log2e * fmaxf(*a, -40.0f));
	const float e = 1.0f + exp2_approx(-log2e * fmaxf(*b, -40.0f));
	const float r = reciprocal_approx(d * e);

	*a = r * e;
	*b = r * d;
}

/* 2·√(2/π)·(a + 0.044715·a³): gelu(a) = a·sigmoid of it. */
static __device__ __forceinline__ float gelu_argument(float a)
{
	return 1.5957691216057308f * (a + 0.044715f * a * a * a);
}

/* kernels.h's activations: 0 identity, 1 SiLU, 2 GELU, 3 sigmoid. */
static __device__ __forceinline__ void gemm_activate(int activation, float *a, float *b)
{
	float c = *a, d = *b;

	if (activation == 0)
		return;
	if (activation == 2) {
		c = gelu_argument(c);
		d = gelu_argument(d);
	}
	sigmoid_pair(&c, &d);
	*a = activation == 3 ? c : *a * c;
	*b = activation == 3 ? d : *b * d;
}
