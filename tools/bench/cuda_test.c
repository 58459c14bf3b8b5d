/* What checks of the CUDA back end share. */
#include "tools/bench/cuda_test.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>

enum {
	SWEEP_BYTES = 256 << 20, /* more than any L2 cache */
	MAX_RUNS = 200,
};

bool cuda_test_must(struct cuda_test *test, bool holds, const char *format, ...)
{
	va_list list;

	if (holds || test->problem[0])
		return !test->problem[0];
	va_start(list, format);
	(void)vsnprintf(test->problem, sizeof(test->problem), format, list);
	va_end(list);
	if (test->failed)
		test->failed(test->problem);
	return false;
}

/* A call that answers 0 or a negative errno. */
static bool done(struct cuda_test *test, int r, const char *what)
{
	return cuda_test_must(test, r >= 0, "%s: %s", what, strerror(r < 0 ? -r : 0));
}

/* Host memory; there is no test without it. */
static void *memory_take(size_t bytes)
{
	void *memory =
		aligned_alloc(KERNEL_ALIGNMENT, align_up(bytes ? bytes : 1, KERNEL_ALIGNMENT));

	if (!memory) {
		(void)fprintf(stderr, "no memory: %zu bytes are not there.\n", bytes);
		exit(EXIT_FAILURE);
	}
	return memory;
}

static int side_open(struct cuda_test_side *side, const struct kernel_backend *table, bool portable,
		     char *text, size_t text_bytes)
{
	const struct kernel_device_options options = { .portable = portable };
	int r;

	r = table->open(&options, text, text_bytes, &side->device);
	if (r < 0)
		return r;
	side->table = table;
	return table->queue_create(side->device, 0, &side->queue);
}

int cuda_test_start(struct cuda_test *test, bool cpu_alone, bool portable, char *text,
		    size_t text_bytes)
{
	int r = 0;

	*test = (struct cuda_test){ .random = 1 };
	if (!cpu_alone)
		r = side_open(&test->gpu, &kernel_backend_cuda, portable, text, text_bytes);
	if (r >= 0)
		r = side_open(&test->cpu, &kernel_backend_cpu, false, text, text_bytes);
	if (r < 0)
		cuda_test_close(test);
	return r;
}

static void buffers_free(struct cuda_test *test)
{
	for (int i = 0; i < test->buffers; i++) {
		free(test->buffer[i].host);
		if (test->gpu.table)
			test->gpu.table->release(test->gpu.device, test->buffer[i].device,
						 test->buffer[i].device_bytes);
	}
	test->buffers = 0;
}

static void side_close(struct cuda_test_side *side)
{
	if (!side->table)
		return;
	if (side->queue)
		side->table->queue_destroy(side->device, side->queue);
	side->table->close(side->device);
	side->table = NULL;
}

void cuda_test_close(struct cuda_test *test)
{
	buffers_free(test);
	side_close(&test->gpu);
	side_close(&test->cpu);
}

void cuda_test_reset(struct cuda_test *test, uint64_t seed)
{
	buffers_free(test);
	test->random = seed;
	test->problem[0] = '\0';
}

/* splitmix64 */
static uint64_t random_next(uint64_t *state)
{
	uint64_t z = *state += 0x9E3779B97F4A7C15;

	z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
	z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
	return z ^ (z >> 31);
}

static double uniform(struct cuda_test *test, double low, double high)
{
	return low + (high - low) * ldexp((double)(random_next(&test->random) >> 11), -53);
}

/* Nearest even; no NaN comes here. */
static uint16_t bf16_of(float value)
{
	uint32_t bits;

	memcpy(&bits, &value, sizeof(bits));
	bits += 0x7fff + ((bits >> 16) & 1);
	return (uint16_t)(bits >> 16);
}

static float bf16_value(uint16_t half)
{
	const uint32_t bits = (uint32_t)half << 16;
	float value;

	memcpy(&value, &bits, sizeof(value));
	return value;
}

