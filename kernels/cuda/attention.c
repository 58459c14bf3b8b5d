/* Which kernel an attention takes. */
#include "kernels/cuda/attention.h"

#include <limits.h>

#include "kernels/cuda/device.h"

_Static_assert(ATTENTION_MMA_SHARED(112, 2) <= CUDA_PORTABLE_SHARED,
	       "two stages of the largest head");

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
	int rows, keys, threads; /* queries of an item, keys of a step */
	int stages;		 /* of the ring */
	bool halves;		 /* it has half items (attention_split) */
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

static struct kernel_choice mma_choice(const struct kernel_device *device, int head_dim)
{
	struct kernel_choice choice = {
		.kernel = head_dim == 32 ? CUDA_KERNEL_attention_mma_32 :
			  head_dim == 80 ? CUDA_KERNEL_attention_mma_80 :
					   CUDA_KERNEL_attention_mma_112,
		.rows = ATTENTION_MMA_ROWS,
		.keys = ATTENTION_MMA_KEYS,
		.threads = ATTENTION_MMA_THREADS,
		.stages = ATTENTION_MMA_STAGES,
		.halves = true,
	};

	while (choice.stages > 2 &&
	       ATTENTION_MMA_SHARED(head_dim, choice.stages) > device->properties.shared_bytes)
		choice.stages--;
	choice.shared_bytes = (unsigned int)ATTENTION_MMA_SHARED(head_dim, choice.stages);
	return choice;
}

/* The kernels for many queries at a time, where one was made for this head; else the one for any. */
static struct kernel_choice kernel_pick(const struct kernel_device *device,
					const struct kernel_attention *op)
{
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
		return (struct kernel_choice){ .kernel = CUDA_KERNEL_attention_any };
	if (is_wgmma(device, op))
		return (struct kernel_choice){
			.kernel = CUDA_KERNEL_attention_wgmma,
			.rows = ATTENTION_WGMMA_ROWS,
			.keys = ATTENTION_WGMMA_KEYS,
			.threads = ATTENTION_WGMMA_THREADS,
			.shared_bytes = ATTENTION_WGMMA_SHARED,
		};
	return mma_choice(device, op->head_dim);
}

/* ----------------------------------------------------------------------------------- the split */

static size_t part_bytes(const struct kernel_attention *op, int rows)
{
	return sizeof(float) * (size_t)rows * (size_t)(op->head_dim + 2);
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
	const struct kernel_attention *op = params;
	const int rows = is_wgmma(device, op) ? ATTENTION_WGMMA_ROWS : ATTENTION_MMA_ROWS;

	if (op->head_dim > ATTENTION_ANY_MOST)
		return KERNEL_UNSUPPORTED;
	if (!may_split(op))
		return 0;
	return 2 * (size_t)device->properties.multiprocessors * part_bytes(op, rows);
}

static int split_make(const struct kernel_device *device, const struct kernel_attention *op,
		      const struct kernel_choice *choice, struct attention_split *split)
{
	const size_t room = op->workspace.bytes / (2 * part_bytes(op, choice->rows));
	int blocks = device->properties.multiprocessors;
	const int last = op->rows % choice->rows;
	const bool halves = choice->halves && last > 0 && last <= choice->rows / 2;
	int64_t items;
	int line;

	split->rows = choice->rows;
	split->row_tiles = op->rows / choice->rows + (last > 0 && !halves);
	for (int i = 0; i < op->segments; i++)
		split->steps += (op->segment[i].tokens + choice->keys - 1) / choice->keys;
	split->half_steps = (split->steps + 1) / 2;
	items = (int64_t)(split->row_tiles + halves) * op->heads;
	if (items * split->steps > INT_MAX || blocks < 1)
		return -ENOTSUP;
	split->items = (int)items;
	split->fulls = split->row_tiles * op->heads;
	if (may_split(op) && room < (size_t)blocks && room > 0)
		blocks = (int)room;
	if (may_split(op) && room > 0) {
		split->whole = split->fulls - split->fulls % blocks;
		line = (split->fulls - split->whole) * split->steps +
		       (split->items - split->fulls) * split->half_steps;
		split->blocks = split->whole == 0 && line < blocks ? line : blocks;
		split->each = line / split->blocks;
		split->more = line % split->blocks;
	} else {
		split->blocks = items < blocks ? (int)items : blocks;
		split->whole = split->items;
	}
	split->parts = op->workspace.data;
	return 0;
}

/* ------------------------------------------------------------------------------------ launching */

/* A matrix of several heads' rows, and the boxes a kernel reads of it. */
struct rows_map {
	const void *data;
	size_t ld;
	int rows, heads, head_dim, box_rows;
};

