/*
 * The part of Python's pickle format that a dictionary of tensors needs, and nothing else
 * (docs/model/checkpoint.md §2).
 *
 * The pickle is hostile. It is a program for a stack machine; this machine knows the few opcodes
 * and symbols that a state dict is made of, and no symbol stands for code. Anything else is refused
 * by its name and its position. What comes out has no cycles and is nested at most
 * PICKLE_MAX_DEPTH deep. Errors are called "checkpoint.pickle".
 */
#pragma once

#include "engine/checkpoint/safetensors.h"

enum {
	PICKLE_MAX_BYTES = 16 << 20,  /* of the pickle: two hundred times that of the 2 B model */
	PICKLE_MAX_MEMORY = 24 << 20, /* of all values made from it */
	PICKLE_MAX_STACK = 1 << 16,   /* writers store at most 1000 pairs at a time */
	PICKLE_MAX_MARKS = 256,
	PICKLE_MAX_MEMO = 1 << 20,
	PICKLE_MAX_DEPTH = 64,
	PICKLE_MAX_STRING_BYTES = 1 << 20,
	PICKLE_MAX_TENSORS = 20000,
};

enum pickle_kind {
	PICKLE_NONE,
	PICKLE_BOOL,
	PICKLE_INTEGER,
	PICKLE_FLOAT,
	PICKLE_STRING,
	PICKLE_TUPLE,
	PICKLE_LIST,
	PICKLE_DICT,
	PICKLE_SYMBOL,
	PICKLE_STORAGE,
	PICKLE_TENSOR,
	PICKLE_KIND_COUNT,
};

struct pickle_storage {
	const char *key;	      /* 1 to 10 digits */
	bool untyped;		      /* then `numel` counts bytes */
	enum safetensors_dtype dtype; /* INVALID when untyped */
	uint64_t numel;
};

struct pickle_tensor {
	const struct pickle_storage *storage;
	enum safetensors_dtype dtype;
	int rank;
	int64_t shape[SAFETENSORS_MAX_RANK];
	int64_t stride[SAFETENSORS_MAX_RANK]; /* elements */
	uint64_t offset;		      /* elements, from the start of the storage */
	uint64_t count;			      /* of elements */
	uint64_t span; /* elements from the first to behind the last one; 0 for an empty tensor */
};

struct pickle_value;
struct pickle_symbol;

struct pickle_pair {
	const struct pickle_value *key, *value; /* the key is a string or an integer */
};

struct pickle_value {
	enum pickle_kind kind;
	int depth;   /* of nesting below it; 0 for what holds nothing */
	bool sealed; /* held by another value, so it may not change any more */
	union {
		bool truth;
		int64_t integer;
		double real;
		struct {
			const char *text; /* UTF-8, ends in a NUL, has none inside */
			size_t bytes;
		} string;
		struct {
			const struct pickle_value **item;
			size_t count, capacity;
		} list; /* and tuple */
		struct {
			struct pickle_pair *pair;
			size_t count, capacity;
			struct pickle_value *next; /* all dictionaries, for the check at the end */
		} dict;
		const struct pickle_symbol *symbol;
		const struct pickle_storage *storage;
		const struct pickle_tensor *tensor;
	};
};

struct pickle;

/* `where` names the pickle in errors. The bytes are not needed afterwards. */
int pickle_parse(const void *bytes, size_t length, const char *where, struct pickle **ret,
		 struct sana_error *error);
void pickle_close(struct pickle *pickle); /* NULL accepted */

static inline void pickle_closep(struct pickle **pickle)
{
	pickle_close(*pickle);
}

/* The one value that the pickle holds; lives as long as the pickle. */
const struct pickle_value *pickle_top(const struct pickle *pickle);

/* The value under a string key; NULL when there is none or `dict` is no dictionary. */
const struct pickle_value *pickle_get(const struct pickle_value *dict, const char *key);

/* "a dictionary", "a tensor", … */
const char *pickle_kind_name(enum pickle_kind kind);
