/*
 * sana-edit: a clip in, an edited clip out.
 *
 * Video goes to the file or stdout, JSON events to stdout, words to stderr. docs/sana-edit.1 is the
 * manual.
 */
#include "tools/common/threads.h"
#include "tools/edit/edit.h"

int main(int count, char **arguments)
{
	struct edit_options options;
	int status, r;

	tool_threads_sleep(arguments);
	r = edit_options_parse(count, arguments, &options);
	if (r == 0)
		status = edit_run(&options);
	else
		status = r > 0 ? EDIT_DONE : EDIT_USAGE;
	edit_options_finish(&options);
	return status;
}
