/* The CPU back end's threads: all that they need is there once the device is open. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

#include "kernels/kernels.h"
#include "tests/common/allocations.h"

enum {
	THREADS = 6,
	/* 0.3 GFLOP a thread: longer than a turn of the scheduler, so that all products overlap. */
	ROWS = 512 * THREADS,
	CHANNELS = 512,
};

static void *room(const struct kernel_backend *table, struct kernel_device *device, size_t bytes)
{
	void *memory;

	assert_int_equal(table->allocate(device, bytes, &memory), 0);
	return memory;
}

/* Also with more threads than cores, where the first products seldom meet by themselves. */
static void products_at_once_allocate_nothing(void **state)
{
	const struct kernel_device_options options = { .threads = THREADS };
	const struct kernel_backend *table = &kernel_backend_cpu;
	const size_t weight_bytes = CHANNELS * CHANNELS * sizeof(float);
	const size_t bytes = (size_t)ROWS * CHANNELS * sizeof(float);
	struct kernel_weight weight = {
		.dtype = KERNEL_F32, .out = CHANNELS, .in = CHANNELS, .taps = 1, .tap_count = 1
	};
	struct kernel_linear linear = { .ldx = CHANNELS, .rows = ROWS, .parts = 1 };
	struct kernel_device *device;
	struct kernel_queue *queue;
	void *data, *x, *y;

	(void)state;
	if (!ALLOCATIONS_COUNTED)
		skip();
	assert_int_equal(table->open(&options, NULL, 0, &device), 0);
	assert_int_equal(table->queue_create(device, 0, &queue), 0);
	data = room(table, device, weight_bytes);
	x = room(table, device, bytes);
	y = room(table, device, bytes);
	weight.data = data;
	linear.x = x;
	linear.part[0] = (struct kernel_linear_part){ .weight = &weight, .y = y, .ldy = CHANNELS };
	linear.workspace.bytes = table->workspace[KERNEL_OP_linear](device, &linear);
	linear.workspace.data = room(table, device, linear.workspace.bytes);

	allocations_count(true);
	for (int i = 0; i < 3; i++)
		assert_int_equal(table->run[KERNEL_OP_linear](device, &linear, queue), 0);
	allocations_count(false);
	print_message("%d threads: %llu allocations\n", THREADS,
		      (unsigned long long)allocations_counted());
	assert_int_equal(allocations_counted(), 0);

	table->release(device, linear.workspace.data, linear.workspace.bytes);
	table->release(device, y, bytes);
	table->release(device, x, bytes);
	table->release(device, data, weight_bytes);
	table->queue_destroy(device, queue);
	table->close(device);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(products_at_once_allocate_nothing),
	};

	return cmocka_run_group_tests_name("cpu_threads", tests, NULL, NULL);
}
