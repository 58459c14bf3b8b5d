/*
 * Inside of the CUDA back end: the opened device and how its kernels are launched.
 *
 * Device code is in kernels/cuda/FAMILY.cu: `extern "C" __global__ void NAME(const __grid_constant__
 * struct PARAMS p)`, one parameter block by value, at most 4 KiB. Its structs are in FAMILY.h, which
 * both sides include; the launchers (`cuda_run_OP`, `cuda_workspace_OP`) are in C in FAMILY.c.
 * kernel_list.h names every kernel. nvcc makes one fatbin of each FAMILY.cu, which is embedded and
 * loaded when the device opens. libcuda is opened at run time: nothing is linked.
 *
 * A launcher checks, picks a kernel and launches; it allocates and synchronises nothing. "Unsupported
 * here" is −ENOTSUP.
 */
#pragma once

#include <cuda.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "kernels/cuda/kernel_list.h"
#include "kernels/kernels.h"

/* Driver functions in use; resolved by name and version with cuGetProcAddress. */
#define CUDA_DRIVER_FUNCTIONS(X)              \
	X(cuInit, 2000)                       \
	X(cuDeviceGetCount, 2000)             \
	X(cuDeviceGet, 2000)                  \
	X(cuDeviceGetName, 2000)              \
	X(cuDeviceGetPCIBusId, 4010)          \
	X(cuDeviceGetAttribute, 2000)         \
	X(cuDevicePrimaryCtxRetain, 7000)     \
	X(cuDevicePrimaryCtxRelease, 11000)   \
	X(cuCtxSetCurrent, 4000)              \
	X(cuMemAlloc, 3020)                   \
	X(cuMemFree, 3020)                    \
	X(cuMemGetInfo, 3020)                 \
	X(cuMemAllocHost, 3020)               \
	X(cuMemFreeHost, 2000)                \
	X(cuMemsetD8Async, 3020)              \
	X(cuMemcpyHtoDAsync, 3020)            \
	X(cuMemcpyDtoHAsync, 3020)            \
	X(cuMemcpyDtoDAsync, 3020)            \
	X(cuStreamCreateWithPriority, 5050)   \
	X(cuCtxGetStreamPriorityRange, 5050)  \
	X(cuStreamDestroy, 4000)              \
	X(cuStreamSynchronize, 2000)          \
	X(cuStreamWaitEvent, 3020)            \
	X(cuStreamBeginCapture, 10010)        \
	X(cuStreamEndCapture, 10000)          \
	X(cuEventCreate, 2000)                \
	X(cuEventDestroy, 4000)               \
	X(cuEventRecord, 2000)                \
	X(cuEventSynchronize, 2000)           \
	X(cuEventQuery, 2000)                 \
	X(cuEventElapsedTime, 2000)           \
	X(cuGraphInstantiateWithFlags, 11040) \
	X(cuGraphLaunch, 10000)               \
	X(cuGraphDestroy, 10000)              \
	X(cuGraphExecDestroy, 10000)          \
	X(cuLibraryLoadData, 12000)           \
	X(cuLibraryUnload, 12000)             \
	X(cuLibraryGetKernel, 12000)          \
	X(cuKernelGetFunction, 12000)         \
	X(cuFuncSetAttribute, 9000)           \
	X(cuFuncGetAttribute, 2020)           \
	X(cuLaunchKernelEx, 11060)            \
	X(cuTensorMapEncodeTiled, 12000)      \
	X(cuGetErrorString, 6000)

struct cuda_driver {
	void *library; /* dlopen handle */
	int version;   /* 13000 = CUDA 13.0 */
#define X(name, version) __typeof__(name) *name;
	CUDA_DRIVER_FUNCTIONS(X)
#undef X
};

struct cuda_properties {
	char name[96];
	int capability; /* 90, 120, 121 */
	int multiprocessors;
	int shared_bytes; /* most a block may have, dynamic and static together */
	int l2_bytes;
	int clock_khz;
	bool has_wgmma; /* sm_90a kernels run here */
};

