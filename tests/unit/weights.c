/* The table of weights: finding, converting, shards, and what a check reports. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <math.h>

#include "engine/weights.h"
#include "tests/common/tensor_file.h"

static void tensors_are_added_and_found(void **state)
{
	float values[3] = { 1, 2, 3 }, read[3];
	struct weight_tensor tensor = {
		.dtype = KERNEL_F32, .rank = 1, .shape = { 3 }, .data = values
	};
	struct weights *weights = NULL;
	char name[16];

	(void)state;
	assert_int_equal(weights_create(&weights), 0);
	assert_null(weights_find(weights, "a"));
	for (int i = 0; i < 200; i++) {
		(void)snprintf(name, sizeof(name), "t%d", i * 37 % 200);
		tensor.name = name;
		assert_int_equal(weights_add(weights, &tensor, i % 2 == 0), 0);
	}
	tensor.name = "t7";
	assert_int_equal(weights_add(weights, &tensor, true), -EEXIST);
	assert_int_equal(weights_count(weights), 200);
	for (size_t i = 1; i < 200; i++)
		assert_true(strcmp(weights_at(weights, i - 1)->name, weights_at(weights, i)->name) <
			    0);
	values[0] = 9;
	weights_read_float(weights_find(weights, "t0"), read, 3); /* added first: a copy */
	assert_true(read[0] == 1);
	weights_read_float(weights_find(weights, "t37"), read, 3); /* borrowed */
	assert_true(read[0] == 9);
	weights_destroy(weights);
	weights_destroy(NULL);
}

/* All 65536 halves against their definition, in an odd place of memory. */
static void halves_are_widened(void **state)
{
	char *memory = malloc(2 * 65536 + 1);
	float *values = malloc(65536 * sizeof(*values));
	struct weight_tensor tensor = {
		.dtype = KERNEL_F16, .rank = 2, .shape = { 256, 256 }, .data = memory + 1
	};

	(void)state;
	assert_non_null(memory);
	assert_non_null(values);
	for (uint32_t i = 0; i < 65536; i++) {
		uint16_t half = (uint16_t)i;

		memcpy(memory + 1 + 2 * i, &half, sizeof(half));
	}
	weights_read_float(&tensor, values, 65536);
	for (uint32_t i = 0; i < 65536; i++) {
		int exponent = (int)(i >> 10 & 31), fraction = (int)(i & 1023);
		double wanted = exponent ? ldexp(1024 + fraction, exponent - 25) :
					   ldexp(fraction, -24);

		if (exponent == 31 && fraction) {
			assert_true(isnan(values[i]));
			continue;
		}
		if (exponent == 31)
			wanted = INFINITY;
		assert_true((double)values[i] == (i >> 15 ? -wanted : wanted));
		assert_int_equal(!!signbit(values[i]), i >> 15);
	}
	tensor.dtype = KERNEL_BF16;
	weights_read_float(&tensor, values, 65536);
	for (uint32_t i = 0; i < 65536; i++) {
		uint32_t bits;

		memcpy(&bits, &values[i], sizeof(bits));
		assert_int_equal(bits, i << 16);
		if (!isnan(values[i]))
			assert_int_equal(weight_float_to_bf16(values[i]), i);
		else
			assert_true(isnan(weight_bf16_to_float(weight_float_to_bf16(values[i]))));
	}
	free(values);
	free(memory);
}

static uint16_t round_bits(uint32_t bits)
{
	float value;

	memcpy(&value, &bits, sizeof(value));
	return weight_float_to_bf16(value);
}

