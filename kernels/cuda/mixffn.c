/* Launcher of the depth-wise convolution. */
#include "kernels/cuda/mixffn.h"

#include "kernels/cuda/device.h"

enum {
	THREADS = 128,
	LANES = 4,  /* channels of a thread; as in mixffn.cu */
	ROWS = 2,   /* of the output, of a thread */
	STRIP = 20, /* two columns of every strip are read twice */
};

int cuda_run_depthwise_glu(struct kernel_device *device, const void *params,
			   struct kernel_queue *queue)
{
	const struct kernel_depthwise_glu *op = params;
	const struct depthwise_glu_params p = {
		.a = op->a,
		.weight = op->weight,
		.bias = op->bias,
		.y = op->y,
		.frames = op->frames,
		.height = op->height,
		.width = op->width,
		.features = op->features,
		.strip = STRIP,
	};
	const size_t rows = (size_t)op->frames * (size_t)op->height;
	const size_t pairs = (size_t)op->frames * (((size_t)op->height + ROWS - 1) / ROWS);
	const bool fast = op->features % LANES == 0 && (uintptr_t)op->a % 16 == 0 &&
			  (uintptr_t)op->y % 16 == 0 && (uintptr_t)op->weight % 16 == 0 &&
			  (uintptr_t)op->bias % 16 == 0 && pairs <= 65535;

	if (op->frames < 1 || op->height < 1 || op->width < 1 || op->features < 1)
		return -EINVAL;
	if (!fast)
		return cuda_launch_flat(device, queue, CUDA_KERNEL_depthwise_glu_any,
					rows * (size_t)op->width * (size_t)op->features, &p);
	return cuda_launch(device, queue,
			   &(struct cuda_launch){
				   .kernel = CUDA_KERNEL_depthwise_glu,
				   .grid = { cuda_blocks((size_t)op->features / LANES, THREADS),
					     (unsigned int)pairs,
					     cuda_blocks((size_t)op->width, STRIP) },
				   .block = { THREADS },
				   .params = &p,
			   });
}
