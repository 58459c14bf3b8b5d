/* Log messages: formatted here, written by the sink. */
#include "base/log.h"

#include "base/utf8.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>

static const struct {
	enum log_level level;
	const char *name;
} names[] = {
	{ LOG_LEVEL_ERROR, "error" },	{ LOG_LEVEL_WARNING, "warning" },
	{ LOG_LEVEL_NOTICE, "notice" }, { LOG_LEVEL_INFO, "info" },
	{ LOG_LEVEL_DEBUG, "debug" },
};

/* The one piece of global state: there is one place to log to. */
static struct {
	pthread_mutex_t lock;
	log_sink sink;
	void *context;
	atomic_int level;
} state = { .lock = PTHREAD_MUTEX_INITIALIZER, .level = LOG_LEVEL_INFO };

const char *log_level_name(enum log_level level)
{
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (names[i].level == level)
			return names[i].name;
	return NULL;
}

enum log_level log_level_from_name(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (strcmp(names[i].name, name) == 0)
			return names[i].level;
	return LOG_LEVEL_INVALID;
}

void log_set_sink(log_sink sink, void *context)
{
	(void)pthread_mutex_lock(&state.lock);
	state.sink = sink;
	state.context = context;
	(void)pthread_mutex_unlock(&state.lock);
}

void log_set_level(enum log_level level)
{
	atomic_store(&state.level, (int)level);
}

enum log_level log_max_level(void)
{
	return (enum log_level)atomic_load(&state.level);
}

static void write_stderr(enum log_level level, const char *text)
{
	/* systemd reads the level from the front of a line. */
	if (getenv("JOURNAL_STREAM"))
		(void)fprintf(stderr, "<%d>%s\n", (int)level, text);
	else
		(void)fprintf(stderr, "%s: %s\n", log_level_name(level), text);
}

void log_fields(enum log_level level, const struct log_field *fields, const char *format, ...)
{
	static const char more[] = "…";
	const int saved = errno;
	char text[LOG_TEXT_BYTES];
	va_list list;
	int length;

	if ((int)level > atomic_load_explicit(&state.level, memory_order_relaxed))
		return;
	va_start(list, format);
	length = vsnprintf(text, sizeof(text), format, list);
	va_end(list);
	if (length >= (int)sizeof(text))
		memcpy(text + utf8_cut(text, (int)(sizeof(text) - sizeof(more))), more,
		       sizeof(more));
	/* Nothing in it is a line of its own, or speaks to a terminal. */
	utf8_make_line(text);
	(void)pthread_mutex_lock(&state.lock);
	if (state.sink)
		state.sink(state.context, level, fields, text);
	else
		write_stderr(level, text);
	(void)pthread_mutex_unlock(&state.lock);
	errno = saved;
}