static void rounding_is_to_nearest_even(void **state)
{
	static const struct {
		uint32_t bits;
		uint16_t wanted;
	} cases[] = {
		{ 0x3f800000, 0x3f80 }, { 0x3f807fff, 0x3f80 }, { 0x3f808000, 0x3f80 },
		{ 0x3f808001, 0x3f81 }, { 0x3f818000, 0x3f82 }, { 0x3f817fff, 0x3f81 },
		{ 0xbf818000, 0xbf82 }, { 0x3fffffff, 0x4000 }, { 0x7f7fffff, 0x7f80 },
		{ 0x7f800000, 0x7f80 }, { 0xff800000, 0xff80 }, { 0x00000001, 0x0000 },
		{ 0x00018000, 0x0002 }, { 0x80000000, 0x8000 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		print_message("%08x becomes %04x\n", cases[i].bits, cases[i].wanted);
		assert_int_equal(round_bits(cases[i].bits), cases[i].wanted);
	}
	assert_true(isnan(weight_bf16_to_float(round_bits(0x7f800001))));
	assert_true(isnan(weight_bf16_to_float(round_bits(0xffffffff))));
}

static int released;

static void count_release(void *thing, size_t bytes)
{
	assert_ptr_equal(thing, &released);
	assert_int_equal(bytes, 5);
	released++;
}

static void owned_things_are_released_once(void **state)
{
	struct weights *weights = NULL;

	(void)state;
	released = 0;
	assert_int_equal(weights_create(&weights), 0);
	assert_int_equal(weights_own(weights, count_release, &released, 5), 0);
	assert_int_equal(weights_own(weights, count_release, &released, 5), 0);
	weights_destroy(weights);
	assert_int_equal(released, 2);
}

/* ------------------------------------------------------------------------------------- files */

static const int64_t shape_two[] = { 2 };
static const float one_two[] = { 1, 2 }, three_four[] = { 3, 4 };

static void file_write(struct scratch *scratch, const char *path, const char *first,
		       const float *first_values, const char *second, const float *second_values)
{
	struct tensor_file *file = tensor_file_create();

	tensor_file_add(file, first, "F32", 1, shape_two, first_values, 8);
	if (second)
		tensor_file_add(file, second, "F32", 1, shape_two, second_values, 8);
	tensor_file_write(file, scratch, path);
	tensor_file_destroy(file);
}

static void value_is(const struct weights *weights, const char *name, float value)
{
	const struct weight_tensor *tensor = weights_find(weights, name);
	float values[2];

	assert_non_null(tensor);
	weights_read_float(tensor, values, 2);
	assert_true(values[0] == value);
}

static void shards_make_one_table(void **state)
{
	struct weights *weights = NULL;
	struct sana_error error = { 0 };
	struct scratch scratch;

	(void)state;
	scratch_create(&scratch);
	file_write(&scratch, "m-1.safetensors", "model.b", one_two, "model.extra", one_two);
	file_write(&scratch, "m-2.safetensors", "model.a", three_four, NULL, NULL);
	scratch_write_text(&scratch, "m.safetensors.index.json",
			   "{\"metadata\":{\"total_size\":16},\"weight_map\":{\"model.b\":"
			   "\"m-1.safetensors\",\"model.a\":\"m-2.safetensors\"}}");
	assert_int_equal(weights_open(scratch.path, "m.safetensors", &weights, &error), 0);
	assert_int_equal(weights_count(weights), 2); /* one is not in the map: left out */
	assert_string_equal(weights_at(weights, 0)->name, "a");
	value_is(weights, "a", 3);
	value_is(weights, "b", 1);
	weights_destroy(weights);

	/* the single file wins over an index */
	file_write(&scratch, "m.safetensors", "model.b", three_four, "a", one_two);
	assert_int_equal(weights_open(scratch.path, "m.safetensors", &weights, &error), 0);
	value_is(weights, "model.b", 3); /* one name has no prefix: none is dropped */
	value_is(weights, "a", 1);
	weights_destroy(weights);
	scratch_remove(&scratch);
}

static void wrong_indexes_are_refused(void **state)
{
	static const struct {
		const char *index, *name, *why;
	} cases[] = {
		{ "", "weights.index", "is empty" },
		{ "[]", "weights.index", "object" },
		{ "{}", "weights.index", "\"weight_map\" must be an object" },
		{ "{\"weight_map\":[]}", "weights.index", "\"weight_map\" must be an object" },
		{ "{\"weight_map\":{}}", "weights.index", "weight_map is empty" },
		{ "{\"weight_map\":{\"a\":3}}", "weights.index", "plain *.safetensors" },
		{ "{\"weight_map\":{\"a\":null}}", "weights.index", "plain *.safetensors" },
		{ "{\"weight_map\":{\"a\":\"../m-2.safetensors\"}}", "weights.index",
		  "plain *.safetensors" },
		{ "{\"weight_map\":{\"a\":\"/etc/m-2.safetensors\"}}", "weights.index",
		  "plain *.safetensors" },
		{ "{\"weight_map\":{\"a\":\"sub/m-2.safetensors\"}}", "weights.index",
		  "plain *.safetensors" },
		{ "{\"weight_map\":{\"a\":\".m.safetensors\"}}", "weights.index",
		  "plain *.safetensors" },
		{ "{\"weight_map\":{\"a\":\".safetensors\"}}", "weights.index",
		  "plain *.safetensors" },
		{ "{\"weight_map\":{\"a\":\"m-2.bin\"}}", "weights.index", "plain *.safetensors" },
		{ "{\"weight_map\":{\"a\":\"m 2.safetensors\"}}", "weights.index",
		  "plain *.safetensors" },
		{ "{\"weight_map\":{\"a\":\"m-9.safetensors\"}}", "checkpoint.safetensors",
		  "m-9.safetensors: cannot open" },
		{ "{\"weight_map\":{\"c\":\"m-2.safetensors\"}}", "weights.index",
		  "tensor \"c\" is not in the file named" },
		{ "{\"weight_map\":{\"a\":\"m-1.safetensors\"}}", "weights.index",
		  "tensor \"a\" is not in the file named" },
		{ "{\"weight_map\":{\"a\":\"m-1.safetensors\",\"b\":\"m-2.safetensors\"}}",
		  "weights.index", "is in a file other than the one named" },
		{ "{\"weight_map\":{\"a\":\"m-2.safetensors\",\"b\":\"m-1.safetensors\","
		  "\"both\":\"m-1.safetensors\"}}",
		  "weights.index", "tensor \"both\" is in a file other than" },
		{ "{\"weight_map\":{\"a\":\"m-2.safetensors\",\"b\":\"m-1.safetensors\"}}",
		  "weights.index", "tensor \"both\" is in two files" },
	};
	struct scratch scratch;

	(void)state;
	scratch_create(&scratch);
	file_write(&scratch, "m-1.safetensors", "b", one_two, "both", one_two);
	file_write(&scratch, "m-2.safetensors", "a", three_four, "both", one_two);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct weights *weights = NULL;
		struct sana_error error = { 0 };

		scratch_write_text(&scratch, "m.safetensors.index.json", cases[i].index);
		assert_true(weights_open(scratch.path, "m.safetensors", &weights, &error) < 0);
		print_message("%s\n", error.text);
		assert_string_equal(error.name, cases[i].name);
		assert_non_null(strstr(error.text, cases[i].why));
		assert_null(weights);
	}
	scratch_remove(&scratch);
}

