/*
 * What checks of the CUDA back end share, `sana-bench --self-test` and tests/cuda alike: every op runs on the
 * CPU table, its oracle, and on the CUDA table with the same values, and both results are compared. Values of
 * `act` tensors are rounded to BF16 first, so that both back ends start from the same numbers.
 *
 * What goes wrong is kept in `problem` (the first alone) and told to `failed`; from then on nothing more runs
 * until the next reset, so that callers need not look after every step. cmocka programs never come back from
 * `failed` (tests/common/cuda_test.h).
 */
#pragma once

#include "base/util.h"
#include "kernels/cost.h"

/*
 * A result rounded once to BF16 (8 bits): uniform rounding errors of half a unit leave 2^-9/sqrt(3) = 1.1e-3
 * to 2.3e-3 of the norm; F32 sums in another order add nothing to it. One op that rounds once:
 */
#define CUDA_TOLERANCE 2.5e-3

/* An op that rounds intermediate values to BF16 too (operands of a second product). */
#define CUDA_CHAIN_TOLERANCE 6e-3

/* F32 results of BF16 operands. */
#define CUDA_FLOAT_TOLERANCE 1e-5

enum { CUDA_TEST_MAX_BUFFERS = 256 };

/* One comparison, or one time: `what` and `kernels` live as long as the call. */
struct cuda_test_result {
	enum kernel_op op;
	const char *what, *kernels;
	bool right;
	double relative, tolerance; /* relative L2 of a comparison */
	double sum, weighted;	    /* of the CPU's values: Σ|y|, Σ y·(i mod 5 − 2) */
	double ms, flops, bytes;    /* of a time */
};

struct cuda_test_side {
	const struct kernel_backend *table;
	struct kernel_device *device;
	struct kernel_queue *queue;
};

struct cuda_test_buffer {
	void *host, *device;
	size_t device_bytes;
};

struct cuda_test {
	struct cuda_test_side cpu, gpu;
	uint64_t random;
	struct cuda_test_buffer buffer[CUDA_TEST_MAX_BUFFERS];
	int buffers;
	char problem[192];		     /* "" while nothing went wrong */
	void (*failed)(const char *problem); /* or NULL */
	/* Of comparisons and times; NULL: they are printed. */
	void (*result)(void *context, const struct cuda_test_result *result);
	void *context;
};

/* One tensor in both memories: F32 for the CPU, `act` (BF16) or F32 for the GPU. */
struct cuda_tensor {
	float *cpu;
	void *gpu;
	size_t count;
	bool is_float;
};

struct cuda_weight {
	struct kernel_weight cpu, gpu; /* both prepared */
};

/*
 * Opens the CPU and, unless `cpu_alone`, the GPU; `portable`: without kernels for one generation of chips, so
 * what other chips run can be checked here. On failure `text` has a sentence. With the CPU alone everything
 * but the GPU's part is done.
 */
int cuda_test_start(struct cuda_test *test, bool cpu_alone, bool portable, char *text,
		    size_t text_bytes);
void cuda_test_close(struct cuda_test *test);

/* Something that must hold; false when it does not. The text says what does not. */
bool cuda_test_must(struct cuda_test *test, bool holds, const char *format, ...) _printf_(3, 4);

/* A check that is no comparison of tensors. */
void cuda_test_state(struct cuda_test *test, enum kernel_op op, bool right, const char *what);

/* Bytes to the GPU; nothing without one. */
void cuda_test_send(struct cuda_test *test, void *to, const void *from, size_t bytes);

/* The GPU's bytes, once its queue is done. */
void cuda_test_fetch(struct cuda_test *test, void *to, const void *from, size_t bytes);

/* Frees all buffers, forgets the problem, starts the random sequence again. */
void cuda_test_reset(struct cuda_test *test, uint64_t seed);

/* Uniform values in [low, high); act tensors are rounded to BF16 on both sides. */
struct cuda_tensor cuda_test_random(struct cuda_test *test, size_t count, double low, double high,
				    bool is_float);

/* Other values for a tensor that cuda_test_random made. */
void cuda_test_refill(struct cuda_test *test, const struct cuda_tensor *tensor, double low,
		      double high);

/* Every byte 0xff: NaN in both types. */
struct cuda_tensor cuda_test_output(struct cuda_test *test, size_t count, bool is_float);

/* The same values once more, for ops that work in place. */
struct cuda_tensor cuda_test_copy(struct cuda_test *test, const struct cuda_tensor *from);

/* Values that the caller chose, F32 (rounded to BF16 unless is_float). */
struct cuda_tensor cuda_test_values(struct cuda_test *test, const float *values, size_t count,
				    bool is_float);

/* Any bytes, the same on both sides. */
struct cuda_test_bytes {
	void *cpu, *gpu;
};
struct cuda_test_bytes cuda_test_bytes(struct cuda_test *test, const void *from, size_t bytes);

/* Uniform BF16 values of variance about gain²/(in·taps), in the file's layout [out][in][taps]. */
struct cuda_weight cuda_test_weight(struct cuda_test *test, int out, int in, int taps,
				    int tap_first, int tap_count, double gain);

/*
 * Runs the op on both sides, each with exactly the workspace it asks for, poisoned; waits. Two blocks of
 * the same op: pointers into the CPU's memory in `cpu`, into the GPU's in `gpu`.
 */
void cuda_test_run(struct cuda_test *test, enum kernel_op op, struct kernel_workspace *cpu,
		   struct kernel_workspace *gpu);

/* On the GPU alone; returns what the op returned. */
int cuda_test_run_gpu(struct cuda_test *test, enum kernel_op op, struct kernel_workspace *gpu);

/*
 * Relative L2 of the GPU's tensor against the CPU's; it must be within tolerance, and no value NaN.
 * Reports it with the kernels used, and returns it.
 */
double cuda_test_compare(struct cuda_test *test, enum kernel_op op,
			 const struct cuda_tensor *tensor, double tolerance, const char *format,
			 ...) _printf_(5, 6);

/* A digest of the GPU's bytes: two runs must give the same. */
uint64_t cuda_test_digest(struct cuda_test *test, const struct cuda_tensor *tensor);

/*
 * Median milliseconds of `runs` runs of the op after three of warm-up, each between two events with the L2
 * cache swept before; reports them beside the op's FLOP and bytes (kernels/cost.h).
 */
double cuda_test_time(struct cuda_test *test, enum kernel_op op, struct kernel_workspace *gpu,
		      int runs, const char *format, ...) _printf_(5, 6);
