/* Launchers of patchify and unpatchify. */
#include "kernels/cuda/pixel.h"

#include "kernels/cuda/device.h"

static bool sizes_valid(const struct pixel_params *p)
{
	return p->frames >= 1 && p->height >= 1 && p->width >= 1 && p->channels >= 1 &&
	       p->patch >= 1 && p->height % p->patch == 0 && p->width % p->patch == 0 &&
	       p->patch <= 64 && p->channels <= 64 && p->width <= 1 << 18;
}

/* Grids of `row` threads for every one of `rows` rows of all frames; what does not fit a grid is unsupported. */
static int launch(struct kernel_device *device, struct kernel_queue *queue, enum cuda_kernel kernel,
		  size_t row, int rows, const struct pixel_params *p)
{
	enum { THREADS = 256, MOST = 65535 };

	if (rows > MOST || p->frames > MOST)
		return -ENOTSUP;
	return cuda_launch(device, queue,
			   &(struct cuda_launch){
				   .kernel = kernel,
				   .grid = { cuda_blocks(row, THREADS), (unsigned int)rows,
					     (unsigned int)p->frames },
				   .block = { THREADS },
				   .params = p,
			   });
}

int cuda_run_patchify(struct kernel_device *device, const void *params, struct kernel_queue *queue)
{
	const struct kernel_patchify *op = params;
	const struct pixel_params p = {
		.from = op->pixels,
		.to = op->y,
		.pixels_are_float = op->pixels_are_float,
		.row_bytes = op->row_bytes,
		.frame_bytes = op->frame_bytes,
		.frames = op->frames,
		.height = op->height,
		.width = op->width,
		.channels = op->channels,
		.patch = op->patch,
	};

	if (!sizes_valid(&p))
		return -EINVAL;
	return launch(device, queue, CUDA_KERNEL_patchify,
		      (size_t)p.width * (size_t)p.channels * (size_t)p.patch, p.height / p.patch,
		      &p);
}

int cuda_run_unpatchify(struct kernel_device *device, const void *params,
			struct kernel_queue *queue)
{
	const struct kernel_unpatchify *op = params;
	const struct pixel_params p = {
		.from = op->x,
		.to = op->pixels,
		.pixels_are_float = op->pixels_are_float,
		.truncate = op->rounding == KERNEL_ROUND_TRUNCATE,
		.row_bytes = op->row_bytes,
		.frame_bytes = op->frame_bytes,
		.frames = op->frames,
		.height = op->height,
		.width = op->width,
		.channels = op->channels,
		.patch = op->patch,
	};

	if (!sizes_valid(&p))
		return -EINVAL;
	return launch(device, queue, CUDA_KERNEL_unpatchify, (size_t)p.width, p.height, &p);
}
