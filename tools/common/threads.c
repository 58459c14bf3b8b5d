/* Starting a tool with OpenMP's threads waiting asleep. */
#include "tools/common/threads.h"

#include <stdlib.h>
#include <unistd.h>

void tool_threads_sleep(char **arguments)
{
	if (getenv("OMP_WAIT_POLICY") || getenv("GOMP_SPINCOUNT"))
		return;
	/* Set before the start, so that the second time round nothing starts again. */
	if (setenv("OMP_WAIT_POLICY", "passive", 1) == 0)
		(void)execv("/proc/self/exe", arguments);
}
