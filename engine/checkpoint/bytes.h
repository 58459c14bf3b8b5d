/*
 * Read-only bytes of a file or of memory, for readers that jump about: nothing is mapped, so a file
 * of any size costs no memory, and a file cut short while it is read is an error, not a signal.
 */
#pragma once

#include "base/error.h"

struct byte_source {
	int fd;		     /* −1: memory */
	const uint8_t *data; /* memory, owned by the caller */
	uint64_t size;
	const char *where; /* names it in errors; owned by the caller */
};

/* Opens a regular file. Error `name`, whose sentence starts with the path. */
int byte_source_open(const char *path, const char *name, struct byte_source *ret,
		     struct sana_error *error);
void byte_source_from_memory(const void *data, size_t bytes, const char *where,
			     struct byte_source *ret);

/* Accepts a zeroed struct of memory, and may be called twice. */
void byte_source_close(struct byte_source *source);

/* All `bytes` at `offset`; −EIO when the source ends before, or the errno of the read. */
int byte_source_read(const struct byte_source *source, uint64_t offset, void *to, size_t bytes);

/* Little endian numbers at any alignment. */
static inline uint16_t bytes_u16(const uint8_t *at)
{
	return (uint16_t)(at[0] | at[1] << 8);
}

static inline uint32_t bytes_u32(const uint8_t *at)
{
	return (uint32_t)bytes_u16(at) | (uint32_t)bytes_u16(at + 2) << 16;
}

static inline uint64_t bytes_u64(const uint8_t *at)
{
	return (uint64_t)bytes_u32(at) | (uint64_t)bytes_u32(at + 4) << 32;
}
