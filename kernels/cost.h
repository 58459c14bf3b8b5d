/*
 * What an op must do at least: the closed form of its arithmetic and of its memory traffic, from its
 * parameter block alone. Benchmarks divide measured times by it, estimates multiply it by rates.
 *
 *   flops   2 per multiply-add of matrix products and convolutions, padding not counted; operations
 *           on single values (norms, activations, rotations) are not arithmetic worth counting: 0.
 *   bytes   each input read once, each output written once, in the storage types given; workspace is
 *           not counted. Weights that several calls share count for every call.
 *
 * No tensor memory is read, so blocks of a planning pass will do.
 */
#pragma once

#include "kernels/kernels.h"

struct kernel_cost {
	double flops, bytes;
};

/* Storage of `act` tensors and of weights, bytes an element. */
struct kernel_storage {
	size_t activation_bytes, weight_bytes;
};

/* An op outside the enum costs nothing. */
struct kernel_cost kernel_op_cost(enum kernel_op op, const struct kernel_workspace *params,
				  const struct kernel_storage *storage);
