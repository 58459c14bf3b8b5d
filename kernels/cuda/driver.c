/* Opening libcuda, a device and the embedded kernels. */
#include "kernels/cuda/driver.h"

#include <dlfcn.h>
#include <stdio.h>

static const int least_driver_version = 13000; /* CUDA 13.0: driver branch 580 */

/* The fatbins, embedded by images.S: a symbol of each family at its first byte. */
#define X(family) extern const unsigned char cuda_image_##family[];
CUDA_FAMILIES(X)
#undef X

static const unsigned char *const images[CUDA_FAMILY_COUNT] = {
#define X(family) [CUDA_FAMILY_##family] = cuda_image_##family,
	CUDA_FAMILIES(X)
#undef X
};

static const char *const family_names[CUDA_FAMILY_COUNT] = {
#define X(family) [CUDA_FAMILY_##family] = #family,
	CUDA_FAMILIES(X)
#undef X
};

struct kernel_entry {
	enum cuda_family family;
	const char *name;
};

static const struct kernel_entry entries[CUDA_KERNEL_COUNT] = {
#define X(family, name) [CUDA_KERNEL_##name] = { CUDA_FAMILY_##family, #name },
	CUDA_KERNELS(X)
#undef X
};

const char *cuda_kernel_name(enum cuda_kernel kernel)
{
	return (unsigned int)kernel < CUDA_KERNEL_COUNT ? entries[kernel].name : "?";
}

int cuda_status(CUresult result)
{
	switch (result) {
	case CUDA_SUCCESS:
		return 0;
	case CUDA_ERROR_OUT_OF_MEMORY:
		return -ENOMEM;
	case CUDA_ERROR_INVALID_VALUE:
		return -EINVAL;
	case CUDA_ERROR_NOT_SUPPORTED:
		return -ENOTSUP;
	case CUDA_ERROR_NO_BINARY_FOR_GPU:
	case CUDA_ERROR_INVALID_IMAGE:
		return -ENOEXEC;
	/* The library and the kernel module are of different releases: until the next start, say. */
	case CUDA_ERROR_STUB_LIBRARY:
	case CUDA_ERROR_CALL_REQUIRES_NEWER_DRIVER:
	case CUDA_ERROR_SYSTEM_DRIVER_MISMATCH:
	case CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE:
		return -EPROTO;
	/* From here on the context answers every call with the same error. */
	case CUDA_ERROR_ASSERT:
	case CUDA_ERROR_MPS_CLIENT_TERMINATED:
	case CUDA_ERROR_ILLEGAL_ADDRESS:
	case CUDA_ERROR_LAUNCH_TIMEOUT:
	case CUDA_ERROR_HARDWARE_STACK_ERROR:
	case CUDA_ERROR_ILLEGAL_INSTRUCTION:
	case CUDA_ERROR_MISALIGNED_ADDRESS:
	case CUDA_ERROR_INVALID_ADDRESS_SPACE:
	case CUDA_ERROR_INVALID_PC:
	case CUDA_ERROR_LAUNCH_FAILED:
		return -EFAULT;
	case CUDA_ERROR_ECC_UNCORRECTABLE:
	case CUDA_ERROR_NVLINK_UNCORRECTABLE:
	case CUDA_ERROR_CONTAINED:
	case CUDA_ERROR_DEVICE_UNAVAILABLE:
	case CUDA_ERROR_CONTEXT_IS_DESTROYED:
	case CUDA_ERROR_NO_DEVICE:
	case CUDA_ERROR_INVALID_DEVICE:
	case CUDA_ERROR_SYSTEM_NOT_READY:
	case CUDA_ERROR_DEINITIALIZED:
	case CUDA_ERROR_UNKNOWN: /* a GPU that fell off its bus */
		return -ENODEV;
	default:
		return -EIO;
	}
}

static int refuse(char *text, size_t text_bytes, int r, const char *what)
{
	if (text)
		(void)snprintf(text, text_bytes, "%s", what);
	return r;
}

