/* The zip walk: what a sound file gives, and every rule broken on its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>

#include "engine/checkpoint/zip.h"
#include "tests/common/torch_writer.h"

static const struct zip_part parts[] = {
	{ "root/one", "11111", 5 },
	{ "root/two", "2222", 4 },
	{ "root/empty", "", 0 },
};

/* A sound file, to be freed. */
static uint8_t *sound(size_t *ret_bytes)
{
	return torch_writer_zip(parts, ARRAY_SIZE(parts), ret_bytes);
}

static void put32(uint8_t *at, uint32_t value)
{
	for (int i = 0; i < 4; i++)
		at[i] = (uint8_t)(value >> 8 * i);
}

/* Offset of the nth signature. */
static size_t place(const uint8_t *data, size_t bytes, uint32_t signature, int nth)
{
	for (size_t i = 0; i + 4 <= bytes; i++)
		if (bytes_u32(data + i) == signature && nth-- == 0)
			return i;
	fail_msg("no record %d with signature %08x", nth, signature);
	return 0;
}

static int try(const void *data, size_t bytes, struct zip **ret, struct sana_error *error)
{
	static struct byte_source source; /* the zip keeps a pointer to it */

	byte_source_from_memory(data, bytes, "made.zip", &source);
	return zip_open(&source, ret, error);
}

static void sound_file_is_read(void **state)
{
	struct sana_error error = { 0 };
	struct zip *zip = NULL;
	size_t bytes;
	uint8_t *data = sound(&bytes);

	(void)state;
	if (try(data, bytes, &zip, &error) < 0)
		fail_msg("%s", error.text);
	assert_int_equal(zip_count(zip), 3);
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		const struct zip_entry *entry = zip_find(zip, parts[i].name);

		assert_non_null(entry);
		assert_int_equal(entry->bytes, parts[i].bytes);
		assert_int_equal(entry->offset % 64, 0); /* the local header's own padding */
		assert_memory_equal(data + entry->offset, parts[i].data, (size_t)parts[i].bytes);
	}
	assert_null(zip_find(zip, "root/three"));
	zip_close(zip);
	free(data);
}

static const uint32_t local = 0x04034b50, central = 0x02014b50, end64 = 0x06064b50,
		      locator = 0x07064b50, end = 0x06054b50;

/* One change of `width` bytes at an offset from a record. */
struct change {
	const char *what;
	uint32_t record;
	int nth;
	size_t offset;
	int width;
	uint32_t value;
	const char *words;
};

static const struct change changes[] = {
	{ "no end", end, 0, 0, 4, 0, "no zip directory" },
	{ "comment too long", end, 0, 20, 2, 1, "no zip directory" },
	{ "several disks", end, 0, 4, 2, 1, "split" },
	{ "other disk count", end, 0, 8, 2, 2, "split" },
	{ "count in two ways", end, 0, 8, 4, 0x40004, "contradict" },
	{ "size in two ways", end, 0, 12, 4, 7, "contradict" },
	{ "offset in two ways", end, 0, 16, 4, 7, "contradict" },
	{ "end64 elsewhere", locator, 0, 8, 4, 3, "damaged" },
	{ "end64 outside", locator, 0, 8, 4, 0x7fffffff, "outside" },
	{ "end64 on another disk", locator, 0, 4, 4, 1, "split" },
	{ "end64 length", end64, 0, 4, 4, 45, "damaged" },
	{ "end64 disk", end64, 0, 16, 4, 1, "split" },
	{ "end64 counts", end64, 0, 24, 4, 2, "split" },
	{ "huge count", end64, 0, 36, 4, 1, "split" },
	{ "encrypted", central, 0, 8, 2, 1, "encrypted" },
	{ "deflated", central, 1, 10, 2, 8, "compressed" },
	{ "two sizes", central, 0, 20, 4, 4, "two sizes" },
	{ "long name", central, 0, 28, 2, 5000, "damaged" },
	{ "long extra", central, 2, 30, 2, 60000, "damaged" },
	{ "other disk", central, 0, 34, 2, 1, "another file" },
	{ "no local header", central, 0, 42, 4, 64, "not where" },
	{ "local beyond", central, 0, 42, 4, 0x7ffffffe, "outside" },
	{ "needs zip64", central, 0, 42, 4, 0xffffffff, "no zip64 field" },
	{ "central signature", central, 1, 0, 4, 1, "damaged" },
	{ "local name length", local, 0, 26, 2, 7, "another name" },
	{ "local name", local, 0, 30, 1, 'R', "another name" },
	{ "local method", local, 0, 8, 2, 8, "compressed" },
	{ "local extra too long", local, 2, 28, 2, 60000, "beyond" },
	{ "NUL in name", central, 0, 48, 1, 0, "NUL" },
	{ "absolute", central, 0, 46, 1, '/', "absolute" },
};

