/* The central directory of a zip file, checked against the local headers and the file's size. */
#include "engine/checkpoint/zip.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>

#include "base/json.h"

#define ERROR_NAME "checkpoint.zip"

/* Fixed parts of the records, and the signatures they begin with. */
enum { LOCAL_BYTES = 30, CENTRAL_BYTES = 46, END_BYTES = 22, END64_BYTES = 56, LOCATOR_BYTES = 20 };
enum { MAX_COMMENT_BYTES = 65535, QUOTED_BYTES = 100, EXTRA_ZIP64 = 1 };
enum { FLAG_ENCRYPTED = 1 << 0, FLAG_STRONG = 1 << 6, FLAG_MASKED = 1 << 13 };

#define LOCAL_SIGNATURE 0x04034b50u
#define CENTRAL_SIGNATURE 0x02014b50u
#define END_SIGNATURE 0x06054b50u
#define END64_SIGNATURE 0x06064b50u
#define LOCATOR_SIGNATURE 0x07064b50u

/* An entry while the directory is read. */
struct found_entry {
	struct zip_entry entry;
	uint64_t header; /* offset of the local header */
};

struct zip {
	uint8_t *directory; /* raw central directory */
	char *names;	    /* NUL-terminated copies */
	struct zip_entry *entry;
	size_t count;
};

struct reading {
	const struct byte_source *source;
	struct sana_error *error;
	uint64_t directory_offset, directory_bytes, entries;
	struct found_entry *found;
};

static int refuse(const struct reading *reading, const char *what)
{
	return sana_error_set(reading->error, -EINVAL, ERROR_NAME, "%.250s: %s.",
			      reading->source->where, what);
}

static int refuse_entry(const struct reading *reading, const char *name, const char *what)
{
	char quoted[QUOTED_BYTES];

	json_plain_text(quoted, sizeof(quoted), name);
	return sana_error_set(reading->error, -EINVAL, ERROR_NAME, "%.250s: entry \"%s\" %s.",
			      reading->source->where, quoted, what);
}

static int no_memory(const struct reading *reading)
{
	return sana_error_set(reading->error, -ENOMEM, ERROR_NAME, "%.250s: no memory to read it.",
			      reading->source->where);
}

static int read_at(const struct reading *reading, uint64_t offset, void *to, size_t bytes)
{
	int r = byte_source_read(reading->source, offset, to, bytes);

	if (r >= 0)
		return r;
	return sana_error_set(reading->error, r, ERROR_NAME,
			      "%.250s: cannot read %zu bytes at %" PRIu64 ": %s.",
			      reading->source->where, bytes, offset, strerror(-r));
}

/* ------------------------------------------------------------------------ end of the directory */

/* The record that ends exactly at the end of the file, comment included. */
static int end_find(const struct reading *reading, uint64_t *ret_offset, uint8_t end[END_BYTES])
{
	size_t bytes = (size_t)MIN_OF(reading->source->size, END_BYTES + MAX_COMMENT_BYTES);
	_cleanup_(freep) uint8_t *tail = NULL;
	int r;

	if (bytes < END_BYTES)
		return refuse(reading, "too short for a zip file");
	tail = malloc(bytes);
	if (!tail)
		return no_memory(reading);
	r = read_at(reading, reading->source->size - bytes, tail, bytes);
	if (r < 0)
		return r;
	for (size_t at = bytes - END_BYTES + 1; at-- > 0;) {
		if (bytes_u32(tail + at) != END_SIGNATURE ||
		    at + END_BYTES + bytes_u16(tail + at + 20) != bytes)
			continue;
		memcpy(end, tail + at, END_BYTES);
		*ret_offset = reading->source->size - bytes + at;
		return 0;
	}
	return refuse(reading, "no zip directory at its end; the file is truncated or no zip file");
}

