/*
 * The pacer turns frames that arrive in bursts into an even output clock. It is a function of arrivals
 * and the clock it is told: no thread, no time of its own, nothing allocated.
 *
 * Every frame is due `delay` after its capture. The delay follows from the ages seen at arrival: it
 * rises at once to the oldest, and falls slowly, PACER_FALL of the time that passes, towards the
 * oldest of the last PACER_WINDOW arrivals. Ticks of the output clock come at start + n/fps, exactly:
 * no rounding adds up. A tick shows the next frame unless that is more than half an interval early
 * (then the last one is repeated), and skips one whose successor is more than half an interval overdue:
 * between the two lies a whole interval, so that jitter below half an interval on either side neither
 * repeats nor skips, and clocks that differ cost one repeat or skip per interval of drift.
 *
 * No frame older than the cap at its tick is shown; the delay stays two intervals below the cap. Where
 * the queue is full the delay is longer than it can hold (an engine that was slow and is quick again): the
 * oldest frame goes and the next one is due at once.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum {
	PACER_CAPACITY = 256, /* frames waiting */
	PACER_GROUP = 32,     /* arrivals that share one maximum */
	PACER_GROUPS = 8,
	PACER_WINDOW = PACER_GROUP * PACER_GROUPS,
	PACER_FALL = 50, /* 1/50: 20 ms a second */
};

struct pacer_wish {
	int fps_num, fps_den; /* of the output */
	int64_t cap_ns;
	int capacity; /* frames waiting at most; 0: PACER_CAPACITY */
	/* Takes back a frame that will not be shown, or no more. */
	void (*release)(void *context, void *frame);
	void *context;
};

struct pacer_entry {
	void *frame;
	int64_t capture_ns;
};

struct pacer {
	struct pacer_wish wish;
	int64_t interval_ns, start_ns;
	uint64_t tick; /* the next one */
	struct pacer_entry entry[PACER_CAPACITY];
	int first, count;
	int64_t delay_ns, delay_at_ns; /* 0: no frame seen */
	int64_t group_most_ns[PACER_GROUPS];
	int group, in_group;
	int64_t newest_capture_ns; /* of arrivals */
	uint64_t arrived, shown, repeated, skipped, late, overrun, missed;
};

/* The first tick is at start_ns. */
void pacer_init(struct pacer *pacer, const struct pacer_wish *wish, int64_t start_ns);

/* Releases what waits, forgets the delay; the clock goes on. */
void pacer_clear(struct pacer *pacer);

void pacer_set_cap(struct pacer *pacer, int64_t cap_ns);

/*
 * A frame is there. Taken over: it is shown once or released. Frames come in order of capture; one that
 * does not is released at once. When capacity frames wait, the oldest is released ("overrun").
 */
void pacer_arrive(struct pacer *pacer, int64_t now_ns, int64_t capture_ns, void *frame);

/* When the next tick is due. */
int64_t pacer_next_ns(const struct pacer *pacer);

/* Ticks before now_ns were not wanted: neither run nor missed. */
void pacer_skip_to(struct pacer *pacer, int64_t now_ns);

/*
 * The tick that is due at now_ns (pacer_next_ns or later): the frame to show from now on, which the
 * caller owns, or NULL to repeat. Ticks that `now_ns` is past are counted as missed and left out.
 * *ret_tick: its number, the output's time stamp is pacer_tick_ns of it.
 */
void *pacer_tick(struct pacer *pacer, int64_t now_ns, uint64_t *ret_tick);
int64_t pacer_tick_ns(const struct pacer *pacer, uint64_t tick);
