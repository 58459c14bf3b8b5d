/* Pictures out of a pool. */
#include "daemon/pipeline_frame.h"

#include <errno.h>

static int pool_fill(struct frame_pool *pool, int count)
{
	const size_t bytes = 3 * (size_t)pool->width * (size_t)pool->height;

	pool->frame = calloc((size_t)count, sizeof(*pool->frame));
	pool->unused = calloc((size_t)count, sizeof(struct frame *));
	if (!pool->frame || !pool->unused)
		return -ENOMEM;
	for (pool->count = 0; pool->count < count; pool->count++) {
		struct frame *frame = &pool->frame[pool->count];

		frame->pool = pool;
		frame->rgb = malloc(bytes);
		if (!frame->rgb)
			return -ENOMEM;
		/* Touched now, so that no page is missing later. */
		memset(frame->rgb, 0, bytes);
		pool->unused[pool->left++] = frame;
	}
	return 0;
}

int frame_pool_create(int width, int height, int count, struct frame_pool **ret)
{
	struct frame_pool *pool = calloc(1, sizeof(*pool));

	if (!pool)
		return -ENOMEM;
	(void)pthread_mutex_init(&pool->lock, NULL);
	pool->width = width;
	pool->height = height;
	if (pool_fill(pool, count) < 0) {
		(void)frame_pool_destroy(pool);
		return -ENOMEM;
	}
	*ret = pool;
	return 0;
}

struct frame_pool *frame_pool_destroy(struct frame_pool *pool)
{
	if (!pool)
		return NULL;
	for (int i = 0; i < pool->count; i++)
		free(pool->frame[i].rgb);
	free(pool->frame);
	free(pool->unused);
	(void)pthread_mutex_destroy(&pool->lock);
	free(pool);
	return NULL;
}

struct frame *frame_get(struct frame_pool *pool)
{
	struct frame *frame = NULL;

	(void)pthread_mutex_lock(&pool->lock);
	if (pool->left > 0)
		frame = pool->unused[--pool->left];
	else
		pool->refused++;
	(void)pthread_mutex_unlock(&pool->lock);
	if (!frame)
		return NULL;
	atomic_store(&frame->references, 1);
	frame->capture_ns = frame->ready_ns = 0;
	return frame;
}

uint64_t frame_pool_refused(struct frame_pool *pool)
{
	uint64_t refused;

	(void)pthread_mutex_lock(&pool->lock);
	refused = pool->refused;
	(void)pthread_mutex_unlock(&pool->lock);
	return refused;
}

struct frame *frame_ref(struct frame *frame)
{
	(void)atomic_fetch_add(&frame->references, 1);
	return frame;
}

struct frame *frame_unref(struct frame *frame)
{
	struct frame_pool *pool;

	if (!frame || atomic_fetch_sub(&frame->references, 1) > 1)
		return NULL;
	pool = frame->pool;
	(void)pthread_mutex_lock(&pool->lock);
	pool->unused[pool->left++] = frame;
	(void)pthread_mutex_unlock(&pool->lock);
	return NULL;
}
