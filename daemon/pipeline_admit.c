/* Which source frames the engine gets. */
#include "daemon/pipeline_admit.h"

#include "base/clock.h"
#include "base/util.h"

enum {
	/* Percent: the engine is let work so much of the time; the rest evens out what varies. */
	LOAD = 97,
	/* Frames further apart are a gap in the source, not its rate. */
	GAP_MS = 1000,
};

void admit_measure(struct admit *a, int frames, int64_t work_ns)
{
	const int64_t each_ns = work_ns / MAX_OF(frames, 1);

	a->engine_ns = a->engine_ns ? (a->engine_ns + each_ns) / 2 : each_ns;
}

bool admit_offer(struct admit *a, int64_t capture_ns)
{
	const int64_t step_ns = a->engine_ns * 100 / LOAD;
	const int64_t apart_ns = capture_ns - a->last_ns;

	if (a->last_ns && apart_ns < GAP_MS * CLOCK_MS_NS)
		a->source_ns = a->source_ns ? (7 * a->source_ns + apart_ns) / 8 : apart_ns;
	a->last_ns = capture_ns;
	if (step_ns <= a->source_ns || capture_ns - a->next_ns > GAP_MS * CLOCK_MS_NS) {
		a->next_ns = capture_ns + step_ns;
		return true;
	}
	/* Nearest in time: the half interval makes the mean rate come out right. */
	if (capture_ns + a->source_ns / 2 < a->next_ns)
		return false;
	a->next_ns = MAX_OF(a->next_ns, capture_ns - step_ns) + step_ns;
	return true;
}
