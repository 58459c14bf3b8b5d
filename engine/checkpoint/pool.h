/* Memory for many small things that die together, up to a limit. */
#pragma once

#include "base/util.h"

struct pool_block;

struct pool {
	struct pool_block *blocks;
	size_t used_bytes, limit_bytes; /* limit: of everything together */
};

/* Zeroed memory, aligned for anything; NULL when the limit is reached or memory is out. */
void *pool_take(struct pool *pool, size_t count, size_t bytes_each);

/* Accepts a zeroed struct and may be called twice. */
void pool_finish(struct pool *pool);