/* [rows][heads][head_dim] in boxes of `lanes` of one head, swizzled by `swizzle`. */
static int map_encode(const struct kernel_device *d, CUtensorMap *map, const struct rows_map *m,
		      int lanes, CUtensorMapSwizzle swizzle)
{
	const cuuint64_t size[3] = { (cuuint64_t)m->head_dim, (cuuint64_t)m->heads,
				     (cuuint64_t)m->rows };
	const cuuint64_t stride[2] = { 2 * size[0], 2 * (cuuint64_t)m->ld };
	const cuuint32_t box[3] = { (cuuint32_t)lanes, 1, (cuuint32_t)m->box_rows };
	const cuuint32_t step[3] = { 1, 1, 1 };

	return cuda_status(d->driver.cuTensorMapEncodeTiled(
		map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, (void *)(uintptr_t)m->data, size, stride,
		box, step, CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle,
		CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE));
}

/* One map, of boxes of 64 lanes, or one for each kind of box. */
static int maps_encode(const struct kernel_device *d, CUtensorMap *map, const struct rows_map *m,
		       bool wgmma)
{
	static const struct {
		int lanes;
		CUtensorMapSwizzle swizzle;
	} kinds[ATTENTION_BOXES] = {
		{ 64, CU_TENSOR_MAP_SWIZZLE_128B },
		{ 32, CU_TENSOR_MAP_SWIZZLE_64B },
		{ 16, CU_TENSOR_MAP_SWIZZLE_32B },
	};
	int r = 0;

	if (wgmma)
		return map_encode(d, map, m, ATTENTION_WGMMA_BOX, CU_TENSOR_MAP_SWIZZLE_128B);
	for (int i = 0; i < ATTENTION_BOXES && r >= 0; i++)
		if (m->head_dim & kinds[i].lanes)
			r = map_encode(d, &map[i], m, kinds[i].lanes, kinds[i].swizzle);
	return r;
}

/* Maps of the queries, and of each segment's keys and values, `boxes` of each tensor. */
static int all_maps_encode(const struct kernel_device *d, const struct kernel_attention *op,
			   const struct kernel_choice *choice, CUtensorMap *q, CUtensorMap *k,
			   CUtensorMap *v)
{
	const bool wgmma = choice->kernel == CUDA_KERNEL_attention_wgmma;
	const int boxes = wgmma ? 1 : ATTENTION_BOXES;
	struct rows_map m = { op->q, op->ldq, op->rows, op->heads, op->head_dim, choice->rows };
	int r = maps_encode(d, q, &m, wgmma);

	for (int i = 0; i < op->segments && r >= 0; i++) {
		const struct kernel_segment *s = &op->segment[i];

		if (s->tokens == 0)
			continue;
		m = (struct rows_map){ s->k,	     s->ld,	   s->tokens,
				       op->kv_heads, op->head_dim, choice->keys };
		r = maps_encode(d, k + i * boxes, &m, wgmma);
		m.data = s->v;
		if (r >= 0)
			r = maps_encode(d, v + i * boxes, &m, wgmma);
	}
	return r;
}

static int maps_launch(struct kernel_device *device, const struct kernel_attention *op,
		       const struct attention_params *p, const struct kernel_choice *choice,
		       struct cuda_launch launch, struct kernel_queue *queue)
{
	struct attention_wgmma_params w = { .p = *p };
	struct attention_mma_params m = { .p = *p, .stages = choice->stages };
	int r;

	if (choice->kernel == CUDA_KERNEL_attention_wgmma) {
		launch.params = &w;
		r = all_maps_encode(device, op, choice, &w.q, w.k, w.v);
	} else {
		launch.params = &m;
		r = all_maps_encode(device, op, choice, m.q, m.k[0], m.v[0]);
	}
	return r < 0 ? r : cuda_launch(device, queue, &launch);
}

static int tiles_launch(struct kernel_device *device, const struct kernel_attention *op,
			struct attention_params *p, const struct kernel_choice *choice,
			struct kernel_queue *queue)
{
	struct cuda_launch launch = { .kernel = choice->kernel,
				      .block = { (unsigned int)choice->threads },
				      .shared_bytes = choice->shared_bytes,
				      .dependent = true };
	int r = split_make(device, op, choice, &p->split);

	if (r < 0)
		return r;
	launch.grid[0] = (unsigned int)p->split.blocks;
	r = maps_launch(device, op, p, choice, launch, queue);
	if (r < 0 || p->split.whole == p->split.items)
		return r;
	launch = (struct cuda_launch){
		.kernel = CUDA_KERNEL_attention_merge,
		.grid = { (unsigned int)(p->split.items - p->split.whole),
			  (unsigned int)p->split.rows / ATTENTION_MERGE_ROWS },
		.block = { ATTENTION_MERGE_ROWS * (unsigned int)op->head_dim / 8 },
		.params = p,
		.dependent = true,
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
		.block = { 32 * ATTENTION_ANY_WARPS },
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
