/* Time. */
#include "base/clock.h"

#include <limits.h>

int64_t clock_now_ns(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * CLOCK_SECOND_NS + t.tv_nsec;
}

struct timespec clock_to_timespec(int64_t ns)
{
	return (struct timespec){ .tv_sec = ns / CLOCK_SECOND_NS, .tv_nsec = ns % CLOCK_SECOND_NS };
}

int clock_poll_ms(int64_t deadline_ns)
{
	const int64_t left = deadline_ns - clock_now_ns();

	if (left <= 0)
		return 0;
	return left / CLOCK_MS_NS >= INT_MAX ? INT_MAX :
					       (int)((left + CLOCK_MS_NS - 1) / CLOCK_MS_NS);
}
