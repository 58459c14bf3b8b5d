/* JSON from outside: what the parser refuses, and typed access with its errors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>

#include "base/json.h"

static void texts_are_refused(void **state)
{
	static const struct {
		const char *text, *why;
	} cases[] = {
		{ "", "is empty" },
		{ " ", "not valid JSON" },
		{ "[]", "a JSON object" },
		{ "3", "not valid JSON" },
		{ "{", "not valid JSON" },
		{ "{} {}", "end of file expected" },
		{ "{}x", "end of file expected" },
		{ "{\"a\":1,\"a\":2}", "duplicate" },
		{ "{\"a\":1,\"\\u0061\":2}", "duplicate" },
		{ "{\"b\":{\"a\":1,\"a\":1}}", "duplicate" },
		{ "{\"a\":NaN}", "not valid JSON" },
		{ "{\"a\":Infinity}", "not valid JSON" },
		{ "{\"a\":-Infinity}", "not valid JSON" },
		{ "{\"a\":1e999}", "real number overflow" },
		{ "{\"a\":99999999999999999999}", "too big integer" },
		{ "{\"a\":01}", "not valid JSON" },
		{ "{\"a\":+1}", "not valid JSON" },
		{ "{\"a\":0x10}", "not valid JSON" },
		{ "{'a':1}", "not valid JSON" },
		{ "{\"a\":1,}", "not valid JSON" },
		{ "{\"a\":\"\xff\"}", "not valid JSON" },
		{ "{\"a\":\"\xc0\x80\"}", "not valid JSON" },
		{ "{\"a\":\"\xed\xa0\x80\"}", "not valid JSON" },
		{ "{\"a\":\"\\ud800\"}", "not valid JSON" },
		{ "{\"a\":\"\n\"}", "not valid JSON" },
		{ "{\"a\":\"\\u0000\"}", "not valid JSON" },
		{ "{\"\\u0000\":1}", "not valid JSON" },
		{ "{\"a\":[[[[1]]]]}", "nested more than 4 deep" },
		{ "{\"a\":{\"b\":{\"c\":{\"d\":{}}}}}", "nested more than 4 deep" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct sana_error error = { 0 };
		json_t *value = NULL;

		print_message("%s\n", cases[i].text);
		assert_int_equal(json_parse_object(cases[i].text, strlen(cases[i].text), 4,
						   "some.json", "x.y", &value, &error),
				 -EINVAL);
		print_message("  %s\n", error.text);
		assert_null(value);
		assert_string_equal(error.name, "x.y");
		assert_non_null(strstr(error.text, "some.json"));
		assert_non_null(strstr(error.text, cases[i].why));
		assert_null(strpbrk(error.text, "\n\t\r"));
	}
}

static void embedded_nul_is_refused(void **state)
{
	static const char text[] = "{}\0{}", inside[] = "{\"a\":\"b\0c\"}";
	json_t *value = NULL;

	(void)state;
	assert_int_equal(json_parse_object(text, sizeof(text) - 1, 4, "f", "x", &value, NULL),
			 -EINVAL);
	assert_int_equal(json_parse_object(inside, sizeof(inside) - 1, 4, "f", "x", &value, NULL),
			 -EINVAL);
}

static void brackets_in_strings_do_not_nest(void **state)
{
	static const char text[] = "{\"a\":\"[[[[[[[[\\\"[[[[[[\"}";
	json_t *value = NULL;

	(void)state;
	assert_int_equal(json_parse_object(text, strlen(text), 2, "f", "x", &value, NULL), 0);
	json_decref(value);
}

static const char document[] =
	"{\"int\":5,\"real\":2.5,\"yes\":true,\"no\":false,\"text\":\"abc\",\"none\":null,"
	"\"list\":[1,2,3],\"mixed\":[1,2.5,\"x\"],\"flags\":[true,true],\"empty\":[],"
	"\"object\":{},\"whole\":2.0,\"minus\":-1}";

static struct json_reader reader_open(json_t **ret, struct sana_error *error)
{
	assert_int_equal(json_parse_object(document, strlen(document), JSON_DEFAULT_DEPTH,
					   "some.json", "x.y", ret, error),
			 0);
	return (struct json_reader){
		.object = *ret,
		.where = "some.json",
		.name = "x.y",
		.error = error,
	};
}

static void values_are_read(void **state)
{
	_cleanup_(json_decrefp) json_t *object = NULL;
	struct sana_error error = { 0 };
	struct json_reader reader = reader_open(&object, &error);
	double numbers[4] = { 0 };
	int list[4] = { 0 };

	(void)state;
	assert_int_equal(json_get_integer(&reader, "int", 5, 5), 5);
	assert_true(json_get_number(&reader, "int", 0, 10) == 5);
	assert_true(json_get_number(&reader, "real", 2.5, 2.5) == 2.5);
	assert_true(json_get_bool(&reader, "yes"));
	assert_false(json_get_bool(&reader, "no"));
	assert_string_equal(json_get_string(&reader, "text", 3), "abc");
	assert_int_equal(json_get_integers(&reader, "list", 1, 3, 1, 4, list), 3);
	assert_int_equal(list[0] * 100 + list[1] * 10 + list[2], 123);
	assert_int_equal(json_get_numbers(&reader, "list", 1, 3, 3, 3, numbers), 3);
	assert_true(numbers[2] == 3);
	json_expect_bools(&reader, "flags", 2, 2, true);
	assert_int_equal(json_get_integers(&reader, "empty", 0, 1, 0, 4, list), 0);
	assert_int_equal(json_get_integer_or(&reader, "absent", 1, 2, 77), 77);
	assert_int_equal(json_get_integer_or(&reader, "none", 1, 2, 77), 77);
	assert_int_equal(json_get_integer_or(&reader, "int", 1, 9, 77), 5);
	assert_true(json_get_number_or(&reader, "none", 1, 2, 7.5) == 7.5);
	assert_true(json_get_bool_or(&reader, "absent", true));
	assert_false(json_get_bool_or(&reader, "no", true));
	assert_string_equal(json_get_string_or(&reader, "none", 3, "else"), "else");
	assert_false(json_has(&reader, "none"));
	assert_true(json_has(&reader, "object"));
	assert_int_equal(reader.status, 0);
}

typedef void (*read_function)(struct json_reader *reader);

#define READ(name, expression)                       \
	static void name(struct json_reader *reader) \
	{                                            \
		int list[4];                         \
		double numbers[4];                   \
                                                     \
		(void)list;                          \
		(void)numbers;                       \
		(void)(expression);                  \
	}

READ(read_missing, json_get_integer(reader, "absent", 1, 9))
READ(read_null, json_get_integer(reader, "none", 1, 9))
READ(read_large, json_get_integer(reader, "int", 1, 4))
READ(read_minus, json_get_integer(reader, "minus", 0, 4))
READ(read_fixed, json_get_integer(reader, "int", 3, 3))
READ(read_real_as_integer, json_get_integer(reader, "whole", 0, 4))
READ(read_text_as_integer, json_get_integer(reader, "text", 0, 4))
READ(read_bool_as_number, json_get_number(reader, "yes", 0, 4))
READ(read_number_range, json_get_number(reader, "real", 0, 2.25))
READ(read_integer_as_bool, json_get_bool(reader, "int"))
READ(read_list_as_string, json_get_string(reader, "list", 9))
READ(read_long_string, json_get_string(reader, "text", 2))
READ(read_short_list, json_get_integers(reader, "list", 0, 9, 4, 4, list))
READ(read_long_list, json_get_integers(reader, "list", 0, 9, 0, 2, list))
READ(read_mixed_list, json_get_integers(reader, "mixed", 0, 9, 0, 4, list))
READ(read_mixed_numbers, json_get_numbers(reader, "mixed", 0, 9, 0, 4, numbers))
READ(read_list_range, json_get_integers(reader, "list", 0, 2, 0, 4, list))
READ(read_object_as_list, json_get_integers(reader, "object", 0, 2, 0, 4, list))
READ(read_wrong_flags, (json_expect_bools(reader, "flags", 2, 2, false), 0))
READ(read_optional_wrong, json_get_integer_or(reader, "text", 0, 2, 1))

static void wrong_values_are_named(void **state)
{
	static const struct {
		read_function read;
		const char *text;
	} cases[] = {
		{ read_missing, "\"absent\" is missing; an integer from 1 to 9 belongs there." },
		{ read_null, "\"none\" is missing; an integer from 1 to 9 belongs there." },
		{ read_large, "\"int\" must be an integer from 1 to 4, not 5." },
		{ read_minus, "\"minus\" must be an integer from 0 to 4, not -1." },
		{ read_fixed, "\"int\" must be 3, not 5." },
		{ read_real_as_integer, "\"whole\" must be an integer from 0 to 4, not 2." },
		{ read_text_as_integer, "\"text\" must be an integer from 0 to 4, not \"abc\"." },
		{ read_bool_as_number, "\"yes\" must be a number from 0 to 4, not true." },
		{ read_number_range, "\"real\" must be a number from 0 to 2.25, not 2.5." },
		{ read_integer_as_bool, "\"int\" must be true or false, not 5." },
		{ read_list_as_string, "\"list\" must be a string, not a list of 3." },
		{ read_long_string, "\"text\" is 3 bytes long; at most 2 are allowed." },
		{ read_short_list, "\"list\" must be a list of 4, not a list of 3." },
		{ read_long_list, "\"list\" must be a list of 0 to 2 entries, not a list of 3." },
		{ read_mixed_list, "\"mixed[1]\" must be an integer from 0 to 9, not 2.5." },
		{ read_mixed_numbers, "\"mixed[2]\" must be a number from 0 to 9, not \"x\"." },
		{ read_list_range, "\"list[2]\" must be an integer from 0 to 2, not 3." },
		{ read_object_as_list,
		  "\"object\" must be a list of 0 to 4 entries, not an object." },
		{ read_wrong_flags, "\"flags[0]\" must be false, not true." },
		{ read_optional_wrong, "\"text\" must be an integer from 0 to 2, not \"abc\"." },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_(json_decrefp) json_t *object = NULL;
		struct sana_error error = { 0 };
		struct json_reader reader = reader_open(&object, &error);

		cases[i].read(&reader);
		print_message("%s\n", error.text);
		assert_int_equal(reader.status, -EINVAL);
		assert_string_equal(error.name, "x.y");
		assert_memory_equal(error.text, "some.json: ", 11);
		assert_string_equal(error.text + 11, cases[i].text);
	}
}

static void the_first_failure_stays(void **state)
{
	_cleanup_(json_decrefp) json_t *object = NULL;
	struct sana_error error = { 0 };
	struct json_reader reader = reader_open(&object, &error);

	(void)state;
	reader.prefix = "part[1].";
	(void)json_get_integer(&reader, "absent", 1, 9);
	(void)json_get_bool(&reader, "int");
	assert_int_equal(reader.status, -EINVAL);
	assert_non_null(strstr(error.text, "\"part[1].absent\" is missing"));
}

static void texts_are_made_plain(void **state)
{
	char to[16];

	(void)state;
	json_plain_text(to, sizeof(to),
			"a\nb\x7f"
			"c");
	assert_string_equal(to, "a?b?c");
	json_plain_text(to, sizeof(to), "a\xc2\x85ü\xc2\xa0");
	assert_string_equal(to, "a??ü\xc2\xa0");
	json_plain_text(to, sizeof(to), "0123456789abcde");
	assert_string_equal(to, "0123456789abcde");
	json_plain_text(to, sizeof(to), "0123456789abcdef");
	assert_string_equal(to, "0123456789ab…");
	json_plain_text(to, sizeof(to), "0123456789aü456");
	assert_string_equal(to, "0123456789a…");
	json_plain_text(to, 3, "abcdef");
	assert_string_equal(to, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(texts_are_refused),
		cmocka_unit_test(embedded_nul_is_refused),
		cmocka_unit_test(brackets_in_strings_do_not_nest),
		cmocka_unit_test(values_are_read),
		cmocka_unit_test(wrong_values_are_named),
		cmocka_unit_test(the_first_failure_stays),
		cmocka_unit_test(texts_are_made_plain),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
