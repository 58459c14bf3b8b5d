/* Launchers of the element-wise ops. */
#include "kernels/cuda/elementwise.h"

#include "kernels/cuda/device.h"

int cuda_run_embedding(struct kernel_device *device, const void *params, struct kernel_queue *queue)
{
	const struct kernel_embedding *op = params;
	const struct embedding_params p = {
		.table = op->table->prepared,
		.ids = op->ids,
		.y = op->y,
		.scale = op->scale,
		.rows = op->rows,
		.channels = op->table->in,
		.vocabulary = op->table->out,
	};

	if (op->rows < 1 || !op->table->prepared)
		return -EINVAL;
	return cuda_launch_flat(device, queue, CUDA_KERNEL_embedding,
				(size_t)op->rows * (size_t)op->table->in, &p);
}

int cuda_run_glu_gelu(struct kernel_device *device, const void *params, struct kernel_queue *queue)
{
	const struct kernel_glu_gelu *op = params;
	const struct glu_gelu_params p = {
		.gate = op->gate,
		.up = op->up,
		.y = op->y,
		.count = (size_t)op->rows * (size_t)op->columns,
	};

	if (op->rows < 1 || op->columns < 1)
		return -EINVAL;
	return cuda_launch_flat(device, queue, CUDA_KERNEL_glu_gelu, p.count, &p);
}

int cuda_run_concat(struct kernel_device *device, const void *params, struct kernel_queue *queue)
{
	const struct kernel_concat *op = params;
	const struct concat_params p = {
		.a = op->a,
		.b = op->b,
		.y = op->y,
		.rows = op->rows,
		.channels_a = op->channels_a,
		.channels_b = op->channels_b,
	};

	if (op->rows < 1 || op->channels_a < 1 || op->channels_b < 1)
		return -EINVAL;
	return cuda_launch_flat(
		device, queue, CUDA_KERNEL_concat,
		(size_t)op->rows * ((size_t)op->channels_a + (size_t)op->channels_b), &p);
}

int cuda_run_euler_step(struct kernel_device *device, const void *params,
			struct kernel_queue *queue)
{
	const struct kernel_euler_step *op = params;
	const struct euler_step_params p = {
		.x = op->x,
		.v = op->v,
		.step = op->step,
		.count = op->count,
	};

	return op->count ? cuda_launch_flat(device, queue, CUDA_KERNEL_euler_step, op->count, &p) :
			   0;
}

int cuda_run_health(struct kernel_device *device, const void *params, struct kernel_queue *queue)
{
	const struct kernel_health *op = params;
	const struct health_params p = {
		.x = op->x,
		.x_is_float = op->x_is_float,
		.count = op->count,
		.limit = op->limit,
		.flags = op->flags,
	};

	/* A thread takes 16 bytes at a time. */
	return op->count ? cuda_launch_flat(device, queue, CUDA_KERNEL_health,
					    op->count / (op->x_is_float ? 4 : 8) + 1, &p) :
			   0;
}

int cuda_run_channel_affine(struct kernel_device *device, const void *params,
			    struct kernel_queue *queue)
{
	const struct kernel_channel_affine *op = params;
	const struct channel_affine_params p = {
		.x = op->x,
		.y = op->y,
		.x_is_float = op->x_is_float,
		.y_is_float = op->y_is_float,
		.scale = op->scale,
		.shift = op->shift,
		.rows = op->rows,
		.ldx = op->ldx,
		.channels = op->channels,
	};

	if (op->rows < 1 || op->channels < 1 || op->ldx < (size_t)op->channels)
		return -EINVAL;
	/* In place, rows or types of other sizes would overtake what is still to be read. */
	if (op->x == op->y && (op->ldx != (size_t)op->channels || op->x_is_float != op->y_is_float))
		return -EINVAL;
	return cuda_launch_flat(device, queue, CUDA_KERNEL_channel_affine,
				op->rows * (size_t)op->channels, &p);
}

int cuda_run_noise(struct kernel_device *device, const void *params, struct kernel_queue *queue)
{
	enum { MOST_SIDE = 65536 };
	const struct kernel_noise *op = params;
	const struct noise_params p = {
		.y = op->y,
		.seed = op->seed,
		.first_frame = op->first_frame,
		.frames = op->frames,
		.height = op->height,
		.width = op->width,
		.channels = op->channels,
	};

	if (op->frames < 1 || op->height < 1 || op->width < 1 || op->channels < 1 ||
	    op->height > MOST_SIDE || op->width > MOST_SIDE)
		return -EINVAL;
	return cuda_launch_flat(device, queue, CUDA_KERNEL_noise,
				(size_t)op->frames * (size_t)op->height * (size_t)op->width *
					(size_t)op->channels,
				&p);
}