/* The 64-bit record, which lies right before its locator. Its values replace the 32-bit ones. */
static int end64_read(struct reading *reading, uint64_t locator, const uint8_t *at,
		      uint64_t *ret_limit)
{
	uint8_t end[END64_BYTES];
	uint64_t offset = bytes_u64(at + 8), size;
	int r;

	if (bytes_u32(at + 4) != 0 || bytes_u32(at + 16) > 1)
		return refuse(reading, "split over several files");
	if (offset > locator || locator - offset < END64_BYTES)
		return refuse(reading, "the zip64 record lies outside the file");
	r = read_at(reading, offset, end, sizeof(end));
	if (r < 0)
		return r;
	size = bytes_u64(end + 4);
	if (bytes_u32(end) != END64_SIGNATURE || size != locator - offset - 12)
		return refuse(reading, "the zip64 record is damaged");
	if (bytes_u32(end + 16) || bytes_u32(end + 20) ||
	    bytes_u64(end + 24) != bytes_u64(end + 32))
		return refuse(reading, "split over several files");
	reading->entries = bytes_u64(end + 32);
	reading->directory_bytes = bytes_u64(end + 40);
	reading->directory_offset = bytes_u64(end + 48);
	*ret_limit = offset;
	return 0;
}

/* A 32-bit field that is not "see the 64-bit record" must say the same as that record. */
static bool agrees(uint64_t wide, uint32_t narrow, uint32_t see_other)
{
	return narrow == see_other || narrow == wide;
}

static int end_read(struct reading *reading)
{
	uint8_t end[END_BYTES] = { 0 }, locator[LOCATOR_BYTES];
	uint64_t at = 0, limit;
	int r;

	r = end_find(reading, &at, end);
	if (r < 0)
		return r;
	if (bytes_u16(end + 4) || bytes_u16(end + 6) || bytes_u16(end + 8) != bytes_u16(end + 10))
		return refuse(reading, "split over several files");
	reading->entries = bytes_u16(end + 10);
	reading->directory_bytes = bytes_u32(end + 12);
	reading->directory_offset = bytes_u32(end + 16);
	limit = at;
	if (at >= LOCATOR_BYTES) {
		r = read_at(reading, at - LOCATOR_BYTES, locator, sizeof(locator));
		if (r < 0)
			return r;
		if (bytes_u32(locator) == LOCATOR_SIGNATURE) {
			r = end64_read(reading, at - LOCATOR_BYTES, locator, &limit);
			if (r < 0)
				return r;
		}
	}
	if (!agrees(reading->entries, bytes_u16(end + 10), UINT16_MAX) ||
	    !agrees(reading->directory_bytes, bytes_u32(end + 12), UINT32_MAX) ||
	    !agrees(reading->directory_offset, bytes_u32(end + 16), UINT32_MAX))
		return refuse(reading, "the two ends of its directory contradict each other");
	if (reading->directory_offset > limit ||
	    reading->directory_bytes != limit - reading->directory_offset)
		return refuse(reading, "its directory does not lie where it should");
	if (reading->directory_bytes > ZIP_MAX_DIRECTORY_BYTES)
		return refuse(reading, "its directory is larger than 16 MiB");
	if (reading->entries > ZIP_MAX_ENTRIES ||
	    reading->entries > reading->directory_bytes / CENTRAL_BYTES)
		return refuse(reading, "it claims more entries than its directory can hold");
	return 0;
}

/* ---------------------------------------------------------------------------- central directory */

/* The 64-bit field holds exactly the values whose 32-bit field is all ones, in this order. */
static int extra64_apply(const struct reading *reading, const char *name, const uint8_t *at,
			 size_t bytes, uint64_t *const value[3])
{
	size_t used = 0;

	for (int i = 0; i < 3; i++) {
		if (*value[i] != UINT32_MAX)
			continue;
		if (bytes - used < 8)
			return refuse_entry(reading, name, "has too short a zip64 field");
		*value[i] = bytes_u64(at + used);
		used += 8;
	}
	return 0;
}

static int extra_read(const struct reading *reading, const char *name, const uint8_t *extra,
		      size_t bytes, uint64_t *const value[3])
{
	bool found = false;
	int r;

	for (size_t at = 0; at < bytes;) {
		size_t length;

		if (bytes - at < 4)
			return refuse_entry(reading, name, "has a damaged extra field");
		length = bytes_u16(extra + at + 2);
		if (length > bytes - at - 4)
			return refuse_entry(reading, name, "has a damaged extra field");
		if (bytes_u16(extra + at) == EXTRA_ZIP64) {
			if (found)
				return refuse_entry(reading, name, "has two zip64 fields");
			found = true;
			r = extra64_apply(reading, name, extra + at + 4, length, value);
			if (r < 0)
				return r;
		}
		at += 4 + length;
	}
	for (int i = 0; i < 3 && !found; i++)
		if (*value[i] == UINT32_MAX)
			return refuse_entry(reading, name, "has no zip64 field, but needs one");
	return 0;
}

