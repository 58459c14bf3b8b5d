/* The arena: measuring and placing give the same layout, limits are noticed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

#include "engine/arena.h"
#include "kernels/kernels.h"

struct layout {
	float *a, *b, *c, *d;
};

static void lay_out(struct arena *arena, struct layout *layout)
{
	struct arena_union shared;

	layout->a = arena_take(arena, "weights/a", 3, sizeof(float));
	arena_union_begin(arena, &shared);
	layout->b = arena_take(arena, "work/encode", 1000, sizeof(float));
	arena_union_next(arena, &shared);
	layout->c = arena_take(arena, "work/decode", 10, sizeof(float));
	arena_union_end(arena, &shared);
	layout->d = arena_take(arena, "weights/a", 64, sizeof(float));
}

static void measure_and_place_agree(void **state)
{
	struct arena measured, placed;
	struct layout offsets, layout;
	char *block;

	(void)state;
	arena_measure(&measured);
	lay_out(&measured, &offsets);
	assert_false(measured.overflowed);
	assert_int_equal(measured.used, 256 + 4096 + 256);

	block = aligned_alloc(KERNEL_ALIGNMENT, measured.used);
	assert_non_null(block);
	arena_place(&placed, block, measured.used);
	lay_out(&placed, &layout);
	assert_false(placed.overflowed);
	assert_int_equal(placed.used, measured.used);
	assert_ptr_equal(layout.a, block);
	assert_ptr_equal(layout.b, block + 256);
	assert_ptr_equal(layout.c, layout.b);
	assert_ptr_equal(layout.d, block + 256 + 4096);
	assert_int_equal((uintptr_t)offsets.d, 256 + 4096);
	for (int i = 0; i < 64; i++)
		layout.d[i] = 1; /* inside the block: the sanitizer would say otherwise */
	free(block);
}

static void lines_add_up_by_name(void **state)
{
	struct arena arena;
	struct layout layout;

	(void)state;
	arena_measure(&arena);
	lay_out(&arena, &layout);
	assert_int_equal(arena.lines, 3);
	assert_string_equal(arena.line[0].name, "weights/a");
	assert_int_equal(arena.line[0].bytes, 512);
	assert_int_equal(arena.line[0].count, 2);
	assert_string_equal(arena.line[1].name, "work/encode");
	assert_int_equal(arena.line[1].bytes, 4096);
}

static void too_many_lines_share_the_last(void **state)
{
	struct arena arena;
	size_t sum = 0;
	char name[32];

	(void)state;
	arena_measure(&arena);
	for (int i = 0; i < ARENA_MAX_LINES + 20; i++) {
		(void)snprintf(name, sizeof(name), "line %d", i);
		(void)arena_take(&arena, name, 1, 1);
	}
	assert_int_equal(arena.lines, ARENA_MAX_LINES);
	assert_string_equal(arena.line[ARENA_MAX_LINES - 1].name, "other");
	assert_int_equal(arena.line[ARENA_MAX_LINES - 1].count, 21);
	for (int i = 0; i < arena.lines; i++)
		sum += arena.line[i].bytes;
	assert_int_equal(sum, arena.used);
}

static void sizes_that_do_not_fit_are_noticed(void **state)
{
	static _Alignas(KERNEL_ALIGNMENT) char block[1024];
	struct arena arena;

	(void)state;
	arena_place(&arena, block, sizeof(block));
	assert_non_null(arena_take(&arena, "a", 1, 1024));
	assert_false(arena.overflowed);
	assert_null(arena_take(&arena, "b", 1, 1));
	assert_true(arena.overflowed);
	assert_null(arena_take(&arena, "c", 0, 1));

	arena_measure(&arena);
	(void)arena_take(&arena, "a", SIZE_MAX / 2, 4);
	assert_true(arena.overflowed);
	arena_measure(&arena);
	(void)arena_take(&arena, "a", 1, SIZE_MAX - 10);
	assert_true(arena.overflowed);
	arena_measure(&arena);
	(void)arena_take(&arena, "a", 1, SIZE_MAX / 2);
	assert_false(arena.overflowed);
	(void)arena_take(&arena, "a", 1, SIZE_MAX / 2 + 1);
	assert_true(arena.overflowed);
}

static void nested_unions_take_the_larger(void **state)
{
	struct arena_union outer, inner;
	struct arena arena;

	(void)state;
	arena_measure(&arena);
	arena_union_begin(&arena, &outer);
	(void)arena_take(&arena, "a", 1, 256);
	arena_union_begin(&arena, &inner);
	(void)arena_take(&arena, "b", 1, 512);
	arena_union_next(&arena, &inner);
	(void)arena_take(&arena, "c", 1, 256);
	arena_union_end(&arena, &inner);
	assert_int_equal(arena.used, 768);
	arena_union_next(&arena, &outer);
	(void)arena_take(&arena, "d", 1, 512);
	arena_union_end(&arena, &outer);
	assert_int_equal(arena.used, 768);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(measure_and_place_agree),
		cmocka_unit_test(lines_add_up_by_name),
		cmocka_unit_test(too_many_lines_share_the_last),
		cmocka_unit_test(sizes_that_do_not_fit_are_noticed),
		cmocka_unit_test(nested_unions_take_the_larger),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