static void neither_file_nor_index(void **state)
{
	struct weights *weights = NULL;
	struct sana_error error = { 0 };

	(void)state;
	assert_int_equal(weights_open("/nonexistent", "m.safetensors", &weights, &error), -ENOENT);
	assert_string_equal(error.name, "weights.open");
	assert_non_null(strstr(error.text, "/nonexistent/m.safetensors"));
}

/* ------------------------------------------------------------------------------------- check */

static int walk_four(const void *config, model_key_visit visit, void *context)
{
	static const struct model_key keys[] = {
		{ .name = "a", .rank = 1, .shape = { 2 } },
		{ .name = "b", .rank = 2, .shape = { 2, 3 } },
		{ .name = "c", .rank = 1, .shape = { 4 } },
		{ .name = "spare", .rank = 1, .shape = { 4 }, .optional = true },
	};
	int r = 0;

	(void)config;
	for (size_t i = 0; i < ARRAY_SIZE(keys) && r >= 0; i++)
		r = visit(context, &keys[i]);
	return r;
}

static void add(struct weights *weights, const char *name, enum kernel_dtype dtype, int rank,
		int64_t first, int64_t second)
{
	struct weight_tensor tensor = { .name = (char *)name,
					.dtype = dtype,
					.rank = rank,
					.shape = { first, second },
					.data = "" };

	assert_int_equal(weights_add(weights, &tensor, false), 0);
}