static struct cuda_test_buffer *buffer_add(struct cuda_test *test, size_t host_bytes,
					   size_t device_bytes)
{
	struct cuda_test_buffer *b;

	assert(test->buffers < CUDA_TEST_MAX_BUFFERS);
	b = &test->buffer[test->buffers++];
	*b = (struct cuda_test_buffer){ memory_take(host_bytes), NULL, device_bytes };
	if (test->gpu.table && !test->problem[0])
		(void)done(test,
			   test->gpu.table->allocate(test->gpu.device, device_bytes, &b->device),
			   "memory of the GPU");
	return b;
}

void cuda_test_send(struct cuda_test *test, void *to, const void *from, size_t bytes)
{
	const struct cuda_test_side *gpu = &test->gpu;

	if (!gpu->table || test->problem[0])
		return;
	if (done(test, gpu->table->upload(gpu->device, to, from, bytes, gpu->queue), "upload"))
		(void)done(test, gpu->table->queue_wait(gpu->device, gpu->queue), "upload");
}

void cuda_test_fetch(struct cuda_test *test, void *to, const void *from, size_t bytes)
{
	const struct cuda_test_side *gpu = &test->gpu;

	memset(to, 0xff, bytes);
	if (!gpu->table || test->problem[0])
		return;
	if (done(test, gpu->table->download(gpu->device, to, from, bytes, gpu->queue), "download"))
		(void)done(test, gpu->table->queue_wait(gpu->device, gpu->queue), "download");
}

static size_t tensor_bytes(const struct cuda_tensor *t)
{
	return t->count * (t->is_float ? sizeof(float) : sizeof(uint16_t));
}

static struct cuda_tensor tensor_add(struct cuda_test *test, size_t count, bool is_float)
{
	struct cuda_tensor t = { .count = count, .is_float = is_float };
	const struct cuda_test_buffer *b =
		buffer_add(test, count * sizeof(float), tensor_bytes(&t));

	t.cpu = b->host;
	t.gpu = b->device;
	return t;
}

/* Rounds the CPU's values unless they are F32 on the GPU too, and copies them there. */
static void tensor_send(struct cuda_test *test, const struct cuda_tensor *t)
{
	uint16_t *half;

	if (t->is_float) {
		cuda_test_send(test, t->gpu, t->cpu, tensor_bytes(t));
		return;
	}
	half = memory_take(tensor_bytes(t));
	for (size_t i = 0; i < t->count; i++) {
		half[i] = bf16_of(t->cpu[i]);
		t->cpu[i] = bf16_value(half[i]);
	}
	cuda_test_send(test, t->gpu, half, tensor_bytes(t));
	free(half);
}

void cuda_test_refill(struct cuda_test *test, const struct cuda_tensor *tensor, double low,
		      double high)
{
	for (size_t i = 0; i < tensor->count; i++)
		tensor->cpu[i] = (float)uniform(test, low, high);
	tensor_send(test, tensor);
}

struct cuda_tensor cuda_test_random(struct cuda_test *test, size_t count, double low, double high,
				    bool is_float)
{
	struct cuda_tensor t = tensor_add(test, count, is_float);

	cuda_test_refill(test, &t, low, high);
	return t;
}

struct cuda_tensor cuda_test_values(struct cuda_test *test, const float *values, size_t count,
				    bool is_float)
{
	struct cuda_tensor t = tensor_add(test, count, is_float);

	memcpy(t.cpu, values, count * sizeof(*values));
	tensor_send(test, &t);
	return t;
}

struct cuda_tensor cuda_test_copy(struct cuda_test *test, const struct cuda_tensor *from)
{
	return cuda_test_values(test, from->cpu, from->count, from->is_float);
}

struct cuda_tensor cuda_test_output(struct cuda_test *test, size_t count, bool is_float)
{
	struct cuda_tensor t = tensor_add(test, count, is_float);
	void *poison = memory_take(tensor_bytes(&t));

