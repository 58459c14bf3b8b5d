/*
 * One safetensors file, mapped and checked completely (docs/model/checkpoint.md §4).
 *
 * The file is hostile until it is open: every rule about lengths, JSON, numbers and ranges is
 * checked before a tensor is handed out. Errors are called "checkpoint.safetensors".
 */
#pragma once

#include "base/error.h"

enum { SAFETENSORS_MAX_RANK = 8 };

enum safetensors_dtype {
	SAFETENSORS_DTYPE_INVALID = -1,
	SAFETENSORS_BOOL,
	SAFETENSORS_U8,
	SAFETENSORS_I8,
	SAFETENSORS_F8_E4M3,
	SAFETENSORS_F8_E5M2,
	SAFETENSORS_F8_E8M0,
	SAFETENSORS_I16,
	SAFETENSORS_U16,
	SAFETENSORS_F16,
	SAFETENSORS_BF16,
	SAFETENSORS_I32,
	SAFETENSORS_U32,
	SAFETENSORS_F32,
	SAFETENSORS_I64,
	SAFETENSORS_U64,
	SAFETENSORS_F64,
	SAFETENSORS_C64,
	SAFETENSORS_DTYPE_COUNT,
};

struct safetensors_tensor {
	const char *name; /* UTF-8 without control characters; lives as long as the file */
	enum safetensors_dtype dtype;
	int rank;
	int64_t shape[SAFETENSORS_MAX_RANK];
	uint64_t offset, bytes; /* offset from the start of the file */
	const void *data;	/* not necessarily aligned for its type */
};

struct safetensors;

int safetensors_open(const char *path, struct safetensors **ret, struct sana_error *error);

/* The same over memory that the caller keeps; `where` names it in errors. */
int safetensors_parse(const void *bytes, size_t length, const char *where, struct safetensors **ret,
		      struct sana_error *error);

/* NULL accepted. */
void safetensors_close(struct safetensors *file);

static inline void safetensors_closep(struct safetensors **file)
{
	safetensors_close(*file);
}

size_t safetensors_count(const struct safetensors *file);

/* In the order of their data. */
const struct safetensors_tensor *safetensors_at(const struct safetensors *file, size_t index);

/* As written in files ("BF16"), and its size; NULL and 0 for the invalid value. */
const char *safetensors_dtype_name(enum safetensors_dtype dtype);
size_t safetensors_dtype_bytes(enum safetensors_dtype dtype);
