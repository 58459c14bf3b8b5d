/*
 * The configuration of the daemon: any bytes as a file. It is either taken, and then every value is inside
 * its range and every text fit to be shown, or every mistake has a text that is.
 */
#include "base/utf8.h"
#include "base/util.h"
#include "conf/settings.h"

#include <sys/mman.h>
#include <unistd.h>

/* libconfig keeps the buffer of a text that the file ends in the middle of; that leak is not ours. */
const char *__lsan_default_suppressions(void);

const char *__lsan_default_suppressions(void)
{
	return "leak:libconfig.so\n";
}

static void check(bool fine)
{
	if (!fine)
		abort();
}

static void values_check(const struct settings *settings)
{
	for (const struct settings_key *key = settings_keys; key->path; key++) {
		const void *at = (const char *)settings + key->offset;

		if (key->type == SETTINGS_INT)
			check(*(const int *)at >= key->low && *(const int *)at <= key->high);
		else if (key->type == SETTINGS_INT64)
			check(*(const int64_t *)at >= key->low &&
			      *(const int64_t *)at <= key->high);
		else if (key->type == SETTINGS_TEXT)
			check(strlen(*(const char *const *)at) <= (size_t)key->high &&
			      utf8_is_text(*(const char *const *)at));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct settings_report report = { 0 };
	struct settings *settings = NULL;
	struct sana_error error = { 0 };
	char path[64];
	const int fd = memfd_create("settings", MFD_CLOEXEC);
	int r;

	/* An include would read files of this machine. */
	if (fd < 0 || memmem(data, size, "@include", 8) || write(fd, data, size) != (ssize_t)size) {
		(void)close(fd);
		return 0;
	}
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	r = settings_load(path, &settings, &report, &error);
	check((r == 0) == (report.mistakes == 0));
	if (r == 0)
		values_check(settings);
	else
		check(error.text[0] && utf8_is_line(error.text) && report.kept > 0 &&
		      report.kept <= report.mistakes);
	for (int i = 0; i < report.kept; i++)
		check(utf8_is_line(report.text[i]));
	settings_report_finish(&report);
	(void)settings_free(settings);
	(void)close(fd);
	return 0;
}
