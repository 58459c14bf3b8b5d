/*
 * Gated delta rule: norms of the rows, and the scan over frames, states and sums in F32, each block having
 * some rows of one head's state, which depend on no other rows.
 */
#include "kernels/cuda/gdn.cuh"

/* ------------------------------------------------------------------------------- norms of k */

/* All rows of k; those of q have time until the read-out (gdn_sums). Opens the meetings of gdn_sums. */
extern "C" __global__ void __launch_bounds__(GDN_INVERSE_THREADS)
	gdn_inverse(const __grid_constant__ struct gdn_params p)
{
	const int thread = blockIdx.x * GDN_INVERSE_THREADS + threadIdx.x;
	const int rows = p.frames * p.tokens;

	dependency_wait();
	dependency_launch();
	for (int i = thread; i < p.frames * p.heads; i += gridDim.x * GDN_INVERSE_THREADS)
		p.meetings[i] = make_int2(0, 0);
	if (thread / 32 < rows)
		row_inverse(p, p.k, thread / 32, p.inverse + rows);
}

/* ------------------------------------------------------------------------------ scan over frames */

/*
 * The frame whose P the n-th product of a scan needs: forwards, then back; the first step of each way
 * needs none where there is no state.
 */
static __device__ __forceinline__ int scan_frame(const struct gdn_params &p, int n)
{
	const int first = p.state_in ? 0 : 1, forward = p.frames - first;

	return n < forward ? first + n : p.frames - 2 - (n - forward);
}

static __device__ __forceinline__ int scan_products(const struct gdn_params &p)
{
	return p.frames - (p.state_in ? 0 : 1) + max(p.frames - 2, 0);
}

/* Two numbers as the sums of two BF16 each: 17 bits, which is 2^8 times what their operands had. */
struct bf16_split {
	uint32_t high, low;
};

static __device__ __forceinline__ struct bf16_split bf16_split_of(float a, float b)
{
	const uint32_t high = bf16_pack(a, b);

	return { high, bf16_pack(a - bf16_low(high), b - bf16_high(high)) };
}

/* Sums are there from here on; decays, and states from the last chunk, were there before them. */
static __device__ __forceinline__ void scan_begin(void)
{
	dependency_wait();
}

/*
 * A warp's part of a matrix for product n, a row of its tiles, on its way to shared memory: there each
 * thread has its own words, and waits for no other.
 */
template <int D>
static __device__ __forceinline__ void scan_copy(const struct gdn_params &p, const float *matrices,
						 int head, int n, uint32_t to)
{
	const float *from;

	if (n >= scan_products(p))
		return;
	from = matrices + sums_at<D>(scan_frame(p, n) * p.heads + head, threadIdx.x / 32, 0);
#pragma unroll
	for (int j = 0; j < D / 8; j++)
		cp_async_16(to + j * 2 * D * 16, from + j * 128, 16);
	cp_async_commit();
}

/* What scan_copy brought. */
template <int D> static __device__ __forceinline__ void scan_fetch(uint32_t at, uint4 f[D / 8])
{
	cp_async_wait<0>();
#pragma unroll
	for (int j = 0; j < D / 8; j++)
		f[j] = shared_load_16(at + j * 2 * D * 16);
}

/*
 * sum = m·P for the warp's 16 columns, of one state or two; both factors in two BF16, the product of both lower
 * parts left out. A lane's four numbers of a tile of m are its part of the left factor, two of them that of the
 * right one; P, being symmetric, has its columns where its rows are.
 */
template <int D, int WAYS>
static __device__ __forceinline__ void scan_product(const uint4 *const m[WAYS],
						    const uint4 f[D / 8], float sum[WAYS][2][4])
{
	float small[WAYS][2][4] = {};

#pragma unroll
	for (int k = 0; k < D / 16; k++) {
		struct bf16_split b[2][2];

#pragma unroll
		for (int i = 0; i < 2; i++) {
			const uint4 p = f[2 * k + i];

			b[0][i] = bf16_split_of(__uint_as_float(p.x), __uint_as_float(p.y));
			b[1][i] = bf16_split_of(__uint_as_float(p.z), __uint_as_float(p.w));
		}
#pragma unroll
		for (int way = 0; way < WAYS; way++) {
			const uint4 upper = m[way][k * 64 + threadIdx.x % 32],
				    lower = m[way][k * 64 + 32 + threadIdx.x % 32];
			const uint32_t high[4] = { upper.x, upper.y, upper.z, upper.w };
			const uint32_t low[4] = { lower.x, lower.y, lower.z, lower.w };

#pragma unroll
			for (int n = 0; n < 2; n++) {
				mma_bf16(sum[way][n], high, b[n][0].high, b[n][1].high);
				mma_bf16(small[way][n], high, b[n][0].low, b[n][1].low);
				mma_bf16(small[way][n], low, b[n][0].high, b[n][1].high);
			}
		}
	}
#pragma unroll
	for (int way = 0; way < WAYS; way++)
#pragma unroll
		for (int n = 0; n < 2; n++)
#pragma unroll
			for (int i = 0; i < 4; i++)
				sum[way][n][i] += small[way][n][i];
}

