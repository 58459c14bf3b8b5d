/*
 * The CPU back end with graphs: between graph_begin and graph_end its ops, copies and fills are recorded
 * with their parameter blocks instead of run, and a launch runs them. So what the engine does with graphs
 * is tested without a GPU.
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
};

struct recorder *recorder_start(void);
