/* Strict JSON objects: what jansson lets through and we do not, and typed access with errors. */
#include "base/json.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>

/* Longest text from outside that is quoted in an error. */
enum { QUOTED_BYTES = 96 };

static const char ellipsis[] = "\xe2\x80\xa6";

void json_plain_text(char *to, size_t bytes, const char *from)
{
	size_t length = strlen(from), keep = length;

	if (length >= bytes) {
		keep = bytes > sizeof(ellipsis) ? bytes - sizeof(ellipsis) : 0;
		while (keep > 0 && ((unsigned char)from[keep] & 0xc0) == 0x80)
			keep--;
	}
	for (size_t i = 0; i < keep; i++) {
		unsigned char c = (unsigned char)from[i], next = (unsigned char)from[i + 1];

		/* C2 80 … C2 9F are the control characters from U+0080 on */
		if (c == 0xc2 && next >= 0x80 && next < 0xa0) {
			to[i++] = '?';
			to[i] = '?';
		} else {
			to[i] = c < 0x20 || c == 0x7f ? '?' : from[i];
		}
	}
	to[keep] = '\0';
	if (keep < length && keep + sizeof(ellipsis) <= bytes)
		memcpy(to + keep, ellipsis, sizeof(ellipsis));
}

/*
 * Deepest nesting of brackets. Runs before the parser, which would recurse; a wrong text may give
 * any answer, as the parser refuses it then.
 */
static int json_depth(const char *text, size_t length)
{
	int depth = 0, deepest = 0;
	bool quoted = false;

	for (size_t i = 0; i < length; i++) {
		char c = text[i];

		if (quoted && c == '\\')
			i++;
		else if (c == '"')
			quoted = !quoted;
		else if (!quoted && (c == '{' || c == '['))
			depth++;
		else if (!quoted && (c == '}' || c == ']'))
			depth--;
		deepest = MAX_OF(deepest, depth);
	}
	return deepest;
}

int json_parse_object(const char *text, size_t length, int max_depth, const char *where,
		      const char *name, json_t **ret, struct sana_error *error)
{
	_cleanup_(json_decrefp) json_t *value = NULL;
	char why[QUOTED_BYTES];
	json_error_t failed;

	if (length == 0)
		return sana_error_set(error, -EINVAL, name,
				      "%.200s is empty; a JSON object belongs there.", where);
	if (json_depth(text, length) > max_depth)
		return sana_error_set(error, -EINVAL, name,
				      "%.200s: brackets are nested more than %d deep.", where,
				      max_depth);
	value = json_loadb(text, length, JSON_REJECT_DUPLICATES, &failed);
	if (!value) {
		json_plain_text(why, sizeof(why), failed.text);
		return sana_error_set(error, -EINVAL, name, "%.200s, line %d: not valid JSON: %s.",
				      where, failed.line, why);
	}
	if (!json_is_object(value))
		return sana_error_set(error, -EINVAL, name,
				      "%.200s: a JSON object {…} belongs there.", where);
	*ret = TAKE_PTR(value);
	return 0;
}

int json_fail(struct json_reader *reader, const char *key, const char *format, ...)
{
	char message[SANA_ERROR_TEXT_BYTES];
	va_list arguments;

	if (reader->status < 0)
		return reader->status;
	va_start(arguments, format);
	(void)vsnprintf(message, sizeof(message), format, arguments);
	va_end(arguments);
	reader->status = sana_error_set(reader->error, -EINVAL, reader->name, "%.200s: \"%s%s\" %s",
					reader->where, reader->prefix ? reader->prefix : "", key,
					message);
	return reader->status;
}

/* The value, or NULL where it is missing or null. */
static const json_t *json_find(const struct json_reader *reader, const char *key)
{
	const json_t *value = json_object_get(reader->object, key);

	return json_is_null(value) ? NULL : value;
}

bool json_has(const struct json_reader *reader, const char *key)
{
	return json_find(reader, key);
}

