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

/* ------------------------------------------------------------------------ which kernel, how many */

struct kernel_choice {
	enum cuda_kernel kernel;
	int keys, threads, resident; /* keys of a step; blocks of a multiprocessor */
	unsigned int shared_bytes;
};

static bool has_tiles(const struct kernel_attention *op)
{
	return !op->causal && op->window == 0 && !op->key_mask && op->softcap == 0 &&
	       (op->head_dim == 32 || op->head_dim == 80 || op->head_dim == 112);
}

static bool is_wgmma(const struct kernel_device *device, const struct kernel_attention *op)
{
	return device->properties.has_wgmma && op->head_dim == ATTENTION_WGMMA_HEAD;
}

/* The kernels for 128 queries at a time, where one was made for this head; else the one for any. */
static struct kernel_choice kernel_pick(struct kernel_device *device,
					const struct kernel_attention *op)
{
	struct kernel_choice choice = { .kernel = CUDA_KERNEL_attention_any };
	bool fits = has_tiles(op) && aligned(op->q, op->ldq, 16) && aligned(op->y, op->ldy, 16) &&
		    (!op->gate || aligned(op->gate, op->ldg, 4));
	int tokens = 0;

	for (int i = 0; i < op->segments; i++) {
		tokens += op->segment[i].tokens;
		if (op->segment[i].tokens)
			fits &= aligned(op->segment[i].k, op->segment[i].ld, 16) &&
				aligned(op->segment[i].v, op->segment[i].ld, 16);
	}
	if (!fits || tokens == 0)
		return choice;
	if (is_wgmma(device, op))
		return (struct kernel_choice){ CUDA_KERNEL_attention_wgmma, ATTENTION_WGMMA_KEYS,
					       ATTENTION_WGMMA_THREADS, 1, ATTENTION_WGMMA_SHARED };
	choice.kernel = op->head_dim == 32 ? CUDA_KERNEL_attention_32 :
			op->head_dim == 80 ? CUDA_KERNEL_attention_80 :
					     CUDA_KERNEL_attention_112;
	choice.keys = ATTENTION_KEYS;
	choice.threads = ATTENTION_THREADS;
	choice.shared_bytes = ATTENTION_SHARED((unsigned int)op->head_dim);
	choice.resident =
		cuda_resident_blocks(device, choice.kernel, choice.threads, choice.shared_bytes);
	return choice;
}

/* ----------------------------------------------------------------------------------- the split */

static size_t part_bytes(const struct kernel_attention *op)
{
	return sizeof(float) * ATTENTION_ROWS * (size_t)(op->head_dim + 2);
}

/*
 * Parts cost their way through memory: an item is only worth splitting when it has many keys. Blocks that
 * may have parts are as many as run together.
 */
static bool may_split(const struct kernel_attention *op)
{
	enum { MANY_KEYS = 2048 };
	int64_t keys = 0;

	for (int i = 0; i < op->segments; i++)
		keys += op->segment[i].tokens;
	return has_tiles(op) && keys >= MANY_KEYS;
}

size_t cuda_workspace_attention(const struct kernel_device *device, const void *params)
{
	enum { MOST_RESIDENT = 2 };
	const struct kernel_attention *op = params;
	const size_t resident = is_wgmma(device, op) ? 1 : MOST_RESIDENT;

	if (!may_split(op))
		return 0;
	return 2 * resident * (size_t)device->properties.multiprocessors * part_bytes(op);
}

static int split_make(const struct kernel_device *device, const struct kernel_attention *op,
		      const struct kernel_choice *choice, struct attention_split *split)
{
	const size_t room = op->workspace.bytes / (2 * part_bytes(op));
	int blocks = choice->resident * device->properties.multiprocessors;
	int64_t items;

	split->row_tiles = (op->rows - 1) / ATTENTION_ROWS + 1;
	for (int i = 0; i < op->segments; i++)
		split->steps += (op->segment[i].tokens + choice->keys - 1) / choice->keys;
	items = (int64_t)split->row_tiles * op->heads;
	if (items * split->steps > INT_MAX || blocks < 1)
		return -ENOTSUP;
	split->items = (int)items;
	if (may_split(op) && room < (size_t)blocks && room > 0)
		blocks = (int)room;
	if (may_split(op) && room > 0) {
		split->blocks = items * split->steps < blocks ? (int)items * split->steps : blocks;
		split->whole = split->items - split->items % split->blocks;
	} else {
		split->blocks = items < blocks ? (int)items : blocks;
		split->whole = split->items;
	}
	split->parts = op->workspace.data;
	return 0;
}