enum {
	CUDA_STAGING_BYTES = 32 << 20,	 /* of one of the two staging buffers for weights */
	CUDA_KERNELS_USED = 4,		 /* names remembered of one op's last call */
	CUDA_PORTABLE_SHARED = 99 << 10, /* bytes of a block on compute capability 12.x */
};

struct kernel_device {
	struct cuda_driver driver;
	struct cuda_properties properties;
	CUdevice device;
	CUcontext context;
	CUlibrary library[CUDA_FAMILY_COUNT];
	CUfunction function[CUDA_KERNEL_COUNT];
	int function_shared[CUDA_KERNEL_COUNT]; /* dynamic bytes a launch may ask for */
	CUevent timer[KERNEL_TIMER_SLOTS];	/* created when first marked */
	void *staging_host[2];	/* pinned: what is copied to the device from a file mapping */
	CUdeviceptr staging[2]; /* for weights that change their layout on the way */
	CUevent staging_free[2];
	int staging_next;
	struct {
		const char *kernel[CUDA_KERNELS_USED]; /* names that live as long as the device */
		int count;
	} used[KERNEL_OP_COUNT];
	pthread_mutex_t used_lock; /* of `used`: each queue may have a thread of its own */
	char used_text[256];
	struct gemm_plans *plans; /* gemm_plan.h; NULL: nothing is measured */
};

struct kernel_queue {
	CUstream stream;
	CUevent event; /* for queue_after */
	int priority;
	enum kernel_op running; /* whose launches are being remembered; KERNEL_OP_COUNT: nobody's */
};

struct kernel_fence {
	CUevent event;
};

/* Makes the device's context current on the calling thread; cheap. */
int cuda_enter(struct kernel_device *device);

/* 0, −ENOMEM, −EINVAL, −ENOTSUP, −ENOEXEC (no image for this device), −EPROTO (driver), −EFAULT, −ENODEV (kernels.h, `open`) or −EIO. */
int cuda_status(CUresult result);

/* Notes that `op` used a kernel. */
void cuda_remember(struct kernel_device *device, enum kernel_op op, const char *kernel);

struct cuda_launch {
	enum cuda_kernel kernel;
	unsigned int grid[3], block[3]; /* 0 counts as 1 */
	unsigned int shared_bytes;	/* dynamic */
	const void *params;		/* the kernel's one parameter block */
	bool dependent; /* programmatic dependent launch: the kernel calls dependency_wait */
};

/* −EINVAL for an empty grid or more shared memory than there is. */
int cuda_launch(struct kernel_device *device, struct kernel_queue *queue,
		const struct cuda_launch *launch);

/* A grid that strides over `elements` elements with 256 threads a block. */
int cuda_launch_flat(struct kernel_device *device, struct kernel_queue *queue,
		     enum cuda_kernel kernel, size_t elements, const void *params);

static inline CUdeviceptr cuda_address(const void *p)
{
	return (CUdeviceptr)(uintptr_t)p;
}

static inline unsigned int cuda_blocks(size_t count, size_t per_block)
{
	return (unsigned int)((count + per_block - 1) / per_block);
}

/* Sets `bytes` of a workspace aside and returns where they begin; both a planner and a runner use it. */
static inline size_t cuda_reserve(size_t *used, size_t bytes)
{
	const size_t at = *used;

	*used += (bytes + KERNEL_ALIGNMENT - 1) & ~(size_t)(KERNEL_ALIGNMENT - 1);
	return at;
}

static inline void *cuda_at(const struct kernel_workspace *workspace, size_t offset)
{
	return (char *)workspace->data + offset;
}

/*
 * Prepared weights of every kind: BF16 [tap_count][out][in], row-major, rows of `in` elements without
 * padding. (A linear layer: [out][in]; the temporal convolution: three such; 3×3×3: 27.)
 */
static inline const void *cuda_weight_tap(const struct kernel_weight *weight, int tap)
{
	return (const char *)weight->prepared +
	       2 * (size_t)tap * (size_t)weight->out * (size_t)weight->in;
}

#define X(name)                                                                                 \
	int cuda_run_##name(struct kernel_device *, const void *params, struct kernel_queue *); \
	size_t cuda_workspace_##name(const struct kernel_device *, const void *params);
KERNEL_OPS(X)
#undef X
