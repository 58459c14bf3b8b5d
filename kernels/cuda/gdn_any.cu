/*
 * Gated delta rule for heads, strides and sizes that the other kernels do not take: plain sums in F32, each
 * by one thread in the order of the formula. Matrices lie row after row.
 */
#include "kernels/cuda/gdn.cuh"

/* 1/√(mean of squares + ε) of every row of q, then of k, a warp a row. */
extern "C" __global__ void __launch_bounds__(GDN_ANY_THREADS)
	gdn_any_inverse(const __grid_constant__ struct gdn_params p)
{
	const int channels = p.heads * p.head_dim, rows = p.frames * p.tokens;
	const int row = (blockIdx.x * GDN_ANY_THREADS + threadIdx.x) / 32;
	const uint16_t *x = row < rows ? (const uint16_t *)p.q + row * p.ld :
					 (const uint16_t *)p.k + (row - rows) * p.ld;
	float sum = 0;

	if (row >= 2 * rows)
		return;
	for (int c = threadIdx.x % 32; c < channels; c += 32)
		sum += bf16_value(x[c]) * bf16_value(x[c]);
	sum = warp_sum(sum);
	if (threadIdx.x % 32 == 0)
		p.inverse[row] = rsqrtf(sum / channels + p.epsilon);
}

/* One lane of a head of q or k: normed, and turned too. */
struct lane {
	float plain, turned;
};

/* `row`: the token's lanes of this head; `weight` of these lanes; `factor`: norm, and what k has besides. */
static __device__ __forceinline__ struct lane lane_of(const struct gdn_params &p,
						      const uint16_t *row, const float *weight,
						      float factor, int token, int lane)
{
	const int first = lane & ~1;
	float a = fmaxf(bf16_value(row[first]) * weight[first] * factor, 0.0f),
	      b = fmaxf(bf16_value(row[first + 1]) * weight[first + 1] * factor, 0.0f);
	struct lane l;

	l.plain = lane % 2 ? b : a;
	rope_turn(rope_at(p.rope, token, first / 2), &a, &b);
	l.turned = lane % 2 ? b : a;
	return l;
}

static __device__ __forceinline__ struct lane key_of(const struct gdn_params &p, int token,
						     int head, int lane)
{
	return lane_of(p, (const uint16_t *)p.k + token * p.ld + head * p.head_dim,
		       p.k_norm + head * p.head_dim,
		       p.inverse[p.frames * p.tokens + token] * p.kappa, token, lane);
}

/* blockIdx: row of the sums, head, frame; a thread has some columns. */
extern "C" __global__ void __launch_bounds__(GDN_ANY_THREADS)
	gdn_any_sums(const __grid_constant__ struct gdn_params p)
{
	__shared__ struct lane key[GDN_ANY_TOKENS];
	__shared__ float value[GDN_ANY_TOKENS], beta[GDN_ANY_TOKENS];
	const int d = p.head_dim, i = blockIdx.x, head = blockIdx.y, frame = blockIdx.z * p.tokens;
	const size_t item = blockIdx.z * (size_t)p.heads + head, at = (item * d + i) * d;

	for (int first = 0; first < d; first += GDN_ANY_THREADS) {
		const int j = first + threadIdx.x;
		float sum_p = 0, sum_a = 0, sum_z = 0, sum_b = 0;

		for (int s = 0; s < p.tokens; s += GDN_ANY_TOKENS) {
			const int count = min(p.tokens - s, (int)GDN_ANY_TOKENS);

			__syncthreads();
			if ((int)threadIdx.x < count) {
				const int n = frame + s + threadIdx.x;
				const uint16_t *v = (const uint16_t *)p.v + n * p.ld + head * d;

				key[threadIdx.x] = key_of(p, n, head, i);
				value[threadIdx.x] = bf16_value(v[i]);
				beta[threadIdx.x] = p.beta[(size_t)n * p.heads + head];
			}
			__syncthreads();
			for (int n = 0; j < d && n < count; n++) {
				const struct lane other = key_of(p, frame + s + n, head, j);

				sum_p += key[n].turned * beta[n] * other.turned;
				sum_a += value[n] * beta[n] * other.turned;
				sum_z += key[n].plain * beta[n] * other.plain;
				sum_b += key[n].plain * beta[n];
			}
		}
		if (j < d) {
			p.p[at + j] = sum_p;
			p.a[at + j] = sum_a;
			p.p_z[at + j] = sum_z;
		}
		if (j == 0)
			p.b[item * d + i] = sum_b;
	}
}