static void refuse(const char *what, const void *data, size_t bytes, const char *words)
{
	struct sana_error error = { 0 };
	struct zip *zip = NULL;
	int r = try(data, bytes, &zip, &error);

	print_message("%s: %s\n", what, error.text);
	assert_int_equal(r, -EINVAL);
	assert_null(zip);
	assert_string_equal(error.name, "checkpoint.zip");
	if (!strstr(error.text, words))
		fail_msg("not said: %s", words);
}

static void every_rule_is_checked(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(changes); i++) {
		const struct change *c = &changes[i];
		size_t bytes;
		uint8_t *data = sound(&bytes);
		uint8_t *at = data + place(data, bytes, c->record, c->nth) + c->offset;

		for (int b = 0; b < c->width; b++)
			at[b] = (uint8_t)(c->value >> 8 * b);
		refuse(c->what, data, bytes, c->words);
		free(data);
	}
}

static void names_are_checked(void **state)
{
	static const struct {
		struct zip_part part[2];
		const char *words;
	} cases[] = {
		{ { { "a/../b", "1", 1 }, { "c", "", 0 } }, "\"..\"" },
		{ { { "..", "1", 1 }, { "c", "", 0 } }, "\"..\"" },
		{ { { "a/..", "1", 1 }, { "c", "", 0 } }, "\"..\"" },
		{ { { "same", "1", 1 }, { "same", "2", 1 } }, "twice" },
	};
	const struct zip_part fine[] = { { "a..b/...", "1", 1 } };
	struct zip *zip = NULL;
	size_t bytes;
	void *data;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		data = torch_writer_zip(cases[i].part, 2, &bytes);
		refuse(cases[i].part[0].name, data, bytes, cases[i].words);
		free(data);
	}
	data = torch_writer_zip(fine, 1, &bytes);
	assert_int_equal(try(data, bytes, &zip, NULL), 0);
	zip_close(zip);
	free(data);
}

/* Two directory records that lead to one place: the second name is put over the first. */
static void overlaps_are_refused(void **state)
{
	size_t bytes, first, second;
	uint8_t *data = sound(&bytes);

	(void)state;
	first = place(data, bytes, central, 0);
	second = place(data, bytes, central, 1);
	put32(data + second + 42, bytes_u32(data + first + 42));
	memcpy(data + second + 46, "root/one", 8);
	refuse("one place twice", data, bytes, "overlaps");
	free(data);
	data = sound(&bytes);
	first = place(data, bytes, central, 0);
	put32(data + first + 20, 90); /* runs into what follows */
	put32(data + first + 24, 90);
	refuse("too long", data, bytes, "overlaps");
	free(data);
}

static void cut_files_are_refused(void **state)
{
	size_t bytes;
	uint8_t *data = sound(&bytes);

	(void)state;
	for (size_t i = 0; i < bytes; i++) {
		struct zip *zip = NULL;
		uint8_t *cut = malloc(i + 1);

		assert_non_null(cut);
		memcpy(cut, data, i);
		assert_int_equal(try(cut, i, &zip, NULL), -EINVAL);
		free(cut);
	}
	free(data);
}

/* Offsets and sizes near 2^64 in the 64-bit fields: the sums must not wrap. */
static void wide_numbers_do_not_wrap(void **state)
{
	static const size_t fields[] = { 32, 40, 48 };
	size_t bytes, at;
	uint8_t *data;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
		data = sound(&bytes);
		at = place(data, bytes, end64, 0);
		memset(data + at + fields[i], 0xff, 8);
		if (fields[i] == 32)
			memset(data + at + 24, 0xff, 8);
		at = place(data, bytes, end, 0);
		memset(data + at + 8, 0xff, 12); /* all fields: see the 64-bit record */
		refuse("all ones", data, bytes, fields[i] == 32 ? "more entries" : "should");
		free(data);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sound_file_is_read),	 cmocka_unit_test(every_rule_is_checked),
		cmocka_unit_test(names_are_checked),	 cmocka_unit_test(overlaps_are_refused),
		cmocka_unit_test(cut_files_are_refused), cmocka_unit_test(wide_numbers_do_not_wrap),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
