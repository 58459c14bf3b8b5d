/* Texts become one line of valid UTF-8, whatever they were; cuts leave whole characters. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/utf8.h"

static void any_text_becomes_a_line(void **state)
{
	static const struct {
		const char *text, *wanted; /* NULL: as it is */
	} rows[] = {
		{ "", NULL },
		{ "Kamera im Büro, 4 €, 𝄞", NULL },
		{ "a\nWATCHDOG=trigger\r\tb\x1b[31m\x7f", "a?WATCHDOG=trigger??b?[31m?" },
		{ "next\xc2\x85line, cs\xc2\x9bi", "next?line, cs?i" },
		/* Cut at the end: gone. */
		{ "B\xc3", "B" },
		{ "4 \xe2\x82", "4 " },
		{ "\xf0\x9d\x84", "" },
		/* Cut or stray in the middle, overlong, a surrogate, too high. */
		{ "B\xc3ro", "B?ro" },
		{ "\xe2\x82…", "??…" },
		{ "\x80\xbf.", "??." },
		{ "\xc0\x8a.", "??." },
		{ "\xed\xa0\x80.", "???." },
		{ "\xf4\x90\x80\x80.", "????." },
		{ "\xff\xfe.", "??." },
		{ "end\xff", "end?" },
		{ "\xe4", "" },
		{ "\xe4\xe4", "?" },
		/* Noncharacters. */
		{ "\xef\xbf\xbe|\xef\xbf\xbf|\xef\xb7\x90|\xf0\x9f\xbf\xbe", "?|?|?|?" },
		{ "\xef\xbf\xbd", NULL },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		char text[64];

		(void)snprintf(text, sizeof(text), "%s", rows[i].text);
		utf8_make_line(text);
		print_message("\"%s\"\n", text);
		assert_string_equal(text, rows[i].wanted ? rows[i].wanted : rows[i].text);
		assert_true(utf8_is_line(text));
		assert_int_equal(utf8_is_line(rows[i].text), rows[i].wanted == NULL);
	}
	assert_true(utf8_is_text("two\nlines\t"));
	assert_false(utf8_is_line("two\nlines\t"));
	assert_false(utf8_is_text("B\xc3"));
	assert_false(utf8_is_text("\xef\xbf\xbe"));
}

static void cuts_leave_whole_characters(void **state)
{
	static const char text[] = "aä€𝄞z";
	static const int ends[] = { 0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10, 11, 11, 11 };

	(void)state;
	for (int most = 0; most < (int)ARRAY_SIZE(ends); most++) {
		print_message("%d: \"%.*s\"\n", most, utf8_cut(text, most), text);
		assert_int_equal(utf8_cut(text, most), ends[most]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(any_text_becomes_a_line),
		cmocka_unit_test(cuts_leave_whole_characters),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
