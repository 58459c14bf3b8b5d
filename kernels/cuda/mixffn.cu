/*
 * Depth-wise 3×3 convolution with a gated unit (kernel_depthwise_glu): d = conv(a) + bias over 2F
 * channels, y = d[0:F] ⊙ silu(d[F:2F]).
 *
 * A block has 64 features of some picture rows and walks along them, three columns a stage, which the copy
 * engine brings to shared memory: an element is read from memory once, and what is outside of the picture
 * arrives as zeros. A thread has 2 features and four rows; a column is added to the three columns of
 * output it belongs to, so that an element becomes F32 once per thread.
 */
#include "kernels/cuda/mixffn.h"
#include "kernels/cuda/mma.cuh"

enum {
	ROWS = DEPTHWISE_ROWS / DEPTHWISE_WARPS, /* of the output, of a warp */
	COLUMNS = DEPTHWISE_COLUMNS, /* the sums of as many columns of output take turns */
	STAGES = 3,
	COLUMN_BYTES = 2 * 2 * DEPTHWISE_FEATURES, /* of both halves, in one row */
	ROW_BYTES = COLUMNS * COLUMN_BYTES,
	STAGE_BYTES = (DEPTHWISE_ROWS + 2) * ROW_BYTES,
};

struct two {
	float v[2];
};

/* A thread's features of a half: nine weights and the bias. */
struct taps {
	struct two weight[9], bias;
};

/* Sums of three columns of output, of one half. */
struct sums {
	struct two v[COLUMNS][ROWS];
};

static __device__ __forceinline__ struct two two_floats(const float *from)
{
	const float2 v = __ldg((const float2 *)from);

	return { { v.x, v.y } };
}

static __device__ __forceinline__ struct taps taps_load(const struct depthwise_glu_params &p,
							int channel)
{
	struct taps t;

#pragma unroll
	for (int k = 0; k < 9; k++)
		t.weight[k] = two_floats(p.weight + (size_t)k * 2 * p.features + channel);
	t.bias = two_floats(p.bias + channel);
	return t;
}

/*
 * Adds a column of a half, `at` in shared memory, to the outputs of the column before (its last), to its
 * own, and to the next (its first).
 */
static __device__ __forceinline__ void column_add(uint32_t at, const struct taps &t, int own,
						  struct sums *s)
{
	const int before = (own + 2) % 3, next = (own + 1) % 3;

#pragma unroll
	for (int i = 0; i < ROWS; i++)
		s->v[next][i] = t.bias;
#pragma unroll
	for (int r = 0; r < ROWS + 2; r++) {
		const uint32_t bits = shared_load_32(at + r * ROW_BYTES);
		const float x[2] = { bf16_low(bits), bf16_high(bits) };

#pragma unroll
		for (int i = r - 2; i <= r; i++) {
			if (i < 0 || i >= ROWS)
				continue;
#pragma unroll
			for (int e = 0; e < 2; e++) {
				s->v[before][i].v[e] += t.weight[3 * (r - i) + 2].v[e] * x[e];
				s->v[own][i].v[e] += t.weight[3 * (r - i) + 1].v[e] * x[e];
				s->v[next][i].v[e] += t.weight[3 * (r - i)].v[e] * x[e];
			}
		}
	}
}

/* Where a block is in the picture, and its ring of stages. */
struct walk {
	int feature, frame, y, x_first, x_end, stages;
	uint32_t ring, full, empty; /* shared memory */
};

/* One thread: stage n to its place in the ring, once what was there has been read. */
static __device__ __forceinline__ void stage_copy(const struct depthwise_glu_params &p,
						  const struct walk &w, int n)
{
	const int slot = n % STAGES;

	if (n >= w.stages)
		return;
	if (n >= STAGES)
		mbarrier_wait(w.empty + 8 * slot, (n / STAGES - 1) % 2);
	mbarrier_arrive_expect(w.full + 8 * slot, STAGE_BYTES);
	tma_load_5d(w.ring + slot * STAGE_BYTES, &p.map, w.full + 8 * slot, w.feature, 0,
		    w.x_first - 1 + n * COLUMNS, w.y - 1, w.frame);
}

/*
 * Rows of output of a finished column. All of them are made before one is stored: behind a condition each
 * would wait for the last.
 */
static __device__ __forceinline__ void column_store(const struct sums sums[2], int done, int rows,
						    size_t row_elements, uint16_t *out)
{
	uint32_t words[ROWS];

#pragma unroll
	for (int r = 0; r < ROWS; r++) {
		const struct two d = sums[0].v[done][r], g = sums[1].v[done][r];

		words[r] = bf16_pack(d.v[0] * silu_approx(g.v[0]), d.v[1] * silu_approx(g.v[1]));
	}
#pragma unroll
	for (int r = 0; r < ROWS; r++)
		if (r < rows)
			*(uint32_t *)(out + r * row_elements) = words[r];
}

