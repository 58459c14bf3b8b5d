/* Choices of matrix products: found, run, and asked for while a stream opens. */
#include "kernels/cuda/gemm_plan_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "kernels/cuda/table.h"

enum {
	/* Prompts have fewer rows, and no two the same number: measuring would not pay. */
	LEAST_ROWS = 1024,
	LEAST_GFLOP = 2,
	BUDGET_MS = 2000, /* of all measuring on a device */
};

static double now_seconds(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

struct gemm_plans *gemm_plans_create(const struct kernel_device_options *options)
{
	struct gemm_plans *plans = options->deterministic ? NULL : calloc(1, sizeof(*plans));

	if (!plans)
		return NULL;
	(void)pthread_mutex_init(&plans->lock, NULL);
	plans->portable = options->portable;
	if (options->tuning_directory &&
	    strlen(options->tuning_directory) < sizeof(plans->directory))
		(void)snprintf(plans->directory, sizeof(plans->directory), "%s",
			       options->tuning_directory);
	return plans;
}

void gemm_products_clear(struct gemm_plan *plan)
{
	for (int i = 0; i < plan->products; i++)
		cublaslt_plan_destroy(plan->product[i].plan);
	plan->products = 0;
}

void gemm_plans_destroy(struct kernel_device *device)
{
	struct gemm_plans *plans = device->plans;

	if (!plans)
		return;
	gemm_measuring_end(device);
	for (int i = 0; i < plans->count; i++)
		gemm_products_clear(&plans->plan[i]);
	cublaslt_close(plans->library);
	(void)pthread_mutex_destroy(&plans->lock);
	free(plans);
	device->plans = NULL;
}

size_t gemm_plan_workspace(const struct kernel_device *device, int rows, int in, int out)
{
	const double gflop = 2e-9 * rows * in * out;

	return device->plans && !device->plans->portable && rows >= LEAST_ROWS &&
			       gflop >= LEAST_GFLOP ?
		       GEMM_LIBRARY_BYTES :
		       0;
}

/* ------------------------------------------------------------------------------------- finding */

/* Neighbours in memory, as columns of one product: made by one call. */
bool gemm_part_joins(const struct gemm_params *p, int i)
{
	const struct gemm_part *a = &p->part[i - 1], *b = &p->part[i];

	return !a->bias && !b->bias && a->ldy == b->ldy &&
	       b->weight_data ==
		       (const char *)a->weight_data + 2 * (size_t)a->out * (size_t)p->in &&
	       b->y == (char *)a->y + 2 * (size_t)a->out;
}

static void key_make(const struct gemm_params *p, enum gemm_epilogue epilogue,
		     int key[TUNING_FIELDS])
{
	int at = 0;

	memset(key, 0, TUNING_FIELDS * sizeof(*key));
	key[at++] = (int)epilogue;
	key[at++] = p->rows;
	key[at++] = p->in;
	key[at++] = (int)p->ldx;
	key[at++] = p->taps;
	key[at++] = p->shift;
	key[at++] = p->has_left != 0;
	key[at++] = p->parts;
	for (int i = 0; i < p->parts; i++) {
		key[at++] = p->part[i].out;
		key[at++] = (int)p->part[i].ldy;
		key[at++] = (p->part[i].bias != NULL) | (i && gemm_part_joins(p, i)) << 1;
	}
}

const struct gemm_plan *gemm_plan_find(const struct kernel_device *device,
				       const struct gemm_params *p, enum gemm_epilogue epilogue)
{
	struct gemm_plans *plans = device->plans;
	int key[TUNING_FIELDS];
	const int count = plans ? atomic_load_explicit(&plans->count, memory_order_acquire) : 0;

	if (!count)
		return NULL;
	key_make(p, epilogue, key);
	for (int i = 0; i < count; i++)
		if (memcmp(plans->plan[i].key, key, sizeof(key)) == 0)
			return &plans->plan[i];
	return NULL;
}

/* ------------------------------------------------------------------------------------- running */

struct cublaslt_product gemm_library_product(const struct gemm_params *p, int first, int parts)
{
	struct cublaslt_product product = {
		.rows = p->rows,
		.in = p->in,
		.ldx = p->ldx,
		.ldy = p->part[first].ldy,
		.bias = p->part[first].bias,
	};

	for (int i = first; i < first + parts; i++)
		product.out += p->part[i].out;
	return product;
}

int gemm_product_run(struct kernel_device *d, const struct gemm_params *p,
		     const struct gemm_product *product, const struct kernel_workspace *workspace,
		     struct kernel_queue *queue)
{
	const struct gemm_part *part = &p->part[product->first];
	const int r = cublaslt_plan_run(product->plan, product->algorithm, p->x_data,
					part->weight_data, part->bias, part->y, workspace->data,
					queue->stream);

	if (r >= 0)
		cuda_remember(d, queue->running, product->name);
	return r;
}

/* The parts that no product makes, as a launch of their own. */
struct gemm_params gemm_rest(const struct gemm_params *p, const struct gemm_plan *plan)
{
	struct gemm_params rest = *p;
	bool made[GEMM_PARTS] = { false };

	for (int i = 0; i < plan->products; i++)
		for (int k = 0; k < plan->product[i].parts; k++)
			made[plan->product[i].first + k] = true;
	rest.parts = 0;
	for (int i = 0; i < p->parts; i++)
		if (!made[i])
			rest.part[rest.parts++] = p->part[i];
	return rest;
}

int gemm_plan_enqueue(struct kernel_device *d, const struct gemm_plan *plan,
		      const struct gemm_params *p, enum gemm_epilogue epilogue,
		      const struct kernel_workspace *workspace, struct kernel_queue *queue)
{
	struct gemm_params rest;
	int r = 0;

	if (!plan->products)
		return gemm_way_run(d, p, plan->way, epilogue, queue);
	for (int i = 0; i < plan->products && r >= 0; i++)
		r = gemm_product_run(d, p, &plan->product[i], workspace, queue);
	if (r < 0 || plan->way < 0)
		return r;
	rest = gemm_rest(p, plan);
	return gemm_way_run(d, &rest, plan->way, epilogue, queue);
}

int gemm_plan_run(struct kernel_device *device, const struct gemm_plan *plan,
		  const struct gemm_params *p, enum gemm_epilogue epilogue,
		  const struct kernel_workspace *workspace, struct kernel_queue *queue)
{
	struct gemm_plans *plans = device->plans;
	int r;

	if (!plan->products)
		return gemm_way_run(device, p, plan->way, epilogue, queue);
	if (atomic_load(&plans->library_failed) || workspace->bytes < GEMM_LIBRARY_BYTES)
		return -ENOTSUP;
	r = gemm_plan_enqueue(device, plan, p, epilogue, workspace, queue);
	if (r != -EIO)
		return r;
	atomic_store(&plans->library_failed, true);
	return -ENOTSUP;
}

/* ------------------------------------------------------------------------------- begin and end */

bool gemm_library_may(const struct gemm_bench *b)
{
	return b->plans->library && b->epilogue == GEMM_PLAIN && b->p->taps == 1 &&
	       b->workspace->bytes >= GEMM_LIBRARY_BYTES;
}

static void library_open(struct gemm_plans *plans)
{
	if (plans->portable || plans->library)
		return;
	if (cublaslt_open(&plans->library) < 0)
		plans->library = NULL;
	plans->library_version = plans->library ? cublaslt_version(plans->library) : 0;
}

static int measured_add(const struct gemm_bench *b, const int key[TUNING_FIELDS])
{
	struct gemm_plans *plans = b->plans;
	struct kernel_tuning *report = &plans->report;
	const struct tuning_choice *kept = tuning_find(&plans->kept, key);
	const int count = atomic_load(&plans->count);
	struct gemm_plan *plan = &plans->plan[count];
	int r;

	memcpy(plan->key, key, sizeof(plan->key));
	if (kept && gemm_kept_take(b, kept, plan)) {
		report->known++;
	} else if (1e3 * report->seconds >= BUDGET_MS) {
		report->left++;
		return 0;
	} else {
		r = gemm_measuring_begin(b->d, b->queue->stream);
		if (r >= 0)
			r = gemm_plan_make(b, plan);
		if (r < 0)
			/* No memory for measuring, or the like: estimates serve. */
			return r == -EFAULT || r == -ENODEV ? r : 0;
		report->measured++;
		gemm_kept_put(b, plan);
	}
	report->library += plan->products > 0;
	atomic_store_explicit(&plans->count, count + 1, memory_order_release);
	return 0;
}

int gemm_plan_measure(struct kernel_device *device, const struct gemm_params *p,
		      enum gemm_epilogue epilogue, const struct kernel_workspace *workspace,
		      struct kernel_queue *queue)
{
	struct gemm_plans *plans = device->plans;
	const struct gemm_bench b = { device, plans, p, epilogue, workspace, queue };
	const double since = now_seconds();
	int key[TUNING_FIELDS], out = 0, r = 0;

	for (int i = 0; i < p->parts; i++)
		out += p->part[i].out;
	if (!plans || epilogue == GEMM_ANY || p->rows < LEAST_ROWS ||
	    2e-9 * p->rows * p->in * p->taps * out < LEAST_GFLOP ||
	    gemm_way_choose(device, p, epilogue) < 0)
		return 0;
	(void)pthread_mutex_lock(&plans->lock);
	key_make(p, epilogue, key);
	if (!gemm_plan_find(device, p, epilogue) && atomic_load(&plans->count) < TUNING_CHOICES) {
		library_open(plans);
		if (!plans->begun)
			gemm_kept_load(device);
		plans->begun = true;
		r = measured_add(&b, key);
		plans->report.seconds += now_seconds() - since;
	}
	(void)pthread_mutex_unlock(&plans->lock);
	return r;
}

static void report_text(struct gemm_plans *plans)
{
	struct kernel_tuning *report = &plans->report;
	const unsigned long long v = plans->library_version;
	char library[96];

	if (plans->portable)
		(void)snprintf(library, sizeof(library), "our own kernels alone");
	else if (!v)
		(void)snprintf(library, sizeof(library),
			       "libcublasLt is not here, our own kernels make all of them");
	else
		(void)snprintf(library, sizeof(library), "cublasLt %llu.%llu.%llu makes %d of them",
			       v / 10000, v / 100 % 100, v % 100, report->library);
	(void)snprintf(
		report->text, sizeof(report->text),
		"Matrix products: %d measured in %.2f s, %d known from before, %d left to the "
		"estimate; %s.",
		report->measured, report->seconds, report->known, report->left, library);
}

void cuda_tuned(struct kernel_device *device, struct kernel_tuning *ret)
{
	struct gemm_plans *plans = device->plans;
	bool used = false;

	*ret = (struct kernel_tuning){ 0 };
	if (!plans)
		return;
	(void)pthread_mutex_lock(&plans->lock);
	gemm_measuring_end(device);
	gemm_kept_save(plans);
	for (int i = 0; i < plans->count; i++)
		used |= plans->plan[i].products > 0;
	if (!used) {
		/* Its code and its own memory on the device go with it. */
		cublaslt_close(plans->library);
		plans->library = NULL;
	}
	if (plans->begun)
		report_text(plans);
	*ret = plans->report;
	(void)pthread_mutex_unlock(&plans->lock);
}
