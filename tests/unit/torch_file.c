/* Checkpoints of torch.save: the shared files value by value, every nesting, hostile ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <jansson.h>
#include <math.h>

#include "engine/checkpoint/torch_file.h"
#include "tests/common/torch_writer.h"

#define SHARED "tests/checkpoint/"

static const struct torch_tensor *find(const struct torch_file *file, const char *name)
{
	for (size_t i = 0; i < torch_file_count(file); i++)
		if (strcmp(torch_file_at(file, i)->name, name) == 0)
			return torch_file_at(file, i);
	return NULL;
}

static double half_value(uint16_t half)
{
	double value = half & 0x7c00 ? ldexp((half & 0x3ff) + 1024, (half >> 10 & 31) - 25) :
				       ldexp(half & 0x3ff, -24);

	return half & 0x8000 ? -value : value;
}

static double value_of(enum safetensors_dtype dtype, const uint8_t *at)
{
	uint32_t bits = bytes_u16(at);
	float single;

	switch ((int)dtype) {
	case SAFETENSORS_F32:
		memcpy(&single, at, sizeof(single));
		return single;
	case SAFETENSORS_BF16:
		bits <<= 16;
		memcpy(&single, &bits, sizeof(single));
		return single;
	case SAFETENSORS_F16:
		return half_value((uint16_t)bits);
	case SAFETENSORS_I64:
		return (double)(int64_t)bytes_u64(at);
	}
	fail();
	return 0;
}

/* The tensor's bytes in row-major order, to be freed. */
static uint8_t *read_tensor(const struct byte_source *source, const struct torch_tensor *tensor)
{
	size_t each = safetensors_dtype_bytes(tensor->dtype);
	uint8_t *span = malloc(tensor->span_bytes + 1), *values = malloc(tensor->bytes + 1);

	assert_non_null(span);
	assert_non_null(values);
	assert_int_equal(byte_source_read(source, tensor->offset, span, (size_t)tensor->span_bytes),
			 0);
	if (tensor->contiguous) {
		assert_int_equal(tensor->span_bytes, tensor->bytes);
		memcpy(values, span, (size_t)tensor->bytes);
	} else {
		/* in two pieces, as large tensors are */
		size_t count = (size_t)tensor->bytes / each, part = count / 2;

		torch_tensor_gather(tensor, span, 0, part, values);
		torch_tensor_gather(tensor, span, part, count - part, values + part * each);
	}
	free(span);
	return values;
}

static size_t compare_with_expected(const struct byte_source *source, const struct torch_file *file)
{
	static const struct {
		const char *torch, *name;
	} types[] = { { "bfloat16", "BF16" },
		      { "float16", "F16" },
		      { "float32", "F32" },
		      { "int64", "I64" } };
	json_t *expected = json_load_file(SHARED "expected.json", 0, NULL), *entry;
	const char *name;
	size_t values = 0;

	assert_non_null(expected);
	json_object_foreach(expected, name, entry)
	{
		const struct torch_tensor *tensor = find(file, name);
		const json_t *list = json_object_get(entry, "values");
		const json_t *shape = json_object_get(entry, "shape");
		const char *type = json_string_value(json_object_get(entry, "dtype"));
		uint8_t *bytes;

		assert_non_null(tensor);
		for (size_t i = 0; i < ARRAY_SIZE(types); i++)
			if (strcmp(types[i].torch, type) == 0)
				assert_string_equal(safetensors_dtype_name(tensor->dtype),
						    types[i].name);
		assert_int_equal(tensor->rank, json_array_size(shape));
		for (int d = 0; d < tensor->rank; d++)
			assert_int_equal(tensor->shape[d],
					 json_integer_value(json_array_get(shape, (size_t)d)));
		bytes = read_tensor(source, tensor);
		for (size_t i = 0; i < json_array_size(list); i++, values++) {
			double got = value_of(tensor->dtype,
					      bytes + i * safetensors_dtype_bytes(tensor->dtype));
			double wanted = json_number_value(json_array_get(list, i));

			/* bit for bit: a zero's sign counts too */
			assert_memory_equal(&got, &wanted, sizeof(got));
		}
		assert_int_equal(json_array_size(list) * safetensors_dtype_bytes(tensor->dtype),
				 tensor->bytes);
		free(bytes);
	}
	assert_int_equal(json_object_size(expected), torch_file_count(file));
	json_decref(expected);
	return values;
}

