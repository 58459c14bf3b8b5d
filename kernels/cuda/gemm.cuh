/* What the matrix kernels share: which tile is whose, the loading warp, the activations. */
#pragma once

#include "kernels/cuda/gemm.h"
#include "kernels/cuda/mma.cuh"

/*
 * The terms of the sum over s, in order; a linear layer has only GEMM_CENTRE. Others are tensors that
 * the epilogue adds, where they come through the ring: only a feed counts them.
 */
enum { GEMM_LEFT, GEMM_BEFORE, GEMM_CENTRE, GEMM_AFTER, GEMM_TERMS, GEMM_OTHERS = GEMM_TERMS };

/* How many others. */
template <int EPILOGUE>
constexpr int gemm_others = EPILOGUE == GEMM_TEMPORAL ? 2 :
			    EPILOGUE == GEMM_RESIDUAL ? 1 :
							0;

/*
 * What a ring holds: a stage has ROWS of the input, then COLUMNS of a weight, DEPTH of K of each. After
 * the steps of a tile's sum, where there are OTHERS, come these tensors that the epilogue adds,
 * OTHER_COLUMNS in a step: first inner, if there are two, and residual.
 *
 * SHORT_ROWS > 0: tiles of two sizes, as the launcher cuts them (gemm.h); a short one has that many.
 */
template <int ROWS, int COLUMNS, int DEPTH, int OTHERS = 0, int OTHER_COLUMNS = COLUMNS,
	  int SHORT_ROWS = 0>
struct gemm_shape {
	static constexpr int rows = ROWS, columns = COLUMNS, depth = DEPTH;
	static constexpr int x_bytes = ROWS * DEPTH * 2, bytes = x_bytes + COLUMNS * DEPTH * 2;
	static constexpr int others = OTHERS, other_columns = OTHER_COLUMNS;
	static constexpr int other_steps = OTHERS * (COLUMNS / OTHER_COLUMNS);
	static constexpr int short_rows = SHORT_ROWS;
};

struct gemm_tile {
	int part, row, row_end, column; /* tokens from row on, first output feature */
	unsigned int terms;		/* bit s: term s has rows that are not zero */
	int is_short;
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

/* Where a tile lies, its column counted in tiles over all parts. */
static __device__ __forceinline__ void
gemm_tile_column(const struct gemm_params *p, struct gemm_tile *t, int column, int columns)
{
	while (t->part + 1 < p->parts && column >= p->part[t->part + 1].column_first)
		t->part++;
	t->column = (column - p->part[t->part].column_first) * columns;
}

/* Rows fastest: the tiles of one moment share few weights, and the whole input stays in L2. */
template <class S>
static __device__ __forceinline__ struct gemm_tile gemm_tile_at(const struct gemm_params *p,
								int index)
{
	const struct gemm_cut *cut = &p->cut;
	struct gemm_tile t = { 0, 0, 0, 0, 0, 0 };
	int column;

	if (S::short_rows && index >= 2 * cut->tiles) {
		const int item = index / 2 - cut->tiles, i = item % cut->short_along;

		t.is_short = 1;
		t.row = cut->short_row + (cut->pairs ? 2 * i + index % 2 : i) * cut->short_rows;
		t.row_end = min(t.row + cut->short_rows, p->rows);
		column = cut->short_column + item / cut->short_along;
	} else {
		const int item = S::short_rows ? index / 2 : index, i = item % cut->along;
		const int frame = i / cut->frame_tiles;

		t.row = frame * p->shift + i % cut->frame_tiles * cut->rows;
		t.row_end = min(t.row + cut->rows, cut->pairs ? (frame + 1) * p->shift : p->rows);
		column = item / cut->along;
	}
	gemm_tile_column(p, &t, column, S::columns);
	t.terms = gemm_terms(p, t.row, t.row_end);
	return t;
}

/*
 * The tiles of a block: from first, next by next, below end. With short ones they are counted by twos, because
 * of pairs.
 */
template <class S> static __device__ __forceinline__ int gemm_tiles_first(void)
{
	return S::short_rows ? 2 * blockIdx.x : blockIdx.x;
}

template <class S> static __device__ __forceinline__ int gemm_tiles_end(const struct gemm_params *p)
{
	return S::short_rows ? 2 * p->tiles : p->tiles;
}

template <class S>
static __device__ __forceinline__ int gemm_tiles_next(const struct gemm_params *p, int index)
{
	if (!S::short_rows)
		return index + gridDim.x;
	if (p->cut.pairs && index % 2 == 0 && index >= 2 * p->cut.tiles)
		return index + 1;
	return index / 2 * 2 + 2 * gridDim.x;
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

template <class S>
static __device__ __forceinline__ void gemm_feed_tile(const struct gemm_params *p,
						      struct gemm_feed *f)
{
	if (f->index >= gemm_tiles_end<S>(p))
		return;
	f->tile = gemm_tile_at<S>(p, f->index);
	if (S::others)
		f->tile.terms |= 1u << GEMM_OTHERS;
	f->term = gemm_next_term(f->tile.terms, -1);
	f->step = 0;
}

template <class S>
static __device__ __forceinline__ void
gemm_feed_init(const struct gemm_params *p, const struct gemm_ring *ring, struct gemm_feed *f)
{
	f->ring = *ring;
	f->index = gemm_tiles_first<S>();
	gemm_feed_tile<S>(p, f);
}

/* Where a step of K is read from. */
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
		.x = left	      ? &p->left :
		     f->tile.is_short ? &p->short_x :
					&p->x,
		.weight = &part->weight,
		.x_row = f->tile.row + (left ? 0 : (f->term - GEMM_CENTRE) * p->shift),
		.weight_row = tap * part->out + f->tile.column,
	};
}

