/* What the tensor units do at most. */
#include "kernels/cuda/peak.h"

#include "kernels/cuda/table.h"

int cuda_tensor_peak(struct kernel_device *device, struct kernel_queue *queue, double *ret_flops)
{
	const unsigned int blocks = PEAK_BLOCKS * (unsigned int)device->properties.multiprocessors;
	const struct peak_params p = { .pair = 0x3f803f80, /* 1, 1 */
				       .rounds = PEAK_ROUNDS };
	int r = cuda_enter(device);

	queue->running = KERNEL_OP_COUNT;
	if (r >= 0)
		r = cuda_launch(device, queue,
				&(struct cuda_launch){
					.kernel = CUDA_KERNEL_peak_mma,
					.grid = { blocks },
					.block = { PEAK_THREADS },
					.params = &p,
				});
	if (r >= 0)
		*ret_flops = (double)blocks * (PEAK_THREADS / 32) * PEAK_ROUNDS *
			     PEAK_ACCUMULATORS * PEAK_FLOPS;
	return r;
}
