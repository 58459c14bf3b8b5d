/*
 * The golden runner: a manifest's weights and inputs made again by its rule, and the tensors of the
 * .safetensors beside it, which the engine's results are compared with (tests/golden/README.md).
 *
 * One file per network runs the engine: golden_dit, golden_text, golden_vae. They return 0 when all
 * was run, however far off the values are (golden_compare keeps the books), or a negative errno with
 * g->error filled when the manifest is wrong or the engine failed.
 */
#pragma once

#include "base/json.h"
#include "engine/arena.h"
#include "engine/backend.h"
#include "engine/loader.h"
#include "engine/weights.h"

enum { GOLDEN_RANK = 8, GOLDEN_NAME_BYTES = 128 };

/* One tensor of the .safetensors beside the manifest. */
struct golden_tensor {
	char name[GOLDEN_NAME_BYTES];
	bool is_integer; /* I32, else F32 */
	int rank;
	int64_t shape[GOLDEN_RANK];
	size_t count;	  /* of elements */
	const void *data; /* const float * or const int32_t *, aligned */
	bool produced;	  /* the engine made it, or (inputs such as "left.ids") it was used */
};

struct golden_options {
	const char *backend;
	int threads;
	bool prepare;	     /* widen matrices once; else ops read them where they are */
	const char *weights; /* directory of a model.safetensors that takes their place; NULL */
};

struct golden {
	const char *path; /* of the manifest */
	const struct golden_options *options;
	struct sana_error *error;

	json_t *manifest;
	const json_t *config; /* the manifest's "config" */
	const char *tag;
	struct weights *weights; /* all of "weights", BF16 */
	struct golden_tensor *expected;
	size_t expected_count;
	double tolerance, final_tolerance; /* of this kind; of its tensor "output" */

	/* What golden_place made. */
	struct backend backend;
	struct kernel_queue *queue;
	struct op_context op; /* not planning; its workspace is part of the block */
	void *block;
	size_t block_bytes;

	/* The books. */
	int compared, failed;
	double worst;
	char worst_name[2 * GOLDEN_NAME_BYTES];
};

int golden_dit(struct golden *g);
int golden_text(struct golden *g);
int golden_vae(struct golden *g);

/* -EINVAL and g->error: "PATH: …". */
int golden_fail(struct golden *g, const char *format, ...) _printf_(2, 3);

/* A reader of the manifest's config; its errors go to g->error. */
struct json_reader golden_config(struct golden *g);

/* Dimensions of an input of the manifest; −EINVAL and g->error when there is no such input. */
int golden_input_shape(struct golden *g, const char *name, int *ret_rank,
		       int64_t ret_shape[GOLDEN_RANK]);
bool golden_has_input(const struct golden *g, const char *name);

/* The values of an input, F32; it must have `count` elements. The caller frees. */
int golden_input(struct golden *g, const char *name, size_t count, float **ret);

/*
 * The same, turned from [1][channels][positions] to [positions][channels]: the engine keeps
 * channels last.
 */
int golden_input_channels_last(struct golden *g, const char *name, size_t channels,
			       size_t positions, float **ret);

/*
 * Memory for a run. `layout` is called twice over the same code, first with a measuring loader and
 * arena, then with the placed one; the first time it also plans its ops with `planning` (a context in
 * planning mode), the second time `planning` is NULL. Afterwards g->op runs ops. A second call gives
 * back what the first one made. g->backend is open before `layout` is called.
 */
typedef int (*golden_layout)(struct golden *g, void *context, struct loader *loader,
			     struct op_context *planning);
int golden_place(struct golden *g, golden_layout layout, void *context);

/* Device memory (act or F32, whatever the back end's activation type is) to F32 on the host. */
int golden_read_act(struct golden *g, const void *device, size_t count, float *to);
int golden_read_float(struct golden *g, const float *device, size_t count, float *to);

/* NULL when the file has no such tensor. */
struct golden_tensor *golden_find(struct golden *g, const char *name);

/*
 * Compares and prints one row, unless the file has no tensor of that name. `note` (or NULL) tells
 * several comparisons with one tensor apart: "chunks 1+8+8". A wrong count, a NaN and a relative L2
 * over the tolerance count as failures. May be called any number of times per tensor.
 */
void golden_compare(struct golden *g, const char *name, const char *note, const float *got,
		    size_t count);

/* `got` is [positions][channels], the file's tensor [1][channels][positions]. */
void golden_compare_channels_last(struct golden *g, const char *name, const char *note,
				  const float *got, size_t channels, size_t positions);

/* Only rows i where use[i] is not 0 of [rows][columns]; `use` NULL: all. */
void golden_compare_rows(struct golden *g, const char *name, const char *note, const float *got,
			 const uint8_t *use, size_t rows, size_t columns);
