/* The rate of a plain matrix product here: the ceiling of everything else. */
#include "base/util.h"
#include "kernels/kernels.h"
#include "tools/bench/bench.h"

#include <errno.h>
#include <time.h>

enum { SIDE = 2048, RUNS = 5 };

struct peak {
	const struct kernel_backend *table;
	struct kernel_device *device;
	struct kernel_queue *queue;
	float *host; /* [SIDE][SIDE], nonzero values */
	void *memory;
	size_t bytes;
};

static double now(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void peak_finish(struct peak *p)
{
	if (p->memory)
		p->table->release(p->device, p->memory, p->bytes);
	if (p->queue)
		p->table->queue_destroy(p->device, p->queue);
	if (p->device)
		p->table->close(p->device);
	free(p->host);
}

static int best_of(struct peak *p, struct kernel_linear *linear, double *ret_seconds)
{
	double best = 1e30, start;
	int r;

	for (int i = 0; i < RUNS; i++) {
		start = now();
		r = p->table->run[KERNEL_OP_linear](p->device, linear, p->queue);
		if (r >= 0)
			r = p->table->queue_wait(p->device, p->queue);
		if (r < 0)
			return r;
		best = MIN_OF(best, now() - start);
	}
	*ret_seconds = best;
	return 0;
}

static int peak_measure(struct peak *p, int threads, double *ret_gflops)
{
	const struct kernel_device_options options = { .threads = threads };
	const size_t count = (size_t)SIDE * SIDE, matrix = count * sizeof(float);
	struct kernel_weight weight = {
		.dtype = KERNEL_F32,
		.out = SIDE,
		.in = SIDE,
		.taps = 1,
		.tap_count = 1,
	};
	struct kernel_linear linear = {
		.ldx = SIDE, .rows = SIDE, .parts = 1, .part[0] = { .weight = &weight, .ldy = SIDE }
	};
	double seconds;
	char *at;
	int r;

	p->host = malloc(matrix);
	if (!p->host)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++)
		p->host[i] = (float)(i % 1021) / 1021.0f - 0.5f;
	weight.data = p->host;
	r = p->table->open(&options, NULL, 0, &p->device);
	if (r >= 0)
		r = p->table->queue_create(p->device, 0, &p->queue);
	if (r < 0)
		return r;
	linear.workspace.bytes = p->table->workspace[KERNEL_OP_linear](p->device, &linear);
	p->bytes = 3 * matrix + linear.workspace.bytes;
	r = p->table->allocate(p->device, p->bytes, &p->memory);
	if (r < 0)
		return r;
	at = p->memory;
	linear.x = at;
	linear.part[0].y = at + matrix;
	linear.workspace.data = at + 3 * matrix;
	r = p->table->upload(p->device, at, p->host, matrix, p->queue);
	if (r >= 0 && p->table->weight_prepare_bytes(p->device, &weight) <= matrix)
		r = p->table->weight_prepare(p->device, &weight, at + 2 * matrix, p->queue);
	if (r >= 0)
		r = best_of(p, &linear, &seconds);
	if (r >= 0)
		*ret_gflops = 2e-9 * SIDE * SIDE * SIDE / seconds;
	return r;
}

int bench_gemm_peak(const char *backend, int threads, double *ret_gflops, struct sana_error *error)
{
	struct peak p = { .table = &kernel_backend_cpu };
	int r;

	if (backend && strcmp(backend, p.table->name) != 0)
		return sana_error_set(error, -ENOTSUP, "backend.unknown",
				      "There is no peak measurement for back end \"%.32s\".",
				      backend);
	r = peak_measure(&p, threads, ret_gflops);
	peak_finish(&p);
	if (r < 0)
		return sana_error_set(error, r, "backend.failed", "The matrix products failed: %s.",
				      strerror(-r));
	return 0;
}
