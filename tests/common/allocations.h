/*
 * Counts what a program and all its libraries allocate, on every thread: takes the place of the C
 * library's functions. Defines functions, so one file of a program includes it, and only a program
 * that wants this. Not with the sanitizers, which do the same, and only with glibc, whose own functions
 * have a second name.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__)

#include <errno.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ALLOCATIONS_COUNTED 1

extern void *__libc_malloc(size_t bytes);
extern void *__libc_calloc(size_t count, size_t bytes);
extern void *__libc_realloc(void *memory, size_t bytes);
extern void *__libc_memalign(size_t alignment, size_t bytes);

static atomic_bool allocations_counting;
static atomic_uint_fast64_t allocations_seen;

static void allocation_note(void)
{
	if (atomic_load_explicit(&allocations_counting, memory_order_relaxed))
		atomic_fetch_add(&allocations_seen, 1);
}

void *malloc(size_t bytes)
{
	allocation_note();
	return __libc_malloc(bytes);
}

void *calloc(size_t count, size_t bytes)
{
	allocation_note();
	return __libc_calloc(count, bytes);
}

void *realloc(void *memory, size_t bytes)
{
	allocation_note();
	return __libc_realloc(memory, bytes);
}

void *memalign(size_t alignment, size_t bytes)
{
	allocation_note();
	return __libc_memalign(alignment, bytes);
}

void *aligned_alloc(size_t alignment, size_t bytes)
{
	allocation_note();
	return __libc_memalign(alignment, bytes);
}

int posix_memalign(void **ret, size_t alignment, size_t bytes)
{
	void *memory;

	allocation_note();
	memory = __libc_memalign(alignment, bytes);
	if (!memory)
		return ENOMEM;
	*ret = memory;
	return 0;
}

/* The calls to the C library's own malloc do not pass here: those are counted above. */
void *mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset)
{
	allocation_note();
	return (void *)syscall(SYS_mmap, at, bytes, protection, flags, fd, offset);
}

void *mmap64(void *at, size_t bytes, int protection, int flags, int fd, off_t offset)
{
	return mmap(at, bytes, protection, flags, fd, offset);
}

static void allocations_count(bool on)
{
	atomic_store(&allocations_counting, on);
}

static uint64_t allocations_counted(void)
{
	return atomic_load(&allocations_seen);
}

#else

#define ALLOCATIONS_COUNTED 0

static void allocations_count(bool on)
{
	(void)on;
}

static uint64_t allocations_counted(void)
{
	return 0;
}

#endif
