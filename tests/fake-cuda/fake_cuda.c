/* A driver that computes nothing: its functions, and the two symbols a program looks up by name. */
#include "tests/fake-cuda/fake_cuda.h"

#include <stdlib.h>

#include "kernels/cuda/device.h"

#define EXPORT __attribute__((visibility("default")))

enum { OBJECTS = 4096, ALIGNMENT = 256 };

/* What the primary context owns. */
struct object {
	enum fake_cuda_kind kind;
	void *handle; /* from malloc: distinct from all others */
	uint64_t bytes;
	bool used;
};

EXPORT struct fake_cuda fake_cuda;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct object object[OBJECTS];
static CUresult poison; /* of the context */
static char context_place;

EXPORT void fake_cuda_reset(struct fake_cuda *fake)
{
	poison = CUDA_SUCCESS;
	*fake = (struct fake_cuda){
		.version = 13000,
		.devices = 1,
		.capability = 120,
		.memory = (uint64_t)2 << 30,
		.spared = -1,
	};
}

/* --------------------------------------------------------------------------------- every call */

static CUresult fails(const char *name)
{
	struct fake_cuda *f = &fake_cuda;

	f->calls++;
	if (f->spared < 0 || (f->failing && strcmp(f->failing, name) != 0) || f->spared-- > 0)
		return CUDA_SUCCESS;
	if (f->repeats > 0) {
		f->repeats--;
		f->spared = 0;
	}
	if (f->sticky)
		poison = (CUresult)f->result;
	return (CUresult)f->result;
}

/* Calls that a spoilt context answers all the same. */
static CUresult enter_any(const char *name)
{
	CUresult result;

	(void)pthread_mutex_lock(&lock);
	result = fails(name);
	(void)pthread_mutex_unlock(&lock);
	return result;
}

static CUresult enter(const char *name)
{
	CUresult result;

	(void)pthread_mutex_lock(&lock);
	result = poison ? poison : fails(name);
	(void)pthread_mutex_unlock(&lock);
	return result;
}

#define ENTER()                                                             \
	do {                                                                \
		const CUresult entered = enter(__func__ + strlen("fake_")); \
		if (entered != CUDA_SUCCESS)                                \
			return entered;                                     \
	} while (0)

#define ENTER_ANY()                                                             \
	do {                                                                    \
		const CUresult entered = enter_any(__func__ + strlen("fake_")); \
		if (entered != CUDA_SUCCESS)                                    \
			return entered;                                         \
	} while (0)

/* -------------------------------------------------------------------------------- what is owned */

static uint64_t memory_used(void)
{
	uint64_t used = 0;

	for (int i = 0; i < OBJECTS; i++)
		if (object[i].used && object[i].kind == FAKE_CUDA_MEMORY)
			used += object[i].bytes;
	return used;
}

static CUresult object_make(enum fake_cuda_kind kind, uint64_t bytes, void **ret)
{
	const size_t rounded = (size_t)((bytes + ALIGNMENT) / ALIGNMENT * ALIGNMENT);
	CUresult result = CUDA_ERROR_OUT_OF_MEMORY;
	void *handle = NULL;

	(void)pthread_mutex_lock(&lock);
	for (int i = 0; i < OBJECTS && !handle; i++) {
		if (object[i].used)
			continue;
		if (kind == FAKE_CUDA_MEMORY && memory_used() + bytes > fake_cuda.memory)
			break;
		handle = aligned_alloc(ALIGNMENT, rounded);
		if (!handle)
			break;
		object[i] = (struct object){ kind, handle, bytes, true };
		fake_cuda.owned[kind]++;
		*ret = handle;
		result = CUDA_SUCCESS;
	}
	(void)pthread_mutex_unlock(&lock);
	return result;
}

static void object_free(struct object *o)
{
	fake_cuda.owned[o->kind]--;
	free(o->handle);
	*o = (struct object){ 0 };
}

/* What nobody made, or gave back before, is a mistake of the program's. */
static CUresult object_end(enum fake_cuda_kind kind, const void *handle)
{
	bool found = false;

	(void)pthread_mutex_lock(&lock);
	for (int i = 0; i < OBJECTS && !found; i++) {
		found = object[i].used && object[i].kind == kind && object[i].handle == handle;
		if (found)
			object_free(&object[i]);
	}
	(void)pthread_mutex_unlock(&lock);
	if (!found)
		abort();
	return CUDA_SUCCESS;
}

