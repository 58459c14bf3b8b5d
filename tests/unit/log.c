/*
 * Log messages reach the sink with level and fields, as one line; what is too long is cut between
 * characters.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/log.h"

#include <errno.h>

struct seen {
	int count;
	enum log_level level;
	char text[2 * LOG_TEXT_BYTES], fault[64];
};

static void keep(void *context, enum log_level level, const struct log_field *fields,
		 const char *text)
{
	struct seen *seen = context;

	seen->count++;
	seen->level = level;
	seen->fault[0] = '\0';
	(void)snprintf(seen->text, sizeof(seen->text), "%s", text);
	for (; fields && fields->name; fields++)
		if (strcmp(fields->name, "SANA_FAULT") == 0)
			(void)snprintf(seen->fault, sizeof(seen->fault), "%s", fields->value);
}

static void test_levels_and_fields(void **state)
{
	struct seen seen = { 0 };

	(void)state;
	log_set_sink(keep, &seen);
	log_set_level(LOG_LEVEL_NOTICE);
	log_info("not urgent enough");
	assert_int_equal(seen.count, 0);
	errno = ENOENT;
	log_fields(LOG_LEVEL_WARNING,
		   (struct log_field[]){ { "SANA_FAULT", "source.lost" }, { 0 } }, "%s is %s", "it",
		   "lost");
	print_message("%d: %s (%s)\n", (int)seen.level, seen.text, seen.fault);
	assert_int_equal(errno, ENOENT);
	assert_int_equal(seen.level, LOG_LEVEL_WARNING);
	assert_string_equal(seen.text, "it is lost");
	assert_string_equal(seen.fault, "source.lost");
	log_set_sink(NULL, NULL);
}

static void test_long_texts(void **state)
{
	struct seen seen = { 0 };
	char text[2 * LOG_TEXT_BYTES];

	(void)state;
	log_set_sink(keep, &seen);
	/* Two bytes a character: at either offset no half one is left. */
	for (int offset = 0; offset < 2; offset++) {
		text[0] = 'x';
		for (size_t i = (size_t)offset; i + 2 < sizeof(text); i += 2)
			memcpy(text + i, "ä", 2);
		text[sizeof(text) - 2] = '\0';
		log_error("%s", text);
		print_message("%zu bytes, ending in %02x %02x %02x %02x\n", strlen(seen.text),
			      (unsigned char)seen.text[strlen(seen.text) - 4],
			      (unsigned char)seen.text[strlen(seen.text) - 3],
			      (unsigned char)seen.text[strlen(seen.text) - 2],
			      (unsigned char)seen.text[strlen(seen.text) - 1]);
		assert_true(strlen(seen.text) < LOG_TEXT_BYTES);
		assert_string_equal(seen.text + strlen(seen.text) - 3, "…");
		assert_int_equal((unsigned char)seen.text[strlen(seen.text) - 4], 0xa4);
	}
	log_set_sink(NULL, NULL);
}

/* A name from outside forges no line, and says nothing to a terminal. */
static void test_one_line(void **state)
{
	struct seen seen = { 0 };

	(void)state;
	log_set_sink(keep, &seen);
	log_error("The source is %s.", "file:/x\nerror: All is lost.\r\x1b[2J\xff");
	print_message("%s\n", seen.text);
	assert_string_equal(seen.text, "The source is file:/x?error: All is lost.??[2J?.");
	log_set_sink(NULL, NULL);
}

static void test_names(void **state)
{
	(void)state;
	assert_int_equal(log_level_from_name("warning"), LOG_LEVEL_WARNING);
	assert_int_equal(log_level_from_name("loud"), LOG_LEVEL_INVALID);
	assert_string_equal(log_level_name(LOG_LEVEL_DEBUG), "debug");
	assert_null(log_level_name(LOG_LEVEL_INVALID));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_levels_and_fields),
		cmocka_unit_test(test_long_texts),
		cmocka_unit_test(test_one_line),
		cmocka_unit_test(test_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