	memset(t.cpu, 0xff, count * sizeof(float));
	memset(poison, 0xff, tensor_bytes(&t));
	cuda_test_send(test, t.gpu, poison, tensor_bytes(&t));
	free(poison);
	return t;
}

struct cuda_test_bytes cuda_test_bytes(struct cuda_test *test, const void *from, size_t bytes)
{
	const struct cuda_test_buffer *b = buffer_add(test, bytes, bytes);

	memcpy(b->host, from, bytes);
	cuda_test_send(test, b->device, from, bytes);
	return (struct cuda_test_bytes){ b->host, b->device };
}

struct cuda_weight cuda_test_weight(struct cuda_test *test, int out, int in, int taps,
				    int tap_first, int tap_count, double gain)
{
	const size_t count = (size_t)out * (size_t)in * (size_t)taps;
	const double most = gain * sqrt(3.0 / ((double)in * tap_count));
	const struct cuda_test_buffer *file = buffer_add(test, count * sizeof(uint16_t), 1);
	struct cuda_weight w = { .cpu = { .data = file->host,
					  .dtype = KERNEL_BF16,
					  .out = out,
					  .in = in,
					  .taps = taps,
					  .tap_first = tap_first,
					  .tap_count = tap_count } };
	const struct cuda_test_side *gpu = &test->gpu;
	const struct cuda_test_buffer *made;
	size_t cpu_bytes, gpu_bytes;

	for (size_t i = 0; i < count; i++)
		((uint16_t *)file->host)[i] = bf16_of((float)uniform(test, -most, most));
	w.gpu = w.cpu;
	cpu_bytes = test->cpu.table->weight_prepare_bytes(test->cpu.device, &w.cpu);
	gpu_bytes = gpu->table ? gpu->table->weight_prepare_bytes(gpu->device, &w.gpu) : 0;
	made = buffer_add(test, cpu_bytes, gpu_bytes);
	(void)done(test,
		   test->cpu.table->weight_prepare(test->cpu.device, &w.cpu, made->host,
						   test->cpu.queue),
		   "weights of the CPU");
	if (!gpu->table || test->problem[0])
		return w;
	if (done(test, gpu->table->weight_prepare(gpu->device, &w.gpu, made->device, gpu->queue),
		 "weights of the GPU"))
		(void)done(test, gpu->table->queue_wait(gpu->device, gpu->queue),
			   "weights of the GPU");
	return w;
}

static size_t workspace_wanted(const struct cuda_test_side *side, enum kernel_op op,
			       const struct kernel_workspace *params)
{
	return side->table->workspace[op] ? side->table->workspace[op](side->device, params) : 0;
}

int cuda_test_run_gpu(struct cuda_test *test, enum kernel_op op, struct kernel_workspace *gpu)
{
	const struct cuda_test_side *side = &test->gpu;
	const size_t wanted = workspace_wanted(side, op, gpu);
	const size_t bytes = wanted == KERNEL_UNSUPPORTED ? 0 : wanted;
	void *memory = NULL, *poison;
	int r;

	if (!side->table->run[op])
		return -ENOTSUP;
	if (bytes) {
		poison = memory_take(bytes);
		memset(poison, 0xff, bytes);
		r = side->table->allocate(side->device, bytes, &memory);
		if (r >= 0)
			cuda_test_send(test, memory, poison, bytes);
		free(poison);
		if (r < 0)
			return r;
	}
	*gpu = (struct kernel_workspace){ memory, bytes };
	r = side->table->run[op](side->device, gpu, side->queue);
	if (r >= 0)
		r = side->table->queue_wait(side->device, side->queue);
	side->table->release(side->device, memory, bytes);
	*gpu = (struct kernel_workspace){ NULL, 0 };
	return r;
}

void cuda_test_run(struct cuda_test *test, enum kernel_op op, struct kernel_workspace *cpu,
		   struct kernel_workspace *gpu)
{
	const struct cuda_test_side *side = &test->cpu;
	const size_t bytes = workspace_wanted(side, op, cpu);
	void *memory = bytes ? memory_take(bytes) : NULL;
	char what[64];