/* ------------------------------------------------------------------------- driver and device */

static CUresult fake_cuInit(unsigned int flags)
{
	(void)flags;
	ENTER_ANY();
	return fake_cuda.devices ? CUDA_SUCCESS : CUDA_ERROR_NO_DEVICE;
}

static CUresult fake_cuDeviceGetCount(int *count)
{
	ENTER_ANY();
	*count = fake_cuda.devices;
	return CUDA_SUCCESS;
}

static CUresult fake_cuDeviceGet(CUdevice *device, int ordinal)
{
	ENTER_ANY();
	*device = ordinal;
	return CUDA_SUCCESS;
}

static CUresult fake_cuDeviceGetName(char *name, int length, CUdevice device)
{
	(void)device;
	ENTER_ANY();
	strncpy(name, "a GPU that computes nothing", (size_t)length);
	return CUDA_SUCCESS;
}

static CUresult fake_cuDeviceGetPCIBusId(char *id, int length, CUdevice device)
{
	(void)device;
	ENTER_ANY();
	strncpy(id, "0000:00:00.0", (size_t)length);
	return CUDA_SUCCESS;
}

static CUresult fake_cuDeviceGetAttribute(int *value, CUdevice_attribute which, CUdevice device)
{
	(void)device;
	ENTER_ANY();
	*value = which == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR ? fake_cuda.capability / 10 :
		 which == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR ? fake_cuda.capability % 10 :
		 which == CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT     ? 4 :
		 which == CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN ? 101376 :
										  1 << 20;
	return CUDA_SUCCESS;
}

static CUresult fake_cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device)
{
	(void)device;
	ENTER_ANY();
	if (!fake_cuda.devices)
		return CUDA_ERROR_NO_DEVICE;
	if (!fake_cuda.contexts && poison)
		return poison;
	fake_cuda.contexts++;
	*context = (CUcontext)(void *)&context_place;
	return CUDA_SUCCESS;
}

/* The last one takes everything with it. */
static CUresult fake_cuDevicePrimaryCtxRelease(CUdevice device)
{
	(void)device;
	ENTER_ANY();
	(void)pthread_mutex_lock(&lock);
	if (--fake_cuda.contexts < 0)
		abort();
	for (int i = 0; i < OBJECTS && fake_cuda.contexts == 0; i++)
		if (object[i].used) {
			fake_cuda.left_behind += !poison;
			object_free(&object[i]);
		}
	if (fake_cuda.contexts == 0 && !fake_cuda.lasting)
		poison = CUDA_SUCCESS;
	(void)pthread_mutex_unlock(&lock);
	return CUDA_SUCCESS;
}

static CUresult fake_cuCtxSetCurrent(CUcontext context)
{
	(void)context;
	ENTER_ANY();
	return CUDA_SUCCESS;
}

static CUresult fake_cuGetErrorString(CUresult error, const char **text)
{
	(void)error;
	*text = "as the test wants";
	return CUDA_SUCCESS;
}

/* ---------------------------------------------------------------------------------------- memory */

static CUresult fake_cuMemAlloc(CUdeviceptr *pointer, size_t bytes)
{
	void *memory;
	CUresult result;

	ENTER();
	result = object_make(FAKE_CUDA_MEMORY, bytes, &memory);
	if (result == CUDA_SUCCESS)
		*pointer = (CUdeviceptr)(uintptr_t)memory;
	return result;
}

static CUresult fake_cuMemFree(CUdeviceptr pointer)
{
	ENTER();
	return object_end(FAKE_CUDA_MEMORY, (const void *)(uintptr_t)pointer);
}

static CUresult fake_cuMemGetInfo(size_t *available, size_t *total)
{
	ENTER();
	*total = fake_cuda.memory;
	*available = fake_cuda.memory - memory_used();
	return CUDA_SUCCESS;
}

static CUresult fake_cuMemAllocHost(void **pointer, size_t bytes)
{
	ENTER();
	return object_make(FAKE_CUDA_HOST_MEMORY, bytes, pointer);
}

static CUresult fake_cuMemFreeHost(void *pointer)
{
	ENTER();
	return object_end(FAKE_CUDA_HOST_MEMORY, pointer);
}

static CUresult fake_cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t bytes,
				     CUstream stream)
{
	(void)stream;
	ENTER();
	memset((void *)(uintptr_t)to, value, bytes);
	return CUDA_SUCCESS;
}