static void good_files_are_read(void **state)
{
	static const struct {
		const char *name, *nesting;
		size_t others;
	} files[] = {
		{ "plain", "", 0 },
		{ "state_dict", "state_dict", 0 },
		{ "generator", "generator", 0 },
		{ "module_prefix", "", 0 },
	};
	struct sana_error error = { 0 };
	uint8_t buffer[100];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		struct torch_file *file = NULL;
		struct byte_source source;
		char path[64];

		(void)snprintf(path, sizeof(path), SHARED "%s.pth", files[i].name);
		assert_int_equal(byte_source_open(path, "file", &source, &error), 0);
		if (torch_file_open(&source, &file, &error) < 0)
			fail_msg("%s", error.text);
		assert_string_equal(torch_file_nesting(file), files[i].nesting);
		assert_int_equal(torch_file_others(file), files[i].others);
		assert_int_equal(
			torch_file_check_crc(&source, file, buffer, sizeof(buffer), &error), 0);
		print_message("%s: %zu tensors, %zu values equal\n", path, torch_file_count(file),
			      compare_with_expected(&source, file));
		torch_file_close(file);
		byte_source_close(&source);
	}
}

static void refuse_file(const char *path, const char *name, const char *words)
{
	struct sana_error error = { 0 };
	struct torch_file *file = NULL;
	struct byte_source source;
	int r;

	assert_int_equal(byte_source_open(path, "file", &source, &error), 0);
	r = torch_file_open(&source, &file, &error);
	print_message("%s\n", error.text);
	assert_int_equal(r, -EINVAL);
	assert_null(file);
	assert_string_equal(error.name, name);
	assert_non_null(strstr(error.text, words));
	byte_source_close(&source);
}

static void shared_hostile_files_are_refused(void **state)
{
	(void)state;
	refuse_file(SHARED "hostile_reduce.pth", "checkpoint.pickle", "system");
	refuse_file(SHARED "hostile_short_storage.pth", "checkpoint.torch",
		    "46 bytes instead of 48");
	refuse_file(SHARED "hostile_truncated.pth", "checkpoint.zip", "truncated");
	refuse_file(SHARED "legacy.pth", "checkpoint.zip", "no zip");
	refuse_file(SHARED "plain.safetensors", "checkpoint.zip", "no zip");
}

/* ---------------------------------------------------------------------------- files made here */

static const float ramp[24] = { 0,  1,	2,  3,	4,  5,	6,  7,	8,  9,	10, 11,
				12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23 };

static int open_bytes(const void *data, size_t bytes, struct byte_source *source,
		      struct torch_file **ret, struct sana_error *error)
{
	byte_source_from_memory(data, bytes, "made.pth", source);
	return torch_file_open(source, ret, error);
}

static void every_nesting_is_found(void **state)
{
	static const struct {
		const char *nesting, *found, *name, *expected;
	} cases[] = {
		{ "bare", "", "a.weight", "a.weight" },
		{ "model.", "", "a.weight", "a.weight" },
		{ "module.", "", "a.weight", "a.weight" },
		{ "model.module.", "", "a.weight", "a.weight" },
		/* model. goes first, once: what follows module. stays */
		{ "bare", "", "module.model.x", "model.x" },
		{ "bare", "", "model.model.x", "model.x" },
		/* no renaming below a state_dict */
		{ "state_dict", "state_dict", "model.a", "model.a" },
		{ "generator", "generator", "model.a", "a" },
		{ "generator.state_dict", "generator.state_dict", "model.a", "model.a" },
	};
	const int64_t shape[] = { 4, 6 };

	(void)state;
	for (size_t i = 0; i < 2 * ARRAY_SIZE(cases); i++) {
		struct torch_writer *writer = torch_writer_create();
		struct torch_file *file = NULL;
		struct sana_error error = { 0 };
		struct byte_source source;
		uint8_t *bytes;
		size_t size;
		void *data;

		torch_writer_set_nesting(writer, cases[i / 2].nesting);
		torch_writer_set_parameters(writer, i % 2);
		torch_writer_tensor(writer, cases[i / 2].name, "F32", 2, shape, ramp);
		data = torch_writer_bytes(writer, &size);
		if (open_bytes(data, size, &source, &file, &error) < 0)
			fail_msg("%s: %s", cases[i / 2].nesting, error.text);
		assert_string_equal(torch_file_nesting(file), cases[i / 2].found);
		assert_int_equal(torch_file_count(file), 1);
		assert_string_equal(torch_file_at(file, 0)->name, cases[i / 2].expected);
		bytes = read_tensor(&source, torch_file_at(file, 0));
		assert_memory_equal(bytes, ramp, sizeof(ramp));
		free(bytes);
		torch_file_close(file);
		free(data);
		torch_writer_destroy(writer);
	}
}