/* With what the driver says of `result`. */
static int refuse_result(struct kernel_device *d, char *text, size_t text_bytes, CUresult result,
			 const char *what)
{
	const char *why = NULL;

	if (d->driver.cuGetErrorString)
		(void)d->driver.cuGetErrorString(result, &why);
	if (text)
		(void)snprintf(text, text_bytes, "%s: %s", what, why ? why : "unknown error");
	return cuda_status(result);
}

static int driver_open(struct cuda_driver *driver, char *text, size_t text_bytes)
{
	CUresult (*get_version)(int *) = NULL;
	CUresult (*get_address)(const char *, void **, int, cuuint64_t,
				CUdriverProcAddressQueryResult *) = NULL;
	void *symbol;

	driver->library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
	if (!driver->library)
		return refuse(text, text_bytes, -ENODEV,
			      "there is no NVIDIA driver (libcuda.so.1)");
	symbol = dlsym(driver->library, "cuDriverGetVersion");
	memcpy(&get_version, &symbol, sizeof(symbol));
	symbol = dlsym(driver->library, "cuGetProcAddress_v2");
	memcpy(&get_address, &symbol, sizeof(symbol));
	if (!get_version || get_version(&driver->version) != CUDA_SUCCESS)
		return refuse(text, text_bytes, -ENODEV, "libcuda.so.1 does not tell its version");
	if (!get_address || driver->version < least_driver_version)
		return refuse(text, text_bytes, -EPROTO,
			      "the NVIDIA driver is too old: branch 580 or newer is needed");
#define X(name, version_of)                                                                  \
	symbol = NULL;                                                                       \
	if (get_address(#name, &symbol, version_of, CU_GET_PROC_ADDRESS_DEFAULT, NULL) !=    \
		    CUDA_SUCCESS ||                                                          \
	    !symbol)                                                                         \
		return refuse(text, text_bytes, -EPROTO, "the NVIDIA driver has no " #name); \
	memcpy(&driver->name, &symbol, sizeof(symbol));
	CUDA_DRIVER_FUNCTIONS(X)
#undef X
	return 0;
}

static int attribute(struct kernel_device *d, CUdevice_attribute which)
{
	int value = 0;

	(void)d->driver.cuDeviceGetAttribute(&value, which, d->device);
	return value;
}

/* What launches are made with must be known; the rest is for reports, and not every chip tells it. */
static bool properties_fill(struct kernel_device *d)
{
	struct cuda_properties *p = &d->properties;

	(void)d->driver.cuDeviceGetName(p->name, sizeof(p->name), d->device);
	p->capability = 10 * attribute(d, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR) +
			attribute(d, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
	p->multiprocessors = attribute(d, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
	p->shared_bytes = attribute(d, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
	p->l2_bytes = attribute(d, CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE);
	p->clock_khz = attribute(d, CU_DEVICE_ATTRIBUTE_CLOCK_RATE);
	p->has_wgmma = p->capability == 90;
	return p->capability >= 10 && p->multiprocessors > 0 && p->shared_bytes > 0;
}

static int device_choose(struct kernel_device *d, int index, char *text, size_t text_bytes)
{
	CUresult result = d->driver.cuInit(0);
	int count = 0;

	if (result == CUDA_SUCCESS)
		result = d->driver.cuDeviceGetCount(&count);
	if (result == CUDA_ERROR_NO_DEVICE || (result == CUDA_SUCCESS && count == 0))
		return refuse(text, text_bytes, -ENODEV, "the NVIDIA driver sees no GPU");
	if (result != CUDA_SUCCESS)
		return refuse_result(d, text, text_bytes, result,
				     "the NVIDIA driver does not start");
	if (index < 0 || index >= count)
		return refuse(text, text_bytes, -ENODEV, "there is no GPU of that number");
	result = d->driver.cuDeviceGet(&d->device, index);
	if (result != CUDA_SUCCESS)
		return refuse_result(d, text, text_bytes, result, "the GPU does not open");
	if (!properties_fill(d))
		return refuse(text, text_bytes, -EIO, "the GPU does not tell what it is");
	result = d->driver.cuDevicePrimaryCtxRetain(&d->context, d->device);
	if (result != CUDA_SUCCESS) {
		d->context = NULL;
		return refuse_result(d, text, text_bytes, result, "the GPU gives no context");
	}
	return cuda_enter(d);
}

static CUresult function_resolve(struct kernel_device *d, enum cuda_kernel kernel)
{
	const struct kernel_entry *entry = &entries[kernel];
	CUkernel handle;
	CUresult result;
	int fixed = 0;

	result = d->driver.cuLibraryGetKernel(&handle, d->library[entry->family], entry->name);
	if (result == CUDA_SUCCESS)
		result = d->driver.cuKernelGetFunction(&d->function[kernel], handle);
	if (result == CUDA_SUCCESS)
		result = d->driver.cuFuncGetAttribute(&fixed, CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES,
						      d->function[kernel]);
	if (result != CUDA_SUCCESS)
		return result;
	d->function_shared[kernel] = d->properties.shared_bytes - fixed;
	return d->driver.cuFuncSetAttribute(d->function[kernel],
					    CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
					    d->function_shared[kernel]);
}

/* Code for this GPU is looked for when the library is loaded, or when a kernel is first needed. */
static int refuse_kernels(struct kernel_device *d, char *text, size_t text_bytes, CUresult result,
			  const char *what, const char *name)
{
	char said[320];

	if (cuda_status(result) == -ENOEXEC)
		(void)snprintf(said, sizeof(said),
			       "the %s \"%s\" cannot be used on %s (compute capability %d.%d; "
			       "9.0, 12.0 and 12.1 have images)",
			       what, name, d->properties.name, d->properties.capability / 10,
			       d->properties.capability % 10);
	else
		(void)snprintf(said, sizeof(said), "the %s \"%s\" cannot be loaded", what, name);
	return refuse_result(d, text, text_bytes, result, said);
}

static int kernels_load(struct kernel_device *d, char *text, size_t text_bytes)
{
	CUresult result;

	for (int i = 0; i < CUDA_FAMILY_COUNT; i++) {
		result = d->driver.cuLibraryLoadData(&d->library[i], images[i], NULL, NULL, 0, NULL,
						     NULL, 0);
		if (result == CUDA_SUCCESS)
			continue;
		d->library[i] = NULL;
		return refuse_kernels(d, text, text_bytes, result, "kernels", family_names[i]);
	}
	for (int i = 0; i < CUDA_KERNEL_COUNT; i++) {
		result = function_resolve(d, (enum cuda_kernel)i);
		if (result != CUDA_SUCCESS)
			return refuse_kernels(d, text, text_bytes, result, "kernel",
					      entries[i].name);
	}
	return 0;
}

uint64_t cuda_images_digest(void)
{
	uint64_t digest = 0xcbf29ce484222325u;

	for (int i = 0; i < CUDA_FAMILY_COUNT; i++) {
		/* A fatbin's header: four bytes of magic, two of version, its own size, the rest's size. */
		uint16_t header;
		uint64_t bytes, word;

		memcpy(&header, images[i] + 6, sizeof(header));
		memcpy(&bytes, images[i] + 8, sizeof(bytes));
		for (uint64_t at = 0; at + sizeof(word) <= header + bytes; at += sizeof(word)) {
			memcpy(&word, images[i] + at, sizeof(word));
			digest = (digest ^ word) * 0x100000001b3u;
			digest ^= digest >> 29;
		}
	}
	return digest;
}

int cuda_device_open(struct kernel_device *device, int index, char *text, size_t text_bytes)
{
	int r = driver_open(&device->driver, text, text_bytes);

	if (r >= 0)
		r = device_choose(device, index, text, text_bytes);
	if (r >= 0)
		r = kernels_load(device, text, text_bytes);
	return r;
}

void cuda_device_close(struct kernel_device *device)
{
	struct cuda_driver *driver = &device->driver;

	if (device->context) {
		(void)cuda_enter(device);
		for (int i = 0; i < CUDA_FAMILY_COUNT; i++)
			if (device->library[i])
				(void)driver->cuLibraryUnload(device->library[i]);
		(void)driver->cuDevicePrimaryCtxRelease(device->device);
		device->context = NULL;
	}
	/* libcuda stays mapped: it does not like to be unloaded and loaded again. */
}
