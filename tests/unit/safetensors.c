/* Safetensors: the shared good file value by value, and each rule broken on its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <unistd.h>

#include "base/file.h"
#include "engine/checkpoint/safetensors.h"
#include "tests/common/tensor_file.h"

static const struct safetensors_tensor *find(const struct safetensors *file, const char *name)
{
	for (size_t i = 0; i < safetensors_count(file); i++)
		if (strcmp(safetensors_at(file, i)->name, name) == 0)
			return safetensors_at(file, i);
	return NULL;
}

static double half_value(uint16_t half)
{
	/* the fields of a normal number; the file has no others but zero */
	double fraction = 1 + (half & 0x3ff) / 1024.0;

	if ((half & 0x7fff) == 0)
		return 0;
	for (int e = half >> 10 & 31; e != 15; e += e < 15 ? 1 : -1)
		fraction *= (half >> 10 & 31) < 15 ? 0.5 : 2;
	return half & 0x8000 ? -fraction : fraction;
}

static double value_at(const struct safetensors_tensor *tensor, size_t i)
{
	const char *at = (const char *)tensor->data + i * safetensors_dtype_bytes(tensor->dtype);
	uint16_t half;
	uint32_t bits;
	float single;
	int64_t whole;

	switch ((int)tensor->dtype) {
	case SAFETENSORS_F32:
		memcpy(&single, at, sizeof(single));
		return single;
	case SAFETENSORS_BF16:
		memcpy(&half, at, sizeof(half));
		bits = (uint32_t)half << 16;
		memcpy(&single, &bits, sizeof(single));
		return single;
	case SAFETENSORS_F16:
		memcpy(&half, at, sizeof(half));
		return half_value(half);
	case SAFETENSORS_I64:
		memcpy(&whole, at, sizeof(whole));
		return (double)whole;
	}
	fail();
	return 0;
}

static void good_file_is_read(void **state)
{
	static const struct {
		const char *name, *dtype;
	} types[] = { { "bfloat16", "BF16" },
		      { "float32", "F32" },
		      { "float16", "F16" },
		      { "int64", "I64" } };
	json_t *expected = json_load_file("tests/checkpoint/expected.json", 0, NULL), *record;
	_cleanup_(safetensors_closep) struct safetensors *file = NULL;
	struct sana_error error = { 0 };
	const char *name;

	(void)state;
	assert_non_null(expected);
	assert_int_equal(safetensors_open("tests/checkpoint/plain.safetensors", &file, &error), 0);
	assert_int_equal(safetensors_count(file), json_object_size(expected));
	json_object_foreach(expected, name, record)
	{
		const struct safetensors_tensor *tensor = find(file, name);
		json_t *shape = json_object_get(record, "shape");
		json_t *values = json_object_get(record, "values");
		const char *type = json_string_value(json_object_get(record, "dtype"));
		size_t i;

		print_message("%s: %s of rank %zu\n", name, type, json_array_size(shape));
		assert_non_null(tensor);
		for (i = 0; i < ARRAY_SIZE(types); i++)
			if (strcmp(types[i].name, type) == 0)
				assert_string_equal(safetensors_dtype_name(tensor->dtype),
						    types[i].dtype);
		assert_int_equal(tensor->rank, json_array_size(shape));
		for (i = 0; i < json_array_size(shape); i++)
			assert_int_equal(tensor->shape[i],
					 json_integer_value(json_array_get(shape, i)));
		for (i = 0; i < json_array_size(values); i++)
			assert_true(value_at(tensor, i) ==
				    json_number_value(json_array_get(values, i)));
		assert_int_equal(tensor->bytes, i * safetensors_dtype_bytes(tensor->dtype));
	}
	json_decref(expected);
}