/* ------------------------------------------------------------------------------------ launching */

/* [rows][heads][head_dim] with a row stride, in boxes of 64 lanes of `box_rows` rows of one head. */
static int map_encode(const struct kernel_device *d, CUtensorMap *map, const void *data, size_t ld,
		      int rows, int heads, int box_rows)
{
	const cuuint64_t size[3] = { ATTENTION_WGMMA_HEAD, (cuuint64_t)heads, (cuuint64_t)rows };
	const cuuint64_t stride[2] = { 2 * ATTENTION_WGMMA_HEAD, 2 * (cuuint64_t)ld };
	const cuuint32_t box[3] = { ATTENTION_WGMMA_BOX, 1, (cuuint32_t)box_rows };
	const cuuint32_t step[3] = { 1, 1, 1 };

	return cuda_status(d->driver.cuTensorMapEncodeTiled(
		map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, (void *)(uintptr_t)data, size, stride,
		box, step, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
		CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE));
}

static int wgmma_launch(struct kernel_device *device, const struct kernel_attention *op,
			const struct attention_params *p, struct cuda_launch launch,
			struct kernel_queue *queue)
{
	struct attention_wgmma_params w = { .p = *p };
	int r = map_encode(device, &w.q, op->q, op->ldq, op->rows, op->heads, ATTENTION_ROWS);

	for (int i = 0; i < op->segments && r >= 0; i++) {
		const struct kernel_segment *s = &op->segment[i];

		if (s->tokens == 0)
			continue;
		r = map_encode(device, &w.k[i], s->k, s->ld, s->tokens, op->kv_heads,
			       ATTENTION_WGMMA_KEYS);
		if (r >= 0)
			r = map_encode(device, &w.v[i], s->v, s->ld, s->tokens, op->kv_heads,
				       ATTENTION_WGMMA_KEYS);
	}
	launch.params = &w;
	return r < 0 ? r : cuda_launch(device, queue, &launch);
}

static int tiles_launch(struct kernel_device *device, const struct kernel_attention *op,
			struct attention_params *p, const struct kernel_choice *choice,
			struct kernel_queue *queue)
{
	struct cuda_launch launch = { .kernel = choice->kernel,
				      .block = { (unsigned int)choice->threads },
				      .shared_bytes = choice->shared_bytes,
				      .params = p };
	int r = split_make(device, op, choice, &p->split);

	if (r < 0)
		return r;
	launch.grid[0] = (unsigned int)p->split.blocks;
	r = choice->kernel == CUDA_KERNEL_attention_wgmma ?
		    wgmma_launch(device, op, p, launch, queue) :
		    cuda_launch(device, queue, &launch);
	if (r < 0 || p->split.whole == p->split.items)
		return r;
	launch = (struct cuda_launch){
		.kernel = CUDA_KERNEL_attention_merge,
		.grid = { (unsigned int)(p->split.items - p->split.whole),
			  ATTENTION_ROWS / ATTENTION_MERGE_ROWS },
		.block = { ATTENTION_MERGE_ROWS * (unsigned int)op->head_dim / 8 },
		.params = p,
	};
	return cuda_launch(device, queue, &launch);
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
		.scale_log2 = op->scale * 1.44269504f,
		.causal = op->causal,
		.window = op->window,
		.query_offset = op->query_offset,
		.key_mask = op->key_mask,
	};
	const struct cuda_launch any = {
		.kernel = CUDA_KERNEL_attention_any,
		.grid = { (unsigned int)op->rows, (unsigned int)op->heads },
		.block = { ATTENTION_THREADS },
		.params = &p,
	};
	struct kernel_choice choice;
	const int r = check(op);

	if (r < 0)
		return r;
	p.heads_per_kv = op->heads / op->kv_heads;
	for (int i = 0; i < op->segments; i++)
		p.segment[i] = (struct attention_segment){ op->segment[i].k, op->segment[i].v,
							   op->segment[i].ld,
							   op->segment[i].tokens };
	choice = kernel_pick(device, op);
	if (choice.kernel != CUDA_KERNEL_attention_any)
		return tiles_launch(device, op, &p, &choice, queue);
	return op->head_dim > ATTENTION_ANY_MOST ? -ENOTSUP : cuda_launch(device, queue, &any);
}