static CUresult fake_cuMemcpyHtoDAsync(CUdeviceptr to, const void *from, size_t bytes,
				       CUstream stream)
{
	(void)stream;
	ENTER();
	(void)__atomic_fetch_add(&fake_cuda.uploads, 1, __ATOMIC_RELAXED);
	memcpy((void *)(uintptr_t)to, from, bytes);
	return CUDA_SUCCESS;
}

static CUresult fake_cuMemcpyDtoHAsync(void *to, CUdeviceptr from, size_t bytes, CUstream stream)
{
	(void)stream;
	ENTER();
	memcpy(to, (const void *)(uintptr_t)from, bytes);
	return CUDA_SUCCESS;
}

static CUresult fake_cuMemcpyDtoDAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes,
				       CUstream stream)
{
	(void)stream;
	ENTER();
	memmove((void *)(uintptr_t)to, (const void *)(uintptr_t)from, bytes);
	return CUDA_SUCCESS;
}

/* ------------------------------------------------------------------- streams, events and graphs */

static CUresult fake_cuCtxGetStreamPriorityRange(int *least, int *greatest)
{
	ENTER();
	*least = 0;
	*greatest = -5;
	return CUDA_SUCCESS;
}

static CUresult fake_cuStreamCreateWithPriority(CUstream *stream, unsigned int flags, int priority)
{
	(void)flags;
	(void)priority;
	ENTER();
	return object_make(FAKE_CUDA_STREAM, 1, (void **)stream);
}

static CUresult fake_cuStreamDestroy(CUstream stream)
{
	ENTER();
	return object_end(FAKE_CUDA_STREAM, stream);
}

static CUresult fake_cuStreamSynchronize(CUstream stream)
{
	(void)stream;
	ENTER();
	return CUDA_SUCCESS;
}

static CUresult fake_cuStreamWaitEvent(CUstream stream, CUevent event, unsigned int flags)
{
	(void)stream;
	(void)event;
	(void)flags;
	ENTER();
	return CUDA_SUCCESS;
}

static CUresult fake_cuStreamBeginCapture(CUstream stream, CUstreamCaptureMode mode)
{
	(void)stream;
	(void)mode;
	ENTER();
	return CUDA_SUCCESS;
}

static CUresult fake_cuStreamEndCapture(CUstream stream, CUgraph *graph)
{
	(void)stream;
	ENTER();
	return object_make(FAKE_CUDA_GRAPH, 1, (void **)graph);
}

static CUresult fake_cuEventCreate(CUevent *event, unsigned int flags)
{
	(void)flags;
	ENTER();
	return object_make(FAKE_CUDA_EVENT, 1, (void **)event);
}

static CUresult fake_cuEventDestroy(CUevent event)
{
	ENTER();
	return object_end(FAKE_CUDA_EVENT, event);
}

static CUresult fake_cuEventRecord(CUevent event, CUstream stream)
{
	(void)event;
	(void)stream;
	ENTER();
	return CUDA_SUCCESS;
}

static CUresult fake_cuEventQuery(CUevent event)
{
	(void)event;
	ENTER();
	return CUDA_SUCCESS;
}

static CUresult fake_cuEventSynchronize(CUevent event)
{
	(void)event;
	ENTER();
	return CUDA_SUCCESS;
}

static CUresult fake_cuEventElapsedTime(float *milliseconds, CUevent first, CUevent second)
{
	(void)first;
	(void)second;
	ENTER();
	*milliseconds = 1;
	return CUDA_SUCCESS;
}

static CUresult fake_cuGraphInstantiateWithFlags(CUgraphExec *executable, CUgraph graph,
						 unsigned long long flags)
{
	(void)graph;
	(void)flags;
	ENTER();
	return object_make(FAKE_CUDA_GRAPH, 1, (void **)executable);
}

static CUresult fake_cuGraphLaunch(CUgraphExec executable, CUstream stream)
{
	(void)executable;
	(void)stream;
	ENTER();
	return CUDA_SUCCESS;
}

static CUresult fake_cuGraphDestroy(CUgraph graph)
{
	ENTER();
	return object_end(FAKE_CUDA_GRAPH, graph);
}

static CUresult fake_cuGraphExecDestroy(CUgraphExec executable)
{
	ENTER();
	return object_end(FAKE_CUDA_GRAPH, executable);
}

