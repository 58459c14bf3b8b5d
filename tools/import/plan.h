/*
 * What an import will do: which sources become which parts, every tensor of every result, and the
 * small files. Made and checked completely before anything is written.
 */
#pragma once

#include "engine/model_config.h"
#include "tools/import/family.h"
#include "tools/import/sources.h"

struct text_list {
	char **line;
	size_t count;
};

struct out_tensor {
	const char *name;
	const struct set_tensor *from;
	bool causal;	 /* a decoder kernel whose taps are moved */
	uint64_t offset; /* in the result file */
};

/* A safetensors file to be written. */
struct out_file {
	const char *path; /* in the output directory */
	const struct set *set;
	struct out_tensor *tensor; /* in the order of writing */
	size_t count;
	char *header; /* length, JSON, padding */
	size_t header_bytes;
	uint64_t bytes; /* whole file */
};

/* A file of a few bytes or megabytes, held in memory. */
struct small_file {
	const char *path;
	char *data;
	size_t bytes;
	char *source; /* where it came from; NULL: built in */
};

struct part {
	enum part_kind kind;
	struct set *set; /* NULL: not among the sources */
	const char *looks;
	bool converted; /* the VAE's decoder was bidirectional */
	bool published; /* of the published sizes */
	struct out_file out;
	struct small_file config, tokenizer; /* tokenizer of the text encoder alone */
};

struct plan {
	bool raw, partial, only_look;
	struct part part[PART_COUNT]; /* raw: the first one alone, of PART_NONE */
	struct small_file stream;
	struct model_config config;   /* of the parts that are there */
	struct text_list notes;	      /* for people: what was left out, what was decided */
	struct text_list differences; /* filled when the tensors do not fit: all of them */
};

struct plan_options {
	char *const *places;
	int count;
	bool raw, partial;
	bool only_look; /* without opening the tokenizer, which takes as long as all the rest */
};

/* On failure the plan holds what was found so far; finish it in either case. */
int plan_make(const struct plan_options *options, struct plan *ret, struct sana_error *error);
void plan_finish(struct plan *plan);

/* Bytes of everything that will be written. */
uint64_t plan_bytes(const struct plan *plan);

int text_list_add(struct text_list *list, const char *format, ...) _printf_(2, 3);
void text_list_finish(struct text_list *list);

/* check.c: compares a part's tensors with its configuration and fills out.tensor. */
int part_check(struct plan *plan, struct part *part, struct sana_error *error);

/* layout.c: orders a result's tensors and makes its header. */
int out_file_lay(struct out_file *out, struct sana_error *error);
