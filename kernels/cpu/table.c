/* The table of the CPU back end: device, memory, queues, copies, and which function runs which op. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernels/cpu/internal.h"

/* Work runs when it is enqueued, so a queue has nothing to remember. */
struct kernel_queue {
	int priority;
};

size_t kernel_dtype_bytes(enum kernel_dtype dtype)
{
	switch (dtype) {
	case KERNEL_F32:
		return 4;
	case KERNEL_BF16:
	case KERNEL_F16:
		return 2;
	case KERNEL_U8:
		return 1;
	case KERNEL_DTYPE_INVALID:
	case KERNEL_DTYPE_COUNT:
		break;
	}
	return 0;
}

const char *kernel_op_name(enum kernel_op op)
{
	static const char *const names[KERNEL_OP_COUNT] = {
#define X(name) [KERNEL_OP_##name] = #name,
		KERNEL_OPS(X)
#undef X
	};

	return (unsigned int)op < KERNEL_OP_COUNT ? names[op] : "?";
}

size_t kernel_op_params_bytes(enum kernel_op op)
{
	static const size_t bytes[KERNEL_OP_COUNT] = {
#define X(name) [KERNEL_OP_##name] = sizeof(struct kernel_##name),
		KERNEL_OPS(X)
#undef X
	};

	return (unsigned int)op < KERNEL_OP_COUNT ? bytes[op] : 0;
}

/*
 * OpenBLAS maps a work buffer the first time that so many products run at once, which on a busy machine
 * may be hours after the start. Its own two functions, exported and not declared, take and give back
 * such a buffer; where there are none (another BLAS, or linked statically) these stay NULL.
 */
struct blas_buffers {
	void *(*take)(int);
	void (*give)(void *);
};

static void blas_buffers_find(struct blas_buffers *ret)
{
	void *const take = dlsym(RTLD_DEFAULT, "blas_memory_alloc");
	void *const give = dlsym(RTLD_DEFAULT, "blas_memory_free");

	*ret = (struct blas_buffers){ 0 };
	if (!take || !give)
		return;
	memcpy(&ret->take, &take, sizeof(take));
	memcpy(&ret->give, &give, sizeof(give));
}

/*
 * Starts the team of threads, lets all of them hold a buffer of the BLAS at the same time and multiply
 * once, so that what OpenMP and the BLAS allocate at first use is there before the first frame.
 */
static void warm_up(int threads)
{
	enum { SIDE = 64, ROUNDS = 4 };
	struct blas_buffers buffers;

	blas_buffers_find(&buffers);
#pragma omp parallel num_threads(threads)
	{
		void *const held = buffers.take ? buffers.take(0) : NULL;
		float a[SIDE * SIDE], c[SIDE * SIDE];

		for (int i = 0; i < SIDE * SIDE; i++)
			a[i] = 1.0f;
#pragma omp barrier
		if (held)
			buffers.give(held);
		for (int i = 0; i < ROUNDS; i++) {
#pragma omp barrier
			cpu_gemm_nt(SIDE, SIDE, SIDE, a, SIDE, a, SIDE, 0.0f, c, SIDE);
		}
	}
}

static int cpu_open(const struct kernel_device_options *options, char *text, size_t text_bytes,
		    struct kernel_device **ret)
{
	struct kernel_device *device;
	int threads = options->threads;

	if (threads < 0 || threads > CPU_MAX_THREADS) {
		if (text)
			(void)snprintf(text, text_bytes,
				       "%d threads were asked for; use 1 to %d, or 0 for all cores",
				       threads, CPU_MAX_THREADS);
		return -EINVAL;
	}
	if (threads == 0) {
		const long online = sysconf(_SC_NPROCESSORS_ONLN);

		threads = online < 1 ? 1 : online > CPU_MAX_THREADS ? CPU_MAX_THREADS : (int)online;
	}

	device = malloc(sizeof(*device));
	if (!device) {
		if (text)
			(void)snprintf(text, text_bytes, "out of memory");
		return -ENOMEM;
	}
	device->threads = threads;
#ifdef OPENBLAS_VERSION
	/* The ops share products out among their own threads. */
	openblas_set_num_threads(1);
#endif
	warm_up(threads);
	*ret = device;
	return 0;
}

static void cpu_close(struct kernel_device *device)
{
	free(device);
}

/* ------------------------------------------------------------------------------------- memory */