static int name_check(const struct reading *reading, const char *name, size_t bytes)
{
	if (bytes == 0 || strlen(name) != bytes)
		return refuse_entry(reading, name, "has an empty name or a NUL in it");
	if (name[0] == '/')
		return refuse_entry(reading, name, "has an absolute path");
	for (const char *part = name; part; part = strchr(part, '/')) {
		part += *part == '/';
		if (part[0] == '.' && part[1] == '.' && (part[2] == '/' || part[2] == '\0'))
			return refuse_entry(reading, name, "has \"..\" in its path");
	}
	return 0;
}

/* What only the central directory says about method, flags and place. */
static int record_check(const struct reading *reading, const uint8_t *at, const char *name,
			const struct found_entry *found, uint64_t stored_bytes)
{
	if (bytes_u16(at + 8) & (FLAG_ENCRYPTED | FLAG_STRONG | FLAG_MASKED))
		return refuse_entry(reading, name, "is encrypted");
	if (bytes_u16(at + 10) != 0)
		return refuse_entry(reading, name,
				    "is compressed; a checkpoint's entries are stored as they are");
	if (stored_bytes != found->entry.bytes)
		return refuse_entry(reading, name, "has two sizes, although it is not compressed");
	if (bytes_u16(at + 34) != 0)
		return refuse_entry(reading, name, "lies in another file of a split one");
	if (found->header > reading->directory_offset ||
	    reading->directory_offset - found->header < LOCAL_BYTES)
		return refuse_entry(reading, name, "begins outside the file");
	return 0;
}

/* One record at `at`, of which `room` bytes remain; its copy of the name goes to *names. */
static int record_read(const struct reading *reading, const uint8_t *at, size_t room, char **names,
		       struct found_entry *found, size_t *ret_used)
{
	size_t name_bytes, extra_bytes, used;
	uint64_t stored;
	int r;

	if (room < CENTRAL_BYTES || bytes_u32(at) != CENTRAL_SIGNATURE)
		return refuse(reading, "its directory is damaged");
	name_bytes = bytes_u16(at + 28);
	extra_bytes = bytes_u16(at + 30);
	used = CENTRAL_BYTES + name_bytes + extra_bytes + bytes_u16(at + 32);
	if (used > room)
		return refuse(reading, "its directory is damaged");
	if (name_bytes > ZIP_MAX_NAME_BYTES)
		return refuse(reading, "an entry's name is longer than 4096 bytes");
	memcpy(*names, at + CENTRAL_BYTES, name_bytes);
	(*names)[name_bytes] = '\0';
	*found = (struct found_entry){
		.entry = { .name = *names, .bytes = bytes_u32(at + 24), .crc = bytes_u32(at + 16) },
		.header = bytes_u32(at + 42)
	};
	*names += name_bytes + 1;
	stored = bytes_u32(at + 20);
	r = name_check(reading, found->entry.name, name_bytes);
	if (r < 0)
		return r;
	r = extra_read(reading, found->entry.name, at + CENTRAL_BYTES + name_bytes, extra_bytes,
		       (uint64_t *const[]){ &found->entry.bytes, &stored, &found->header });
	if (r < 0)
		return r;
	*ret_used = used;
	return record_check(reading, at, found->entry.name, found, stored);
}

/*
 * The local header gives the start of the data and nothing else: its sizes may be 0. Its name must
 * be the same, or two readers would see two different files.
 */
static int local_read(const struct reading *reading, struct found_entry *found)
{
	const char *name = found->entry.name;
	size_t name_bytes = strlen(name);
	uint8_t header[LOCAL_BYTES + ZIP_MAX_NAME_BYTES];
	uint64_t limit = reading->directory_offset;
	int r;

	if (limit - found->header < LOCAL_BYTES + name_bytes)
		return refuse_entry(reading, name, "begins outside the file");
	r = read_at(reading, found->header, header, LOCAL_BYTES + name_bytes);
	if (r < 0)
		return r;
	if (bytes_u32(header) != LOCAL_SIGNATURE)
		return refuse_entry(reading, name, "is not where the directory says");
	if (bytes_u16(header + 26) != name_bytes ||
	    memcmp(header + LOCAL_BYTES, name, name_bytes) != 0)
		return refuse_entry(reading, name, "has another name at its own place");
	if (bytes_u16(header + 8) != 0 || bytes_u16(header + 6) & FLAG_ENCRYPTED)
		return refuse_entry(reading, name, "is compressed or encrypted at its own place");
	found->entry.offset = found->header + LOCAL_BYTES + name_bytes + bytes_u16(header + 28);
	if (found->entry.offset > limit || found->entry.bytes > limit - found->entry.offset)
		return refuse_entry(reading, name, "reaches beyond the end of the data");
	return 0;
}

