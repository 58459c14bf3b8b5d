/* The table of the CUDA back end: device, memory, queues, copies, graphs, and which function runs which op. */
#include "kernels/cuda/table.h"

#include <stdio.h>
#include <stdlib.h>

#include "kernels/cuda/driver.h"
#include "kernels/cuda/gemm_plan.h"

/* Left to the driver and to kernels' local memory when the engine asks what it may take. */
static const size_t memory_margin_bytes = (size_t)256 << 20;

static void cuda_close(struct kernel_device *device);

/* --------------------------------------------------------------------------------- the device */

static int staging_create(struct kernel_device *d)
{
	int r = 0;

	for (int i = 0; i < 2 && r >= 0; i++) {
		r = cuda_status(d->driver.cuMemAlloc(&d->staging[i], CUDA_STAGING_BYTES));
		if (r >= 0)
			r = cuda_status(
				d->driver.cuMemAllocHost(&d->staging_host[i], CUDA_STAGING_BYTES));
		if (r >= 0)
			r = cuda_status(d->driver.cuEventCreate(&d->staging_free[i],
								CU_EVENT_DISABLE_TIMING));
	}
	return r;
}

static int cuda_open(const struct kernel_device_options *options, char *text, size_t text_bytes,
		     struct kernel_device **ret)
{
	struct kernel_device *device = calloc(1, sizeof(*device));
	int r;

	if (!device)
		return -ENOMEM;
	(void)pthread_mutex_init(&device->used_lock, NULL);
	r = cuda_device_open(device, options->device_index, text, text_bytes);
	if (r >= 0) {
		device->properties.has_wgmma &= !options->portable;
		device->plans = gemm_plans_create(options);
		r = staging_create(device);
		if (r == -ENOMEM && text)
			(void)snprintf(text, text_bytes, "the GPU has no memory left");
	}
	if (r < 0) {
		cuda_close(device);
		return r;
	}
	*ret = device;
	return 0;
}

static void cuda_close(struct kernel_device *device)
{
	if (!device)
		return;
	if (device->context && cuda_enter(device) >= 0) {
		gemm_plans_destroy(device);
		for (int i = 0; i < KERNEL_TIMER_SLOTS; i++)
			if (device->timer[i])
				(void)device->driver.cuEventDestroy(device->timer[i]);
		for (int i = 0; i < 2; i++) {
			if (device->staging_free[i])
				(void)device->driver.cuEventDestroy(device->staging_free[i]);
			if (device->staging[i])
				(void)device->driver.cuMemFree(device->staging[i]);
			if (device->staging_host[i])
				(void)device->driver.cuMemFreeHost(device->staging_host[i]);
		}
	}
	cuda_device_close(device);
	(void)pthread_mutex_destroy(&device->used_lock);
	free(device);
}

/* ----------------------------------------------------------------------------------- memory */

static int cuda_allocate(struct kernel_device *device, size_t bytes, void **ret)
{
	const size_t wanted = bytes ? bytes : 1;
	CUdeviceptr memory;
	int r = cuda_enter(device);

	if (r >= 0)
		r = cuda_status(device->driver.cuMemAlloc(&memory, wanted));
	if (r < 0)
		return r;
	r = cuda_status(device->driver.cuMemsetD8Async(memory, 0, wanted, NULL));
	if (r >= 0)
		r = cuda_status(device->driver.cuStreamSynchronize(NULL));
	if (r < 0) {
		(void)device->driver.cuMemFree(memory);
		return r;
	}
	*ret = (void *)(uintptr_t)memory;
	return 0;
}

static void cuda_release(struct kernel_device *device, void *memory, size_t bytes)
{
	(void)bytes;
	if (memory && cuda_enter(device) >= 0)
		(void)device->driver.cuMemFree(cuda_address(memory));
}

static size_t cuda_memory_available(struct kernel_device *device)
{
	size_t available = 0, total;

	if (cuda_enter(device) < 0 ||
	    device->driver.cuMemGetInfo(&available, &total) != CUDA_SUCCESS)
		return 0;
	return available > memory_margin_bytes ? available - memory_margin_bytes : 1;
}

static int cuda_host_allocate(struct kernel_device *device, size_t bytes, void **ret)
{
	const int r = cuda_enter(device);

	return r < 0 ? r : cuda_status(device->driver.cuMemAllocHost(ret, bytes ? bytes : 1));
}

