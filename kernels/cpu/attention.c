/* Softmax attention over up to three key segments, one head and one block of queries at a time. */
#include "kernels/cpu/internal.h"

enum { QUERY_BLOCK = 64 };

struct attention_plan {
	int keys;
	size_t score_floats, output_floats; /* of one thread */
	size_t scores;			    /* [QUERY_BLOCK][keys] */
	size_t output;			    /* [QUERY_BLOCK][D] */
	size_t bytes;
};

static bool attention_plan(const struct kernel_device *device, const struct kernel_attention *op,
			   struct attention_plan *plan)
{
	int64_t keys = 0;

	*plan = (struct attention_plan){ 0 };
	if (op->rows < 1 || op->heads < 1 || op->kv_heads < 1 || op->head_dim < 1 ||
	    op->heads % op->kv_heads != 0 || op->head_dim > INT_MAX / op->heads ||
	    op->segments < 1 || op->segments > KERNEL_SEGMENTS)
		return false;
	for (int i = 0; i < op->segments; i++) {
		if (op->segment[i].tokens < 0)
			return false;
		keys += op->segment[i].tokens;
	}
	if (keys > INT_MAX)
		return false;
	plan->keys = (int)keys;
	plan->score_floats = (size_t)QUERY_BLOCK * plan->keys;
	plan->output_floats = (size_t)QUERY_BLOCK * op->head_dim;
	plan->scores = cpu_reserve(&plan->bytes, plan->score_floats * device->threads);
	plan->output = cpu_reserve(&plan->bytes, plan->output_floats * device->threads);
	return true;
}

size_t cpu_attention_workspace(const struct kernel_device *device, const void *params)
{
	struct attention_plan plan;

	return attention_plan(device, params, &plan) ? plan.bytes : 0;
}

static int attention_check(const struct kernel_attention *op, const struct attention_plan *plan)
{
	const size_t columns = (size_t)op->heads * op->head_dim;

	if (!cpu_stride_valid(op->ldq, columns) || !cpu_stride_valid(op->ldy, columns) ||
	    (op->gate && !cpu_stride_valid(op->ldg, columns)))
		return -EINVAL;
	for (int i = 0; i < op->segments; i++)
		if (op->segment[i].tokens > 0 &&
		    !cpu_stride_valid(op->segment[i].ld, (size_t)op->kv_heads * op->head_dim))
			return -EINVAL;
	return cpu_workspace_short(&op->workspace, plan->bytes) ? -EINVAL : 0;
}

/* Whether key j counts for the query at `position`. */
static bool key_counts(const struct kernel_attention *op, int64_t position, int j)
{
	if (op->causal && j > position)
		return false;
	if (op->window > 0 && position - j >= op->window)
		return false;
	return !op->key_mask || op->key_mask[j];
}

/* In place: scores ← softmax(cap(scale·scores) + mask); all zero where no key counts. */
static void softmax_row(const struct kernel_attention *op, int row, int keys, float *scores)
{
	const int64_t position = (int64_t)op->query_offset + row;
	const bool masked = op->causal || op->window > 0 || op->key_mask;
	bool counted = !masked && keys > 0;

	cpu_scale_row(op->scale, scores, keys);
	for (int j = 0; op->softcap > 0 && j < keys; j++)
		scores[j] = op->softcap * tanhf(scores[j] / op->softcap);
	for (int j = 0; masked && j < keys; j++) {
		if (key_counts(op, position, j))
			counted = true;
		else
			scores[j] = -INFINITY;
	}
	if (!counted) {
		memset(scores, 0, keys * sizeof(*scores));
		return;
	}
	cpu_scale_row(1.0f / cpu_exp_sum_row(scores, cpu_largest(scores, keys), keys), scores,
		      keys);
}

/* Query rows [row, row + count) of one head: scores, softmax, values, gate. */
static void attention_block(const struct kernel_attention *op, const struct attention_plan *plan,
			    int row, int count, int head)
{
	const int d = op->head_dim, keys = plan->keys, thread = omp_get_thread_num();
	const size_t lane = (size_t)head * d;
	const size_t kv_lane = (size_t)(head / (op->heads / op->kv_heads)) * d;
	const float *q = (const float *)op->q + row * op->ldq + lane;
	float *scores = cpu_at(&op->workspace, plan->scores) + thread * plan->score_floats;
	float *output = cpu_at(&op->workspace, plan->output) + thread * plan->output_floats;
	int at = 0;

	for (int i = 0; i < op->segments; at += op->segment[i++].tokens)
		if (op->segment[i].tokens > 0)
			cpu_gemm_nt(count, op->segment[i].tokens, d, q, op->ldq,
				    (const float *)op->segment[i].k + kv_lane, op->segment[i].ld,
				    0.0f, scores + at, keys);
	for (int i = 0; i < count; i++)
		softmax_row(op, row + i, keys, scores + (size_t)i * keys);

	memset(output, 0, (size_t)count * d * sizeof(*output));
	at = 0;
	for (int i = 0; i < op->segments; at += op->segment[i++].tokens)
		if (op->segment[i].tokens > 0)
			cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, count, d,
				    op->segment[i].tokens, 1.0f, scores + at, keys,
				    (const float *)op->segment[i].v + kv_lane,
				    (int)op->segment[i].ld, 1.0f, output, d);

	for (int i = 0; i < count; i++) {
		const float *gate =
			op->gate ? (const float *)op->gate + (row + i) * op->ldg + lane : NULL;
		float *y = (float *)op->y + (row + i) * op->ldy + lane;

		if (gate)
			cpu_multiply_silu_row(output + (size_t)i * d, gate, y, d);
		else
			memcpy(y, output + (size_t)i * d, d * sizeof(*y));
	}
}

/* Called by a whole team. */
static void attention_blocks(const struct kernel_attention *op, const struct attention_plan *plan,
			     int blocks)
{
#pragma omp for schedule(static) collapse(2) nowait
	for (int head = 0; head < op->heads; head++) {
		for (int block = 0; block < blocks; block++) {
			const int row = block * QUERY_BLOCK;
			const int rest = op->rows - row;

			attention_block(op, plan, row, rest < QUERY_BLOCK ? rest : QUERY_BLOCK,
					head);
		}
	}
}

int cpu_attention(struct kernel_device *device, const void *params, struct kernel_queue *queue)
{
	const struct kernel_attention *op = params;
	struct attention_plan plan;
	int blocks, r;

	(void)queue;
	if (!attention_plan(device, op, &plan))
		return -EINVAL;
	r = attention_check(op, &plan);
	if (r < 0)
		return r;

	blocks = cpu_ceil_div(op->rows, QUERY_BLOCK);
	CPU_TEAM(device, attention_blocks(op, &plan, blocks));
	return 0;
}