/* --------------------------------------------------------------------------------------- kernels */

static CUresult fake_cuLibraryLoadData(CUlibrary *library, const void *code, CUjit_option *jit,
				       void **jit_values, unsigned int jit_count,
				       CUlibraryOption *options, void **values, unsigned int count)
{
	(void)code;
	(void)jit;
	(void)jit_values;
	(void)jit_count;
	(void)options;
	(void)values;
	(void)count;
	ENTER();
	return object_make(FAKE_CUDA_LIBRARY, 1, (void **)library);
}

static CUresult fake_cuLibraryUnload(CUlibrary library)
{
	ENTER();
	return object_end(FAKE_CUDA_LIBRARY, library);
}

static CUresult fake_cuLibraryGetKernel(CUkernel *kernel, CUlibrary library, const char *name)
{
	(void)name;
	ENTER();
	*kernel = (CUkernel)(void *)library;
	return CUDA_SUCCESS;
}

static CUresult fake_cuKernelGetFunction(CUfunction *function, CUkernel kernel)
{
	ENTER();
	*function = (CUfunction)(void *)kernel;
	return CUDA_SUCCESS;
}

static CUresult fake_cuFuncSetAttribute(CUfunction function, CUfunction_attribute which, int value)
{
	(void)function;
	(void)which;
	(void)value;
	ENTER();
	return CUDA_SUCCESS;
}

static CUresult fake_cuFuncGetAttribute(int *value, CUfunction_attribute which, CUfunction function)
{
	(void)which;
	(void)function;
	ENTER();
	*value = 0;
	return CUDA_SUCCESS;
}

static CUresult fake_cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction function,
				      void **params, void **extra)
{
	(void)config;
	(void)function;
	(void)params;
	(void)extra;
	ENTER();
	(void)__atomic_fetch_add(&fake_cuda.launches, 1, __ATOMIC_RELAXED);
	return CUDA_SUCCESS;
}

static CUresult
fake_cuTensorMapEncodeTiled(CUtensorMap *map, CUtensorMapDataType type, cuuint32_t rank,
			    void *address, const cuuint64_t *size, const cuuint64_t *stride,
			    const cuuint32_t *box, const cuuint32_t *step,
			    CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
			    CUtensorMapL2promotion promotion, CUtensorMapFloatOOBfill fill)
{
	(void)type;
	(void)rank;
	(void)address;
	(void)size;
	(void)stride;
	(void)box;
	(void)step;
	(void)interleave;
	(void)swizzle;
	(void)promotion;
	(void)fill;
	ENTER();
	memset(map, 0, sizeof(*map));
	return CUDA_SUCCESS;
}

/* ---------------------------------------------------------------------------------- found by name */

/* Every function the back end asks for; a prototype other than that of cuda.h does not compile. */
union function {
	void *address;
#define X(name, version) __typeof__(name) *name;
	CUDA_DRIVER_FUNCTIONS(X)
#undef X
};

struct named_function {
	const char *name;
	union function function;
};

static const struct named_function functions[] = {
#define X(name, version) { #name, { .name = fake_##name } },
	CUDA_DRIVER_FUNCTIONS(X)
#undef X
};

/* For programs that are started as they are: a kernel fails after so many graphs were launched. */
static void __attribute__((constructor)) environment_read(void)
{
	const char *launches = getenv("FAKE_CUDA_BREAK");

	fake_cuda_reset(&fake_cuda);
	if (!launches)
		return;
	fake_cuda.failing = "cuGraphLaunch";
	fake_cuda.spared = atoi(launches);
	fake_cuda.result = FAKE_CUDA_ILLEGAL_ADDRESS;
	fake_cuda.sticky = fake_cuda.lasting = true;
}

EXPORT CUresult cuDriverGetVersion(int *version)
{
	*version = fake_cuda.version;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuGetProcAddress_v2(const char *name, void **function, int version,
				    cuuint64_t flags, CUdriverProcAddressQueryResult *status)
{
	(void)version;
	(void)flags;
	(void)status;
	for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++) {
		if (strcmp(functions[i].name, name) != 0 ||
		    (fake_cuda.missing && strcmp(fake_cuda.missing, name) == 0))
			continue;
		*function = functions[i].function.address;
		return CUDA_SUCCESS;
	}
	return CUDA_ERROR_NOT_FOUND;
}
