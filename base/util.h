/* Small language helpers: cleanup attributes, checked arithmetic, array sizes. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define MIN_OF(a, b) ((a) < (b) ? (a) : (b))
#define MAX_OF(a, b) ((a) > (b) ? (a) : (b))

/* Runs function(&variable) when the variable goes out of scope. */
#define _cleanup_(function) __attribute__((cleanup(function)))
#define _printf_(text, first) __attribute__((format(printf, text, first)))

/* Hands the pointer stored at `pointer` out of a scope and leaves NULL behind. */
static inline void *take_pointer(void *pointer)
{
	static void *const none = NULL;
	void *taken;

	memcpy(&taken, pointer, sizeof(taken));
	memcpy(pointer, &none, sizeof(none));
	return taken;
}

#define TAKE_PTR(pointer) take_pointer(&(pointer))

static inline void freep(void *pointer)
{
	free(*(void **)pointer);
}

static inline void fclosep(FILE **file)
{
	if (*file)
		(void)fclose(*file);
}

/* Checked arithmetic on sizes from outside: true when the result does not fit. */
static inline bool size_add_overflows(size_t a, size_t b, size_t *ret)
{
	return __builtin_add_overflow(a, b, ret);
}

static inline bool size_mul_overflows(size_t a, size_t b, size_t *ret)
{
	return __builtin_mul_overflow(a, b, ret);
}

/* Smallest multiple of `step` (a power of two) that is not below `value`. */
static inline size_t align_up(size_t value, size_t step)
{
	return (value + step - 1) & ~(step - 1);
}
