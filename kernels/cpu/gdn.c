/*
 * Gated delta rule: gates, and the closed form over the frames of one chunk.
 *
 * Three phases: reductions over the tokens of each (frame, head), the scan over frames of each
 * head, the read-out of each (frame, head).
 */
#include "kernels/cpu/internal.h"

/* -------------------------------------------------------------------------------------- gates */

enum { GATE_ROWS = 256, GATE_CHANNELS = 64 };

struct gates_plan {
	size_t beta, decay; /* panels, when the weights are not prepared */
	size_t mean;	    /* [T][C] */
	size_t bytes;
};

static bool gates_plan(const struct kernel_gdn_gates *op, struct gates_plan *plan)
{
	const struct kernel_weight *weights[] = { op->weight_beta, op->weight_decay };

	*plan = (struct gates_plan){ 0 };
	if (op->frames < 1 || op->tokens_per_frame < 1 || op->channels < 1 || op->heads < 1 ||
	    op->tokens_per_frame > INT_MAX / op->frames)
		return false;
	for (int i = 0; i < 2; i++)
		if (!cpu_weight_valid(weights[i]) || weights[i]->tap_count != 1 ||
		    weights[i]->out != op->heads || weights[i]->in != op->channels)
			return false;
	plan->beta = cpu_reserve(&plan->bytes,
				 weights[0]->prepared ? 0 : (size_t)op->heads * op->channels);
	plan->decay = cpu_reserve(&plan->bytes,
				  weights[1]->prepared ? 0 : (size_t)op->heads * op->channels);
	plan->mean = cpu_reserve(&plan->bytes, (size_t)op->frames * op->channels);
	return true;
}

size_t cpu_gdn_gates_workspace(const struct kernel_device *device, const void *params)
{
	struct gates_plan plan;

	(void)device;
	return gates_plan(params, &plan) ? plan.bytes : 0;
}

/* Called by a whole team, as are the next two. */
static void gates_beta(const struct kernel_gdn_gates *op, const float *weight)
{
	const int rows = op->frames * op->tokens_per_frame;
	int parts, column_parts;

	cpu_split_product(rows, 1, GATE_ROWS, 1, omp_get_num_threads(), &parts, &column_parts);
	parts *= column_parts;
#pragma omp for schedule(static) nowait
	for (int i = 0; i < parts; i++) {
		const int row = cpu_share(rows, parts, i);
		const int count = cpu_share(rows, parts, i + 1) - row;
		float *beta = op->beta + (size_t)row * op->heads;

		if (count == 0)
			continue;
		cpu_gemm_nt(count, op->heads, op->channels,
			    (const float *)op->u + (size_t)row * op->channels, op->channels, weight,
			    op->channels, 0.0f, beta, op->heads);
		for (int n = 0; n < count; n++)
			for (int head = 0; head < op->heads; head++)
				beta[n * op->heads + head] = cpu_sigmoid(
					beta[n * op->heads + head] + op->bias_beta[head]);
	}
}

static void gates_mean(const struct kernel_gdn_gates *op, float *mean)
{
	const int blocks = cpu_ceil_div(op->channels, GATE_CHANNELS);

#pragma omp for schedule(static)
	for (int i = 0; i < op->frames * blocks; i++) {
		const int t = i / blocks, channel = i % blocks * GATE_CHANNELS;
		const int count = op->channels - channel < GATE_CHANNELS ? op->channels - channel :
									   GATE_CHANNELS;
		const float *u = (const float *)op->u +
				 (size_t)t * op->tokens_per_frame * op->channels + channel;
		double sum[GATE_CHANNELS] = { 0 };

		for (int s = 0; s < op->tokens_per_frame; s++)
			for (int c = 0; c < count; c++)
				sum[c] += u[(size_t)s * op->channels + c];
		for (int c = 0; c < count; c++)
			mean[(size_t)t * op->channels + channel + c] =
				(float)(sum[c] / op->tokens_per_frame);
	}
}

static void gates_decay(const struct kernel_gdn_gates *op, const float *weight, const float *mean)
{
#pragma omp for schedule(static) nowait
	for (int i = 0; i < op->frames * op->heads; i++) {
		const int t = i / op->heads, head = i % op->heads;
		const double a = cpu_dot(weight + (size_t)head * op->channels,
					 mean + (size_t)t * op->channels, op->channels) +
				 op->bias_decay[head] + op->dt_bias[head];
		const double softplus = a > 20 ? a : log1p(exp(a));

		op->decay[i] = (float)exp(-exp((double)op->a_log[head]) * softplus);
	}
}