/* What a value is, for "…, not X". */
static void json_describe(const json_t *value, char *to, size_t bytes)
{
	char text[QUOTED_BYTES];

	switch (json_typeof(value)) {
	case JSON_OBJECT:
		(void)snprintf(to, bytes, "an object");
		break;
	case JSON_ARRAY:
		(void)snprintf(to, bytes, "a list of %zu", json_array_size(value));
		break;
	case JSON_STRING:
		json_plain_text(text, sizeof(text), json_string_value(value));
		(void)snprintf(to, bytes, "\"%s\"", text);
		break;
	case JSON_INTEGER:
		(void)snprintf(to, bytes, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
		break;
	case JSON_REAL:
		(void)snprintf(to, bytes, "%.17g", json_real_value(value));
		break;
	case JSON_TRUE:
	case JSON_FALSE:
		(void)snprintf(to, bytes, "%s", json_is_true(value) ? "true" : "false");
		break;
	case JSON_NULL:
		(void)snprintf(to, bytes, "null");
		break;
	}
}

static void json_fail_value(struct json_reader *reader, const char *key, const json_t *value,
			    const char *expected)
{
	char got[QUOTED_BYTES + 8];

	if (!value) {
		json_fail(reader, key, "is missing; %s belongs there.", expected);
		return;
	}
	json_describe(value, got, sizeof(got));
	json_fail(reader, key, "must be %s, not %s.", expected, got);
}

static int64_t json_check_integer(struct json_reader *reader, const char *key, const json_t *value,
				  int64_t low, int64_t high)
{
	char expected[80];

	if (json_is_integer(value) && json_integer_value(value) >= low &&
	    json_integer_value(value) <= high)
		return json_integer_value(value);
	if (low == high)
		(void)snprintf(expected, sizeof(expected), "%" PRId64, low);
	else
		(void)snprintf(expected, sizeof(expected),
			       "an integer from %" PRId64 " to %" PRId64, low, high);
	json_fail_value(reader, key, value, expected);
	return low;
}

static double json_check_number(struct json_reader *reader, const char *key, const json_t *value,
				double low, double high)
{
	double number = json_is_number(value) ? json_number_value(value) : NAN;
	char expected[80];

	if (number >= low && number <= high)
		return number;
	if (low == high)
		(void)snprintf(expected, sizeof(expected), "%g", low);
	else
		(void)snprintf(expected, sizeof(expected), "a number from %g to %g", low, high);
	json_fail_value(reader, key, value, expected);
	return low;
}

int64_t json_get_integer(struct json_reader *reader, const char *key, int64_t low, int64_t high)
{
	return json_check_integer(reader, key, json_find(reader, key), low, high);
}

int64_t json_get_integer_or(struct json_reader *reader, const char *key, int64_t low, int64_t high,
			    int64_t fallback)
{
	return json_has(reader, key) ? json_get_integer(reader, key, low, high) : fallback;
}

double json_get_number(struct json_reader *reader, const char *key, double low, double high)
{
	return json_check_number(reader, key, json_find(reader, key), low, high);
}

double json_get_number_or(struct json_reader *reader, const char *key, double low, double high,
			  double fallback)
{
	return json_has(reader, key) ? json_get_number(reader, key, low, high) : fallback;
}

bool json_get_bool(struct json_reader *reader, const char *key)
{
	const json_t *value = json_find(reader, key);

	if (!json_is_boolean(value))
		json_fail_value(reader, key, value, "true or false");
	return json_is_true(value);
}

bool json_get_bool_or(struct json_reader *reader, const char *key, bool fallback)
{
	return json_has(reader, key) ? json_get_bool(reader, key) : fallback;
}

const char *json_get_string(struct json_reader *reader, const char *key, size_t max_bytes)
{
	const json_t *value = json_find(reader, key);

	if (!json_is_string(value)) {
		json_fail_value(reader, key, value, "a string");
		return NULL;
	}
	if (json_string_length(value) > max_bytes) {
		json_fail(reader, key, "is %zu bytes long; at most %zu are allowed.",
			  json_string_length(value), max_bytes);
		return NULL;
	}
	return json_string_value(value);
}

const char *json_get_string_or(struct json_reader *reader, const char *key, size_t max_bytes,
			       const char *fallback)
{
	return json_has(reader, key) ? json_get_string(reader, key, max_bytes) : fallback;
}

const json_t *json_get_list(struct json_reader *reader, const char *key, int low_count,
			    int high_count)
{
	const json_t *value = json_find(reader, key);
	char expected[80];

	if (json_is_array(value) && json_array_size(value) >= (size_t)low_count &&
	    json_array_size(value) <= (size_t)high_count)
		return value;
	if (low_count == high_count)
		(void)snprintf(expected, sizeof(expected), "a list of %d", low_count);
	else
		(void)snprintf(expected, sizeof(expected), "a list of %d to %d entries", low_count,
			       high_count);
	json_fail_value(reader, key, value, expected);
	return NULL;
}

/* "key[3]", for errors about one entry. */
static const char *json_entry_name(char *to, size_t bytes, const char *key, size_t index)
{
	(void)snprintf(to, bytes, "%s[%zu]", key, index);
	return to;
}

int json_get_integers(struct json_reader *reader, const char *key, int64_t low, int64_t high,
		      int low_count, int high_count, int *to)
{
	const json_t *list = json_get_list(reader, key, low_count, high_count), *value;
	char entry[QUOTED_BYTES];
	size_t i;

	json_array_foreach((json_t *)list, i, value) to[i] = (int)json_check_integer(
		reader, json_entry_name(entry, sizeof(entry), key, i), value, low, high);
	return reader->status < 0 ? 0 : (int)json_array_size(list);
}

int json_get_numbers(struct json_reader *reader, const char *key, double low, double high,
		     int low_count, int high_count, double *to)
{
	const json_t *list = json_get_list(reader, key, low_count, high_count), *value;
	char entry[QUOTED_BYTES];
	size_t i;

	json_array_foreach((json_t *)list, i, value) to[i] = json_check_number(
		reader, json_entry_name(entry, sizeof(entry), key, i), value, low, high);
	return reader->status < 0 ? 0 : (int)json_array_size(list);
}

void json_expect_bools(struct json_reader *reader, const char *key, int low_count, int high_count,
		       bool wanted)
{
	const json_t *list = json_get_list(reader, key, low_count, high_count), *value;
	char entry[QUOTED_BYTES];
	size_t i;

	json_array_foreach((json_t *)list, i, value)
	{
		if (json_is_boolean(value) && json_is_true(value) == wanted)
			continue;
		json_fail_value(reader, json_entry_name(entry, sizeof(entry), key, i), value,
				wanted ? "true" : "false");
	}
}