/*
 * m ← g·m·(I − P) + a, or a, for one row; m in shared memory. P_z being symmetric, that is the step of the
 * normaliser too.
 */
static __device__ __forceinline__ void row_step(int d, float g, bool has_state, const float *matrix,
						const float *a, const float *m, float *next)
{
	for (int j = threadIdx.x; j < d; j += GDN_ANY_THREADS) {
		float sum = 0;

		for (int k = 0; has_state && k < d; k++)
			sum += m[k] * matrix[(size_t)k * d + j];
		next[j] = has_state ? a[j] + g * (m[j] - sum) : a[j];
	}
	__syncthreads();
}

/* blockIdx.x: a row of the state, or (the last one) the normaliser; blockIdx.y: the head. */
extern "C" __global__ void __launch_bounds__(GDN_ANY_THREADS)
	gdn_any_scan(const __grid_constant__ struct gdn_params p)
{
	extern __shared__ float memory[]; /* the row, and the next one */
	const int d = p.head_dim, row = blockIdx.x, head = blockIdx.y;
	const bool vector = row == d;
	const size_t size = vector ? d : (size_t)d * d, at = vector ? 0 : (size_t)row * d;
	const float *in = vector ? p.normaliser_in : p.state_in;
	const float *matrices = vector ? p.p_z : p.p, *terms = vector ? p.b : p.a;
	float *out = vector ? p.normaliser_out : p.state_out, *sums = vector ? p.z : p.history;
	float *m = memory, *next = memory + d;
	bool has_state = in != NULL;

	for (int j = threadIdx.x; in && j < d; j += GDN_ANY_THREADS)
		m[j] = in[head * size + at + j];
	__syncthreads();
	/* There, and back without the frame itself: frame t reads what t + 1 … wrote. */
	for (int step = 0; step < 2 * p.frames - 1; step++) {
		const bool forward = step < p.frames;
		const int t = forward ? step : 2 * (p.frames - 1) - step;
		const size_t item = (size_t)(forward ? t : t + 1) * p.heads + head;
		float *sum = sums + ((size_t)t * p.heads + head) * size + at, *free = m;

		has_state = has_state && step != p.frames;
		row_step(d, p.decay[item], has_state, matrices + item * d * d,
			 terms + item * size + at, m, next);
		m = next, next = free, has_state = true;
		for (int j = threadIdx.x; j < d; j += GDN_ANY_THREADS) {
			sum[j] = forward ? m[j] : sum[j] + m[j];
			if (out && step == p.frames - 1)
				out[head * size + at + j] = m[j];
		}
	}
}

/* blockIdx: some tokens, head, frame. */
extern "C" __global__ void __launch_bounds__(GDN_ANY_THREADS)
	gdn_any_read(const __grid_constant__ struct gdn_params p)
{
	extern __shared__ float queries[]; /* turned, [GDN_ANY_QUERIES][D] */
	__shared__ float inverse[GDN_ANY_QUERIES];
	const int d = p.head_dim, head = blockIdx.y, warp = threadIdx.x / 32;
	const int first = blockIdx.x * GDN_ANY_QUERIES, frame = blockIdx.z * p.tokens;
	const int count = min(p.tokens - first, (int)GDN_ANY_QUERIES);
	const size_t item = blockIdx.z * (size_t)p.heads + head;

	for (int n = warp; n < count; n += GDN_ANY_THREADS / 32) {
		const int token = frame + first + n;
		const uint16_t *row = (const uint16_t *)p.q + token * p.ld + head * d;
		float sum = 0;

		for (int k = threadIdx.x % 32; k < d; k += 32) {
			const struct lane q =
				lane_of(p, row, p.q_norm + head * d, p.inverse[token], token, k);

			queries[n * d + k] = q.turned;
			sum += q.plain * p.z[item * d + k];
		}
		sum = warp_sum(sum);
		if (threadIdx.x % 32 == 0)
			inverse[n] = 1.0f / (sum + 1e-8f);
	}
	__syncthreads();
	for (int e = threadIdx.x; e < count * d; e += GDN_ANY_THREADS) {
		const int n = e / d, j = e % d;
		const size_t token = frame + first + n;
		const float *m = p.history + (item * d + j) * d;
		const float gate =
			bf16_value(((const uint16_t *)p.gate)[token * p.ld + head * d + j]);
		float sum = 0;

		for (int k = 0; k < d; k++)
			sum += queries[n * d + k] * m[k];
		((uint16_t *)p.y)[(token * p.heads + head) * d + j] =
			bf16_bits(sum * inverse[n] * gate / (1.0f + __expf(-gate)));
	}
}