static void cuda_host_release(struct kernel_device *device, void *memory)
{
	if (memory && cuda_enter(device) >= 0)
		(void)device->driver.cuMemFreeHost(memory);
}

/* -------------------------------------------------------------------------------- queues */

static int cuda_queue_create(struct kernel_device *device, int priority, struct kernel_queue **ret)
{
	struct kernel_queue *queue = calloc(1, sizeof(*queue));
	int least = 0, greatest = 0, r;

	if (!queue)
		return -ENOMEM;
	queue->running = KERNEL_OP_COUNT;
	r = cuda_enter(device);
	if (r >= 0)
		r = cuda_status(device->driver.cuCtxGetStreamPriorityRange(&least, &greatest));
	/* The driver's numbers fall as priority rises; ours rise. */
	queue->priority = least - priority < greatest ? greatest :
			  priority < 0		      ? least :
							least - priority;
	if (r >= 0)
		r = cuda_status(device->driver.cuStreamCreateWithPriority(
			&queue->stream, CU_STREAM_NON_BLOCKING, queue->priority));
	if (r < 0) {
		free(queue);
		return r;
	}
	r = cuda_status(device->driver.cuEventCreate(&queue->event, CU_EVENT_DISABLE_TIMING));
	if (r < 0) {
		(void)device->driver.cuStreamDestroy(queue->stream);
		free(queue);
		return r;
	}
	*ret = queue;
	return 0;
}

static void cuda_queue_destroy(struct kernel_device *device, struct kernel_queue *queue)
{
	if (!queue)
		return;
	if (cuda_enter(device) >= 0) {
		(void)device->driver.cuEventDestroy(queue->event);
		(void)device->driver.cuStreamDestroy(queue->stream);
	}
	free(queue);
}

static int cuda_queue_wait(struct kernel_device *device, struct kernel_queue *queue)
{
	const int r = cuda_enter(device);

	return r < 0 ? r : cuda_status(device->driver.cuStreamSynchronize(queue->stream));
}

static int cuda_queue_after(struct kernel_device *device, struct kernel_queue *queue,
			    struct kernel_queue *first)
{
	int r = cuda_enter(device);

	if (r >= 0)
		r = cuda_status(device->driver.cuEventRecord(first->event, first->stream));
	if (r >= 0)
		r = cuda_status(device->driver.cuStreamWaitEvent(queue->stream, first->event, 0));
	return r;
}

/* ------------------------------------------------------------------------------------ fences */

static int cuda_fence_create(struct kernel_device *device, struct kernel_fence **ret)
{
	struct kernel_fence *fence = calloc(1, sizeof(*fence));
	int r;

	if (!fence)
		return -ENOMEM;
	r = cuda_enter(device);
	/* Who waits sleeps: a thread that spins for a third of all time is a processor lost. */
	if (r >= 0)
		r = cuda_status(
			device->driver.cuEventCreate(&fence->event, CU_EVENT_BLOCKING_SYNC));
	if (r < 0) {
		free(fence);
		return r;
	}
	*ret = fence;
	return 0;
}

static void cuda_fence_destroy(struct kernel_device *device, struct kernel_fence *fence)
{
	if (fence && cuda_enter(device) >= 0)
		(void)device->driver.cuEventDestroy(fence->event);
	free(fence);
}

static int cuda_fence_set(struct kernel_device *device, struct kernel_fence *fence,
			  struct kernel_queue *queue)
{
	const int r = cuda_enter(device);

	return r < 0 ? r : cuda_status(device->driver.cuEventRecord(fence->event, queue->stream));
}

static int cuda_fence_wait(struct kernel_device *device, struct kernel_fence *fence)
{
	const int r = cuda_enter(device);

	return r < 0 ? r : cuda_status(device->driver.cuEventSynchronize(fence->event));
}

static int cuda_fence_passed(struct kernel_device *device, struct kernel_fence *fence)
{
	CUresult result;
	int r = cuda_enter(device);

	if (r < 0)
		return r;
	result = device->driver.cuEventQuery(fence->event);
	r = result == CUDA_ERROR_NOT_READY ? 0 : cuda_status(result);
	return r < 0 ? r : result == CUDA_SUCCESS;
}

static int cuda_fence_ns(struct kernel_device *device, struct kernel_fence *first,
			 struct kernel_fence *second, int64_t *ret_ns)
{
	float milliseconds;
	int r = cuda_enter(device);