static int compare_place(const void *a, const void *b)
{
	const struct found_entry *left = a, *right = b;

	return left->header < right->header ? -1 : left->header > right->header;
}

static int compare_name(const void *a, const void *b)
{
	return strcmp(((const struct zip_entry *)a)->name, ((const struct zip_entry *)b)->name);
}

/* Neither two entries in one place nor two of one name. */
static int entries_settle(const struct reading *reading, struct zip *zip)
{
	struct found_entry *found = reading->found;

	qsort(found, zip->count, sizeof(*found), compare_place);
	for (size_t i = 1; i < zip->count; i++)
		if (found[i].header < found[i - 1].entry.offset + found[i - 1].entry.bytes)
			return refuse_entry(reading, found[i].entry.name, "overlaps another entry");
	for (size_t i = 0; i < zip->count; i++)
		zip->entry[i] = found[i].entry;
	qsort(zip->entry, zip->count, sizeof(*zip->entry), compare_name);
	for (size_t i = 1; i < zip->count; i++)
		if (strcmp(zip->entry[i - 1].name, zip->entry[i].name) == 0)
			return refuse_entry(reading, zip->entry[i].name, "is there twice");
	return 0;
}

static int directory_read(struct reading *reading, struct zip *zip)
{
	size_t bytes = (size_t)reading->directory_bytes, at = 0, used = 0;
	char *names;
	int r;

	r = read_at(reading, reading->directory_offset, zip->directory, bytes);
	if (r < 0)
		return r;
	names = zip->names;
	for (uint64_t i = 0; i < reading->entries; i++, at += used) {
		struct found_entry *found = &reading->found[i];

		r = record_read(reading, zip->directory + at, bytes - at, &names, found, &used);
		if (r >= 0)
			r = local_read(reading, found);
		if (r < 0)
			return r;
		zip->count++;
	}
	if (at != bytes)
		return refuse(reading, "its directory has more in it than it claims");
	return entries_settle(reading, zip);
}

/* Every name lies in the directory; a record is longer than the NUL a copy needs. */
static int zip_allocate(struct zip *zip, const struct reading *reading)
{
	zip->directory = malloc((size_t)reading->directory_bytes + 1);
	zip->names = malloc((size_t)reading->directory_bytes + 1);
	zip->entry = calloc((size_t)reading->entries + 1, sizeof(*zip->entry));
	return zip->directory && zip->names && zip->entry ? 0 : -ENOMEM;
}

int zip_open(const struct byte_source *source, struct zip **ret, struct sana_error *error)
{
	_cleanup_(zip_closep) struct zip *zip = NULL;
	_cleanup_(freep) struct found_entry *found = NULL;
	struct reading reading = { .source = source, .error = error };
	int r;

	r = end_read(&reading);
	if (r < 0)
		return r;
	zip = calloc(1, sizeof(*zip));
	if (!zip)
		return no_memory(&reading);
	found = calloc((size_t)reading.entries + 1, sizeof(*found));
	if (!found || zip_allocate(zip, &reading) < 0)
		return no_memory(&reading);
	reading.found = found;
	r = directory_read(&reading, zip);
	if (r < 0)
		return r;
	free(zip->directory);
	zip->directory = NULL;
	*ret = TAKE_PTR(zip);
	return 0;
}

void zip_close(struct zip *zip)
{
	if (!zip)
		return;
	free(zip->directory);
	free(zip->names);
	free(zip->entry);
	free(zip);
}

size_t zip_count(const struct zip *zip)
{
	return zip->count;
}

const struct zip_entry *zip_at(const struct zip *zip, size_t index)
{
	assert(index < zip->count);
	return &zip->entry[index];
}

const struct zip_entry *zip_find(const struct zip *zip, const char *name)
{
	struct zip_entry wanted = { .name = name };

	return zip->count ?
		       bsearch(&wanted, zip->entry, zip->count, sizeof(*zip->entry), compare_name) :
		       NULL;
}