static void differences_are_named_together(void **state)
{
	struct sana_error error = { 0 };
	struct weights *weights = NULL;
	char name[40];

	(void)state;
	assert_int_equal(weights_create(&weights), 0);
	add(weights, "a", KERNEL_F16, 1, 2, 0);
	add(weights, "b", KERNEL_BF16, 2, 2, 3);
	add(weights, "c", KERNEL_F32, 1, 4, 0);
	assert_int_equal(weights_check(weights, "some", walk_four, NULL, &error), 0);
	add(weights, "spare", KERNEL_DTYPE_INVALID, 2, 7, 7); /* optional: any shape, any type */
	assert_int_equal(weights_check(weights, "some", walk_four, NULL, &error), 0);
	weights_destroy(weights);

	assert_int_equal(weights_create(&weights), 0);
	add(weights, "b", KERNEL_BF16, 2, 3, 2);
	add(weights, "c", KERNEL_DTYPE_INVALID, 1, 4, 0);
	add(weights, "x\ny", KERNEL_F32, 1, 4, 0);
	assert_int_equal(weights_check(weights, "some", walk_four, NULL, &error), -EINVAL);
	print_message("%s\n", error.text);
	assert_string_equal(error.name, "weights.mismatch");
	assert_string_equal(
		error.text,
		"some does not fit the configuration: a is missing; b is [3, 2] "
		"instead of [2, 3]; c is of a type other than F32, BF16 and F16; x?y is "
		"unexpected.");
	for (int i = 0; i < 50; i++) {
		(void)snprintf(name, sizeof(name), "an.unexpected.name.number.%d", i);
		add(weights, name, KERNEL_F32, 1, 1, 0);
	}
	assert_int_equal(weights_check(weights, "some", walk_four, NULL, &error), -EINVAL);
	print_message("%s\n", error.text);
	assert_non_null(strstr(error.text, " more."));
	assert_true(strlen(error.text) < SANA_ERROR_TEXT_BYTES - 1);
	weights_destroy(weights);

	assert_int_equal(weights_create(&weights), 0);
	assert_int_equal(weights_check(weights, "none", walk_four, NULL, &error), -EINVAL);
	assert_string_equal(error.text, "none does not fit the configuration: a is missing; b is "
					"missing; c is missing.");
	weights_destroy(weights);
}

/* Ranks that the table cannot hold are still seen to differ. */
static void high_ranks_differ(void **state)
{
	static const int64_t shape[] = { 2, 1, 1, 1, 1, 1, 1 };
	struct tensor_file *file = tensor_file_create();
	struct weights *weights = NULL;
	struct sana_error error = { 0 };
	struct scratch scratch;

	(void)state;
	scratch_create(&scratch);
	tensor_file_add(file, "a", "F32", 7, shape, NULL, 8);
	tensor_file_write(file, &scratch, "m.safetensors");
	tensor_file_destroy(file);
	assert_int_equal(weights_open(scratch.path, "m.safetensors", &weights, &error), 0);
	assert_int_equal(weights_check(weights, "some", walk_four, NULL, &error), -EINVAL);
	print_message("%s\n", error.text);
	assert_non_null(strstr(error.text, "a is [2, 1, 1, 1, 1, …] instead of [2]"));
	weights_destroy(weights);
	scratch_remove(&scratch);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tensors_are_added_and_found),
		cmocka_unit_test(halves_are_widened),
		cmocka_unit_test(rounding_is_to_nearest_even),
		cmocka_unit_test(owned_things_are_released_once),
		cmocka_unit_test(shards_make_one_table),
		cmocka_unit_test(wrong_indexes_are_refused),
		cmocka_unit_test(neither_file_nor_index),
		cmocka_unit_test(differences_are_named_together),
		cmocka_unit_test(high_ranks_differ),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
