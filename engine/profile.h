/*
 * Where the time of a stream's stages goes, op by op: marks of the back end's queue around every op, or a
 * clock where its ops run on the calling thread.
 */
#pragma once

#include "engine/backend.h"

enum { PROFILE_LINES = 320, PROFILE_OPS = KERNEL_TIMER_SLOTS / 2, PROFILE_KERNEL_BYTES = 96 };

/* Calls of equal cost in one stage share a line. */
struct op_profile_line {
	int stage; /* the caller's number */
	enum kernel_op op;
	struct kernel_cost cost; /* of one call */
	char kernels[PROFILE_KERNEL_BYTES];
	int calls;
	int64_t ns; /* of all calls */
};

struct op_profile {
	struct kernel_storage storage;
	int stage;
	int lines;
	struct op_profile_line line[PROFILE_LINES];
	uint64_t lost; /* calls without a line or a mark */

	/* of the stage that runs */
	int ops;
	int line_of[PROFILE_OPS];
	int64_t clock_ns[PROFILE_OPS];
};

/* Around one op; begin returns what end wants. */
int profile_op_begin(struct op_context *context);
void profile_op_end(struct op_context *context, int mark, enum kernel_op op,
		    const struct kernel_workspace *params);

/* After the queue was waited for: adds the stage's times to the lines. */
void profile_stage_end(struct op_profile *profile, const struct backend *backend);
