/* Time is monotonic nanoseconds in int64_t (CLOCK_MONOTONIC), everywhere. */
#pragma once

#include <stdint.h>
#include <time.h>

#define CLOCK_SECOND_NS INT64_C(1000000000)
#define CLOCK_MS_NS INT64_C(1000000)

int64_t clock_now_ns(void);

struct timespec clock_to_timespec(int64_t ns);

/* Milliseconds for poll(2) until `deadline_ns`, rounded up; 0 when it has passed. */
int clock_poll_ms(int64_t deadline_ns);
