/* The table itself: names, sizes, device, memory, copies. */
#include <errno.h>

#include "tests/common/op_test.h"

static void test_names_and_sizes(void **state)
{
	(void)state;
	assert_int_equal(kernel_dtype_bytes(KERNEL_F32), 4);
	assert_int_equal(kernel_dtype_bytes(KERNEL_BF16), 2);
	assert_int_equal(kernel_dtype_bytes(KERNEL_F16), 2);
	assert_int_equal(kernel_dtype_bytes(KERNEL_U8), 1);
	assert_int_equal(kernel_dtype_bytes(KERNEL_DTYPE_INVALID), 0);
	assert_int_equal(kernel_dtype_bytes(KERNEL_DTYPE_COUNT), 0);

	assert_string_equal(kernel_op_name(KERNEL_OP_linear), "linear");
	assert_string_equal(kernel_op_name(KERNEL_OP_unpatchify), "unpatchify");
	assert_string_equal(kernel_op_name(KERNEL_OP_COUNT), "?");
	assert_string_equal(kernel_op_name((enum kernel_op) - 1), "?");
	assert_int_equal(kernel_op_params_bytes(KERNEL_OP_gdn), sizeof(struct kernel_gdn));
	assert_int_equal(kernel_op_params_bytes(KERNEL_OP_COUNT), 0);

	assert_string_equal(kernel_backend_cpu.name, "cpu");
	assert_int_equal(kernel_backend_cpu.activation, KERNEL_F32);
	for (int op = 0; op < KERNEL_OP_COUNT; op++)
		assert_non_null(kernel_backend_cpu.run[op]);
	printf("  %d ops, all there\n", KERNEL_OP_COUNT);
}

static void test_open(void **state)
{
	const struct kernel_backend *table = &kernel_backend_cpu;
	struct kernel_device_options options = { .threads = 257 };
	struct kernel_device *device = NULL;
	char text[100] = "";

	(void)state;
	assert_int_equal(table->open(&options, text, sizeof(text), &device), -EINVAL);
	printf("  257 threads: \"%s\"\n", text);
	assert_non_null(strstr(text, "257"));
	options.threads = -1;
	assert_int_equal(table->open(&options, NULL, 0, &device), -EINVAL);
	assert_null(device);
	options.threads = 0;
	assert_int_equal(table->open(&options, text, sizeof(text), &device), 0);
	table->close(device);
	table->close(NULL);
}

static void test_memory(void **state)
{
	enum { BYTES = 1000003 };
	static unsigned char host[BYTES];
	unsigned char *a, *b;
	struct op_test test;

	(void)state;
	op_test_open(&test, 2);
	assert_int_equal(test.table->allocate(test.device, BYTES, (void **)&a), 0);
	assert_int_equal(test.table->allocate(test.device, BYTES, (void **)&b), 0);
	assert_int_equal((uintptr_t)a % KERNEL_ALIGNMENT, 0);
	for (int i = 0; i < BYTES; i++) {
		assert_int_equal(a[i], 0);
		host[i] = (unsigned char)(i * 7);
	}
	assert_int_equal(test.table->upload(test.device, a, host, BYTES, test.queue), 0);
	assert_int_equal(test.table->copy(test.device, b, a, BYTES, test.queue), 0);
	assert_int_equal(test.table->zero(test.device, a, BYTES, test.queue), 0);
	memset(host, 0, BYTES);
	assert_int_equal(test.table->download(test.device, host, b, BYTES, test.queue), 0);
	assert_int_equal(test.table->queue_after(test.device, test.queue, test.queue), 0);
	assert_int_equal(test.table->queue_wait(test.device, test.queue), 0);
	for (int i = 0; i < BYTES; i++) {
		assert_int_equal(host[i], (unsigned char)(i * 7));
		assert_int_equal(a[i], 0);
	}
	assert_int_equal(test.table->allocate(test.device, SIZE_MAX / 4, (void **)&a), -ENOMEM);
	assert_true(test.table->memory_available(test.device) > 1 << 20);
	test.table->release(test.device, a, BYTES);
	test.table->release(test.device, b, BYTES);
	test.table->release(test.device, NULL, 0);
	op_test_close(&test);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names_and_sizes),
		cmocka_unit_test(test_open),
		cmocka_unit_test(test_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