	*cpu = (struct kernel_workspace){ memory, bytes };
	(void)snprintf(what, sizeof(what), "%s on the CPU", kernel_op_name(op));
	if (!test->problem[0])
		(void)done(test, side->table->run[op](side->device, cpu, side->queue), what);
	free(memory);
	(void)snprintf(what, sizeof(what), "%s on the GPU", kernel_op_name(op));
	if (test->gpu.table && !test->problem[0])
		(void)done(test, cuda_test_run_gpu(test, op, gpu), what);
}

/* The GPU's values as F32 (the CPU's own where there is none); freed by the caller. */
static float *values_fetch(struct cuda_test *test, const struct cuda_tensor *t)
{
	float *values = memory_take(t->count * sizeof(*values));
	uint16_t *half;

	if (!test->gpu.table)
		return memcpy(values, t->cpu, t->count * sizeof(*values));
	if (t->is_float) {
		cuda_test_fetch(test, values, t->gpu, tensor_bytes(t));
		return values;
	}
	half = memory_take(tensor_bytes(t));
	cuda_test_fetch(test, half, t->gpu, tensor_bytes(t));
	for (size_t i = 0; i < t->count; i++)
		values[i] = bf16_value(half[i]);
	free(half);
	return values;
}

static const char *kernels_used(struct cuda_test *test, enum kernel_op op)
{
	return test->gpu.table ? test->gpu.table->kernels_used(test->gpu.device, op) : "";
}

/* How far two tensors are apart. */
struct distance {
	double difference, norm, largest;
	size_t bad, worst;
};

static struct distance distance_take(const float *got, const struct cuda_tensor *tensor,
				     struct cuda_test_result *result)
{
	struct distance of = { 0 };

	for (size_t i = 0; i < tensor->count; i++) {
		const double d = (double)got[i] - tensor->cpu[i];

		of.bad += !isfinite(got[i]) || !isfinite(tensor->cpu[i]);
		of.difference += d * d;
		of.norm += (double)tensor->cpu[i] * tensor->cpu[i];
		result->sum += fabs((double)tensor->cpu[i]);
		result->weighted += tensor->cpu[i] * (double)((int)(i % 5) - 2);
		if (fabs(d) > of.largest) {
			of.largest = fabs(d);
			of.worst = i;
		}
	}
	result->relative = of.norm > 0 ? sqrt(of.difference / of.norm) : sqrt(of.difference);
	return of;
}

double cuda_test_compare(struct cuda_test *test, enum kernel_op op,
			 const struct cuda_tensor *tensor, double tolerance, const char *format,
			 ...)
{
	struct cuda_test_result result = { .op = op,
					   .kernels = kernels_used(test, op),
					   .tolerance = tolerance };
	struct distance of;
	float *got;
	char what[128];
	va_list list;

	va_start(list, format);
	(void)vsnprintf(what, sizeof(what), format, list);
	va_end(list);
	result.what = what;
	got = values_fetch(test, tensor);
	of = distance_take(got, tensor, &result);
	result.right = !test->problem[0] && !of.bad && result.relative <= tolerance;
	if (test->result)
		test->result(test->context, &result);
	else
		printf("  %-44s %-40s relative L2 %.2e (limit %.1e), largest difference %.2e at "
		       "%zu: %g for %g\n",
		       what, result.kernels, result.relative, tolerance, of.largest, of.worst,
		       (double)got[of.worst], (double)tensor->cpu[of.worst]);
	free(got);
	(void)cuda_test_must(test, !of.bad, "%s: %zu values are not finite", what, of.bad);
	(void)cuda_test_must(test, result.relative <= tolerance, "%s: relative L2 %.2e, limit %.1e",
			     what, result.relative, tolerance);
	return result.relative;
}

