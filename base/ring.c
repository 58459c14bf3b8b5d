/* A bounded queue of pointers between threads. */
#include "base/ring.h"

#include "base/clock.h"
#include "base/util.h"

#include <errno.h>

int ring_init(struct ring *ring, int capacity)
{
	pthread_condattr_t attributes;

	*ring = (struct ring){ .capacity = capacity };
	ring->item = calloc((size_t)capacity, sizeof(*ring->item));
	if (!ring->item)
		return -ENOMEM;
	(void)pthread_mutex_init(&ring->lock, NULL);
	(void)pthread_condattr_init(&attributes);
	(void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&ring->filled, &attributes);
	(void)pthread_condattr_destroy(&attributes);
	return 0;
}

void ring_finish(struct ring *ring)
{
	if (!ring->item)
		return;
	free(ring->item);
	ring->item = NULL;
	(void)pthread_cond_destroy(&ring->filled);
	(void)pthread_mutex_destroy(&ring->lock);
}

static void *take_first(struct ring *ring)
{
	void *item;

	if (ring->count == 0)
		return NULL;
	item = ring->item[ring->first];
	ring->first = (ring->first + 1) % ring->capacity;
	ring->count--;
	return item;
}

void *ring_push(struct ring *ring, void *item)
{
	void *evicted = NULL;

	(void)pthread_mutex_lock(&ring->lock);
	if (ring->count == ring->capacity) {
		evicted = take_first(ring);
		ring->evicted++;
	}
	ring->item[(ring->first + ring->count) % ring->capacity] = item;
	ring->count++;
	ring->pushed++;
	ring->most = MAX_OF(ring->most, ring->count);
	(void)pthread_cond_signal(&ring->filled);
	(void)pthread_mutex_unlock(&ring->lock);
	return evicted;
}

void *ring_pop(struct ring *ring)
{
	return ring_pop_until(ring, 0);
}

void *ring_pop_until(struct ring *ring, int64_t deadline_ns)
{
	const struct timespec deadline = clock_to_timespec(deadline_ns);
	void *item;

	(void)pthread_mutex_lock(&ring->lock);
	while (deadline_ns > 0 && ring->count == 0 && !ring->woken)
		if (pthread_cond_timedwait(&ring->filled, &ring->lock, &deadline) == ETIMEDOUT)
			break;
	if (deadline_ns > 0)
		ring->woken = false;
	item = take_first(ring);
	ring->popped += item != NULL;
	(void)pthread_mutex_unlock(&ring->lock);
	return item;
}

void ring_wake(struct ring *ring)
{
	(void)pthread_mutex_lock(&ring->lock);
	ring->woken = true;
	(void)pthread_cond_broadcast(&ring->filled);
	(void)pthread_mutex_unlock(&ring->lock);
}

int ring_count(struct ring *ring)
{
	return ring_counters(ring).count;
}

struct ring_counters ring_counters(struct ring *ring)
{
	struct ring_counters counters;

	(void)pthread_mutex_lock(&ring->lock);
	counters = (struct ring_counters){ ring->pushed, ring->popped, ring->evicted,
					   ring->count,	 ring->most,   ring->capacity };
	(void)pthread_mutex_unlock(&ring->lock);
	return counters;
}
