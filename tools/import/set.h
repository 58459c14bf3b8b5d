/*
 * One set of named tensors as it was published: a torch.save file, a safetensors file, or the shards
 * that an index names. Only headers are read; the data stays where it is.
 */
#pragma once

#include "engine/checkpoint/bytes.h"
#include "engine/checkpoint/torch_file.h"

struct set_file {
	char *path;
	struct byte_source source;
	struct safetensors *safetensors; /* one of the two */
	struct torch_file *torch;
};

struct set_tensor {
	const char *name;
	enum safetensors_dtype dtype;
	int rank;
	int64_t shape[SAFETENSORS_MAX_RANK];
	size_t file;			    /* of the set's files */
	uint64_t offset;		    /* in that file */
	uint64_t bytes;			    /* as a contiguous tensor */
	const struct torch_tensor *strided; /* NULL: the bytes lie there as they are */
};

struct set {
	char *path; /* of the file, or of the index */
	struct set_file *file;
	size_t files;
	struct set_tensor *tensor; /* sorted by name */
	size_t count;
	size_t left_out;     /* entries that are no tensors, or not named by the index */
	const char *nesting; /* torch.save: where the state dict was; "" otherwise */
	const char *format;  /* "torch", "safetensors", "safetensors shards" */
};

/* A path that ends in .index.json is an index. Anything unknown is refused for what it looks like. */
int set_open(const char *path, struct set **ret, struct sana_error *error);
void set_close(struct set *set); /* NULL accepted */

static inline void set_closep(struct set **set)
{
	set_close(*set);
}

/* NULL when there is none. */
const struct set_tensor *set_find(const struct set *set, const char *name);

/* Whether a file is an index of shards, by its name. */
bool set_is_index(const char *path);

/* Elements of all tensors, and their bytes. */
uint64_t set_parameters(const struct set *set);
uint64_t set_bytes(const struct set *set);

/* Compares the CRC-32 of zip entries; nothing to do for safetensors files. */
int set_check_crc(const struct set *set, struct sana_error *error);
