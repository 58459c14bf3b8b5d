/* Errors: code, name and one sentence. */
#include "base/error.h"

#include "base/utf8.h"

#include <stdarg.h>
#include <string.h>

/* What was put together may hold anything a file or a device is called, and may have been cut. */
static void text_finish(char *text, int bytes, int wanted)
{
	static const char ellipsis[] = "…";

	if (wanted >= bytes)
		memcpy(text + utf8_cut(text, bytes - (int)sizeof(ellipsis)), ellipsis,
		       sizeof(ellipsis));
	utf8_make_line(text);
}

int sana_error_set(struct sana_error *error, int code, const char *name, const char *format, ...)
{
	va_list arguments;
	int n;

	if (!error)
		return code;
	error->code = code;
	(void)snprintf(error->name, sizeof(error->name), "%s", name);
	va_start(arguments, format);
	n = vsnprintf(error->text, sizeof(error->text), format, arguments);
	va_end(arguments);
	text_finish(error->text, sizeof(error->text), n);
	return code;
}

int sana_error_prefix(struct sana_error *error, const char *format, ...)
{
	char prefix[SANA_ERROR_TEXT_BYTES], old[SANA_ERROR_TEXT_BYTES];
	va_list arguments;
	int n;

	if (!error)
		return 0;
	va_start(arguments, format);
	(void)vsnprintf(prefix, sizeof(prefix), format, arguments);
	va_end(arguments);
	memcpy(old, error->text, sizeof(old));
	n = snprintf(error->text, sizeof(error->text), "%s: %s", prefix, old);
	text_finish(error->text, sizeof(error->text), n);
	return error->code;
}

void sana_error_clear(struct sana_error *error)
{
	if (error)
		*error = (struct sana_error){ 0 };
}
