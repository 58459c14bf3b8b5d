/*
 * NVIDIA's matrix library, cublasLt, opened at run time. Nothing is linked and no header of it is needed:
 * what is used of its binary interface is declared in cublaslt.c.
 *
 * One kind of product: y = x·Wᵀ (+ bias), BF16 matrices, F32 sums, F32 bias, one rounding. x [rows][in],
 * W [out][in], y [rows][out], row strides ldx, in, ldy; every row begins at a multiple of 16 bytes. Only
 * algorithms are offered that give the same bits each time and sum in F32.
 *
 * The device is the one whose context is current on the calling thread. cublaslt_plan_run may be called
 * from any thread, and while a stream is captured; everything else belongs to one thread at a time.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cublaslt;

/* −ENOENT: there is no libcublasLt of version 12 or 13; −EPROTO: it lacks a function. Needs no GPU. */
int cublaslt_open(struct cublaslt **ret);

/* After its plans, which must not be in use. Unmaps the library too. NULL is fine. */
void cublaslt_close(struct cublaslt *lt);

/* 130100: 13.1.0 */
size_t cublaslt_version(const struct cublaslt *lt);

struct cublaslt_product {
	int rows, in, out;
	int64_t ldx, ldy;
	const float *bias; /* or NULL; of another product of the plan it may be another one */
};

enum { CUBLASLT_ALGORITHMS = 16, CUBLASLT_NAME_BYTES = 64 };

/* The library's own words for an algorithm: they are compared, never made up. */
struct cublaslt_algorithm {
	uint64_t data[8];
};

struct cublaslt_plan;

/*
 * Asks for at most `most` algorithms, best guess first, that want no more than `workspace_bytes`. −ENOTSUP:
 * there is none; −EIO: the library does not work here.
 */
int cublaslt_plan_create(struct cublaslt *lt, const struct cublaslt_product *product, int most,
			 size_t workspace_bytes, struct cublaslt_plan **ret);
void cublaslt_plan_destroy(struct cublaslt_plan *plan); /* NULL is fine */

int cublaslt_plan_algorithms(const struct cublaslt_plan *plan);
const struct cublaslt_algorithm *cublaslt_plan_algorithm(const struct cublaslt_plan *plan, int i);

/* "cublasLt algorithm 66 tile 20 splits 1" */
void cublaslt_plan_name(const struct cublaslt_plan *plan, int i, char ret[CUBLASLT_NAME_BYTES]);

/*
 * Enqueues the product on `stream` (a CUstream). The workspace as large as was said, 256-byte aligned.
 * −EIO: the library refuses.
 */
int cublaslt_plan_run(struct cublaslt_plan *plan, int algorithm, const void *x, const void *w,
		      const float *bias, void *y, void *workspace, void *stream);
