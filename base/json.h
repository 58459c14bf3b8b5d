/*
 * Strict reading of JSON objects from outside, over jansson.
 *
 * A reader keeps the first failure: later calls return harmless values, so that a parser may read
 * everything and look at `status` once. Errors name the file, the key and what was expected.
 */
#pragma once

#include <jansson.h>

#include "base/error.h"

enum { JSON_DEFAULT_DEPTH = 16 };

/*
 * One object and nothing after it but white space; UTF-8 without NUL; no key twice in one object;
 * brackets nested at most `max_depth` deep (the outer object counts as 1).
 * −EINVAL and an error called `name` otherwise. The caller drops the result with json_decref
 * (json_decrefp is jansson's cleanup function).
 */
int json_parse_object(const char *text, size_t length, int max_depth, const char *where,
		      const char *name, json_t **ret, struct sana_error *error);

struct json_reader {
	const json_t *object;
	const char *where;	  /* the file, for errors */
	const char *prefix;	  /* in front of the key in errors: "prompts[2]."; NULL for none */
	const char *name;	  /* of the error */
	struct sana_error *error; /* may be NULL */
	int status;		  /* 0 or the first failure */
};

/* Records a failure about `key` unless there was one: FILE: "KEY" MESSAGE. Returns status. */
int json_fail(struct json_reader *reader, const char *key, const char *format, ...) _printf_(3, 4);

/* There and not null. Does not fail. */
bool json_has(const struct json_reader *reader, const char *key);

/*
 * Required values: missing or null fails, as does a value outside [low, high]. The …_or variants
 * return `fallback` where the key is missing or null. Integers must be written as integers.
 */
int64_t json_get_integer(struct json_reader *reader, const char *key, int64_t low, int64_t high);
int64_t json_get_integer_or(struct json_reader *reader, const char *key, int64_t low, int64_t high,
			    int64_t fallback);
double json_get_number(struct json_reader *reader, const char *key, double low, double high);
double json_get_number_or(struct json_reader *reader, const char *key, double low, double high,
			  double fallback);
bool json_get_bool(struct json_reader *reader, const char *key);
bool json_get_bool_or(struct json_reader *reader, const char *key, bool fallback);

/* At most max_bytes long; owned by the JSON value; NULL after a failure. */
const char *json_get_string(struct json_reader *reader, const char *key, size_t max_bytes);
const char *json_get_string_or(struct json_reader *reader, const char *key, size_t max_bytes,
			       const char *fallback);

/* A list of low_count to high_count entries; NULL after a failure. */
const json_t *json_get_list(struct json_reader *reader, const char *key, int low_count,
			    int high_count);

/* Lists of one type; return the number of entries, 0 after a failure. */
int json_get_integers(struct json_reader *reader, const char *key, int64_t low, int64_t high,
		      int low_count, int high_count, int *to);
int json_get_numbers(struct json_reader *reader, const char *key, double low, double high,
		     int low_count, int high_count, double *to);

/* Every entry of the list must be the boolean `wanted`. */
void json_expect_bools(struct json_reader *reader, const char *key, int low_count, int high_count,
		       bool wanted);

/*
 * Copies text from outside for use in a sentence: control characters become '?', and a text too
 * long for `bytes` ends in "…" (no UTF-8 character is cut).
 */
void json_plain_text(char *to, size_t bytes, const char *from);
