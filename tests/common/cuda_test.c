/* What the tests of the CUDA back end share. */
#include "tests/common/cuda_test.h"

#include <math.h>
#include <stdio.h>
#include <unistd.h>

enum {
	SKIPPED = 77,
	SWEEP_BYTES = 256 << 20, /* more than any L2 cache */
	MAX_RUNS = 200,
};

static void side_open(struct cuda_test_side *side, const struct kernel_backend *table,
		      bool portable)
{
	const struct kernel_device_options options = { .portable = portable };
	char text[256] = "";

	side->table = table;
	if (table->open(&options, text, sizeof(text), &side->device) < 0) {
		printf("skipped: back end \"%s\": %s\n", table->name, text);
		(void)fflush(stdout);
		_exit(SKIPPED);
	}
	assert_int_equal(table->queue_create(side->device, 0, &side->queue), 0);
}

void cuda_test_open(struct cuda_test *test)
{
	*test = (struct cuda_test){ .random = 1 };
	side_open(&test->gpu, &kernel_backend_cuda, false);
	side_open(&test->cpu, &kernel_backend_cpu, false);
}

void cuda_test_open_portable(struct cuda_test *test)
{
	*test = (struct cuda_test){ .random = 1 };
	side_open(&test->gpu, &kernel_backend_cuda, true);
	side_open(&test->cpu, &kernel_backend_cpu, false);
}

static void buffers_free(struct cuda_test *test)
{
	for (int i = 0; i < test->buffers; i++) {
		free(test->buffer[i].host);
		test->gpu.table->release(test->gpu.device, test->buffer[i].device,
					 test->buffer[i].device_bytes);
	}
	test->buffers = 0;
}

static void side_close(struct cuda_test_side *side)
{
	side->table->queue_destroy(side->device, side->queue);
	side->table->close(side->device);
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
	const size_t rounded = align_up(host_bytes ? host_bytes : 1, KERNEL_ALIGNMENT);

	assert_true(test->buffers < CUDA_TEST_MAX_BUFFERS);
	b = &test->buffer[test->buffers++];
	b->host = aligned_alloc(KERNEL_ALIGNMENT, rounded);
	assert_non_null(b->host);
	b->device_bytes = device_bytes;
	assert_int_equal(test->gpu.table->allocate(test->gpu.device, device_bytes, &b->device), 0);
	return b;
}

static void upload(struct cuda_test *test, void *to, const void *from, size_t bytes)
{
	const struct cuda_test_side *gpu = &test->gpu;

	assert_int_equal(gpu->table->upload(gpu->device, to, from, bytes, gpu->queue), 0);
	assert_int_equal(gpu->table->queue_wait(gpu->device, gpu->queue), 0);
}

static void download(struct cuda_test *test, void *to, const void *from, size_t bytes)
{
	const struct cuda_test_side *gpu = &test->gpu;

	assert_int_equal(gpu->table->download(gpu->device, to, from, bytes, gpu->queue), 0);
	assert_int_equal(gpu->table->queue_wait(gpu->device, gpu->queue), 0);
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
		upload(test, t->gpu, t->cpu, tensor_bytes(t));
		return;
	}
	half = malloc(tensor_bytes(t));
	assert_non_null(half);
	for (size_t i = 0; i < t->count; i++) {
		half[i] = bf16_of(t->cpu[i]);
		t->cpu[i] = bf16_value(half[i]);
	}
	upload(test, t->gpu, half, tensor_bytes(t));
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
	void *poison = malloc(tensor_bytes(&t));

	assert_non_null(poison);
	memset(t.cpu, 0xff, count * sizeof(float));
	memset(poison, 0xff, tensor_bytes(&t));
	upload(test, t.gpu, poison, tensor_bytes(&t));
	free(poison);
	return t;
}

struct cuda_test_bytes cuda_test_bytes(struct cuda_test *test, const void *from, size_t bytes)
{
	const struct cuda_test_buffer *b = buffer_add(test, bytes, bytes);

	memcpy(b->host, from, bytes);
	upload(test, b->device, from, bytes);
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
	const struct cuda_test_buffer *made;
	size_t cpu_bytes, gpu_bytes;

	for (size_t i = 0; i < count; i++)
		((uint16_t *)file->host)[i] = bf16_of((float)uniform(test, -most, most));
	w.gpu = w.cpu;
	cpu_bytes = test->cpu.table->weight_prepare_bytes(test->cpu.device, &w.cpu);
	gpu_bytes = test->gpu.table->weight_prepare_bytes(test->gpu.device, &w.gpu);
	made = buffer_add(test, cpu_bytes, gpu_bytes);
	assert_int_equal(test->cpu.table->weight_prepare(test->cpu.device, &w.cpu, made->host,
							 test->cpu.queue),
			 0);
	assert_int_equal(test->gpu.table->weight_prepare(test->gpu.device, &w.gpu, made->device,
							 test->gpu.queue),
			 0);
	assert_int_equal(test->gpu.table->queue_wait(test->gpu.device, test->gpu.queue), 0);
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
	const size_t bytes = workspace_wanted(side, op, gpu);
	void *memory = NULL, *poison;
	int r;

