/* Launching kernels, and remembering which ones an op used. */
#include "kernels/cuda/device.h"
#include "kernels/cuda/table.h"

#include <assert.h>

int cuda_enter(struct kernel_device *device)
{
	return cuda_status(device->driver.cuCtxSetCurrent(device->context));
}

void cuda_remember(struct kernel_device *device, enum kernel_op op, const char *kernel)
{
	bool known = false;

	if ((unsigned int)op >= KERNEL_OP_COUNT)
		return;
	(void)pthread_mutex_lock(&device->used_lock);
	for (int i = 0; i < device->used[op].count; i++)
		known |= device->used[op].kernel[i] == kernel;
	if (!known && device->used[op].count < CUDA_KERNELS_USED)
		device->used[op].kernel[device->used[op].count++] = kernel;
	(void)pthread_mutex_unlock(&device->used_lock);
}

static unsigned int at_least_one(unsigned int n)
{
	return n ? n : 1;
}

int cuda_launch(struct kernel_device *device, struct kernel_queue *queue,
		const struct cuda_launch *launch)
{
	CUlaunchAttribute dependent = {
		.id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
		.value.programmaticStreamSerializationAllowed = 1,
	};
	const CUlaunchConfig config = {
		.gridDimX = launch->grid[0],
		.gridDimY = at_least_one(launch->grid[1]),
		.gridDimZ = at_least_one(launch->grid[2]),
		.blockDimX = launch->block[0],
		.blockDimY = at_least_one(launch->block[1]),
		.blockDimZ = at_least_one(launch->block[2]),
		.sharedMemBytes = launch->shared_bytes,
		.hStream = queue->stream,
		.attrs = &dependent,
		.numAttrs = launch->dependent,
	};
	/* The driver reads the block and does not write it. */
	void *params[] = { (void *)(uintptr_t)launch->params };

	assert((unsigned int)launch->kernel < CUDA_KERNEL_COUNT);
	if (!launch->grid[0] || !launch->block[0] ||
	    launch->shared_bytes > (unsigned int)device->function_shared[launch->kernel])
		return -EINVAL;
	cuda_remember(device, queue->running, cuda_kernel_name(launch->kernel));
	return cuda_status(device->driver.cuLaunchKernelEx(
		&config, device->function[launch->kernel], params, NULL));
}

int cuda_launch_flat(struct kernel_device *device, struct kernel_queue *queue,
		     enum cuda_kernel kernel, size_t elements, const void *params)
{
	enum { THREADS = 256, BLOCKS_A_MULTIPROCESSOR = 32 };
	const size_t most = BLOCKS_A_MULTIPROCESSOR * (size_t)device->properties.multiprocessors;
	const size_t blocks = (elements + THREADS - 1) / THREADS;

	return cuda_launch(device, queue,
			   &(struct cuda_launch){
				   .kernel = kernel,
				   .grid = { (unsigned int)(blocks < most ? blocks : most) },
				   .block = { THREADS },
				   .params = params,
			   });
}
