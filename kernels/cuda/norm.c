/* Launchers of norms and rotations. */
#include "kernels/cuda/norm.h"

#include "kernels/cuda/device.h"

enum { ROW_THREADS = 128, MOST_CHANNELS = 3072 }; /* as in row.cuh */

static bool aligned(const void *p)
{
	return (uintptr_t)p % 16 == 0;
}

static bool vectors(int channels)
{
	return channels % 8 == 0 && channels <= MOST_CHANNELS;
}

static int launch_rows(struct kernel_device *device, struct kernel_queue *queue,
		       enum cuda_kernel kernel, int rows, const void *params)
{
	return cuda_launch(device, queue,
			   &(struct cuda_launch){
				   .kernel = kernel,
				   .grid = { (unsigned int)rows },
				   .block = { ROW_THREADS },
				   .params = params,
				   .dependent = true,
			   });
}

int cuda_run_layer_norm_modulate(struct kernel_device *device, const void *params,
				 struct kernel_queue *queue)
{
	const struct kernel_layer_norm_modulate *op = params;
	const struct layer_norm_params p = {
		.x = op->x,
		.scale = op->scale,
		.shift = op->shift,
		.y = op->y,
		.epsilon = op->epsilon,
		.rows = op->rows,
		.channels = op->channels,
	};
	const bool fast = vectors(op->channels) && aligned(op->x) && aligned(op->y) &&
			  aligned(op->scale) && aligned(op->shift);

	if (op->rows < 1 || op->channels < 1)
		return -EINVAL;
	return launch_rows(device, queue,
			   fast ? CUDA_KERNEL_layer_norm_modulate :
				  CUDA_KERNEL_layer_norm_modulate_any,
			   op->rows, &p);
}

int cuda_run_rms_norm(struct kernel_device *device, const void *params, struct kernel_queue *queue)
{
	const struct kernel_rms_norm *op = params;
	const struct rms_norm_params p = {
		.x = op->x,
		.residual = op->residual,
		.weight = op->weight,
		.y = op->y,
		.weight_offset = op->weight_offset,
		.epsilon = op->epsilon,
		.rows = op->rows,
		.channels = op->channels,
	};
	const bool fast = vectors(op->channels) && aligned(op->x) && aligned(op->y) &&
			  aligned(op->residual) && aligned(op->weight);

	if (op->rows < 1 || op->channels < 1)
		return -EINVAL;
	return launch_rows(device, queue, fast ? CUDA_KERNEL_rms_norm : CUDA_KERNEL_rms_norm_any,
			   op->rows, &p);
}

/* Valid for `tokens` tokens of heads of `head_dim` lanes; NULL is no rotation. */
static int rope_take(const struct kernel_rope *rope, int tokens, int head_dim,
		     struct rope_tables *ret)
{
	*ret = (struct rope_tables){ .height = 1, .width = 1 };
	if (!rope)
		return 0;
	if (head_dim % 2 || rope->frames < 1 || rope->height < 1 || rope->width < 1 ||
	    (int64_t)rope->frames * rope->height * rope->width != tokens || rope->pairs_t < 0 ||
	    rope->pairs_y < 0 || rope->pairs_x < 0 ||
	    rope->pairs_t + rope->pairs_y + rope->pairs_x != head_dim / 2)
		return -EINVAL;
	*ret = (struct rope_tables){
		.cos_t = rope->cos_t,
		.sin_t = rope->sin_t,
		.cos_y = rope->cos_y,
		.sin_y = rope->sin_y,
		.cos_x = rope->cos_x,
		.sin_x = rope->sin_x,
		.height = rope->height,
		.width = rope->width,
		.pairs_t = rope->pairs_t,
		.pairs_y = rope->pairs_y,
		.pairs_x = rope->pairs_x,
	};
	return 0;
}

int cuda_run_qk_norm_rope(struct kernel_device *device, const void *params,
			  struct kernel_queue *queue)
{
	const struct kernel_qk_norm_rope *op = params;
	struct qk_norm_rope_params p = {
		.x = op->x,
		.ldx = op->ldx,
		.weight = op->weight,
		.epsilon = op->epsilon,
		.rows = op->rows,
		.channels = op->heads * op->head_dim,
		.head_dim = op->head_dim,
	};
	bool fast;

	if (op->rows < 1 || op->heads < 1 || op->head_dim < 1 || op->ldx < (size_t)p.channels ||
	    rope_take(op->rope, op->rows, op->head_dim, &p.rope) < 0)
		return -EINVAL;
	fast = vectors(p.channels) && op->head_dim % 8 == 0 && op->ldx % 8 == 0 && aligned(op->x) &&
	       aligned(op->weight);
	return launch_rows(device, queue,
			   fast ? CUDA_KERNEL_qk_norm_rope : CUDA_KERNEL_qk_norm_rope_any, op->rows,
			   &p);
}

int cuda_run_rope_half(struct kernel_device *device, const void *params, struct kernel_queue *queue)
{
	const struct kernel_rope_half *op = params;
	const struct rope_half_params p = {
		.x = op->x,
		.ldx = op->ldx,
		.cos = op->cos,
		.sin = op->sin,
		.rows = op->rows,
		.heads = op->heads,
		.head_dim = op->head_dim,
	};

	if (op->rows < 1 || op->heads < 1 || op->head_dim < 2 || op->head_dim % 2 ||
	    op->ldx < (size_t)op->heads * (size_t)op->head_dim)
		return -EINVAL;
	return cuda_launch_flat(device, queue, CUDA_KERNEL_rope_half,
				(size_t)op->rows * (size_t)op->heads * (size_t)op->head_dim / 2,
				&p);
}

int cuda_run_rope_shift(struct kernel_device *device, const void *params,
			struct kernel_queue *queue)
{
	const struct kernel_rope_shift *op = params;
	const struct rope_shift_params p = {
		.x = op->x,
		.y = op->y,
		.cos = op->cos,
		.sin = op->sin,
		.x_is_float = op->x_is_float,
		.y_is_float = op->y_is_float,
		.rows = op->rows,
		.heads = op->heads,
		.head_dim = op->head_dim,
		.pairs = op->pairs,
	};

	if (op->rows < 1 || op->heads < 1 || op->head_dim < 1 || op->pairs < 0 ||
	    op->pairs > op->head_dim / 2 || (op->x == op->y && op->x_is_float != op->y_is_float))
		return -EINVAL;
	return cuda_launch_flat(device, queue, CUDA_KERNEL_rope_shift,
				op->rows * (size_t)op->heads * (((size_t)op->head_dim + 1) / 2),
				&p);
}
