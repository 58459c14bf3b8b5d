/* NVIDIA's management library, opened at run time. */
#include "tools/bench/nvml.h"

#include "base/util.h"

#include <dlfcn.h>

typedef void *nvml_device;

/* Names, results and constants as nvml.h has them; 0 is success everywhere. */
enum { NVML_TEMPERATURE_GPU = 0, NVML_CLOCK_SM = 1, NVML_CLOCK_MEM = 2 };

#define NVML_FUNCTIONS(X)                                                           \
	X(nvmlInit_v2, (void))                                                      \
	X(nvmlShutdown, (void))                                                     \
	X(nvmlSystemGetDriverVersion, (char *, unsigned int))                       \
	X(nvmlDeviceGetHandleByPciBusId_v2, (const char *, nvml_device *))          \
	X(nvmlDeviceGetHandleByIndex_v2, (unsigned int, nvml_device *))             \
	X(nvmlDeviceGetTotalEnergyConsumption, (nvml_device, unsigned long long *)) \
	X(nvmlDeviceGetPowerUsage, (nvml_device, unsigned int *))                   \
	X(nvmlDeviceGetTemperature, (nvml_device, int, unsigned int *))             \
	X(nvmlDeviceGetClockInfo, (nvml_device, int, unsigned int *))               \
	X(nvmlDeviceGetEnforcedPowerLimit, (nvml_device, unsigned int *))

struct nvml {
	void *library;
	nvml_device device;
	char driver[80];
#define X(name, arguments) int(*name) arguments;
	NVML_FUNCTIONS(X)
#undef X
};

static bool functions_find(struct nvml *n)
{
	void *symbol;

#define X(name, arguments)                 \
	symbol = dlsym(n->library, #name); \
	if (!symbol)                       \
		return false;              \
	memcpy(&n->name, &symbol, sizeof(symbol));
	NVML_FUNCTIONS(X)
#undef X
	return true;
}

struct nvml *nvml_open(const char *pci)
{
	struct nvml *n = calloc(1, sizeof(*n));

	if (!n)
		return NULL;
	n->library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
	if (!n->library || !functions_find(n) || n->nvmlInit_v2() != 0) {
		if (n->library)
			(void)dlclose(n->library);
		free(n);
		return NULL;
	}
	if ((!pci || n->nvmlDeviceGetHandleByPciBusId_v2(pci, &n->device) != 0) &&
	    n->nvmlDeviceGetHandleByIndex_v2(0, &n->device) != 0) {
		nvml_close(n);
		return NULL;
	}
	if (n->nvmlSystemGetDriverVersion(n->driver, sizeof(n->driver)) != 0)
		n->driver[0] = '\0';
	return n;
}

void nvml_close(struct nvml *nvml)
{
	if (!nvml)
		return;
	(void)nvml->nvmlShutdown();
	(void)dlclose(nvml->library);
	free(nvml);
}

const char *nvml_driver(const struct nvml *nvml)
{
	return nvml ? nvml->driver : "";
}

struct nvml_state nvml_state(const struct nvml *nvml)
{
	struct nvml_state s = { -1, -1, -1, -1, -1, -1 };
	unsigned long long mj;
	unsigned int value;

	if (!nvml)
		return s;
	if (nvml->nvmlDeviceGetTotalEnergyConsumption(nvml->device, &mj) == 0)
		s.joules = 1e-3 * (double)mj;
	if (nvml->nvmlDeviceGetPowerUsage(nvml->device, &value) == 0)
		s.watts = 1e-3 * value;
	if (nvml->nvmlDeviceGetTemperature(nvml->device, NVML_TEMPERATURE_GPU, &value) == 0)
		s.celsius = value;
	if (nvml->nvmlDeviceGetClockInfo(nvml->device, NVML_CLOCK_SM, &value) == 0)
		s.sm_mhz = value;
	if (nvml->nvmlDeviceGetClockInfo(nvml->device, NVML_CLOCK_MEM, &value) == 0)
		s.memory_mhz = value;
	if (nvml->nvmlDeviceGetEnforcedPowerLimit(nvml->device, &value) == 0)
		s.power_limit_watts = 1e-3 * value;
	return s;
}
