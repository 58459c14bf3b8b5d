/*
 * Which source frames the engine gets. While it keeps up: all. When it is slower than the source, whole
 * frames are left out evenly, so that the model sees steady motion at the rate it can do and no backlog
 * grows: a pure function of capture times and of how long the engine works per frame.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct admit {
	int64_t engine_ns; /* of work per frame, a slow mean; 0: unknown */
	int64_t source_ns; /* between two source frames, likewise */
	int64_t last_ns;   /* capture time of the last frame offered; 0: none */
	int64_t next_ns;   /* of the next one to admit */
};

/* The engine took `work_ns` for `frames` frames. */
void admit_measure(struct admit *admit, int frames, int64_t work_ns);

bool admit_offer(struct admit *admit, int64_t capture_ns);
