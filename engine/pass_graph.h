/*
 * Passes as graphs: a sequence of ops that comes again and again is run as it is the first time (so that
 * a back end may prepare what it launches), recorded the second time and launched at once from then on.
 *
 * Parameter blocks are recorded with their values. What changes from chunk to chunk is in device memory or
 * in the key: two runs of equal keys on one editor enqueue the same blocks.
 */
#pragma once

#include "engine/backend.h"

enum {
	PASS_GRAPHS = 32
}; /* twice those of a stream: two sets of carried state, a step or save each */

struct pass_key {
	int kind;      /* the caller's number */
	int entry;     /* time step */
	int slot, set; /* of latents, of carried state */
	int frames;    /* of this chunk */
	int history;   /* 0, 1, 2: nothing, the sink, the sink and a chunk */
	int sink_frames, window_frames, text_rows;
};

struct pass_graph {
	struct pass_key key;
	struct kernel_graph *graph; /* NULL: ran once as it is */
	uint64_t used;		    /* when; 0: free */
	bool plain;		    /* cannot be recorded here */
};

struct pass_graphs {
	struct pass_graph graph[PASS_GRAPHS];
	uint64_t clock;
	uint64_t recorded, launched, plain; /* counters */
};

/*
 * Runs `ops(argument, context)`, or launches what it recorded. Without graphs in the back end, while
 * planning and while ops are timed, it just runs them. Failures stick in the context.
 */
void pass_graph_run(struct pass_graphs *graphs, struct op_context *context,
		    const struct pass_key *key,
		    void (*ops)(void *argument, struct op_context *context), void *argument);

/* Forgets all of them; before the back end's queue or memory goes. */
void pass_graphs_clear(struct pass_graphs *graphs, const struct backend *backend);
