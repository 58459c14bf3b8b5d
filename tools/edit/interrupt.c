/* sana-edit: SIGINT and SIGTERM end the run between two stages. */
#include "tools/edit/edit.h"

#include <signal.h>

/* A signal handler reaches nothing but a global. */
static volatile sig_atomic_t caught;

static void handle(int number)
{
	(void)number;
	caught = 1;
}

void edit_interrupt_catch(void)
{
	/* Without SA_RESTART a read that waits for a pipe returns; the second signal ends it all. */
	const struct sigaction action = { .sa_handler = handle, .sa_flags = (int)SA_RESETHAND };
	const struct sigaction ignore = { .sa_handler = SIG_IGN };

	(void)sigaction(SIGINT, &action, NULL);
	(void)sigaction(SIGTERM, &action, NULL);
	/* A reader that leaves and a file that may not grow come back as errors. */
	(void)sigaction(SIGPIPE, &ignore, NULL);
	(void)sigaction(SIGXFSZ, &ignore, NULL);
}

bool edit_interrupted(void *unused)
{
	(void)unused;
	return caught != 0;
}