/* The warp's two tiles of m for the others, as scan_product reads them: their upper terms, their lower ones. */
static __device__ __forceinline__ void scan_share(uint4 *m, const float4 own[2])
{
	uint4 *to = m + threadIdx.x / 32 * 64 + threadIdx.x % 32;
	const struct bf16_split upper[2] = { bf16_split_of(own[0].x, own[0].y),
					     bf16_split_of(own[1].x, own[1].y) };
	const struct bf16_split lower[2] = { bf16_split_of(own[0].z, own[0].w),
					     bf16_split_of(own[1].z, own[1].w) };

	to[0] = make_uint4(upper[0].high, lower[0].high, upper[1].high, lower[1].high);
	to[32] = make_uint4(upper[0].low, lower[0].low, upper[1].low, lower[1].low);
}

static __device__ __forceinline__ float step_of(float a, float decay, float before, float sum)
{
	return a + decay * (before - sum);
}

/* This warp's two tiles of a step: A + g·(own − sum). */
static __device__ __forceinline__ void tiles_step(const float4 a[2], float g, const float sum[2][4],
						  float4 own[2])
{
#pragma unroll
	for (int h = 0; h < 2; h++) {
		own[h].x = step_of(a[h].x, g, own[h].x, sum[h][0]);
		own[h].y = step_of(a[h].y, g, own[h].y, sum[h][1]);
		own[h].z = step_of(a[h].z, g, own[h].z, sum[h][2]);
		own[h].w = step_of(a[h].w, g, own[h].w, sum[h][3]);
	}
}

template <int D>
static __device__ __forceinline__ void tiles_load(const struct gdn_params &p, int item, int strip,
						  float4 a[2])
{
#pragma unroll
	for (int h = 0; h < 2; h++)
		a[h] = *(const float4 *)(p.a + sums_at<D>(item, strip, threadIdx.x / 32 * 2 + h));
}

/* own ← g·(own − m·P) + A, or A, of this warp's two tiles of m. */
template <int D>
static __device__ __forceinline__ void scan_step(const struct gdn_params &p, int item, int strip,
						 bool has_state, float decay, const uint4 f[D / 8],
						 const uint4 *m, float4 own[2])
{
	const uint4 *const both[1] = { m };
	float sum[1][2][4] = {};
	float4 a[2];

	tiles_load<D>(p, item, strip, a);
	if (has_state) {
		scan_product<D, 1>(both, f, sum);
		tiles_step(a, decay, sum[0], own);
	} else {
		own[0] = a[0], own[1] = a[1];
	}
}

/* Element of a matrix as everyone else has it, row after row: the upper two of a lane's four of tile h. */
template <int D> static __device__ __forceinline__ int strip_at(int strip, int h)
{
	return (strip * GDN_SCAN_ROWS + threadIdx.x % 32 / 4) * D + threadIdx.x / 32 * 16 + h * 8 +
	       threadIdx.x % 4 * 2;
}

/* Elements of the state as it is read: the upper and the lower two of each tile. */
struct scan_places {
	int upper[2], lower[2];
};

template <int D> static __device__ __forceinline__ struct scan_places scan_places_of(int strip)
{
	struct scan_places at;

#pragma unroll
	for (int h = 0; h < 2; h++) {
		const int row = strip * GDN_SCAN_ROWS + threadIdx.x % 32 / 4;
		const int column = threadIdx.x / 32 * 16 + h * 8 + threadIdx.x % 4 * 2;

		at.upper[h] = read_at<D>(row, column);
		at.lower[h] = read_at<D>(row + 8, column);
	}
	return at;
}

/* The sum of both ways' states, for the read-out. */
template <int D>
static __device__ __forceinline__ void read_store(const struct gdn_params &p, int item,
						  const struct scan_places &at, const float4 sum[2])
{
	uint16_t *read = (uint16_t *)p.read + (size_t)item * D * D;

#pragma unroll
	for (int h = 0; h < 2; h++) {
		*(uint32_t *)(read + at.upper[h]) = bf16_pack(sum[h].x, sum[h].y);
		*(uint32_t *)(read + at.lower[h]) = bf16_pack(sum[h].z, sum[h].w);
	}
}

template <int D>
static __device__ __forceinline__ void state_load(const struct gdn_params &p, int head, int strip,
						  float4 own[2])
{
#pragma unroll
	for (int h = 0; h < 2 && p.state_in; h++) {
		const float *in = p.state_in + (size_t)head * D * D + strip_at<D>(strip, h);
		const float2 upper = *(const float2 *)in, lower = *(const float2 *)(in + 8 * D);

		own[h] = make_float4(upper.x, upper.y, lower.x, lower.y);
	}
}