static void gates_all(const struct kernel_gdn_gates *op, const struct gates_plan *plan)
{
	const float *beta =
		cpu_weight_panel(op->weight_beta, 0, op->heads, cpu_at(&op->workspace, plan->beta));
	const float *decay = cpu_weight_panel(op->weight_decay, 0, op->heads,
					      cpu_at(&op->workspace, plan->decay));
	float *mean = cpu_at(&op->workspace, plan->mean);

	gates_beta(op, beta);
	gates_mean(op, mean);
	gates_decay(op, decay, mean);
}

int cpu_gdn_gates(struct kernel_device *device, const void *params, struct kernel_queue *queue)
{
	const struct kernel_gdn_gates *op = params;
	struct gates_plan plan;

	(void)queue;
	if (!gates_plan(op, &plan) || cpu_workspace_short(&op->workspace, plan.bytes))
		return -EINVAL;
	CPU_TEAM(device, gates_all(op, &plan));
	return 0;
}

/* ------------------------------------------------------------------------------- the delta rule */

struct gdn_plan {
	int frames, tokens, rows; /* tokens of one frame, of the call */
	size_t matrix;		  /* D² */
	size_t p, a, p_z;	  /* [T][heads][D][D] */
	size_t b;		  /* [T][heads][D] */
	size_t history, z;	  /* M_t + M^r_t and z_t + z^r_t, shaped as p and b */
	size_t thread, thread_floats;
	size_t bytes;
};

static bool gdn_plan(const struct kernel_device *device, const struct kernel_gdn *op,
		     struct gdn_plan *plan)
{
	const struct kernel_rope *rope = op->rope;
	size_t items, tokens;

	*plan = (struct gdn_plan){ 0 };
	if (!rope || op->heads < 1 || op->head_dim < 2 || op->head_dim > INT_MAX / op->heads ||
	    rope->frames < 1 || rope->height < 1 || rope->width < 1 ||
	    (int64_t)rope->frames * rope->height > INT_MAX / rope->width)
		return false;
	plan->frames = rope->frames;
	plan->tokens = rope->height * rope->width;
	plan->rows = plan->frames * plan->tokens;
	plan->matrix = (size_t)op->head_dim * op->head_dim;
	if (!cpu_rope_valid(rope, plan->rows, op->head_dim))
		return false;

	items = (size_t)plan->frames * op->heads;
	plan->p = cpu_reserve(&plan->bytes, items * plan->matrix);
	plan->a = cpu_reserve(&plan->bytes, items * plan->matrix);
	plan->p_z = cpu_reserve(&plan->bytes, items * plan->matrix);
	plan->b = cpu_reserve(&plan->bytes, items * op->head_dim);
	plan->history = cpu_reserve(&plan->bytes, items * plan->matrix);
	plan->z = cpu_reserve(&plan->bytes, items * op->head_dim);
	/* Two blocks of a frame's tokens, or two matrices and two vectors of the scan. */
	tokens = (size_t)plan->tokens * op->head_dim;
	plan->thread_floats = 2 * (tokens + plan->matrix + op->head_dim);
	plan->thread = cpu_reserve(&plan->bytes, plan->thread_floats * device->threads);
	return true;
}

size_t cpu_gdn_workspace(const struct kernel_device *device, const void *params)
{
	struct gdn_plan plan;

	return gdn_plan(device, params, &plan) ? plan.bytes : 0;
}

/* x ← relu(RMSNorm(x)·weight)·factor for all rows, in place. */
static void gdn_normalise(const struct kernel_gdn *op, const struct gdn_plan *plan, float *x,
			  const float *weight, float factor)
{
	const int channels = op->heads * op->head_dim;

#pragma omp for schedule(static) nowait
	for (int n = 0; n < plan->rows; n++) {
		float *row = x + n * op->ld;
		const double mean = cpu_sum_of_squares(row, channels) / channels;
		const float inverse = (float)(1.0 / sqrt(mean + op->epsilon));

		for (int c = 0; c < channels; c++) {
			const float v = row[c] * inverse * weight[c];

			row[c] = v > 0 ? v * factor : 0;
		}
	}
}

/* The rotated head lanes of one frame: to [S][D]. */
static void gdn_rotate(const struct kernel_gdn *op, const struct gdn_plan *plan, const float *x,
		       int t, float *to)
{
	struct cpu_rotation rotation;

	for (int s = 0; s < plan->tokens; s++) {
		cpu_rotation_at(op->rope, t * plan->tokens + s, &rotation);
		cpu_rotate(&rotation, x + s * op->ld, to + (size_t)s * op->head_dim);
	}
}

