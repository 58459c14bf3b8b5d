/* Ways of making a matrix product, timed against each other. */
#include "kernels/cuda/gemm_plan_private.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum {
	WAYS = 16,
	FIRST_RUNS = 2, /* of every candidate, after one for its code to be loaded */
	MORE_RUNS = 5,	/* of those near the best */
	LAST_RUNS = 9,	/* of the finalists, in turn */
	LONG_RUNS = 2,	/* … and where a run is so long that few tell as much */
	LONG_LAST_RUNS = 5,
	MOST_RUNS = 16,
	PATTERN_BYTES = 1 << 20,
	LEAST_SWEEP_BYTES = 64 << 20,
};

static const double long_ms = 0.5;

/* How far from the best a candidate may be to be looked at again, or by our estimate at all. */
static const double near = 1.10, worth = 2.0;

/* What another way must save over the estimate's, and the library over our own kernels. */
static const double own_margin = 0.98, library_margin = 0.97;

/* BF16 values of both signs from 2^-6 to 1: what a kernel's power, and so its clock, depends on. */
static int pattern_send(struct kernel_device *d, CUdeviceptr to, CUstream stream)
{
	uint16_t *values = malloc(PATTERN_BYTES);
	uint64_t random = 88172645463325252u;
	int r;

	if (!values)
		return -ENOMEM;
	for (size_t i = 0; i < PATTERN_BYTES / sizeof(*values); i++) {
		random = random * 6364136223846793005u + 1442695040888963407u;
		values[i] = (uint16_t)((random >> 48 & 0x807f) | (121 + (random >> 40) % 6) << 7);
	}
	r = cuda_status(d->driver.cuMemcpyHtoDAsync(to, values, PATTERN_BYTES, stream));
	if (r >= 0)
		r = cuda_status(d->driver.cuStreamSynchronize(stream));
	free(values);
	return r;
}

void gemm_measuring_end(struct kernel_device *d)
{
	struct gemm_plans *plans = d->plans;

	for (int i = 0; i < 2; i++) {
		if (plans->event[i])
			(void)d->driver.cuEventDestroy(plans->event[i]);
		plans->event[i] = NULL;
	}
	if (plans->sweep)
		(void)d->driver.cuMemFree(plans->sweep);
	plans->sweep = 0;
}

int gemm_measuring_begin(struct kernel_device *d, CUstream stream)
{
	struct gemm_plans *plans = d->plans;
	size_t bytes = 2 * (size_t)(d->properties.l2_bytes > 0 ? d->properties.l2_bytes : 0);
	int r = 0;

	if (plans->sweep)
		return 0;
	bytes = bytes > LEAST_SWEEP_BYTES ? bytes : LEAST_SWEEP_BYTES;
	plans->sweep_bytes = bytes / PATTERN_BYTES * PATTERN_BYTES;
	for (int i = 0; i < 2 && r >= 0; i++)
		r = cuda_status(d->driver.cuEventCreate(&plans->event[i], CU_EVENT_DEFAULT));
	if (r >= 0)
		r = cuda_status(d->driver.cuMemAlloc(&plans->sweep, plans->sweep_bytes));
	if (r >= 0)
		r = pattern_send(d, plans->sweep, stream);
	for (size_t at = PATTERN_BYTES; at < plans->sweep_bytes && r >= 0; at += PATTERN_BYTES)
		r = cuda_status(d->driver.cuMemcpyDtoDAsync(plans->sweep + at, plans->sweep,
							    PATTERN_BYTES, stream));
	if (r < 0)
		gemm_measuring_end(d);
	return r;
}

/* A way: runs once. */
typedef int (*bench_run)(const struct gemm_bench *b, const void *context, int candidate);

/* As the kernel before leaves it: the input is in the L2 cache, the weights are not. */
static int caches_set(const struct gemm_bench *b)
{
	const struct cuda_driver *driver = &b->d->driver;
	const size_t half = b->plans->sweep_bytes / 2;
	const size_t input = 2 * ((size_t)(b->p->rows - 1) * (size_t)b->p->ldx + (size_t)b->p->in);
	CUresult result = driver->cuMemcpyDtoDAsync(b->plans->sweep + half, b->plans->sweep, half,
						    b->queue->stream);

	for (size_t at = 0; at < input && result == CUDA_SUCCESS; at += half)
		result = driver->cuMemcpyDtoDAsync(cuda_address(b->p->x_data) + at, b->plans->sweep,
						   input - at < half ? input - at : half,
						   b->queue->stream);
	return cuda_status(result);
}