template <int D>
static __device__ __forceinline__ void state_store(const struct gdn_params &p, int head, int strip,
						   const float4 own[2])
{
#pragma unroll
	for (int h = 0; h < 2 && p.state_out; h++) {
		float *out = p.state_out + (size_t)head * D * D + strip_at<D>(strip, h);

		*(float2 *)out = make_float2(own[h].x, own[h].y);
		*(float2 *)(out + 8 * D) = make_float2(own[h].z, own[h].w);
	}
}

static __device__ __forceinline__ void tiles_add(const float4 other[2], float4 own[2])
{
#pragma unroll
	for (int h = 0; h < 2; h++) {
		own[h].x += other[h].x, own[h].y += other[h].y;
		own[h].z += other[h].z, own[h].w += other[h].w;
	}
}

/* `m`: both terms of the strip's tiles, twice. Forward states wait in p.history for the way back. */
template <int D>
static __device__ __forceinline__ void scan_state(const struct gdn_params &p, int head, int strip,
						  uint4 *m, uint32_t own)
{
	const int last = p.frames - 1;
	const struct scan_places places = scan_places_of<D>(strip);
	uint4 f[D / 8] = {};
	float4 next[2] = {};
	int n = 0;

	state_load<D>(p, head, strip, next);
	scan_begin();
	scan_copy<D>(p, p.p, head, 0, own);
	for (int step = 0; step < 2 * p.frames - 1; step++) {
		/* There, and back without the frame itself: frame t reads what t + 1 … wrote. */
		const bool forward = step < p.frames;
		const int t = forward ? step : 2 * last - step, item = t * p.heads + head;
		const int from = forward ? item : item + p.heads;
		const bool has_state = forward ? step > 0 || p.state_in : t < last - 1;
		/* The other one is being read by warps that are a product behind. */
		uint4 *now = m + n % 2 * (D / 16) * 64;
		float4 *history =
			(float4 *)(p.history + sums_at<D>(item, strip, threadIdx.x / 32 * 2));

		if (has_state) {
			scan_share(now, next);
			scan_fetch<D>(own, f);
			__syncthreads();
			scan_copy<D>(p, p.p, head, ++n, own);
		}
		scan_step<D>(p, from, strip, has_state, p.decay[from], f, now, next);
		if (forward && t < last) {
			history[0] = next[0], history[32] = next[1];
		} else if (forward) {
			read_store<D>(p, item, places, next);
			state_store<D>(p, head, strip, next);
		} else {
			float4 sum[2] = { history[0], history[32] };

			tiles_add(next, sum);
			read_store<D>(p, item, places, sum);
		}
	}
}

/*
 * The same for three frames, as the published model has: the only product of the way back is with the P of
 * the middle frame, as one there is, and both are made together. `m` has room for a third strip.
 */
template <int D>
static __device__ __forceinline__ void scan_three(const struct gdn_params &p, int head, int strip,
						  uint4 *m, uint32_t own)
{
	constexpr int room = D / 16 * 64;
	const uint4 *const both[2] = { m + room, m + 2 * room };
	uint4 f[D / 8] = {};
	float4 next[2] = {}, back[2], a[2];
	float sum[2][2][4] = {}, decay[3];
	int n = 0;

	state_load<D>(p, head, strip, next);
#pragma unroll
	for (int t = 0; t < 3; t++)
		decay[t] = p.decay[t * p.heads + head];
	if (p.state_in)
		scan_share(m, next);
	scan_begin();
	scan_copy<D>(p, p.p, head, 0, own);
	tiles_load<D>(p, 2 * p.heads + head, strip, back);
	scan_share(m + 2 * room, back);
	if (p.state_in) {
		scan_fetch<D>(own, f);
		__syncthreads();
		scan_copy<D>(p, p.p, head, ++n, own);
	}
	scan_step<D>(p, head, strip, p.state_in, decay[0], f, m, next);
	scan_share(m + room, next);
	scan_fetch<D>(own, f);
	__syncthreads();
	scan_copy<D>(p, p.p, head, ++n, own);
	scan_product<D, 2>(both, f, sum);
	tiles_load<D>(p, p.heads + head, strip, a);
	{
		/* Not before: registers are wanted for the products. */
		const struct scan_places places = scan_places_of<D>(strip);
		float4 middle[2] = { next[0], next[1] };

		tiles_step(a, decay[1], sum[0], middle);
		/* Frame 1 reads the last frame's A, frame 0 what comes of that. */
		scan_share(m, middle);
		tiles_load<D>(p, 2 * p.heads + head, strip, back);
		tiles_add(middle, back);
		read_store<D>(p, p.heads + head, places, back);
		tiles_load<D>(p, 2 * p.heads + head, strip, back);
		tiles_step(a, decay[1], sum[1], back);
		tiles_add(next, back);
		read_store<D>(p, head, places, back);
		next[0] = middle[0], next[1] = middle[1];
		scan_fetch<D>(own, f);
		__syncthreads();
		scan_step<D>(p, 2 * p.heads + head, strip, true, decay[2], f, m, next);
		read_store<D>(p, 2 * p.heads + head, places, next);
		state_store<D>(p, head, strip, next);
	}
}