void cuda_test_state(struct cuda_test *test, enum kernel_op op, bool right, const char *what)
{
	const struct cuda_test_result result = { .op = op,
						 .what = what,
						 .kernels = kernels_used(test, op),
						 .right = right && !test->problem[0] };

	if (test->result)
		test->result(test->context, &result);
	else
		printf("  %s\n", what);
	(void)cuda_test_must(test, right, "%s: it does not hold that %s", kernel_op_name(op), what);
}

uint64_t cuda_test_digest(struct cuda_test *test, const struct cuda_tensor *tensor)
{
	unsigned char *bytes = memory_take(tensor_bytes(tensor));
	uint64_t digest = 0xcbf29ce484222325; /* FNV-1a */

	cuda_test_fetch(test, bytes, tensor->gpu, tensor_bytes(tensor));
	for (size_t i = 0; i < tensor_bytes(tensor); i++)
		digest = (digest ^ bytes[i]) * 0x100000001b3;
	free(bytes);
	return digest;
}

static int compare_doubles(const void *a, const void *b)
{
	const double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* The median of `runs` times, in `memory` and with `sweep` written before each; 0 after a problem. */
static double median_ms(struct cuda_test *test, enum kernel_op op,
			const struct kernel_workspace *gpu, void *sweep, int runs)
{
	const struct cuda_test_side *side = &test->gpu;
	double ms[MAX_RUNS] = { 0 };
	int64_t ns = 0;
	int r = 0;

	for (int i = -3; i < runs && r >= 0; i++) {
		r = side->table->zero(side->device, sweep, SWEEP_BYTES, side->queue);
		if (r >= 0)
			r = side->table->timer_mark(side->device, 0, side->queue);
		if (r >= 0)
			r = side->table->run[op](side->device, gpu, side->queue);
		if (r >= 0)
			r = side->table->timer_mark(side->device, 1, side->queue);
		if (r >= 0)
			r = side->table->timer_read(side->device, 0, 1, &ns);
		if (i >= 0)
			ms[i] = (double)ns / 1e6;
	}
	if (!done(test, r, "a timed run"))
		return 0;
	qsort(ms, (size_t)runs, sizeof(ms[0]), compare_doubles);
	return ms[runs / 2];
}

double cuda_test_time(struct cuda_test *test, enum kernel_op op, struct kernel_workspace *gpu,
		      int runs, const char *format, ...)
{
	const struct cuda_test_side *side = &test->gpu;
	const struct kernel_storage storage = { 2, 2 };
	const struct kernel_cost cost = kernel_op_cost(op, gpu, &storage);
	const size_t bytes = workspace_wanted(side, op, gpu);
	struct cuda_test_result result = { .op = op, .flops = cost.flops, .bytes = cost.bytes };
	void *memory = NULL, *sweep = NULL;
	char what[128];
	va_list list;

	va_start(list, format);
	(void)vsnprintf(what, sizeof(what), format, list);
	va_end(list);
	assert(runs > 0 && runs <= MAX_RUNS);
	if (test->problem[0])
		return 0;
	if (done(test, side->table->allocate(side->device, bytes, &memory), "memory of the GPU"))
		(void)done(test, side->table->allocate(side->device, SWEEP_BYTES, &sweep),
			   "memory of the GPU");
	*gpu = (struct kernel_workspace){ memory, bytes };
	if (!test->problem[0])
		result.ms = median_ms(test, op, gpu, sweep, runs);
	result.what = what;
	result.kernels = kernels_used(test, op);
	result.right = !test->problem[0];
	if (test->result)
		test->result(test->context, &result);
	else
		printf("  %-44s %-40s %8.3f ms %8.1f TFLOP/s %8.1f GB/s\n", what, result.kernels,
		       result.ms, cost.flops / result.ms / 1e9, cost.bytes / result.ms / 1e6);
	side->table->release(side->device, memory, bytes);
	side->table->release(side->device, sweep, SWEEP_BYTES);
	*gpu = (struct kernel_workspace){ NULL, 0 };
	return result.ms;
}
