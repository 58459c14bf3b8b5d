/*
 * Which way a matrix product is made: measured once on this device, remembered, kept in a file
 * (kernels/tuning.h) for the next process.
 *
 * The ways are our own kernels that fit (gemm.c's tiles) and, for plain products, algorithms of cublasLt
 * where that library is there. What was not measured goes by gemm.c's estimate. Everything is measured
 * while a stream opens; afterwards the choices are only read, by any thread.
 */
#pragma once

#include "kernels/cuda/device.h"
#include "kernels/cuda/gemm.h"

/*
 * Workspace of an op that the library may serve, and the most that an algorithm is offered: enough for an F32
 * tile of 128x128 left behind by each of 170 multiprocessors, where sums are cut along K.
 */
enum { GEMM_LIBRARY_BYTES = 16 << 20 };

struct gemm_plan;

/*
 * NULL for options that forbid it (deterministic): choices are then gemm.c's alone. `portable` devices
 * measure their own kernels only.
 */
struct gemm_plans *gemm_plans_create(const struct kernel_device_options *options);
void gemm_plans_destroy(struct kernel_device *device);

/* Bytes of workspace the library may want for it. */
size_t gemm_plan_workspace(const struct kernel_device *device, int rows, int in, int out);

/* NULL: not measured. */
const struct gemm_plan *gemm_plan_find(const struct kernel_device *device,
				       const struct gemm_params *p, enum gemm_epilogue epilogue);

/* −ENOTSUP: the library refused, or the workspace is too small; our own kernels make it from now on. */
int gemm_plan_run(struct kernel_device *device, const struct gemm_plan *plan,
		  const struct gemm_params *p, enum gemm_epilogue epilogue,
		  const struct kernel_workspace *workspace, struct kernel_queue *queue);

/*
 * Measures the ways of this product, unless its choice is known, the product is small, or the time for
 * all of it is used up. Its input and its outputs are overwritten.
 */
int gemm_plan_measure(struct kernel_device *device, const struct gemm_params *p,
		      enum gemm_epilogue epilogue, const struct kernel_workspace *workspace,
		      struct kernel_queue *queue);

/* What gemm.c offers: the ways of our own, numbered from 0. */
int gemm_ways(void);
bool gemm_way_usable(const struct kernel_device *device, const struct gemm_params *p, int way,
		     enum gemm_epilogue epilogue);
/* An estimate, to leave out what is far off; any unit. */
double gemm_way_cost(const struct kernel_device *device, const struct gemm_params *p, int way);
/* By that estimate; −1: none. */
int gemm_way_choose(const struct kernel_device *device, const struct gemm_params *p,
		    enum gemm_epilogue epilogue);
const char *gemm_way_name(int way, enum gemm_epilogue epilogue);
int gemm_way_run(struct kernel_device *device, const struct gemm_params *p, int way,
		 enum gemm_epilogue epilogue, struct kernel_queue *queue);
