/*
 * Brings a network's weights to the back end: describes matrices, widens vectors.
 *
 * A network's load function runs twice over the same code: with a measuring arena to plan, then with
 * the placed one to fill it. While measuring without a table (a plan of a model whose weights are
 * not there) matrices are taken to be BF16.
 */
#pragma once

#include "engine/arena.h"
#include "engine/backend.h"
#include "engine/weights.h"

struct loader {
	struct backend *backend;
	struct kernel_queue *queue;
	const struct weights *table; /* NULL: plan without weights */
	struct arena *arena;
	bool measuring;
	bool prepare;	  /* widen matrices once; else they are read where they are mapped */
	const char *line; /* plan line that takes are added to, "model/DiT weights" */
	int status;	  /* first failure sticks */
	/* Called for each hundredth of the arena that is filled; NULL: nobody asks. */
	void (*progress)(void *context, double fraction);
	void *progress_context;
	int percent;	     /* said last */
	size_t matrix_bytes; /* sum of the matrices as stored, for the plan and `describe` */
};

/*
 * One matrix weight [out][in][taps] by its state-dict name (printf-like). The tensor's element count
 * must be out·in·taps (weights_check has compared the shapes).
 */
void loader_matrix(struct loader *loader, struct kernel_weight *to, int out, int in, int taps,
		   const char *name, ...) _printf_(6, 7);

/* As above with only taps [first, first + count) in use. */
void loader_matrix_taps(struct loader *loader, struct kernel_weight *to, int out, int in, int taps,
			int tap_first, int tap_count, const char *name, ...) _printf_(8, 9);

/* One vector of `count` elements, widened to F32 in device memory. */
void loader_vector(struct loader *loader, const float **to, size_t count, const char *name, ...)
	_printf_(4, 5);

/* Device memory of `count` floats filled from the host; `values` is not read while measuring. */
void loader_floats(struct loader *loader, float **to, const float *values, size_t count);

/* A [rows][columns] tensor stored transposed as [columns][rows] F32 (depth-wise weights). */
void loader_vector_transposed(struct loader *loader, const float **to, size_t rows, size_t columns,
			      const char *name, ...) _printf_(5, 6);
