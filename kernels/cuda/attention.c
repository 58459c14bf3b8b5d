/* Which kernel an attention takes. */
#include "kernels/cuda/attention.h"

#include <limits.h>

#include "kernels/cuda/device.h"

_Static_assert(ATTENTION_SHARED(112) <= CUDA_PORTABLE_SHARED, "stages of the largest head");

static bool aligned(const void *p, size_t ld, size_t bytes)
{
	return (uintptr_t)p % bytes == 0 && ld * 2 % bytes == 0;
}

static int check(const struct kernel_attention *op)
{
	const size_t columns = (size_t)op->heads * (size_t)op->head_dim;
	int64_t keys = 0;

	if (op->rows < 1 || op->heads < 1 || op->kv_heads < 1 || op->head_dim < 1 ||
	    op->heads % op->kv_heads != 0 || op->heads > USHRT_MAX || op->segments < 1 ||
	    op->segments > KERNEL_SEGMENTS || op->ldq < columns || op->ldy < columns ||
	    (op->gate && op->ldg < columns))
		return -EINVAL;
	for (int i = 0; i < op->segments; i++) {
		const struct kernel_segment *s = &op->segment[i];

		keys += s->tokens;
		if (s->tokens < 0 ||
		    (s->tokens && s->ld < (size_t)op->kv_heads * (size_t)op->head_dim))
			return -EINVAL;
	}
	return keys > INT_MAX ? -EINVAL : 0;
}

/* The kernel for 64 queries at a time, where one was made for this head; else the one for any. */
static enum cuda_kernel kernel_pick(const struct kernel_attention *op)
{
	bool fits = !op->causal && op->window == 0 && !op->key_mask && op->softcap == 0 &&
		    aligned(op->q, op->ldq, 4) && aligned(op->y, op->ldy, 4) &&
		    (!op->gate || aligned(op->gate, op->ldg, 4));

	for (int i = 0; i < op->segments; i++)
		if (op->segment[i].tokens)
			fits &= aligned(op->segment[i].k, op->segment[i].ld, 16) &&
				aligned(op->segment[i].v, op->segment[i].ld, 16);
	if (fits && op->head_dim == 32)
		return CUDA_KERNEL_attention_32;
	if (fits && op->head_dim == 80)
		return CUDA_KERNEL_attention_80;
	if (fits && op->head_dim == 112)
		return CUDA_KERNEL_attention_112;
	return CUDA_KERNEL_attention_any;
}

int cuda_run_attention(struct kernel_device *device, const void *params, struct kernel_queue *queue)
{
	const struct kernel_attention *op = params;
	struct attention_params p = {
		.q = op->q,
		.gate = op->gate,
		.y = op->y,
		.ldq = op->ldq,
		.ldg = op->ldg,
		.ldy = op->ldy,
		.segments = op->segments,
		.rows = op->rows,
		.head_dim = op->head_dim,
		.scale = op->scale,
		.softcap = op->softcap,
		.causal = op->causal,
		.window = op->window,
		.query_offset = op->query_offset,
		.key_mask = op->key_mask,
	};
	struct cuda_launch launch = { .params = &p, .block = { ATTENTION_THREADS } };
	const int r = check(op);

	if (r < 0)
		return r;
	p.heads_per_kv = op->heads / op->kv_heads;
	for (int i = 0; i < op->segments; i++)
		p.segment[i] = (struct attention_segment){ op->segment[i].k, op->segment[i].v,
							   op->segment[i].ld,
							   op->segment[i].tokens };
	launch.kernel = kernel_pick(op);
	launch.grid[0] = (unsigned int)op->rows;
	launch.grid[1] = (unsigned int)op->heads;
	if (launch.kernel == CUDA_KERNEL_attention_any)
		return op->head_dim > ATTENTION_ANY_MOST ? -ENOTSUP :
							   cuda_launch(device, queue, &launch);
	launch.grid[0] = cuda_blocks((size_t)op->rows, ATTENTION_ROWS);
	launch.shared_bytes = ATTENTION_SHARED((unsigned int)op->head_dim);
	return cuda_launch(device, queue, &launch);
}