/* A step of K; in boxes, where those of a frame may come from `left`. By one thread. */
template <class S>
static __device__ __forceinline__ void
gemm_load_step(const struct gemm_params *p, const struct gemm_feed *f,
	       const struct gemm_source *from, uint32_t to, uint32_t full)
{
	const int rows = f->tile.is_short ? S::short_rows : S::rows;
	const int box = p->box && !f->tile.is_short ? p->box : rows, column = f->step * S::depth;

	mbarrier_arrive_expect(full, (rows + S::columns) * S::depth * 2);
	tma_load_2d(to + S::x_bytes, from->weight, full, column, from->weight_row);
	for (int i = 0; i < rows; i += box) {
		const bool left = f->term == GEMM_BEFORE && p->has_left && p->box &&
				  f->tile.row + i < p->shift;

		tma_load_2d(to + i * S::depth * 2, left ? &p->left : from->x, full, column,
			    i + (left ? f->tile.row : from->x_row));
	}
}

/* A step of the other tensors, by one thread. */
template <class S>
static __device__ __forceinline__ void
gemm_load_other(const struct gemm_params *p, const struct gemm_feed *f, uint32_t to, uint32_t full)
{
	const bool inner = S::others == 2 && f->step % 2 == 0;
	const int column = f->step / (S::others ? S::others : 1) * S::other_columns;
	const bool is_short = f->tile.is_short;
	const struct gemm_part *part = &p->part[f->tile.part];
	const CUtensorMap *from = inner ? (is_short ? &p->short_inner : &p->inner) :
					  (is_short ? &part->short_other : &part->other);

	mbarrier_arrive_expect(full, (is_short ? S::short_rows : S::rows) * S::other_columns * 2);
	tma_load_2d(to, from, full, f->tile.column + column, f->tile.row);
}

/* Loads the step into the ring once its stage has been read. By a whole warp, for one thread's sake. */
template <class S>
static __device__ __forceinline__ void gemm_feed_load(const struct gemm_params *p,
						      const struct gemm_feed *f)
{
	const struct gemm_source from = gemm_feed_source(p, f);
	const uint32_t to = f->ring.data + f->ring.stage * S::bytes;
	const uint32_t full = f->ring.full + 8 * f->ring.stage;

	if (f->index >= gemm_tiles_end<S>(p))
		return;
	mbarrier_wait(f->ring.empty + 8 * f->ring.stage, f->ring.parity ^ 1);
	if (elect_one()) {
		if (S::others && f->term == GEMM_OTHERS)
			gemm_load_other<S>(p, f, to, full);
		else
			gemm_load_step<S>(p, f, &from, to, full);
	}
	__syncwarp();
}

/* Passes over `count` steps. */
template <class S>
static __device__ __forceinline__ void gemm_feed_pass(const struct gemm_params *p,
						      struct gemm_feed *f, int count)
{
	const int along_k = (p->in + S::depth - 1) / S::depth;

	f->ring.stage += count;
	while (f->ring.stage >= f->ring.stages) {
		f->ring.stage -= f->ring.stages;
		f->ring.parity ^= 1;
	}
	f->step += count;
	while (f->index < gemm_tiles_end<S>(p)) {
		const bool of_others = S::others && f->term == GEMM_OTHERS;
		const int over = f->step - (of_others ? S::other_steps : along_k);

		if (over < 0)
			break;
		f->term = gemm_next_term(f->tile.terms, f->term);
		if (f->term < 0) {
			f->index = gemm_tiles_next<S>(p, f->index);
			gemm_feed_tile<S>(p, f);
		}
		f->step = over;
	}
}

/* A feed that waits in shared memory; one lane writes what all have. */
static __device__ __forceinline__ void gemm_feed_keep(struct gemm_feed *feed,
						      const struct gemm_feed *f)
{
	__syncwarp();
	if (threadIdx.x % 32 == 0)
		*feed = *f;
	__syncwarp();
}

/* Loads its next step and passes over `count`. */
template <class S>
static __device__ __forceinline__ void gemm_feed_step(const struct gemm_params *p,
						      struct gemm_feed *feed, int count)
{
	struct gemm_feed f = *feed;

	gemm_feed_load<S>(p, &f);
	gemm_feed_pass<S>(p, &f, count);
	gemm_feed_keep(feed, &f);
}

/* ----------------------------------------------------------------------------------- epilogues */

/*
 * v ← scale·v + 16 tokens by 16 features of another tensor, rows of tokens in shared memory, of which
 * this lane gives one of ldmatrix's. Products made transposed have pairs of tokens, features 8 apart
 * in turns.
 */
static __device__ __forceinline__ void gemm_add_other(uint32_t row, const float scale[2],
						      float v[8])
{
	uint32_t w[4];

	ldmatrix_x4_trans(w, row);
#pragma unroll
	for (int i = 0; i < 4; i++) {
		v[2 * i] = bf16_low(w[i]) + scale[i % 2] * v[2 * i];
		v[2 * i + 1] = bf16_high(w[i]) + scale[i % 2] * v[2 * i + 1];
	}
}

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
