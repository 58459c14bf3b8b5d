/* What the table of the CUDA back end is put together from, besides the ops of device.h. */
#pragma once

#include "kernels/cuda/device.h"

size_t cuda_weight_prepare_bytes(const struct kernel_device *device,
				 const struct kernel_weight *weight);
int cuda_weight_prepare(struct kernel_device *device, struct kernel_weight *weight, void *memory,
			struct kernel_queue *queue);

int cuda_tensor_peak(struct kernel_device *device, struct kernel_queue *queue, double *ret_flops);

/* Of the table; both are gemm's, the only ops with choices to measure. */
int cuda_tune(struct kernel_device *device, enum kernel_op op, const void *params,
	      struct kernel_queue *queue);
void cuda_tuned(struct kernel_device *device, struct kernel_tuning *ret);

const char *cuda_kernel_name(enum cuda_kernel kernel);
