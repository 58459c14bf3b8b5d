/*
 * What the op tests share: a device, guarded buffers, random tensors and weights by a fixed seed,
 * a run with exactly the workspace that was asked for, and the comparison with FP64.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/util.h"
#include "kernels/kernels.h"

/*
 * F32 rounding (6e-8) of a few thousand terms in blocked order leaves 2e-7 to 1e-6 of the
 * result's norm; twice that is the limit for one sum and what is done to it.
 */
#define OP_TOLERANCE 2e-6

/* Sums that feed each other (gated delta rule, softmax of a product): the errors of two or so. */
#define OP_CHAIN_TOLERANCE 4e-6

enum { OP_TEST_MAX_BUFFERS = 256 };

struct op_test_buffer {
	unsigned char *memory; /* guard, contents, guard */
	size_t bytes;	       /* of the contents */
};

struct op_test {
	const struct kernel_backend *table;
	struct kernel_device *device;
	struct kernel_queue *queue;
	uint64_t random;
	struct op_test_buffer buffer[OP_TEST_MAX_BUFFERS];
	int buffers;
};

/* Opens the CPU back end with `threads` threads; failures are assertions, here as below. */
void op_test_open(struct op_test *test, int threads);
void op_test_close(struct op_test *test);

/* Frees the buffers of the last case and starts the random sequence again. */
void op_test_reset(struct op_test *test, uint64_t seed);

/* Guarded, KERNEL_ALIGNMENT aligned, every byte 0xff: F32 elements are NaN. */
void *op_test_buffer(struct op_test *test, size_t bytes);
float *op_test_floats(struct op_test *test, size_t count);

/* Uniform in [low, high). */
double op_test_uniform(struct op_test *test, double low, double high);
float *op_test_random(struct op_test *test, size_t count, double low, double high);
float *op_test_copy(struct op_test *test, const float *from, size_t count);

/* Rotation tables of random angles for frames × height × width tokens. */
struct kernel_rope op_test_rope(struct op_test *test, int frames, int height, int width,
				int pairs_t, int pairs_y, int pairs_x);

/*
 * Random weights in the file's layout, beginning one byte off any alignment when they are not F32,
 * taps [tap_first, tap_first + tap_count) of `taps`.
 */
struct op_test_weight {
	int out, in, taps, tap_first, tap_count;
	enum kernel_dtype dtype;
	bool prepared;
};

struct kernel_weight *op_test_weight(struct op_test *test, const struct op_test_weight *wish);

/* The value the file holds, tap counted from tap_first, read without the back end's help. */
double op_test_weight_at(const struct kernel_weight *weight, int out, int tap, int in);

/* All of them: [out][tap_count][in]. */
double *op_test_weight_values(struct op_test *test, const struct kernel_weight *weight);

/*
 * Runs the op with a guarded, poisoned workspace of exactly the bytes it asks for, having seen that
 * one byte less is refused; checks the guards of all buffers. Returns what the op returned.
 */
int op_test_try(struct op_test *test, enum kernel_op op, struct kernel_workspace *params);

/* The same, and the op must succeed. */
void op_test_run(struct op_test *test, enum kernel_op op, struct kernel_workspace *params);

/*
 * Relative L2 (norm of the difference over norm of `want`) and the largest difference over the
 * largest |want| must both be within tolerance, the second with a factor of ten: one element may
 * be that much worse than the whole. Prints what it compared.
 */
void op_test_compare(const float *got, const double *want, size_t count, double tolerance,
		     const char *format, ...) _printf_(5, 6);

/* FP64 versions of the header's scalar functions. */
double op_test_silu(double a);
double op_test_sigmoid(double a);
double op_test_gelu(double a);
