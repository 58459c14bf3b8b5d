/*
 * The configuration: read, checked whole, and then immutable.
 *
 * Files are libconfig's: the main one, then the drop-ins *.conf of its directory FILE.d in the order of
 * their names; what comes later wins, key by key. All mistakes of all files are found in one run, each
 * with file, line, key and what was expected. `settings_keys` is the one table of keys: type, range,
 * default, and whether a reload applies it (live) or it needs a new start.
 */
#pragma once

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SETTINGS_SINKS = 8 };

struct settings_list {
	const char *item[SETTINGS_SINKS];
	int count;
};

/* Strings belong to the settings; "" stands for "not given". Times in milliseconds. */
struct settings {
	bool autostart;
	struct {
		const char *directory, *backend, *prompt_switch, *policy;
		int threads, width, height, first_chunk_latents;
		int64_t seed;
		bool deterministic;
	} model;
	struct {
		const char *identity, *pixel_format, *matrix, *range;
		int width, height, fps;
	} source;
	struct {
		struct settings_list sinks;
		const char *codec, *pixel_format, *mode;
		const char *while_warming, *while_lost, *while_paused;
		int fps, hold_ms, latency_cap_ms, unwatched_ms, backoff_min_ms, backoff_max_ms;
		bool sleep_unwatched, unscaled;
	} output;
	struct {
		const char *initial, *deny_list;
		int max_bytes;
	} prompt;
	struct {
		const char *log, *key_file;
		int max_kibibytes;
		bool text; /* prompt text in the audit log */
	} audit;
	struct {
		const char *group;
		int calls_per_second, call_burst, prompts_per_minute, prompt_burst;
	} bus;
	struct {
		const char *level;
	} log;
	void *owner; /* what the strings lie in */
};

enum settings_type {
	SETTINGS_BOOL,
	SETTINGS_INT,	/* int */
	SETTINGS_INT64, /* int64_t */
	SETTINGS_TEXT,	/* const char *; `check` where there is one */
	SETTINGS_NAME,	/* const char *, one of `names` */
	SETTINGS_TEXTS, /* struct settings_list, each by `check` */
	SETTINGS_TYPE_COUNT,
};

struct settings_key {
	const char *path; /* "output.latency-cap-ms" */
	enum settings_type type;
	size_t offset;			  /* in struct settings */
	int64_t low, high, fallback;	  /* numbers and bools; texts: most bytes in `high` */
	const char *fallback_text;	  /* texts, names; lists: the only item or NULL */
	const char *const *names;	  /* NULL-terminated */
	bool (*check)(const char *value); /* texts; with one, control characters are no part of it */
	const char *expected;		  /* of `check`, for the message */
	bool live;
};

/* Ends with a path of NULL. */
extern const struct settings_key settings_keys[];

/* The key's range as it is said to a person: "a number from 1 to 240", "one of a, b". */
void settings_key_expected(const struct settings_key *key, char *ret, size_t bytes);

enum { SETTINGS_MISTAKES = 100 }; /* more are counted, not kept */

struct settings_report {
	int mistakes; /* all of them */
	int kept;
	char *text[SETTINGS_MISTAKES]; /* "FILE:LINE:KEY: what is wrong": one line of UTF-8 */
};

void settings_report_finish(struct settings_report *report);

/*
 * `path` NULL: all defaults, no drop-ins. `report` is filled with every mistake (its former contents are
 * dropped). −EINVAL with the first mistake in `error`, "config.mistake"; "config.open": a file cannot be
 * read. *ret is untouched on failure; settings_free frees it.
 */
int settings_load(const char *path, struct settings **ret, struct settings_report *report,
		  struct sana_error *error);
struct settings *settings_free(struct settings *settings); /* NULL accepted; returns NULL */

/*
 * Calls `differs` for each key whose value is not the same in both; returns how many of them are not
 * live.
 */
int settings_compare(const struct settings *old, const struct settings *now,
		     void (*differs)(void *context, const struct settings_key *key), void *context);
