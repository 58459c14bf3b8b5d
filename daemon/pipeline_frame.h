/* Pictures of one size, reference counted, out of a pool of a fixed number. */
#pragma once

#include "base/util.h"

#include <pthread.h>
#include <stdatomic.h>

struct frame_pool;

struct frame {
	struct frame_pool *pool;
	atomic_int references;
	uint8_t *rgb; /* R'G'B', rows of 3·width bytes */
	int64_t capture_ns;
	int64_t ready_ns; /* edited: when it came out of the engine */
};

struct frame_pool {
	pthread_mutex_t lock;
	int width, height;
	struct frame *frame;   /* [count] */
	struct frame **unused; /* [count], the first `left` are there */
	int count, left;
	uint64_t refused; /* none was left */
};

/* −ENOMEM. */
int frame_pool_create(int width, int height, int count, struct frame_pool **ret);

/* All frames must be back. NULL accepted; returns NULL. */
struct frame_pool *frame_pool_destroy(struct frame_pool *pool);

/* One reference; NULL and counted when all are in use. */
struct frame *frame_get(struct frame_pool *pool);
uint64_t frame_pool_refused(struct frame_pool *pool);

struct frame *frame_ref(struct frame *frame);
struct frame *frame_unref(struct frame *frame); /* NULL accepted; returns NULL */

static inline size_t frame_row_bytes(const struct frame *frame)
{
	return 3 * (size_t)frame->pool->width;
}