/* to[s] = beta[s]·x[s]; x and to may be the same. */
static void scale_rows(const float *x, size_t ldx, const float *beta, size_t ld_beta, int rows,
		       int columns, float *to)
{
	for (int s = 0; s < rows; s++)
		for (int c = 0; c < columns; c++)
			to[(size_t)s * columns + c] = beta[s * ld_beta] * x[s * ldx + c];
}

/* c[D][D] = a[S][D]ᵀ·b[S][D]. */
static void gemm_tn(int d, int tokens, const float *a, size_t lda, const float *b, float *c)
{
	cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, d, d, tokens, 1.0f, a, (int)lda, b, d,
		    0.0f, c, d);
}

/* P, A, P_z and b of one frame and head. */
static void gdn_reduce(const struct kernel_gdn *op, const struct gdn_plan *plan, int t, int head,
		       float *scratch)
{
	const int d = op->head_dim;
	const size_t item = (size_t)t * op->heads + head;
	const size_t at = (size_t)t * plan->tokens * op->ld + (size_t)head * d;
	const float *k = (const float *)op->k + at, *v = (const float *)op->v + at;
	const float *beta = op->beta + (size_t)t * plan->tokens * op->heads + head;
	float *rotated = scratch, *scaled = scratch + (size_t)plan->tokens * d;
	float *b = cpu_at(&op->workspace, plan->b) + item * d;

	gdn_rotate(op, plan, k, t, rotated);
	scale_rows(rotated, d, beta, op->heads, plan->tokens, d, scaled);
	gemm_tn(d, plan->tokens, rotated, d, scaled,
		cpu_at(&op->workspace, plan->p) + item * plan->matrix);
	gemm_tn(d, plan->tokens, v, op->ld, scaled,
		cpu_at(&op->workspace, plan->a) + item * plan->matrix);

	scale_rows(k, op->ld, beta, op->heads, plan->tokens, d, scaled);
	gemm_tn(d, plan->tokens, k, op->ld, scaled,
		cpu_at(&op->workspace, plan->p_z) + item * plan->matrix);
	for (int c = 0; c < d; c++) {
		double sum = 0;

		for (int s = 0; s < plan->tokens; s++)
			sum += scaled[(size_t)s * d + c];
		b[c] = (float)sum;
	}
}

/* m_out = g·m·(I − p) + a, [D][D] each; m NULL means zero. */
static void step_matrix(int d, float g, const float *m, const float *p, const float *a,
			float *m_out)
{
	const size_t count = (size_t)d * d;

	memcpy(m_out, a, count * sizeof(*a));
	if (!m)
		return;
	for (size_t i = 0; i < count; i++)
		m_out[i] += g * m[i];
	cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, d, d, d, -g, m, d, p, d, 1.0f, m_out,
		    d);
}

/* z_out = g·(I − p)·z + b, [D] each; z NULL means zero. */
static void step_vector(int d, float g, const float *z, const float *p, const float *b,
			float *z_out)
{
	for (int i = 0; i < d; i++) {
		if (z)
			z_out[i] = (float)(g * (z[i] - cpu_dot(p + (size_t)i * d, z, d)) + b[i]);
		else
			z_out[i] = b[i];
	}
}

static void gdn_scan_forward(const struct kernel_gdn *op, const struct gdn_plan *plan, int head)
{
	const int d = op->head_dim;
	const float *m = op->state_in ? op->state_in + head * plan->matrix : NULL;
	const float *z = op->state_in ? op->normaliser_in + (size_t)head * d : NULL;

	for (int t = 0; t < plan->frames; t++) {
		const size_t item = (size_t)t * op->heads + head;
		const size_t matrix = item * plan->matrix, vector = item * d;
		float *m_next = cpu_at(&op->workspace, plan->history) + matrix;
		float *z_next = cpu_at(&op->workspace, plan->z) + vector;

		step_matrix(d, op->decay[item], m, cpu_at(&op->workspace, plan->p) + matrix,
			    cpu_at(&op->workspace, plan->a) + matrix, m_next);
		step_vector(d, op->decay[item], z, cpu_at(&op->workspace, plan->p_z) + matrix,
			    cpu_at(&op->workspace, plan->b) + vector, z_next);
		m = m_next;
		z = z_next;
	}
	if (op->state_out) {
		memcpy(op->state_out + head * plan->matrix, m, plan->matrix * sizeof(*m));
		memcpy(op->normaliser_out + (size_t)head * d, z, d * sizeof(*z));
	}
}

