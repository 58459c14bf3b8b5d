/* Laying out one block of memory: measure first, then hand out the same places for real. */
#include "engine/arena.h"

#include <assert.h>

#include "kernels/kernels.h"

static const char rest_name[] = "other";

void arena_measure(struct arena *arena)
{
	*arena = (struct arena){ .capacity = SIZE_MAX };
}

void arena_place(struct arena *arena, void *memory, size_t capacity)
{
	assert(memory && (uintptr_t)memory % KERNEL_ALIGNMENT == 0);
	*arena = (struct arena){ .base = (uintptr_t)memory, .capacity = capacity };
}

/* The line called `name`, a new one, or, when the table is full, its last one as a collector. */
static struct arena_line *arena_line_find(struct arena *arena, const char *name)
{
	struct arena_line *line;

	for (int i = 0; i < arena->lines; i++)
		if (strncmp(arena->line[i].name, name, ARENA_NAME_BYTES - 1) == 0)
			return &arena->line[i];
	if (arena->lines == ARENA_MAX_LINES)
		return &arena->line[ARENA_MAX_LINES - 1];
	if (arena->lines == ARENA_MAX_LINES - 1)
		name = rest_name;
	line = &arena->line[arena->lines++];
	(void)snprintf(line->name, sizeof(line->name), "%s", name);
	return line;
}

void *arena_take(struct arena *arena, const char *name, size_t count, size_t size)
{
	size_t bytes, start = arena->used, end;

	if (arena->overflowed)
		return NULL;
	if (size_mul_overflows(count, size, &bytes) || bytes > SIZE_MAX - KERNEL_ALIGNMENT ||
	    size_add_overflows(start, align_up(bytes, KERNEL_ALIGNMENT), &end) ||
	    end > arena->capacity) {
		arena->overflowed = true;
		return NULL;
	}
	if (!arena->base) {
		struct arena_line *line = arena_line_find(arena, name);

		line->bytes += end - start;
		line->count++;
	}
	arena->used = end;
	return (void *)(arena->base + start);
}

void arena_union_begin(struct arena *arena, struct arena_union *shared)
{
	shared->start = shared->high = arena->used;
}

void arena_union_next(struct arena *arena, struct arena_union *shared)
{
	shared->high = MAX_OF(shared->high, arena->used);
	arena->used = shared->start;
}

void arena_union_end(struct arena *arena, struct arena_union *shared)
{
	arena_union_next(arena, shared);
	arena->used = shared->high;
}