static void views_are_gathered(void **state)
{
	/* 24 values seen as [2][3][4] with the axes in another order, and from an offset */
	const int64_t shape[] = { 4, 2, 3 }, stride[] = { 1, 12, 4 };
	const int64_t part[] = { 2, 2 }, part_stride[] = { 6, 2 };
	const int64_t repeated[] = { 3, 2 }, repeated_stride[] = { 0, 1 }, none[] = { 0, 5 };
	struct torch_writer *writer = torch_writer_create();
	struct torch_file *file = NULL;
	struct sana_error error = { 0 };
	struct byte_source source;
	float *values;
	size_t size;
	void *data;
	int storage;

	(void)state;
	storage = torch_writer_storage(writer, "Float", 4, 24, ramp);
	torch_writer_view(writer, "turned", storage, 0, 3, shape, stride);
	torch_writer_view(writer, "part", storage, 5, 2, part, part_stride);
	torch_writer_view(writer, "repeated", storage, 7, 2, repeated, repeated_stride);
	torch_writer_view(writer, "scalar", storage, 23, 0, NULL, NULL);
	torch_writer_view(writer, "nothing", storage, 24, 2, none, NULL);
	data = torch_writer_bytes(writer, &size);
	if (open_bytes(data, size, &source, &file, &error) < 0)
		fail_msg("%s", error.text);
	values = (float *)read_tensor(&source, find(file, "turned"));
	for (int a = 0; a < 4; a++)
		for (int b = 0; b < 2; b++)
			for (int c = 0; c < 3; c++)
				assert_true(values[(a * 2 + b) * 3 + c] ==
					    ramp[a + 12 * b + 4 * c]);
	free(values);
	values = (float *)read_tensor(&source, find(file, "part"));
	assert_true(values[0] == 5 && values[1] == 7 && values[2] == 11 && values[3] == 13);
	free(values);
	values = (float *)read_tensor(&source, find(file, "repeated"));
	for (int i = 0; i < 6; i++)
		assert_true(values[i] == 7 + i % 2);
	free(values);
	values = (float *)read_tensor(&source, find(file, "scalar"));
	assert_true(values[0] == 23);
	free(values);
	assert_int_equal(find(file, "nothing")->bytes, 0);
	torch_file_close(file);
	free(data);
	torch_writer_destroy(writer);
}

/* A pickle in an otherwise sound file of one storage, "data/0", of 16 bytes. */
static void refuse_parts(const char *what, const struct zip_part *parts, size_t count,
			 const char *words)
{
	struct sana_error error = { 0 };
	struct torch_file *file = NULL;
	struct byte_source source;
	size_t size;
	void *data = torch_writer_zip(parts, count, &size);
	int r = open_bytes(data, size, &source, &file, &error);

	print_message("%s: %s\n", what, error.text);
	assert_int_equal(r, -EINVAL);
	if (!strstr(error.text, words))
		fail_msg("not said: %s", words);
	free(data);
}

