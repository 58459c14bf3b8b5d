/* Errors as they go over the bus. */
#include "dbus/error.h"

#include "base/utf8.h"
#include "base/util.h"
#include "dbus/names.h"

#include <stdarg.h>

struct match {
	const char *name; /* of a sana_error; ends in '.': a beginning */
	const char *what;
};

static const struct match matches[] = {
	{ "prompt.denied", "Denied" },
	{ "prompt.unsupported", "Unsupported" },
	{ "prompt.", "InvalidPrompt" },
	{ "policy.unsupported", "Unsupported" },
	{ "policy.unknown", "Unsupported" },
	{ "reload.unsupported", "Unsupported" },
	{ "screen.unsupported", "Unsupported" },
	{ "source.identity", "InvalidArgument" },
	{ "sink.identity", "InvalidArgument" },
	{ "sinks.count", "InvalidArgument" },
	{ "stream.argument", "InvalidArgument" },
	{ "snapshot.busy", "Busy" },
	{ "config.", "InvalidArgument" },
};

const char *bus_error_of(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(matches); i++) {
		const size_t length = strlen(matches[i].name);
		const bool beginning = matches[i].name[length - 1] == '.';

		if (beginning ? strncmp(name, matches[i].name, length) == 0 :
				strcmp(name, matches[i].name) == 0)
			return matches[i].what;
	}
	return strstr(name, "busy") ? "Busy" : "Failed";
}

int bus_error_say(sd_bus_error *to, const char *what, const char *format, ...)
{
	char name[128], text[SANA_ERROR_TEXT_BYTES];
	va_list list;

	(void)snprintf(name, sizeof(name), BUS_ERROR "%s", what);
	va_start(list, format);
	(void)vsnprintf(text, sizeof(text), format, list);
	va_end(list);
	/* An answer with a text that is no UTF-8 would never be sent. */
	utf8_make_line(text);
	return sd_bus_error_set(to, name, text);
}

int bus_error_take(sd_bus_error *to, const struct sana_error *error)
{
	return bus_error_say(to, bus_error_of(error->name), "%s", error->text);
}