/* Rows g and g + 8 of the warp's 16 of P_z·z, in every lane of a row. */
template <int D>
static __device__ __forceinline__ float2 vector_product(const uint4 f[D / 8], const float *z)
{
	float2 sum = make_float2(0, 0);

#pragma unroll
	for (int j = 0; j < D / 8; j++) {
		const float2 pair = *(const float2 *)(z + j * 8 + threadIdx.x % 4 * 2);

		sum.x += __uint_as_float(f[j].x) * pair.x + __uint_as_float(f[j].y) * pair.y;
		sum.y += __uint_as_float(f[j].z) * pair.x + __uint_as_float(f[j].w) * pair.y;
	}
#pragma unroll
	for (int step = 1; step < 4; step *= 2) {
		sum.x += __shfl_xor_sync(0xffffffffu, sum.x, step);
		sum.y += __shfl_xor_sync(0xffffffffu, sum.y, step);
	}
	return sum;
}

/* z ← g·(I − P_z)·z + b, or b; a lane has rows j and j + 8, each four times. */
template <int D>
static __device__ __forceinline__ void scan_normaliser(const struct gdn_params &p, int head,
						       float *vectors, uint32_t own)
{
	const int j = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4, last = p.frames - 1;
	const bool mine = threadIdx.x % 4 == 0;
	uint4 f[D / 8] = {};
	float2 next = make_float2(0, 0);
	int n = 0;

	if (p.normaliser_in)
		next = make_float2(p.normaliser_in[head * D + j],
				   p.normaliser_in[head * D + j + 8]);
	scan_begin();
	scan_copy<D>(p, p.p_z, head, 0, own);
	for (int step = 0; step < 2 * p.frames - 1; step++) {
		const bool forward = step < p.frames;
		const int t = forward ? step : 2 * last - step;
		const int item = (forward ? t : t + 1) * p.heads + head;
		float *z = vectors + n % 2 * D, *sum = p.z + (t * p.heads + head) * D + j;
		const float2 b = make_float2(p.b[item * D + j], p.b[item * D + j + 8]);

		if (forward ? step > 0 || p.state_in : t < last - 1) {
			const float2 before = next;
			float2 product;

			if (mine)
				z[j] = next.x, z[j + 8] = next.y;
			scan_fetch<D>(own, f);
			__syncthreads();
			scan_copy<D>(p, p.p_z, head, ++n, own);
			product = vector_product<D>(f, z);
			next.x = step_of(b.x, p.decay[item], before.x, product.x);
			next.y = step_of(b.y, p.decay[item], before.y, product.y);
		} else {
			next = b;
		}
		if (!mine)
			continue;
		sum[0] = forward ? next.x : sum[0] + next.x;
		sum[8] = forward ? next.y : sum[8] + next.y;
		if (step == last && p.normaliser_out) {
			p.normaliser_out[head * D + j] = next.x;
			p.normaliser_out[head * D + j + 8] = next.y;
		}
	}
}

/* blockIdx.x: of each head every 16 rows of the state, then the normaliser. */
template <int D> static __device__ __forceinline__ void gdn_scan(const struct gdn_params &p)
{
	extern __shared__ __align__(128) unsigned char memory[];
	constexpr int parts = D / GDN_SCAN_ROWS + 1;
	const int head = blockIdx.x / parts, strip = blockIdx.x % parts;
	const uint32_t own = shared_address(memory) + threadIdx.x * 16;
	uint4 *m = (uint4 *)(memory + D * D * 4);

	/* The read-out may fetch queries and gates, which were there before the sums began. */
	dependency_launch();
	if (strip + 1 < parts && p.frames == 3) {
		scan_three<D>(p, head, strip, m, own);
	} else if (strip + 1 < parts) {
		scan_state<D>(p, head, strip, m, own);
	} else {
		scan_normaliser<D>(p, head, (float *)m, own);
	}
}

#define GDN_SCAN(D)                                                       \
	extern "C" __global__ void __launch_bounds__(2 * D, 2)            \
		gdn_scan_##D(const __grid_constant__ struct gdn_params p) \
	{                                                                 \
		gdn_scan<D>(p);                                           \
	}
GDN_SCAN(32)
GDN_SCAN(80)
GDN_SCAN(112)