static void wrong_entries_are_refused(void **state)
{
	const int64_t shape[] = { 4 };
	struct torch_writer *writer = torch_writer_create();
	size_t size;
	void *pickle;

	(void)state;
	torch_writer_tensor(writer, "a", "F32", 1, shape, ramp);
	pickle = torch_writer_pickle(writer, &size);
	{
		const struct zip_part good[] = { { "r/data.pkl", pickle, size },
						 { "r/data/0", ramp, 16 },
						 { "r/version", "3\n", 2 },
						 { "r/byteorder", "little", 6 },
						 { "q/data.pkl", pickle, size } };
		struct zip_part parts[5];
		struct torch_file *file = NULL;
		struct byte_source source;
		size_t zip_size;
		void *zip = torch_writer_zip(good, 4, &zip_size);

		assert_int_equal(open_bytes(zip, zip_size, &source, &file, NULL), 0);
		torch_file_close(file);
		free(zip);

		refuse_parts("two pickles", good, 5, "two data.pkl");
		refuse_parts("no pickle", good + 1, 3, "without a data.pkl");
		refuse_parts("no version", good, 2, "version");
		memcpy(parts, good, sizeof(parts));
		parts[1].bytes = 12;
		refuse_parts("short storage", parts, 4, "12 bytes instead of 16");
		parts[1].bytes = 20;
		refuse_parts("long storage", parts, 4, "20 bytes instead of 16");
		parts[1] = (struct zip_part){ "r/data/1", ramp, 16 };
		refuse_parts("no storage", parts, 4, "has no data");
		parts[1] = good[1];
		parts[3] = (struct zip_part){ "r/byteorder", "big", 3 };
		refuse_parts("big endian", parts, 4, "little endian");
		parts[3] = (struct zip_part){ "r/constants.pkl", "", 0 };
		refuse_parts("program", parts, 4, "TorchScript");
		parts[3] = good[3];
		parts[2] = (struct zip_part){ "r/version", "0", 1 };
		refuse_parts("version 0", parts, 4, "version");
		parts[2] = (struct zip_part){ "r/version", "-3", 2 };
		refuse_parts("version -3", parts, 4, "version");
	}
	free(pickle);
	torch_writer_destroy(writer);
}

static void damage_is_found_by_crc(void **state)
{
	const int64_t shape[] = { 24 };
	struct torch_writer *writer = torch_writer_create();
	struct torch_file *file = NULL;
	struct sana_error error = { 0 };
	struct byte_source source;
	uint8_t buffer[16], *data;
	size_t size;

	(void)state;
	torch_writer_tensor(writer, "a", "F32", 1, shape, ramp);
	data = torch_writer_bytes(writer, &size);
	assert_int_equal(open_bytes(data, size, &source, &file, &error), 0);
	assert_int_equal(torch_file_check_crc(&source, file, buffer, sizeof(buffer), &error), 0);
	data[torch_file_at(file, 0)->offset + 50] ^= 1;
	assert_int_equal(torch_file_check_crc(&source, file, buffer, sizeof(buffer), &error),
			 -EINVAL);
	assert_non_null(strstr(error.text, "damaged"));
	torch_file_close(file);
	free(data);
	torch_writer_destroy(writer);
}

/* Any cut and any changed byte gives a sentence or a sound file, never a crash. */
static void changed_files_stay_inside(void **state)
{
	const int64_t shape[] = { 4, 6 };
	struct torch_writer *writer = torch_writer_create();
	size_t size, refused = 0, read = 0;
	uint8_t *data;

	(void)state;
	torch_writer_set_nesting(writer, "generator");
	torch_writer_tensor(writer, "a", "F32", 2, shape, ramp);
	data = torch_writer_bytes(writer, &size);
	for (size_t i = 0; i < size; i++) {
		struct sana_error error = { 0 };
		struct torch_file *file = NULL;
		struct byte_source source;
		void *cut = malloc(i + 1);

		assert_non_null(cut);
		memcpy(cut, data, i);
		assert_int_equal(open_bytes(cut, i, &source, &file, &error), -EINVAL);
		free(cut);
		for (unsigned int flip = 1; flip < 256; flip = flip * 2 + 1) {
			data[i] ^= (uint8_t)flip;
			if (open_bytes(data, size, &source, &file, &error) < 0) {
				refused++;
				assert_null(file);
			} else {
				for (size_t t = 0; t < torch_file_count(file); t++)
					free(read_tensor(&source, torch_file_at(file, t)));
				read++;
				torch_file_close(file);
				file = NULL;
			}
			data[i] ^= (uint8_t)flip;
		}
	}
	print_message("%zu bytes: %zu changes refused, %zu without effect on the structure\n", size,
		      refused, read);
	assert_true(refused > size / 2);
	free(data);
	torch_writer_destroy(writer);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(good_files_are_read),
		cmocka_unit_test(shared_hostile_files_are_refused),
		cmocka_unit_test(every_nesting_is_found),
		cmocka_unit_test(views_are_gathered),
		cmocka_unit_test(wrong_entries_are_refused),
		cmocka_unit_test(damage_is_found_by_crc),
		cmocka_unit_test(changed_files_stay_inside),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