	assert_non_null(side->table->run[op]);
	if (bytes) {
		poison = malloc(bytes);
		assert_non_null(poison);
		memset(poison, 0xff, bytes);
		assert_int_equal(side->table->allocate(side->device, bytes, &memory), 0);
		upload(test, memory, poison, bytes);
		free(poison);
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
	void *memory = bytes ? aligned_alloc(KERNEL_ALIGNMENT, align_up(bytes, KERNEL_ALIGNMENT)) :
			       NULL;
	int r;

	assert_true(!bytes || memory);
	*cpu = (struct kernel_workspace){ memory, bytes };
	assert_int_equal(side->table->run[op](side->device, cpu, side->queue), 0);
	free(memory);
	r = cuda_test_run_gpu(test, op, gpu);
	if (r < 0)
		fail_msg("%s on the GPU: %s", kernel_op_name(op), strerror(-r));
}

/* The GPU's values as F32; freed by the caller. */
static float *values_fetch(struct cuda_test *test, const struct cuda_tensor *t)
{
	float *values = malloc(t->count * sizeof(*values));
	uint16_t *half;

	assert_non_null(values);
	if (t->is_float) {
		download(test, values, t->gpu, tensor_bytes(t));
		return values;
	}
	half = malloc(tensor_bytes(t));
	assert_non_null(half);
	download(test, half, t->gpu, tensor_bytes(t));
	for (size_t i = 0; i < t->count; i++)
		values[i] = bf16_value(half[i]);
	free(half);
	return values;
}

double cuda_test_compare(struct cuda_test *test, enum kernel_op op,
			 const struct cuda_tensor *tensor, double tolerance, const char *format,
			 ...)
{
	float *got = values_fetch(test, tensor);
	double difference = 0, norm = 0, largest = 0, relative;
	size_t bad = 0, worst = 0;
	char what[128];
	va_list list;

	va_start(list, format);
	(void)vsnprintf(what, sizeof(what), format, list);
	va_end(list);
	for (size_t i = 0; i < tensor->count; i++) {
		const double d = (double)got[i] - tensor->cpu[i];

		bad += !isfinite(got[i]) || !isfinite(tensor->cpu[i]);
		difference += d * d;
		norm += (double)tensor->cpu[i] * tensor->cpu[i];
		if (fabs(d) > largest) {
			largest = fabs(d);
			worst = i;
		}
	}
	relative = norm > 0 ? sqrt(difference / norm) : sqrt(difference);
	printf("  %-44s %-40s relative L2 %.2e (limit %.1e), largest difference %.2e at %zu: "
	       "%g for %g\n",
	       what, test->gpu.table->kernels_used(test->gpu.device, op), relative, tolerance,
	       largest, worst, (double)got[worst], (double)tensor->cpu[worst]);
	free(got);
	if (bad)
		fail_msg("%s: %zu values are not finite", what, bad);
	assert_true(relative <= tolerance);
	return relative;
}

uint64_t cuda_test_digest(struct cuda_test *test, const struct cuda_tensor *tensor)
{
	unsigned char *bytes = malloc(tensor_bytes(tensor));
	uint64_t digest = 0xcbf29ce484222325; /* FNV-1a */

	assert_non_null(bytes);
	download(test, bytes, tensor->gpu, tensor_bytes(tensor));
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

double cuda_test_time(struct cuda_test *test, enum kernel_op op, struct kernel_workspace *gpu,
		      int runs, const char *format, ...)
{
	const struct cuda_test_side *side = &test->gpu;
	const struct kernel_storage storage = { 2, 2 };
	const struct kernel_cost cost = kernel_op_cost(op, gpu, &storage);
	const size_t bytes = workspace_wanted(side, op, gpu);
	double ms[MAX_RUNS] = { 0 };
	void *memory = NULL, *sweep = NULL;
	int64_t ns = 0;
	char what[128];
	va_list list;

	va_start(list, format);
	(void)vsnprintf(what, sizeof(what), format, list);
	va_end(list);
	assert_true(runs > 0 && runs <= MAX_RUNS);
	assert_int_equal(side->table->allocate(side->device, bytes, &memory), 0);
	assert_int_equal(side->table->allocate(side->device, SWEEP_BYTES, &sweep), 0);
	*gpu = (struct kernel_workspace){ memory, bytes };
	for (int i = -3; i < runs; i++) {
		(void)side->table->zero(side->device, sweep, SWEEP_BYTES, side->queue);
		assert_int_equal(side->table->timer_mark(side->device, 0, side->queue), 0);
		assert_int_equal(side->table->run[op](side->device, gpu, side->queue), 0);
		assert_int_equal(side->table->timer_mark(side->device, 1, side->queue), 0);
		assert_int_equal(side->table->timer_read(side->device, 0, 1, &ns), 0);
		if (i >= 0)
			ms[i] = (double)ns / 1e6;
	}
	qsort(ms, (size_t)runs, sizeof(ms[0]), compare_doubles);
	printf("  %-44s %-40s %8.3f ms %8.1f TFLOP/s %8.1f GB/s\n", what,
	       side->table->kernels_used(side->device, op), ms[runs / 2],
	       cost.flops / ms[runs / 2] / 1e9, cost.bytes / ms[runs / 2] / 1e6);
	side->table->release(side->device, memory, bytes);
	side->table->release(side->device, sweep, SWEEP_BYTES);
	*gpu = (struct kernel_workspace){ NULL, 0 };
	return ms[runs / 2];
}
