/*
 * Log messages: one sentence for people, fields for machines, a sink that a program may replace.
 *
 *	log_info("Camera %s is back.", identity);
 *	log_fields(LOG_LEVEL_WARNING, (struct log_field[]){ { "SANA_FAULT", kind }, { 0 } },
 *		   "The camera gives no frames: %s", text);
 *
 * Any thread may log. Nothing here allocates. A message that does not fit LOG_TEXT_BYTES ends in "…";
 * whatever it holds, it is one line of valid UTF-8 (utf8_make_line).
 * Only the layer that knows what a failure means to the user logs it, once; not for every frame.
 */
#pragma once

#include "base/util.h"

enum { LOG_TEXT_BYTES = 1024 };

/* The numbers are syslog's. */
enum log_level {
	LOG_LEVEL_INVALID = -1,
	LOG_LEVEL_ERROR = 3,
	LOG_LEVEL_WARNING = 4,
	LOG_LEVEL_NOTICE = 5,
	LOG_LEVEL_INFO = 6,
	LOG_LEVEL_DEBUG = 7,
};

/* "error", "warning", "notice", "info", "debug"; NULL and INVALID for anything else. */
const char *log_level_name(enum log_level level);
enum log_level log_level_from_name(const char *name);

/* Names: capital letters, digits and '_', as the journal wants them. Lists end in { NULL, NULL }. */
struct log_field {
	const char *name, *value;
};

/* `fields` may be NULL. Called by one thread at a time. */
typedef void (*log_sink)(void *context, enum log_level level, const struct log_field *fields,
			 const char *text);

/* NULL: standard error, "<6>text" where JOURNAL_STREAM is set, else "name: text". */
void log_set_sink(log_sink sink, void *context);

/* Messages less urgent than this are not formatted. At first LOG_LEVEL_INFO. */
void log_set_level(enum log_level level);
enum log_level log_max_level(void);

void log_fields(enum log_level level, const struct log_field *fields, const char *format, ...)
	_printf_(3, 4);

#define log_error(...) log_fields(LOG_LEVEL_ERROR, NULL, __VA_ARGS__)
#define log_warning(...) log_fields(LOG_LEVEL_WARNING, NULL, __VA_ARGS__)
#define log_notice(...) log_fields(LOG_LEVEL_NOTICE, NULL, __VA_ARGS__)
#define log_info(...) log_fields(LOG_LEVEL_INFO, NULL, __VA_ARGS__)
#define log_debug(...) log_fields(LOG_LEVEL_DEBUG, NULL, __VA_ARGS__)