	if (r >= 0)
		r = cuda_status(device->driver.cuEventElapsedTime(&milliseconds, first->event,
								  second->event));
	if (r >= 0)
		*ret_ns = (int64_t)(1e6 * (double)milliseconds);
	return r;
}

/* ------------------------------------------------------------------------------------ copies */

static int cuda_upload(struct kernel_device *device, void *to, const void *host, size_t bytes,
		       struct kernel_queue *queue)
{
	const int r = cuda_enter(device);

	return r < 0 || !bytes ?
		       r :
		       cuda_status(device->driver.cuMemcpyHtoDAsync(cuda_address(to), host, bytes,
								    queue->stream));
}

static int cuda_download(struct kernel_device *device, void *host, const void *from, size_t bytes,
			 struct kernel_queue *queue)
{
	const int r = cuda_enter(device);

	return r < 0 || !bytes ?
		       r :
		       cuda_status(device->driver.cuMemcpyDtoHAsync(host, cuda_address(from), bytes,
								    queue->stream));
}

static int cuda_copy(struct kernel_device *device, void *to, const void *from, size_t bytes,
		     struct kernel_queue *queue)
{
	const int r = cuda_enter(device);

	return r < 0 || !bytes ?
		       r :
		       cuda_status(device->driver.cuMemcpyDtoDAsync(
			       cuda_address(to), cuda_address(from), bytes, queue->stream));
}

static int cuda_zero(struct kernel_device *device, void *to, size_t bytes,
		     struct kernel_queue *queue)
{
	const int r = cuda_enter(device);

	return r < 0 || !bytes ? r :
				 cuda_status(device->driver.cuMemsetD8Async(cuda_address(to), 0,
									    bytes, queue->stream));
}

/* ------------------------------------------------------------------------------------ graphs */

