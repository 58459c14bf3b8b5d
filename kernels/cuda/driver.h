/* Opening libcuda, a device and the embedded kernels. */
#pragma once

#include "kernels/cuda/device.h"

/*
 * Fills driver, device, properties, context, libraries and functions. On failure `text` has one sentence:
 * no driver, driver too old, no device, no image for this device.
 */
int cuda_device_open(struct kernel_device *device, int index, char *text, size_t text_bytes);

/* Accepts a device that is half open. */
void cuda_device_close(struct kernel_device *device);

/* Of all kernels there are, by content: another build's may differ. */
uint64_t cuda_images_digest(void);