/* Adds the reverse histories to the forward ones. Exclusive: frame t reads what t+1 … wrote. */
static void gdn_scan_reverse(const struct kernel_gdn *op, const struct gdn_plan *plan, int head,
			     float *scratch)
{
	const int d = op->head_dim;
	const size_t half = plan->matrix + d; /* of the scratch: M and z, old or new */
	const float *m = NULL;

	for (int t = plan->frames - 2; t >= 0; t--) {
		const size_t written = (size_t)(t + 1) * op->heads + head;
		const size_t read = (size_t)t * op->heads + head;
		float *m_next = scratch + (t % 2) * half;
		float *m_sum = cpu_at(&op->workspace, plan->history) + read * plan->matrix;
		float *z_sum = cpu_at(&op->workspace, plan->z) + read * d;

		step_matrix(d, op->decay[written], m,
			    cpu_at(&op->workspace, plan->p) + written * plan->matrix,
			    cpu_at(&op->workspace, plan->a) + written * plan->matrix, m_next);
		step_vector(d, op->decay[written], m ? m + plan->matrix : NULL,
			    cpu_at(&op->workspace, plan->p_z) + written * plan->matrix,
			    cpu_at(&op->workspace, plan->b) + written * d, m_next + plan->matrix);
		m = m_next;
		for (size_t i = 0; i < plan->matrix; i++)
			m_sum[i] += m[i];
		for (int i = 0; i < d; i++)
			z_sum[i] += m[plan->matrix + i];
	}
}

static void gdn_read(const struct kernel_gdn *op, const struct gdn_plan *plan, int t, int head,
		     float *scratch)
{
	const int d = op->head_dim;
	const size_t item = (size_t)t * op->heads + head;
	const size_t row = (size_t)t * plan->tokens, at = row * op->ld + (size_t)head * d;
	const float *q = (const float *)op->q + at, *gate = (const float *)op->gate + at;
	const float *z = cpu_at(&op->workspace, plan->z) + item * d;
	float *y = (float *)op->y + (row * op->heads + head) * d;
	float *rotated = scratch, *numerator = scratch + (size_t)plan->tokens * d;

	gdn_rotate(op, plan, q, t, rotated);
	cpu_gemm_nt(plan->tokens, d, d, rotated, d,
		    cpu_at(&op->workspace, plan->history) + item * plan->matrix, d, 0.0f, numerator,
		    d);
	for (int s = 0; s < plan->tokens; s++) {
		const float denominator = (float)(cpu_dot(q + s * op->ld, z, d) + 1e-8);

		for (int c = 0; c < d; c++)
			numerator[(size_t)s * d + c] /= denominator;
		cpu_multiply_silu_row(numerator + (size_t)s * d, gate + s * op->ld,
				      y + (size_t)s * op->heads * d, d);
	}
}

/* Called by a whole team. */
static void gdn_all(const struct kernel_gdn *op, const struct gdn_plan *plan, float kappa)
{
	float *scratch =
		cpu_at(&op->workspace, plan->thread) + omp_get_thread_num() * plan->thread_floats;
	const int items = plan->frames * op->heads;

	gdn_normalise(op, plan, op->q, op->q_norm, 1.0f);
	gdn_normalise(op, plan, op->k, op->k_norm, kappa);
#pragma omp barrier
#pragma omp for schedule(static)
	for (int i = 0; i < items; i++)
		gdn_reduce(op, plan, i / op->heads, i % op->heads, scratch);
#pragma omp for schedule(static)
	for (int head = 0; head < op->heads; head++) {
		gdn_scan_forward(op, plan, head);
		gdn_scan_reverse(op, plan, head, scratch);
	}
#pragma omp for schedule(static) nowait
	for (int i = 0; i < items; i++)
		gdn_read(op, plan, i / op->heads, i % op->heads, scratch);
}

int cpu_gdn(struct kernel_device *device, const void *params, struct kernel_queue *queue)
{
	const struct kernel_gdn *op = params;
	struct gdn_plan plan;
	float kappa;

	(void)queue;
	if (!gdn_plan(device, op, &plan) || cpu_workspace_short(&op->workspace, plan.bytes) ||
	    !cpu_stride_valid(op->ld, (size_t)op->heads * op->head_dim) ||
	    !op->state_in != !op->normaliser_in || !op->state_out != !op->normaliser_out)
		return -EINVAL;
	kappa = (float)(1.0 / sqrt((double)op->head_dim * plan.tokens));

	CPU_TEAM(device, gdn_all(op, &plan, kappa));
	return 0;
}