/* Pages of its own: aligned to more than KERNEL_ALIGNMENT and zeroed by the system. */
static int cpu_allocate(struct kernel_device *device, size_t bytes, void **ret)
{
	void *memory;

	(void)device;
	memory = mmap(NULL, bytes > 0 ? bytes : 1, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		return -ENOMEM;
	*ret = memory;
	return 0;
}

static void cpu_release(struct kernel_device *device, void *memory, size_t bytes)
{
	(void)device;
	if (memory)
		(void)munmap(memory, bytes > 0 ? bytes : 1);
}

static size_t cpu_memory_available(struct kernel_device *device)
{
	unsigned long long kibibytes = 0;
	char line[128];
	FILE *file;

	(void)device;
	file = fopen("/proc/meminfo", "re");
	if (!file)
		return 0;
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, "MemAvailable: %llu kB", &kibibytes) == 1)
			break;
	(void)fclose(file);
	return (size_t)kibibytes * 1024;
}

/* --------------------------------------------------------------------------- queues and copies */

static int cpu_queue_create(struct kernel_device *device, int priority, struct kernel_queue **ret)
{
	struct kernel_queue *queue;

	(void)device;
	queue = malloc(sizeof(*queue));
	if (!queue)
		return -ENOMEM;
	queue->priority = priority;
	*ret = queue;
	return 0;
}

static void cpu_queue_destroy(struct kernel_device *device, struct kernel_queue *queue)
{
	(void)device;
	free(queue);
}

static int cpu_queue_wait(struct kernel_device *device, struct kernel_queue *queue)
{
	(void)device;
	(void)queue;
	return 0;
}

static int cpu_queue_after(struct kernel_device *device, struct kernel_queue *queue,
			   struct kernel_queue *first)
{
	(void)device;
	(void)queue;
	(void)first;
	return 0;
}

static int cpu_copy(struct kernel_device *device, void *to, const void *from, size_t bytes,
		    struct kernel_queue *queue)
{
	(void)device;
	(void)queue;
	if (bytes > 0)
		memcpy(to, from, bytes);
	return 0;
}

static int cpu_zero(struct kernel_device *device, void *to, size_t bytes,
		    struct kernel_queue *queue)
{
	(void)device;
	(void)queue;
	if (bytes > 0)
		memset(to, 0, bytes);
	return 0;
}

static size_t cpu_weight_prepare_bytes(const struct kernel_device *device,
				       const struct kernel_weight *weight)
{
	(void)device;
	return (size_t)weight->out * weight->tap_count * weight->in * sizeof(float);
}

static int cpu_weight_prepare(struct kernel_device *device, struct kernel_weight *weight,
			      void *memory, struct kernel_queue *queue)
{
	struct kernel_weight source = *weight;

	(void)queue;
	source.prepared = NULL;
	if (!memory || !cpu_weight_valid(&source))
		return -EINVAL;
#pragma omp parallel num_threads(device->threads)
	{
		const size_t row = (size_t)source.tap_count * source.in;

#pragma omp for schedule(static)
		for (int i = 0; i < source.out; i++)
			cpu_weight_convert(&source, i, 1, (float *)memory + i * row);
	}
	weight->prepared = memory;
	return 0;
}

const struct kernel_backend kernel_backend_cpu = {
	.name = "cpu",
	.description = "CPU, F32, OpenMP and BLAS",
	.activation = KERNEL_F32,

	.open = cpu_open,
	.close = cpu_close,
	.allocate = cpu_allocate,
	.release = cpu_release,
	.memory_available = cpu_memory_available,
	.queue_create = cpu_queue_create,
	.queue_destroy = cpu_queue_destroy,
	.queue_wait = cpu_queue_wait,
	.queue_after = cpu_queue_after,
	.upload = cpu_copy,
	.download = cpu_copy,
	.copy = cpu_copy,
	.zero = cpu_zero,
	.weight_prepare_bytes = cpu_weight_prepare_bytes,
	.weight_prepare = cpu_weight_prepare,

	.workspace = {
		[KERNEL_OP_linear] = cpu_linear_workspace,
		[KERNEL_OP_gdn_gates] = cpu_gdn_gates_workspace,
		[KERNEL_OP_gdn] = cpu_gdn_workspace,
		[KERNEL_OP_attention] = cpu_attention_workspace,
		[KERNEL_OP_depthwise_glu] = cpu_depthwise_glu_workspace,
		[KERNEL_OP_temporal_conv] = cpu_temporal_conv_workspace,
		[KERNEL_OP_conv3d] = cpu_conv3d_workspace,
	},
	.run = {
#define X(name) [KERNEL_OP_##name] = cpu_##name,
		KERNEL_OPS(X)
#undef X
	},
};
