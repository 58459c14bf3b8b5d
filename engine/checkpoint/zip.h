/*
 * The directory of a zip file in which everything is stored as it is (docs/model/checkpoint.md §1):
 * where the bytes of each entry lie. Nothing is decompressed, nothing is written.
 *
 * The file is hostile until it is open: sizes and offsets come from the central directory alone, all
 * ranges lie inside the file and none overlap. Errors are called "checkpoint.zip".
 */
#pragma once

#include "engine/checkpoint/bytes.h"

enum {
	ZIP_MAX_ENTRIES = 100000,
	ZIP_MAX_NAME_BYTES = 4096,
	ZIP_MAX_DIRECTORY_BYTES = 16 << 20,
};

struct zip_entry {
	const char *name; /* unique, no NUL, no "..", no leading "/"; lives as long as the zip */
	uint64_t offset, bytes; /* of the data */
	uint32_t crc;		/* CRC-32 as written; some writers leave it 0 */
};

struct zip;

/* The source must outlive the zip. */
int zip_open(const struct byte_source *source, struct zip **ret, struct sana_error *error);
void zip_close(struct zip *zip); /* NULL accepted */

static inline void zip_closep(struct zip **zip)
{
	zip_close(*zip);
}

size_t zip_count(const struct zip *zip);
const struct zip_entry *zip_at(const struct zip *zip, size_t index);	   /* sorted by name */
const struct zip_entry *zip_find(const struct zip *zip, const char *name); /* NULL: none */
