/* What files are, told by their first bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/checkpoint/looks.h"

static const struct {
	const char *bytes;
	size_t count;
	enum file_look look;
	const char *words;
} cases[] = {
	{ "", 0, LOOK_EMPTY, "empty" },
	{ "PK\3\4", 4, LOOK_TORCH, "zip" },
	{ "\x80\2\x8a\n\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", 15, LOOK_TORCH_LEGACY, "1.6" },
	{ "\x80\2}.", 4, LOOK_OTHER, "bare Python pickle" },
	{ "\2\0\0\0\0\0\0\0{}", 10, LOOK_SAFETENSORS, "safetensors" },
	{ "\1\0\0\0\0\0\0\0{}", 10, LOOK_UNKNOWN, "known" },   /* no object is that short */
	{ "\0\0\0\0\0\0\0\x80{}", 10, LOOK_UNKNOWN, "known" }, /* absurd length */
	{ "{\"weight_map\": {}}", 18, LOOK_JSON, "JSON" },
	{ "version https://git-lfs", 23, LOOK_OTHER, "Git LFS" },
	{ "<html>", 6, LOOK_OTHER, "HTML" },
	{ "GGUF\3\0\0\0", 8, LOOK_OTHER, "GGUF" },
	{ "\x89HDF\r\n\x1a\n", 8, LOOK_OTHER, "HDF5" },
	{ "\x1f\x8b\x08", 3, LOOK_OTHER, "gzip" },
	{ "\0\0\0\x20"
	  "ftypisom",
	  12, LOOK_OTHER, "MP4" },
	{ "some words\n", 11, LOOK_OTHER, "text" },
	{ "\1\2\3\4\5", 5, LOOK_UNKNOWN, "known" },
	{ "P", 1, LOOK_OTHER, "text" }, /* shorter than the mark it begins */
};

static void kinds_are_told(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint8_t *copy = malloc(cases[i].count ? cases[i].count : 1);
		struct byte_source source;
		const char *text = NULL;

		/* exactly as long as it is, so that the sanitizers see a read behind it */
		assert_non_null(copy);
		memcpy(copy, cases[i].bytes, cases[i].count);
		byte_source_from_memory(copy, cases[i].count, "made", &source);
		assert_int_equal(file_look(&source, &text), cases[i].look);
		if (!strstr(text, cases[i].words))
			fail_msg("\"%s\" does not say \"%s\"", text, cases[i].words);
		free(copy);
	}
}

static void tar_is_told_by_its_middle(void **state)
{
	uint8_t block[512] = "storages";
	struct byte_source source;
	const char *text = NULL;

	(void)state;
	memcpy(block + 257, "ustar", 5);
	byte_source_from_memory(block, sizeof(block), "made", &source);
	assert_int_equal(file_look(&source, &text), LOOK_TORCH_TAR);
	assert_non_null(strstr(text, "tar archive"));
	/* cut in the middle of the mark */
	byte_source_from_memory(block, 260, "made", &source);
	assert_int_equal(file_look(&source, &text), LOOK_UNKNOWN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(kinds_are_told),
		cmocka_unit_test(tar_is_told_by_its_middle),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
