/*
 * One block of memory, laid out before it is taken.
 *
 * The same layout code runs twice: first over a measuring arena (base NULL; pointers are offsets and
 * never dereferenced) which records named lines for the plan, then over the real block.
 */
#pragma once

#include "base/util.h"

enum { ARENA_MAX_LINES = 96, ARENA_NAME_BYTES = 64 };

struct arena_line {
	char name[ARENA_NAME_BYTES]; /* "carried state/GDN S", … */
	size_t bytes;		     /* sum of all takes under that name, padding included */
	int count;
};

struct arena {
	uintptr_t base; /* 0 while measuring */
	size_t used, capacity;
	bool overflowed; /* a size did not fit; used is then meaningless */
	int lines;
	struct arena_line line[ARENA_MAX_LINES];
};

void arena_measure(struct arena *arena);
void arena_place(struct arena *arena, void *memory, size_t capacity);

/* `count`·`size` bytes aligned to KERNEL_ALIGNMENT; adds to the line `name` while measuring. */
void *arena_take(struct arena *arena, const char *name, size_t count, size_t size);

/*
 * A region shared by things that are not used at the same time: remember `used`, take, then rewind
 * to the remembered value; the region's size is the maximum of the takes between rewinds.
 */
struct arena_union {
	size_t start, high;
};

void arena_union_begin(struct arena *arena, struct arena_union *shared);
void arena_union_next(struct arena *arena, struct arena_union *shared);
void arena_union_end(struct arena *arena, struct arena_union *shared);
