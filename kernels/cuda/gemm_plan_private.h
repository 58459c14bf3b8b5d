/*
 * Inside of gemm_plan.c (choices found, run, begun and ended), gemm_measure.c (made) and gemm_kept.c (from
 * files and to them).
 */
#pragma once

#include <stdatomic.h>

#include "kernels/cublaslt.h"
#include "kernels/cuda/gemm_plan.h"
#include "kernels/tuning.h"

enum { GEMM_ALGORITHMS = 8 }; /* of cublasLt, a product */

_Static_assert(8 + 3 * GEMM_PARTS <= TUNING_FIELDS && (int)GEMM_PARTS <= (int)TUNING_PRODUCTS,
	       "a choice holds every part");

struct gemm_product {
	int first, parts, algorithm;
	struct cublaslt_plan *plan;
	char name[CUBLASLT_NAME_BYTES];
};

struct gemm_plan {
	int key[TUNING_FIELDS];
	int way; /* for what no product makes; −1: nothing is left */
	int products;
	struct gemm_product product[GEMM_PARTS];
};

struct gemm_plans {
	bool portable;
	char path[4096]; /* of the file, once the device is known; "": none */
	char directory[3900];
	/* Read without the lock: an entry is whole before it is counted. */
	atomic_int count;
	atomic_bool library_failed;
	struct gemm_plan plan[TUNING_CHOICES];

	pthread_mutex_t lock; /* of all that follows */
	bool begun, changed;
	struct cublaslt *library;
	uint64_t library_version;
	struct tuning kept;
	struct kernel_tuning report;
	/* While measuring: random BF16 values, copied about so that nothing else stays in the L2 cache. */
	CUdeviceptr sweep;
	size_t sweep_bytes;
	CUevent event[2];
};

/* One product whose ways are being measured. */
struct gemm_bench {
	struct kernel_device *d;
	struct gemm_plans *plans;
	const struct gemm_params *p;
	enum gemm_epilogue epilogue;
	const struct kernel_workspace *workspace;
	struct kernel_queue *queue;
};

/* Of its products in cublasLt. */
void gemm_products_clear(struct gemm_plan *plan);

/* Parts [first, first + parts), neighbours, as the library sees them. */
struct cublaslt_product gemm_library_product(const struct gemm_params *p, int first, int parts);

/* Neighbours in memory, as columns of one product: made by one call. */
bool gemm_part_joins(const struct gemm_params *p, int i);

/* The parts that no product of the plan makes, as a launch of their own. */
struct gemm_params gemm_rest(const struct gemm_params *p, const struct gemm_plan *plan);

/* The library may make it, if it is there. */
bool gemm_library_may(const struct gemm_bench *b);

int gemm_product_run(struct kernel_device *d, const struct gemm_params *p,
		     const struct gemm_product *product, const struct kernel_workspace *workspace,
		     struct kernel_queue *queue);
int gemm_plan_enqueue(struct kernel_device *d, const struct gemm_plan *plan,
		      const struct gemm_params *p, enum gemm_epilogue epilogue,
		      const struct kernel_workspace *workspace, struct kernel_queue *queue);

/* gemm_measure.c: memory and events; twice is once. The end accepts a beginning that failed. */
int gemm_measuring_begin(struct kernel_device *d, CUstream stream);
void gemm_measuring_end(struct kernel_device *d);

/*
 * The estimate's choice stays unless another saves something that is no accident of measuring. ret->key
 * stays. −errno: it cannot be measured, and the estimate serves.
 */
int gemm_plan_make(const struct gemm_bench *b, struct gemm_plan *ret);

/* gemm_kept.c: once, when the library is open or known not to be there. */
void gemm_kept_load(const struct kernel_device *d);

/* False: it does not fit, and is measured anew. */
bool gemm_kept_take(const struct gemm_bench *b, const struct tuning_choice *kept,
		    struct gemm_plan *ret);
void gemm_kept_put(const struct gemm_bench *b, const struct gemm_plan *plan);

/* Writes what is new. */
void gemm_kept_save(struct gemm_plans *plans);
