/* What the machine does at most: a plain matrix product, its matrix units alone, a copy. */
#include "base/util.h"
#include "kernels/kernels.h"
#include "tools/bench/bench.h"
#include "tools/bench/peer.h"

#include <errno.h>
#include <time.h>

enum { CPU_SIDE = 2048, GPU_SIDE = 8192, RUNS = 5, COPY_BYTES = 1 << 29, PEER_BYTES = 32 << 20 };

struct peak {
	const struct kernel_backend *table;
	struct kernel_device *device;
	struct kernel_queue *queue;
	size_t side;
	void *host; /* [side][side], nonzero values */
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

/* One thing whose rate is measured: enqueues it once and says how much it is. */
typedef int (*peak_work)(struct peak *p, void *context, double *ret_amount);

/* Best of some runs, by the device's own marks where it has them. */
static int best_rate(struct peak *p, peak_work work, void *context, double *ret)
{
	const bool marks = p->table->timer_mark != NULL;
	double best = 0, amount = 0;
	int64_t ns;
	int r = 0;

	for (int i = -1; i < RUNS && r >= 0; i++) {
		const double start = now();

		if (marks)
			r = p->table->timer_mark(p->device, 0, p->queue);
		if (r >= 0)
			r = work(p, context, &amount);
		if (r >= 0 && marks)
			r = p->table->timer_mark(p->device, 1, p->queue);
		if (r >= 0)
			r = p->table->queue_wait(p->device, p->queue);
		ns = (int64_t)(1e9 * (now() - start));
		if (r >= 0 && marks)
			r = p->table->timer_read(p->device, 0, 1, &ns);
		if (i >= 0)
			best = MAX_OF(best, amount / (1e-9 * (double)MAX_OF(ns, 1)));
	}
	*ret = best;
	return r;
}

static int linear_run(struct peak *p, void *context, double *ret_flops)
{
	*ret_flops = 2.0 * (double)p->side * (double)p->side * (double)p->side;
	return p->table->run[KERNEL_OP_linear](p->device, context, p->queue);
}

static int tensor_run(struct peak *p, void *context, double *ret_flops)
{
	(void)context;
	return p->table->tensor_peak(p->device, p->queue, ret_flops);
}

static int copy_run(struct peak *p, void *context, double *ret_bytes)
{
	const size_t half = p->bytes / 2 / KERNEL_ALIGNMENT * KERNEL_ALIGNMENT;

	(void)context;
	*ret_bytes = 2.0 * (double)half;
	return p->table->copy(p->device, (char *)p->memory + half, p->memory, half, p->queue);
}

/* Values between −½ and ½ in the back end's activation type. */
static void *values_make(const struct kernel_backend *table, size_t count)
{
	const size_t bytes = kernel_dtype_bytes(table->activation);
	char *values = malloc(count * bytes);

	for (size_t i = 0; values && i < count; i++) {
		const float value = (float)(i * 2654435761u % 1021) / 1021.0f - 0.5f;
		uint32_t bits;

		memcpy(&bits, &value, sizeof(bits));
		if (bytes == sizeof(value)) {
			memcpy(values + i * bytes, &value, bytes);
		} else {
			const uint16_t upper = (uint16_t)(bits >> 16);

			memcpy(values + i * bytes, &upper, bytes);
		}
	}
	return values;
}

static int gemm_measure(struct peak *p, struct bench_peak *ret)
{
	const size_t matrix = p->side * p->side * kernel_dtype_bytes(p->table->activation);
	const int side = (int)p->side;
	struct kernel_weight weight = {
		.data = p->host,
		.dtype = p->table->activation,
		.out = side,
		.in = side,
		.taps = 1,
		.tap_count = 1,
	};
	struct kernel_linear linear = { .ldx = p->side,
					.rows = side,
					.parts = 1,
					.part[0] = { .weight = &weight, .ldy = p->side } };
	char *at;
	int r;

	if (p->table->workspace[KERNEL_OP_linear])
		linear.workspace.bytes = p->table->workspace[KERNEL_OP_linear](p->device, &linear);
	p->bytes = MAX_OF(3 * matrix + MAX_OF(linear.workspace.bytes, (size_t)PEER_BYTES),
			  (size_t)COPY_BYTES);
	r = p->table->allocate(p->device, p->bytes, &p->memory);
	if (r < 0)
		return r;
	at = p->memory;
	linear.x = at;
	linear.part[0].y = at + matrix;
	linear.workspace.data = at + 3 * matrix;
	r = p->table->upload(p->device, at, p->host, matrix, p->queue);
	if (r >= 0)
		r = p->table->weight_prepare(p->device, &weight, at + 2 * matrix, p->queue);
	if (r >= 0)
		r = best_rate(p, linear_run, &linear, &ret->gemm_flops);
	if (r >= 0 && p->table->weights_on_device)
		ret->peer_flops = peer_gemm_flops(side, at, at + 2 * matrix, at + matrix,
						  at + 3 * matrix, PEER_BYTES, ret->peer,
						  sizeof(ret->peer));
	return r;
}

static int peak_measure(struct peak *p, int threads, struct bench_peak *ret)
{
	const struct kernel_device_options options = { .threads = threads };
	int r;

	p->side = p->table->weights_on_device ? GPU_SIDE : CPU_SIDE;
	p->host = values_make(p->table, p->side * p->side);
	if (!p->host)
		return -ENOMEM;
	r = p->table->open(&options, NULL, 0, &p->device);
	if (r >= 0)
		r = p->table->queue_create(p->device, 0, &p->queue);
	*ret = (struct bench_peak){ .side = (int)p->side };
	if (r >= 0 && p->table->facts)
		p->table->facts(p->device, &ret->facts);
	/* First: the longer products that follow make a GPU slower, by its limit of power. */
	if (r >= 0 && p->table->tensor_peak)
		r = best_rate(p, tensor_run, NULL, &ret->tensor_flops);
	if (r >= 0)
		r = gemm_measure(p, ret);
	if (r >= 0)
		r = best_rate(p, copy_run, NULL, &ret->copy_bytes);
	return r;
}

int bench_peak_measure(const char *backend, int threads, struct bench_peak *ret,
		       struct sana_error *error)
{
	static const struct kernel_backend *const tables[] = { &kernel_backend_cpu,
							       &kernel_backend_cuda };
	struct peak p = { 0 };
	int r;

	for (size_t i = 0; i < ARRAY_SIZE(tables); i++)
		if (strcmp(backend, tables[i]->name) == 0)
			p.table = tables[i];
	if (!p.table)
		return sana_error_set(error, -ENOTSUP, "backend.unknown",
				      "There is no peak measurement for back end \"%.32s\".",
				      backend);
	r = peak_measure(&p, threads, ret);
	peak_finish(&p);
	if (r < 0)
		return sana_error_set(error, r, "backend.failed", "The matrix products failed: %s.",
				      strerror(-r));
	return 0;
}
