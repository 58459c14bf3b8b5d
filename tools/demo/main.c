/*
 * demo-helper: what scripts/demo needs beside sana-edit. Not installed.
 */
#include "tools/demo/demo.h"

#include <errno.h>

#include "media/av.h"

static const char usage[] = "Usage: demo-helper record SOURCE OUT SECONDS\n"
			    "       demo-helper length CLIP SECONDS\n"
			    "       demo-helper sheet OUT.png {TITLE | LABEL=CLIP}...\n";

/* Prints the length of a clip in seconds, at most `seconds`. */
static int length_print(const char *path, int seconds, struct sana_error *error)
{
	int64_t length_ns;
	int r;

	r = demo_length(path, (int64_t)seconds * 1000000000, &length_ns, error);
	if (r >= 0 && printf("%.3f\n", (double)length_ns / 1e9) < 0)
		r = -EIO;
	return r;
}

int main(int count, char **arguments)
{
	struct sana_error error = { 0 };
	int r;

	media_av_quiet();
	if (count == 5 && strcmp(arguments[1], "record") == 0 && atoi(arguments[4]) > 0) {
		r = demo_record(arguments[2], arguments[3], atoi(arguments[4]), &error);
	} else if (count == 4 && strcmp(arguments[1], "length") == 0 && atoi(arguments[3]) > 0) {
		r = length_print(arguments[2], atoi(arguments[3]), &error);
	} else if (count >= 4 && strcmp(arguments[1], "sheet") == 0) {
		r = demo_sheet(arguments[2], arguments + 3, count - 3, &error);
	} else {
		(void)fputs(usage, stderr);
		return 2;
	}
	if (r < 0)
		(void)fprintf(stderr, "demo-helper: %s\n",
			      error.text[0] ? error.text : strerror(-r));
	return r < 0 ? 1 : 0;
}