/* All stages of a block; `out`: the first output of this thread, of whose rows there are `rows`. */
static __device__ __forceinline__ void stages_add(const struct depthwise_glu_params &p,
						  const struct walk &w, const struct taps taps[2],
						  int rows, uint16_t *out)
{
	const uint32_t mine = w.ring + threadIdx.y * ROWS * ROW_BYTES + threadIdx.x * 4;
	const size_t row_elements = (size_t)p.width * p.features;
	const bool copies = threadIdx.x == 0 && threadIdx.y == 0;
	struct sums sums[2] = {};

	for (int n = 0; n < w.stages; n++) {
		const int slot = n % STAGES, x = w.x_first - 1 + n * COLUMNS;

		/* Into the place of the stage before. */
		if (copies && n > 0)
			stage_copy(p, w, n + STAGES - 1);
		mbarrier_wait(w.full + 8 * slot, n / STAGES % 2);
#pragma unroll
		for (int i = 0; i < COLUMNS; i++) {
#pragma unroll
			for (int half = 0; half < 2; half++)
				column_add(mine + slot * STAGE_BYTES + i * COLUMN_BYTES +
						   half * (COLUMN_BYTES / 2),
					   taps[half], i, &sums[half]);
			const bool inside = x + i > w.x_first && x + i <= w.x_end;

			column_store(sums, (i + 2) % 3, inside ? rows : 0, row_elements, out);
			if (inside)
				out += p.features;
		}
		__syncwarp();
		if (threadIdx.x == 0)
			mbarrier_arrive(w.empty + 8 * slot);
	}
}

/* Grid: 64 features, groups of rows of all frames, parts of a row. F a multiple of 8, 16-byte addresses. */
extern "C" __global__ void __launch_bounds__(32 * DEPTHWISE_WARPS, DEPTHWISE_BLOCKS)
	depthwise_glu(const __grid_constant__ struct depthwise_glu_params p)
{
	__shared__ __align__(128) unsigned char ring[STAGES * STAGE_BYTES];
	__shared__ uint64_t barriers[2 * STAGES];
	const int groups = (p.height + DEPTHWISE_ROWS - 1) / DEPTHWISE_ROWS;
	const int x_first = blockIdx.z * p.strip, x_end = min(x_first + p.strip, p.width);
	const struct walk w = {
		.feature = (int)blockIdx.x * DEPTHWISE_FEATURES,
		.frame = (int)blockIdx.y / groups,
		.y = (int)blockIdx.y % groups * DEPTHWISE_ROWS,
		.x_first = x_first,
		.x_end = x_end,
		.stages = (x_end - x_first + 2 + COLUMNS - 1) / COLUMNS,
		.ring = shared_address(ring),
		.full = shared_address(barriers),
		.empty = shared_address(barriers + STAGES),
	};
	const int y = w.y + (int)threadIdx.y * ROWS, channel = w.feature + (int)threadIdx.x * 2;
	const bool has = channel < p.features;
	const size_t first = ((size_t)(w.frame * p.height + y) * p.width + x_first) * p.features;

	if (threadIdx.x == 0 && threadIdx.y == 0) {
		tma_prefetch_map(&p.map);
		for (int i = 0; i < STAGES; i++) {
			mbarrier_init(w.full + 8 * i, 1);
			mbarrier_init(w.empty + 8 * i, DEPTHWISE_WARPS);
		}
		mbarrier_init_fence();
		dependency_wait();
		for (int i = 0; i < STAGES; i++)
			stage_copy(p, w, i);
	}
	const struct taps taps[2] = { taps_load(p, has ? channel : 0),
				      taps_load(p, p.features + (has ? channel : 0)) };

	__syncthreads();
	dependency_wait();
	stages_add(p, w, taps, has ? p.height - y : 0, (uint16_t *)p.y + first + channel);
	dependency_launch();
}

/* Any number of features: a thread makes one element. */
extern "C" __global__ void depthwise_glu_any(const __grid_constant__ struct depthwise_glu_params p)
{
	const size_t total = (size_t)p.frames * p.height * p.width * p.features;
	const size_t ld = 2 * (size_t)p.features;

	for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < total;
	     i += (size_t)gridDim.x * blockDim.x) {
		const size_t pixel = i / p.features, c = i % p.features;
		const int x = pixel % p.width, y = pixel / p.width % p.height;
		float d[2];

		for (int half = 0; half < 2; half++) {
			const size_t channel = c + half * p.features;

			d[half] = p.bias[channel];
			for (int k = 0; k < 9; k++) {
				const int dy = k / 3 - 1, dx = k % 3 - 1;

				if (y + dy < 0 || y + dy >= p.height || x + dx < 0 ||
				    x + dx >= p.width)
					continue;
				d[half] +=
					p.weight[k * ld + channel] *
					bf16_value(((const uint16_t *)
							    p.a)[(pixel + dy * p.width + dx) * ld +
								 channel]);
			}
		}
		((uint16_t *)p.y)[i] = bf16_bits(d[0] * silu_approx(d[1]));
	}
}
