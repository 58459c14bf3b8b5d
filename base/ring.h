/*
 * A bounded queue of pointers between threads, with counters. Full: the oldest entry makes room and
 * is handed back, so that a backlog never grows and whoever pushes never waits.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct ring {
	pthread_mutex_t lock;
	pthread_cond_t filled; /* CLOCK_MONOTONIC */
	void **item;	       /* [capacity] */
	int capacity, first, count;
	bool woken;
	uint64_t pushed, popped, evicted;
	int most; /* entries at once so far */
};

/* −ENOMEM. The ring is of no use before. */
int ring_init(struct ring *ring, int capacity);
void ring_finish(struct ring *ring); /* what is in it is the caller's affair; a zeroed one is fine */

/* Returns the entry that had to go, or NULL. */
void *ring_push(struct ring *ring, void *item);

/* The oldest, or NULL: at once, or at `deadline_ns` (CLOCK_MONOTONIC), or after ring_wake. */
void *ring_pop(struct ring *ring);
void *ring_pop_until(struct ring *ring, int64_t deadline_ns);

/* Ends the wait of ring_pop_until that runs, or the next one. */
void ring_wake(struct ring *ring);

int ring_count(struct ring *ring);

struct ring_counters {
	uint64_t pushed, popped, evicted;
	int count, most, capacity;
};

struct ring_counters ring_counters(struct ring *ring);
