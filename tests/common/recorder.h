/*
 * The CPU back end as a GPU's would behave, so that what the engine does with graphs and with
 * queues is tested without one.
 *
 * With graphs: between graph_begin and graph_end ops, copies and fills are recorded with their
 * parameter blocks instead of run, and a launch runs them.
 *
 * Late: nothing is run when it is enqueued. Whoever waits for a fence or a queue has just what that
 * needs run: the queue up to there and, where it waits for another one, that one up to there.
 * Everything else stays undone, so what lacks an order between two queues, or uses memory again too
 * early, gives other bits. Each look at a fence (fence_passed) lets a random queue go on by a
 * random number of steps.
 */
#pragma once

#include "kernels/kernels.h"

/* The one recorder of a program: its counters, and the table to put in place of the CPU's. */
struct recorder {
	struct kernel_backend table;
	struct kernel_graph *recording; /* between begin and end */
	int graphs;			/* that were not destroyed yet */
	uint64_t launches, recorded;
	enum kernel_op refused; /* cannot be recorded; KERNEL_OP_COUNT: none */

	/* late */
	bool late;
	uint32_t random;
	uint64_t waits;	       /* for fences and queues that were not done */
	int most_waiting;      /* steps of one queue */
	enum kernel_op failed; /* fails when its count of calls has passed; KERNEL_OP_COUNT: none */
	int calls_left;
};

struct recorder *recorder_start(void);

/* The same and late; the seed is that of the random queues. Queues are made and unmade by this table. */
struct recorder *recorder_start_late(uint32_t seed);