static void shared_hostile_files_are_refused(void **state)
{
	static const struct {
		const char *path, *why;
	} cases[] = {
		{ "tests/checkpoint/hostile_header_length.safetensors", "header length" },
		{ "tests/checkpoint/hostile_overflow.safetensors", "overflows 64 bits" },
		{ "tests/checkpoint/hostile_overlap.safetensors", "overlaps" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct safetensors *file = NULL;
		struct sana_error error = { 0 };

		assert_int_equal(safetensors_open(cases[i].path, &file, &error), -EINVAL);
		print_message("%s\n", error.text);
		assert_string_equal(error.name, "checkpoint.safetensors");
		assert_memory_equal(error.text, cases[i].path, strlen(cases[i].path));
		assert_non_null(strstr(error.text, cases[i].why));
		assert_null(file);
	}
}

#define A "\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}"
#define RECORD(dtype, shape, offsets) \
	"{\"a\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}}"

struct header_case {
	const char *header;
	size_t data_bytes;
	const char *why; /* NULL: accepted */
};

static const struct header_case headers[] = {
	/* accepted */
	{ "{" A "}", 8, NULL },
	{ "{" A "}      ", 8, NULL },
	{ "{}", 0, NULL },
	{ "{\"__metadata__\":{\"format\":\"pt\"}," A "}", 8, NULL },
	{ "{\n\t" A "\r\n}", 8, NULL },
	{ RECORD("F32", "[]", "[0,4]"), 4, NULL },
	{ RECORD("C64", "[1,1,1,1,1,1,1,1]", "[0,8]"), 8, NULL },
	{ "{" A ",\"z\":{\"dtype\":\"U8\",\"shape\":[3,0],\"data_offsets\":[8,8]}}", 8, NULL },
	{ "{" A ",\"z\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}", 8, NULL },
	{ "{\"b\":{\"dtype\":\"I8\",\"shape\":[1],\"data_offsets\":[8,9]}," A "}", 9, NULL },
	{ "{\"\":{\"dtype\":\"F8_E8M0\",\"shape\":[8],\"data_offsets\":[0,8]}}", 8, NULL },
	/* 1: the header's length */
	{ "{", 0, "between 2 bytes and 16 MiB" },
	{ "", 0, "between 2 bytes and 16 MiB" },
	/* 2: its form */
	{ " {" A "}", 8, "does not begin with {" },
	{ "[1]", 0, "does not begin with {" },
	{ "{" A "}\n", 8, "other than spaces" },
	{ "{" A "}\t ", 8, "other than spaces" },
	{ "{" A "} x", 8, "other than spaces" },
	{ "{" A "}{}", 8, "not valid JSON" },
	{ "{" A "", 8, "not valid JSON" },
	{ "{\xff\"a\":1}", 0, "not valid JSON" },
	{ "{\"\xc3\x28\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}", 4,
	  "not valid JSON" },
	{ "{\"\\ud800\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}", 4,
	  "not valid JSON" },
	{ "{\"\\u0000\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}", 4,
	  "not valid JSON" },
	{ RECORD("F32", "[[[2]]]", "[0,8]"), 8, "nested more than 4" },
	{ RECORD("F32", "[[2]]", "[0,8]"), 8, "plain integer" },
	{ "{" A "," A "}", 8, "duplicate" },
	{ "{" A ",\"\\u0061\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[8,12]}}", 12,
	  "duplicate" },
	{ "{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8,
	  "duplicate" },
	{ "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8],\"x\":1}}", 8,
	  "members other than" },
	{ "{\"a\":{\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "no string \"dtype\"" },
	{ "{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,8]}}", 8, "no list \"shape\"" },
	{ "{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8, "no pair \"data_offsets\"" },
	{ "{\"a\":{}}", 0, "no string \"dtype\"" },
	{ "{\"a\":3}", 0, "not described by an object" },
	{ "{\"a\":null}", 0, "not described by an object" },
	{ RECORD("F4", "[2]", "[0,1]"), 1, "unknown dtype" },
	{ RECORD("f32", "[2]", "[0,8]"), 8, "unknown dtype" },
	{ "{\"a\":{\"dtype\":32,\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "no string \"dtype\"" },
	{ RECORD("F32", "2", "[0,8]"), 8, "no list \"shape\"" },
	{ RECORD("F32", "[2]", "[0,4,8]"), 8, "no pair" },
	{ RECORD("F32", "[2]", "[8]"), 8, "no pair" },
	{ RECORD("F32", "[2]", "{}"), 8, "no pair" },
	{ "{\"__metadata__\":3," A "}", 8, "__metadata__ is not an object" },
	{ "{\"__metadata__\":{\"a\":1}," A "}", 8, "__metadata__ has a value" },
	{ "{\"__metadata__\":{\"a\":{}}," A "}", 8, "__metadata__ has a value" },
	/* 3: numbers */
	{ RECORD("F32", "[2.0]", "[0,8]"), 8, "plain integer" },
	{ RECORD("F32", "[2e0]", "[0,8]"), 8, "plain integer" },
	{ RECORD("F32", "[-2]", "[0,8]"), 8, "has a sign" },
	{ RECORD("F32", "[2]", "[-0,8]"), 8, "has a sign" },
	{ RECORD("F32", "[+2]", "[0,8]"), 8, "not valid JSON" },
	{ RECORD("F32", "[02]", "[0,8]"), 8, "not valid JSON" },
	{ RECORD("F32", "[\"2\"]", "[0,8]"), 8, "plain integer" },
	{ RECORD("F32", "[true,2]", "[0,8]"), 8, "plain integer" },
	{ RECORD("F32", "[null]", "[0,8]"), 8, "plain integer" },
	{ RECORD("F32", "[9007199254740993]", "[0,8]"), 8, "plain integer" },
	{ RECORD("F32", "[18446744073709551616]", "[0,8]"), 8, "too big integer" },
	{ RECORD("F32", "[2]", "[0,9007199254740993]"), 8, "plain integer" },
	{ RECORD("F32", "[1,1,1,1,1,1,1,1,2]", "[0,8]"), 8, "more than 8 dimensions" },
	{ RECORD("U8", "[9007199254740992,2048]", "[0,0]"), 0, "overflows 64 bits" },
	{ RECORD("F64", "[2305843009213693952]", "[0,0]"), 0, "plain integer" },
	{ RECORD("F64", "[4503599627370496,512]", "[0,0]"), 0, "overflows 64 bits" },
	{ RECORD("U8", "[4294967296,4294967296,0]", "[0,0]"), 0, "overflows 64 bits" },
	/* 4: offsets */
	{ RECORD("F32", "[2]", "[8,0]"), 8, "ends before it begins" },
	{ RECORD("F32", "[2]", "[0,8]"), 7, "beyond the end of the file" },
	{ RECORD("F32", "[2]", "[8,16]"), 8, "beyond the end of the file" },
	{ RECORD("F32", "[2]", "[0,4]"), 8, "do not match its shape" },
	{ RECORD("BF16", "[2]", "[0,8]"), 8, "do not match its shape" },
	{ RECORD("F32", "[0]", "[0,8]"), 8, "do not match its shape" },
	/* 5: tiling */
	{ "{" A "}", 9, "bytes follow the last tensor" },
	{ "{}", 1, "bytes follow the last tensor" },
	{ "{" A ",\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}", 12,
	  "overlaps" },
	{ "{" A ",\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "overlaps" },
	{ "{" A ",\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[12,20]}}", 20,
	  "leaves a hole" },
	{ RECORD("F32", "[2]", "[1,9]"), 9, "leaves a hole" },
	{ "{" A ",\"z\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[4,4]}}", 8, "overlaps" },
	/* 6: names */
	{ "{\"a\\u0007b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8,
	  "\"a?b\" has control characters" },
	{ "{\"a\\u007fb\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8,
	  "has control characters" },
	{ "{\"a\\u0085b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8,
	  "has control characters" },
};

static void check_bytes(const void *bytes, size_t length, const char *why)
{
	_cleanup_(safetensors_closep) struct safetensors *file = NULL;
	struct sana_error error = { 0 };
	int r = safetensors_parse(bytes, length, "some.safetensors", &file, &error);

	print_message("  %s\n", r < 0 ? error.text : "accepted");
	if (!why) {
		assert_int_equal(r, 0);
		assert_int_equal(error.code, 0);
		return;
	}
	assert_int_equal(r, -EINVAL);
	assert_int_equal(error.code, -EINVAL);
	assert_string_equal(error.name, "checkpoint.safetensors");
	assert_memory_equal(error.text, "some.safetensors", 16);
	assert_non_null(strstr(error.text, why));
	assert_null(strpbrk(error.text, "\n\r\t\a"));
	assert_null(file);
}

static void every_rule_is_checked(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(headers); i++) {
		const struct header_case *c = &headers[i];
		_cleanup_(freep) void *bytes = NULL;
		size_t length;

		print_message("case %zu\n", i);
		bytes = tensor_file_raw(c->header, strlen(c->header), c->data_bytes, &length);
		check_bytes(bytes, length, c->why);
	}
}

static void a_nul_behind_the_header_is_refused(void **state)
{
	static const char header[] = "{" A "}\0";
	size_t length;
	void *bytes = tensor_file_raw(header, sizeof(header) - 1, 8, &length);

	(void)state;
	check_bytes(bytes, length, "other than spaces");
	free(bytes);
}

/* Headers too long for a table. */
static void limits_hold(void **state)
{
	enum { RECORD_BYTES = 64, TOO_MANY = 100001 };
	size_t capacity = (size_t)TOO_MANY * (RECORD_BYTES + 16) + 16, used, length;
	char *header = malloc(capacity);
	void *bytes;

	(void)state;
	assert_non_null(header);
	for (int count = TOO_MANY - 1; count <= TOO_MANY; count++) {
		used = (size_t)snprintf(header, capacity, "{");
		for (int i = 0; i < count; i++)
			used += (size_t)snprintf(header + used, capacity - used,
						 "%s\"%d\":{\"dtype\":\"U8\",\"shape\":[0],"
						 "\"data_offsets\":[0,0]}",
						 i ? "," : "", i);
		used += (size_t)snprintf(header + used, capacity - used, "}");
		bytes = tensor_file_raw(header, used, 0, &length);
		check_bytes(bytes, length, count == TOO_MANY ? "more than 100000" : NULL);
		free(bytes);
	}
	for (int count = 1024; count <= 1025; count++) {
		used = (size_t)snprintf(header, capacity,
					"{\"%0*d\":{\"dtype\":\"U8\",\"shape\":[0],"
					"\"data_offsets\":[0,0]}}",
					count, 0);
		bytes = tensor_file_raw(header, used, 0, &length);
		check_bytes(bytes, length, count > 1024 ? "longer than 1024 bytes" : NULL);
		free(bytes);
	}
	memset(header, '[', capacity);
	memcpy(header, "{\"a\":", 5);
	header[capacity - 1] = '}';
	bytes = tensor_file_raw(header, capacity, 0, &length);
	check_bytes(bytes, length, "nested more than 4");
	free(bytes);
	free(header);
}

static void header_lengths_are_checked(void **state)
{
	static const uint64_t lengths[] = { 0,		1,	    100,	(16 << 20) + 1,
					    1ULL << 32, 1ULL << 63, UINT64_MAX, UINT64_MAX - 7 };
	unsigned char bytes[64] = { 0 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
		for (int b = 0; b < 8; b++)
			bytes[b] = (unsigned char)(lengths[i] >> (8 * b));
		memset(bytes + 8, ' ', sizeof(bytes) - 8);
		bytes[8] = '{';
		print_message("header length %" PRIu64 "\n", lengths[i]);
		check_bytes(bytes, sizeof(bytes),
			    lengths[i] == 100 ? "does not fit" : "header length");
	}
	for (size_t length = 0; length < 8; length++)
		check_bytes(bytes, length, "shorter than 8 bytes");
}

/* Each shorter copy of a good file is refused; copies are exactly as long as they claim. */
static void truncated_files_are_refused(void **state)
{
	struct file_map map = { 0 };

	(void)state;
	assert_int_equal(file_map("tests/checkpoint/plain.safetensors", "x", &map, NULL), 0);
	for (size_t length = 0; length < map.size; length++) {
		struct safetensors *file = NULL;
		struct sana_error error = { 0 };
		char *bytes = malloc(length + 1);

		assert_non_null(bytes);
		memcpy(bytes + 1, map.data, length); /* misaligned on purpose */
		assert_int_equal(safetensors_parse(bytes + 1, length, "cut", &file, &error),
				 -EINVAL);
		assert_true(error.text[0] != '\0');
		free(bytes);
	}
	print_message("%zu lengths\n", map.size);
	file_unmap(&map);
}

/* A header with one byte changed is refused or still describes memory inside the file. */
static void changed_headers_stay_inside(void **state)
{
	struct file_map map = { 0 };
	unsigned accepted = 0, sum = 0;
	unsigned char *bytes;
	size_t header;

	(void)state;
	assert_int_equal(file_map("tests/checkpoint/plain.safetensors", "x", &map, NULL), 0);
	bytes = malloc(map.size);
	assert_non_null(bytes);
	memcpy(bytes, map.data, map.size);
	header = 8 + bytes[0] + 256u * bytes[1];
	assert_in_range(header, 100, map.size);
	for (size_t i = 0; i < header; i++) {
		for (int bit = 0; bit < 8; bit++) {
			_cleanup_(safetensors_closep) struct safetensors *file = NULL;

			bytes[i] ^= (unsigned char)(1 << bit);
			if (safetensors_parse(bytes, map.size, "x", &file, NULL) == 0) {
				accepted++;
				for (size_t t = 0; t < safetensors_count(file); t++) {
					const struct safetensors_tensor *tensor =
						safetensors_at(file, t);

					for (size_t b = 0; b < tensor->bytes; b++)
						sum += ((const unsigned char *)tensor->data)[b];
				}
			}
			bytes[i] ^= (unsigned char)(1 << bit);
		}
	}
	print_message("%u of %zu changed headers accepted, sum %u\n", accepted, 8 * header, sum);
	free(bytes);
	file_unmap(&map);
}

static void files_that_are_not_there(void **state)
{
	struct safetensors *file = NULL;
	struct sana_error error = { 0 };

	(void)state;
	assert_int_equal(safetensors_open("/nonexistent/x.safetensors", &file, &error), -ENOENT);
	assert_string_equal(error.name, "checkpoint.safetensors");
	assert_non_null(strstr(error.text, "/nonexistent/x.safetensors"));
	safetensors_close(NULL);
	assert_null(safetensors_dtype_name(SAFETENSORS_DTYPE_INVALID));
	assert_int_equal(safetensors_dtype_bytes(SAFETENSORS_DTYPE_COUNT), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(good_file_is_read),
		cmocka_unit_test(shared_hostile_files_are_refused),
		cmocka_unit_test(every_rule_is_checked),
		cmocka_unit_test(a_nul_behind_the_header_is_refused),
		cmocka_unit_test(limits_hold),
		cmocka_unit_test(header_lengths_are_checked),
		cmocka_unit_test(truncated_files_are_refused),
		cmocka_unit_test(changed_headers_stay_inside),
		cmocka_unit_test(files_that_are_not_there),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