/* Milliseconds of one run; negative: −errno of what cannot be run. */
static double run_time(const struct gemm_bench *b, bench_run run, const void *context,
		       int candidate)
{
	const struct cuda_driver *driver = &b->d->driver;
	CUevent *event = b->plans->event;
	float ms = 0;
	int r = caches_set(b);

	if (r >= 0)
		r = cuda_status(driver->cuEventRecord(event[0], b->queue->stream));
	if (r >= 0)
		r = run(b, context, candidate);
	if (r >= 0)
		r = cuda_status(driver->cuEventRecord(event[1], b->queue->stream));
	if (r >= 0)
		r = cuda_status(driver->cuEventSynchronize(event[1]));
	if (r >= 0)
		r = cuda_status(driver->cuEventElapsedTime(&ms, event[0], event[1]));
	return r < 0 ? (double)r : (double)ms;
}

struct times {
	double ms[MOST_RUNS];
	int runs;
	double median; /* INFINITY: cannot be run */
};

static int compare_times(const void *a, const void *b)
{
	const double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void times_add(struct times *t, double ms)
{
	if (ms < 0)
		t->median = INFINITY;
	if (ms < 0 || t->runs == MOST_RUNS || isinf(t->median))
		return;
	t->ms[t->runs++] = ms;
	qsort(t->ms, (size_t)t->runs, sizeof(*t->ms), compare_times);
	t->median = t->ms[t->runs / 2];
}

static int times_best(const struct times *t, int count)
{
	int best = 0;

	for (int i = 1; i < count; i++)
		if (t[i].median < t[best].median)
			best = i;
	return best;
}

/* Each once for its code, a few times, and those near the best some more, in turn. */
static void times_take(const struct gemm_bench *b, bench_run run, const void *context,
		       struct times *t, int count)
{
	double least = INFINITY;

	for (int i = 0; i < count; i++) {
		if (run_time(b, run, context, i) < 0)
			t[i].median = INFINITY;
		for (int k = 0; k < FIRST_RUNS && !isinf(t[i].median); k++)
			times_add(&t[i], run_time(b, run, context, i));
		least = t[i].median < least ? t[i].median : least;
	}
	for (int k = 0; k < (least < long_ms ? MORE_RUNS : LONG_RUNS); k++)
		for (int i = 0; i < count; i++)
			if (!isinf(t[i].median) && t[i].median <= near * least)
				times_add(&t[i], run_time(b, run, context, i));
}

static int way_run(const struct gemm_bench *b, const void *context, int candidate)
{
	const int *way = context;

	return gemm_way_run(b->d, b->p, way[candidate], b->epilogue, b->queue);
}

/* The fastest of our own. */
static int own_choose(const struct gemm_bench *b, int by_estimate)
{
	const double least = gemm_way_cost(b->d, b->p, by_estimate);
	struct times t[WAYS] = { 0 };
	int way[WAYS], count = 0;

	for (int i = 0; i < gemm_ways() && count < WAYS; i++)
		if (gemm_way_usable(b->d, b->p, i, b->epilogue) &&
		    gemm_way_cost(b->d, b->p, i) <= worth * least)
			way[count++] = i;
	times_take(b, way_run, way, t, count);
	return way[times_best(t, count)];
}

static int algorithm_run(const struct gemm_bench *b, const void *context, int candidate)
{
	struct gemm_product product = *(const struct gemm_product *)context;

	product.algorithm = candidate;
	return gemm_product_run(b->d, b->p, &product, b->workspace, b->queue);
}

/* The library's fastest for some parts; false: it has none. */
static bool product_choose(const struct gemm_bench *b, int first, int parts,
			   struct gemm_product *ret)
{
	const struct cublaslt_product wanted = gemm_library_product(b->p, first, parts);
	struct gemm_product product = { .first = first, .parts = parts };
	struct times t[GEMM_ALGORITHMS] = { 0 };
	int count;

	if (cublaslt_plan_create(b->plans->library, &wanted, GEMM_ALGORITHMS, GEMM_LIBRARY_BYTES,
				 &product.plan) < 0)
		return false;
	count = cublaslt_plan_algorithms(product.plan);
	times_take(b, algorithm_run, &product, t, count);
	product.algorithm = times_best(t, count);
	if (isinf(t[product.algorithm].median)) {
		cublaslt_plan_destroy(product.plan);
		return false;
	}
	cublaslt_plan_name(product.plan, product.algorithm, product.name);
	*ret = product;
	return true;
}

/* As many parts as possible by the library, the rest by the estimate's kernel. */
static void library_choose(const struct gemm_bench *b, struct gemm_plan *plan)
{
	struct gemm_params rest;

	plan->products = 0;
	for (int first = 0, parts; first < b->p->parts; first += parts) {
		parts = 1;
		while (first + parts < b->p->parts && gemm_part_joins(b->p, first + parts))
			parts++;
		if (product_choose(b, first, parts, &plan->product[plan->products]))
			plan->products++;
	}
	rest = gemm_rest(b->p, plan);
	plan->way = rest.parts ? gemm_way_choose(b->d, &rest, b->epilogue) : -1;
}

enum { BY_ESTIMATE, OWN, LIBRARY, FINALISTS };

static int finalist_run(const struct gemm_bench *b, const void *context, int candidate)
{
	const struct gemm_plan *plan = context;

	return gemm_plan_enqueue(b->d, &plan[candidate], b->p, b->epilogue, b->workspace, b->queue);
}

static void shape_text(const struct gemm_params *p, char *to, size_t bytes)
{
	size_t used = 0;

	for (int i = 0; i < p->parts && used < bytes; i++)
		used += (size_t)snprintf(to + used, bytes - used, "%s%d", i ? "+" : "",
					 p->part[i].out);
	if (used < bytes)
		(void)snprintf(to + used, bytes - used, " of %d%s, %d rows", p->in,
			       p->taps > 1 ? " x 3" : "", p->rows);
}

/* For whoever wants to see what was compared. */
static void report_line(const struct gemm_bench *b, const struct times t[FINALISTS],
			const struct gemm_plan plan[FINALISTS], int chosen)
{
	struct kernel_tuning *report = &b->plans->report;
	struct kernel_tuning_line *line;

	if (report->lines == KERNEL_TUNING_LINES)
		return;
	line = &report->line[report->lines++];
	shape_text(b->p, line->shape, sizeof(line->shape));
	(void)snprintf(line->estimated, sizeof(line->estimated), "%s",
		       gemm_way_name(plan[BY_ESTIMATE].way, b->epilogue));
	(void)snprintf(line->own, sizeof(line->own), "%s",
		       gemm_way_name(plan[OWN].way, b->epilogue));
	(void)snprintf(line->library, sizeof(line->library), "%s",
		       plan[LIBRARY].products ? plan[LIBRARY].product[0].name : "");
	line->estimated_ms = t[BY_ESTIMATE].median;
	line->own_ms = t[OWN].median;
	line->library_ms = plan[LIBRARY].products ? t[LIBRARY].median : 0;
	line->chosen = chosen;
}

int gemm_plan_make(const struct gemm_bench *b, struct gemm_plan *ret)
{
	struct gemm_plan plan[FINALISTS] = { 0 };
	struct times t[FINALISTS] = { 0 };
	int chosen = BY_ESTIMATE, finalists = OWN + 1;

	plan[BY_ESTIMATE].way = gemm_way_choose(b->d, b->p, b->epilogue);
	plan[OWN].way = own_choose(b, plan[BY_ESTIMATE].way);
	if (gemm_library_may(b)) {
		library_choose(b, &plan[LIBRARY]);
		finalists += plan[LIBRARY].products > 0;
	}
	for (int k = 0; k < (t[BY_ESTIMATE].median < long_ms ? LAST_RUNS : LONG_LAST_RUNS); k++)
		for (int i = 0; i < finalists; i++)
			if (i != OWN || plan[OWN].way != plan[BY_ESTIMATE].way)
				times_add(&t[i], run_time(b, finalist_run, plan, i));
	if (plan[OWN].way == plan[BY_ESTIMATE].way)
		t[OWN] = t[BY_ESTIMATE];
	if (isinf(t[BY_ESTIMATE].median)) {
		const int r = (int)run_time(b, finalist_run, plan, BY_ESTIMATE);

		gemm_products_clear(&plan[LIBRARY]);
		return r < 0 ? r : -EIO;
	}
	if (t[OWN].median < own_margin * t[BY_ESTIMATE].median)
		chosen = OWN;
	if (finalists > LIBRARY && t[LIBRARY].median < library_margin * t[chosen].median)
		chosen = LIBRARY;
	report_line(b, t, plan, chosen);
	if (chosen != LIBRARY)
		gemm_products_clear(&plan[LIBRARY]);
	memcpy(plan[chosen].key, ret->key, sizeof(ret->key));
	*ret = plan[chosen];
	return 0;
}