static int cuda_graph_begin(struct kernel_device *device, struct kernel_queue *queue)
{
	const int r = cuda_enter(device);

	return r < 0 ? r :
		       cuda_status(device->driver.cuStreamBeginCapture(
			       queue->stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
}

static int cuda_graph_end(struct kernel_device *device, struct kernel_queue *queue,
			  struct kernel_graph **ret)
{
	CUgraphExec executable;
	CUgraph graph = NULL;
	int r = cuda_enter(device);

	if (r >= 0)
		r = cuda_status(device->driver.cuStreamEndCapture(queue->stream, &graph));
	if (r < 0 || !graph)
		return r < 0 ? r : -EIO;
	r = cuda_status(device->driver.cuGraphInstantiateWithFlags(&executable, graph, 0));
	(void)device->driver.cuGraphDestroy(graph);
	if (r >= 0)
		*ret = (struct kernel_graph *)(void *)executable;
	return r;
}

static int cuda_graph_launch(struct kernel_device *device, struct kernel_graph *graph,
			     struct kernel_queue *queue)
{
	const int r = cuda_enter(device);

	return r < 0 ? r :
		       cuda_status(device->driver.cuGraphLaunch((CUgraphExec)(void *)graph,
								queue->stream));
}

static void cuda_graph_destroy(struct kernel_device *device, struct kernel_graph *graph)
{
	if (graph && cuda_enter(device) >= 0)
		(void)device->driver.cuGraphExecDestroy((CUgraphExec)(void *)graph);
}

/* --------------------------------------------------------------------------------- measuring */

static int cuda_timer_mark(struct kernel_device *device, int slot, struct kernel_queue *queue)
{
	int r;

	if (slot < 0 || slot >= KERNEL_TIMER_SLOTS)
		return -EINVAL;
	r = cuda_enter(device);
	if (r >= 0 && !device->timer[slot])
		r = cuda_status(
			device->driver.cuEventCreate(&device->timer[slot], CU_EVENT_DEFAULT));
	return r < 0 ? r :
		       cuda_status(
			       device->driver.cuEventRecord(device->timer[slot], queue->stream));
}

static int cuda_timer_read(struct kernel_device *device, int first, int second, int64_t *ret_ns)
{
	float milliseconds;
	int r;

	if (first < 0 || first >= KERNEL_TIMER_SLOTS || second < 0 ||
	    second >= KERNEL_TIMER_SLOTS || !device->timer[first] || !device->timer[second])
		return -EINVAL;
	r = cuda_enter(device);
	if (r >= 0)
		r = cuda_status(device->driver.cuEventSynchronize(device->timer[second]));
	if (r >= 0)
		r = cuda_status(device->driver.cuEventElapsedTime(
			&milliseconds, device->timer[first], device->timer[second]));
	if (r >= 0)
		*ret_ns = (int64_t)(1e6 * (double)milliseconds);
	return r;
}

static const char *cuda_kernels_used(struct kernel_device *device, enum kernel_op op)
{
	size_t used = 0;

	device->used_text[0] = '\0';
	if ((unsigned int)op >= KERNEL_OP_COUNT)
		return device->used_text;
	(void)pthread_mutex_lock(&device->used_lock);
	for (int i = 0; i < device->used[op].count && used < sizeof(device->used_text); i++)
		used += (size_t)snprintf(device->used_text + used, sizeof(device->used_text) - used,
					 "%s%s", i ? "+" : "", device->used[op].kernel[i]);
	(void)pthread_mutex_unlock(&device->used_lock);
	return device->used_text;
}

static void cuda_facts(struct kernel_device *device, struct kernel_facts *ret)
{
	const struct cuda_properties *p = &device->properties;

	*ret = (struct kernel_facts){ .driver_version = device->driver.version,
				      .capability = p->capability,
				      .multiprocessors = p->multiprocessors,
				      .clock_khz = p->clock_khz,
				      .l2_bytes = p->l2_bytes,
				      .shared_bytes = p->shared_bytes };
	(void)snprintf(ret->name, sizeof(ret->name), "%s", p->name);
	(void)device->driver.cuDeviceGetPCIBusId(ret->pci, sizeof(ret->pci), device->device);
}

/* ----------------------------------------------------------------------------------- the ops */

static void op_begin(struct kernel_device *device, struct kernel_queue *queue, enum kernel_op op)
{
	queue->running = op;
	(void)pthread_mutex_lock(&device->used_lock);
	device->used[op].count = 0;
	(void)pthread_mutex_unlock(&device->used_lock);
}

/* What every op does around its launcher: the context, and which kernels it used. */
#define X(name)                                                                        \
	static inline int run_##name(struct kernel_device *device, const void *params, \
				     struct kernel_queue *queue)                       \
	{                                                                              \
		const int r = cuda_enter(device);                                      \
                                                                                       \
		op_begin(device, queue, KERNEL_OP_##name);                             \
		return r < 0 ? r : cuda_run_##name(device, params, queue);             \
	}
CUDA_OPS(X)
#undef X

const struct kernel_backend kernel_backend_cuda = {
	.name = "cuda",
	.description = "one NVIDIA GPU, BF16",
	.activation = KERNEL_BF16,
	.weights_on_device = true,

	.open = cuda_open,
	.close = cuda_close,
	.allocate = cuda_allocate,
	.release = cuda_release,
	.memory_available = cuda_memory_available,
	.host_allocate = cuda_host_allocate,
	.host_release = cuda_host_release,
	.queue_create = cuda_queue_create,
	.queue_destroy = cuda_queue_destroy,
	.queue_wait = cuda_queue_wait,
	.queue_after = cuda_queue_after,
	.fence_create = cuda_fence_create,
	.fence_destroy = cuda_fence_destroy,
	.fence_set = cuda_fence_set,
	.fence_wait = cuda_fence_wait,
	.fence_passed = cuda_fence_passed,
	.fence_ns = cuda_fence_ns,
	.upload = cuda_upload,
	.download = cuda_download,
	.copy = cuda_copy,
	.zero = cuda_zero,
	.graph_begin = cuda_graph_begin,
	.graph_end = cuda_graph_end,
	.graph_launch = cuda_graph_launch,
	.graph_destroy = cuda_graph_destroy,
	.weight_prepare_bytes = cuda_weight_prepare_bytes,
	.weight_prepare = cuda_weight_prepare,
	.timer_mark = cuda_timer_mark,
	.timer_read = cuda_timer_read,
	.kernels_used = cuda_kernels_used,
	.facts = cuda_facts,
	.tensor_peak = cuda_tensor_peak,
	.tune = cuda_tune,
	.tuned = cuda_tuned,

	.workspace = {
#define X(name) [KERNEL_OP_##name] = cuda_workspace_##name,
		CUDA_OPS_WITH_WORKSPACE(X)
#undef X
	},
	.run = {
#define X(name) [KERNEL_OP_##name] = run_##name,
		CUDA_OPS(X)
#undef X
	},
};
