/* A list of blocks from which memory is cut off, never given back one by one. */
#include "engine/checkpoint/pool.h"

#include <stdalign.h>

/* Large enough that blocks are few, small enough that a tiny file takes little. */
enum { BLOCK_BYTES = 64 << 10 };

struct pool_block {
	struct pool_block *next;
	size_t used, bytes;
	alignas(max_align_t) unsigned char data[];
};

void *pool_take(struct pool *pool, size_t count, size_t bytes_each)
{
	struct pool_block *block = pool->blocks;
	size_t bytes, whole;
	void *memory;

	if (size_mul_overflows(count, bytes_each, &bytes) || bytes > pool->limit_bytes)
		return NULL;
	bytes = align_up(MAX_OF(bytes, 1), alignof(max_align_t));
	if (bytes > pool->limit_bytes - pool->used_bytes)
		return NULL;
	if (!block || bytes > block->bytes - block->used) {
		whole = MAX_OF(bytes, (size_t)BLOCK_BYTES);
		block = calloc(1, sizeof(*block) + whole);
		if (!block)
			return NULL;
		block->bytes = whole;
		block->next = pool->blocks;
		pool->blocks = block;
	}
	memory = block->data + block->used;
	block->used += bytes;
	pool->used_bytes += bytes;
	return memory;
}

void pool_finish(struct pool *pool)
{
	struct pool_block *next;

	for (struct pool_block *block = pool->blocks; block; block = next) {
		next = block->next;
		free(block);
	}
	*pool = (struct pool){ 0 };
}
