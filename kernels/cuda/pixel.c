/* Launchers of patchify and unpatchify. */
#include "kernels/cuda/pixel.h"

#include "kernels/cuda/device.h"

static bool sizes_valid(const struct pixel_params *p)
{
	return p->frames >= 1 && p->height >= 1 && p->width >= 1 && p->channels >= 1 &&
	       p->patch >= 1 && p->height % p->patch == 0 && p->width % p->patch == 0 &&
	       p->patch <= 1024 && p->channels <= 1024;
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
	return cuda_launch_flat(
		device, queue, CUDA_KERNEL_patchify,
		(size_t)p.frames * (size_t)p.height * (size_t)p.width * (size_t)p.channels, &p);
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
	return cuda_launch_flat(device, queue, CUDA_KERNEL_unpatchify,
				(size_t)p.frames * (size_t)p.height * (size_t)p.width, &p);
}
