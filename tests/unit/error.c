/* Errors: code, name, one sentence in one line of UTF-8, cut with an ellipsis between characters. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>

#include "base/error.h"
#include "base/utf8.h"

static void set_fills_everything(void **state)
{
	struct sana_error error;

	(void)state;
	assert_int_equal(sana_error_set(&error, -EINVAL, "a.b", "%d things are wrong.", 3),
			 -EINVAL);
	assert_int_equal(error.code, -EINVAL);
	assert_string_equal(error.name, "a.b");
	assert_string_equal(error.text, "3 things are wrong.");
}

static void none_is_accepted(void **state)
{
	(void)state;
	assert_int_equal(sana_error_set(NULL, -ENOENT, "a.b", "text"), -ENOENT);
	assert_int_equal(sana_error_prefix(NULL, "prefix"), 0);
	sana_error_clear(NULL);
}

static void long_texts_end_in_an_ellipsis(void **state)
{
	char text[2 * SANA_ERROR_TEXT_BYTES];
	struct sana_error error;

	(void)state;
	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	(void)sana_error_set(&error, -EINVAL, "a.b", "%s", text);
	assert_int_equal(strlen(error.text), SANA_ERROR_TEXT_BYTES - 1);
	assert_string_equal(error.text + strlen(error.text) - 3, "…");

	text[SANA_ERROR_TEXT_BYTES - 1] = '\0';
	(void)sana_error_set(&error, -EINVAL, "a.b", "%s", text);
	assert_string_equal(error.text, text);
	(void)sana_error_prefix(&error, "file");
	assert_memory_equal(error.text, "file: xxx", 9);
	assert_string_equal(error.text + strlen(error.text) - 3, "…");
}

/* Wherever the cut comes, in characters of two, three and four bytes. */
static void cuts_leave_whole_characters(void **state)
{
	static const char *const characters[] = { "ä", "€", "𝄞" };
	char text[2 * SANA_ERROR_TEXT_BYTES];
	struct sana_error error;
	int cases = 0;

	(void)state;
	for (size_t c = 0; c < ARRAY_SIZE(characters); c++)
		for (size_t pad = 0; pad < 4; pad++) {
			const size_t bytes = strlen(characters[c]);
			size_t length = pad;

			memset(text, 'x', pad);
			for (; length + bytes < sizeof(text); length += bytes)
				memcpy(text + length, characters[c], bytes);
			text[length] = '\0';
			(void)sana_error_set(&error, -EINVAL, "a.b", "%s", text);
			assert_true(utf8_is_line(error.text));
			assert_null(strchr(error.text, '?'));
			assert_string_equal(error.text + strlen(error.text) - 3, "…");
			assert_true(strlen(error.text) + bytes >= SANA_ERROR_TEXT_BYTES);
			(void)sana_error_prefix(&error, "%.*s", (int)(20 + pad), text);
			assert_true(utf8_is_line(error.text));
			cases++;
		}
	print_message("%d texts\n", cases);
}

/* What is quoted comes from files, devices and callers. */
static void texts_are_one_line(void **state)
{
	struct sana_error error;

	(void)state;
	(void)sana_error_set(&error, -EINVAL, "a.b", "\"%s\" is wrong.", "a\nb\x1b[2J\xff\xc3");
	print_message("%s\n", error.text);
	assert_string_equal(error.text, "\"a?b?[2J??\" is wrong.");
	(void)sana_error_prefix(&error, "c\td%s", "\xe4");
	assert_string_equal(error.text, "c?d?: \"a?b?[2J??\" is wrong.");
}

static void prefix_keeps_code_and_name(void **state)
{
	struct sana_error error;

	(void)state;
	(void)sana_error_set(&error, -EIO, "a.b", "It broke.");
	assert_int_equal(sana_error_prefix(&error, "%s %d", "part", 2), -EIO);
	assert_string_equal(error.text, "part 2: It broke.");
	assert_string_equal(error.name, "a.b");
	sana_error_clear(&error);
	assert_int_equal(error.code, 0);
	assert_string_equal(error.text, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(set_fills_everything),
		cmocka_unit_test(none_is_accepted),
		cmocka_unit_test(long_texts_end_in_an_ellipsis),
		cmocka_unit_test(cuts_leave_whole_characters),
		cmocka_unit_test(texts_are_one_line),
		cmocka_unit_test(prefix_keeps_code_and_name),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
