/*
 * What the GPU draws and how warm it is, from NVIDIA's management library, opened at run time and declared by
 * hand: nothing is linked. Where it is absent, or silent, a figure is not known (negative).
 */
#pragma once

struct nvml; /* NULL everywhere: not there */

struct nvml_state {
	double joules; /* since the driver was loaded */
	double watts, celsius, sm_mhz, memory_mhz, power_limit_watts;
};

/* The GPU at a PCI address ("0000:3b:00.0"), or the first one. NULL where there is none. */
struct nvml *nvml_open(const char *pci);
void nvml_close(struct nvml *nvml);

/* "580.95.05", "" when it is not known. */
const char *nvml_driver(const struct nvml *nvml);

/* Every figure that is not known is −1. */
struct nvml_state nvml_state(const struct nvml *nvml);
