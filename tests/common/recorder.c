/* The CPU back end with graphs. */
#include "tests/common/recorder.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { STEPS_AT_FIRST = 64 };

/* An op (its block, and the rotation that the block points to), or a copy, or a fill with zeros. */
struct step {
	enum kernel_op op; /* KERNEL_OP_COUNT: bytes from `from` (NULL: zeros) to `to` */
	void *block;
	struct kernel_rope rope;
	void *to;
	const void *from;
	size_t bytes;
};

struct kernel_graph {
	struct step *step;
	int steps, capacity;
};

static struct recorder recorder;

static struct step *step_add(void)
{
	struct kernel_graph *g = recorder.recording;

	if (g->steps == g->capacity) {
		g->capacity = g->capacity ? 2 * g->capacity : STEPS_AT_FIRST;
		g->step = realloc(g->step, (size_t)g->capacity * sizeof(*g->step));
		if (!g->step)
			abort();
	}
	return memset(&g->step[g->steps++], 0, sizeof(*g->step));
}

/* Ops may keep nothing of host memory but weights beyond their return: the rotation is copied too. */
static const struct kernel_rope *rope_of(enum kernel_op op, const void *block)
{
	if (op == KERNEL_OP_gdn)
		return ((const struct kernel_gdn *)block)->rope;
	if (op == KERNEL_OP_qk_norm_rope)
		return ((const struct kernel_qk_norm_rope *)block)->rope;
	return NULL;
}

static int op_record(enum kernel_op op, const void *params)
{
	const struct kernel_rope *rope = rope_of(op, params);
	struct step *step;

	if (op == recorder.refused)
		return -EIO;
	step = step_add();
	step->op = op;
	step->block = malloc(kernel_op_params_bytes(op));
	if (!step->block)
		abort();
	memcpy(step->block, params, kernel_op_params_bytes(op));
	if (rope)
		step->rope = *rope;
	return 0;
}

static int step_run(struct kernel_device *device, struct step *step, struct kernel_queue *queue)
{
	if (step->op == KERNEL_OP_COUNT) {
		if (step->from)
			memmove(step->to, step->from, step->bytes);
		else
			memset(step->to, 0, step->bytes);
		return 0;
	}
	if (step->op == KERNEL_OP_gdn)
		((struct kernel_gdn *)step->block)->rope = &step->rope;
	if (step->op == KERNEL_OP_qk_norm_rope && ((struct kernel_qk_norm_rope *)step->block)->rope)
		((struct kernel_qk_norm_rope *)step->block)->rope = &step->rope;
	return kernel_backend_cpu.run[step->op](device, step->block, queue);
}

#define X(name)                                                                                 \
	static int run_##name(struct kernel_device *device, const void *params,                 \
			      struct kernel_queue *queue)                                       \
	{                                                                                       \
		return recorder.recording ?                                                     \
			       op_record(KERNEL_OP_##name, params) :                            \
			       kernel_backend_cpu.run[KERNEL_OP_##name](device, params, queue); \
	}
KERNEL_OPS(X)
#undef X

static int bytes_record(void *to, const void *from, size_t bytes)
{
	struct step *step = step_add();

	*step = (struct step){ .op = KERNEL_OP_COUNT, .to = to, .from = from, .bytes = bytes };
	return 0;
}

static int copy(struct kernel_device *device, void *to, const void *from, size_t bytes,
		struct kernel_queue *queue)
{
	return recorder.recording ? bytes_record(to, from, bytes) :
				    kernel_backend_cpu.copy(device, to, from, bytes, queue);
}

static int zero(struct kernel_device *device, void *to, size_t bytes, struct kernel_queue *queue)
{
	return recorder.recording ? bytes_record(to, NULL, bytes) :
				    kernel_backend_cpu.zero(device, to, bytes, queue);
}

static int graph_begin(struct kernel_device *device, struct kernel_queue *queue)
{
	(void)device;
	(void)queue;
	recorder.recording = calloc(1, sizeof(*recorder.recording));
	return recorder.recording ? 0 : -ENOMEM;
}

static int graph_end(struct kernel_device *device, struct kernel_queue *queue,
		     struct kernel_graph **ret)
{
	(void)device;
	(void)queue;
	*ret = recorder.recording;
	recorder.recording = NULL;
	recorder.graphs++;
	recorder.recorded++;
	return 0;
}

static int graph_launch(struct kernel_device *device, struct kernel_graph *graph,
			struct kernel_queue *queue)
{
	int r = 0;

	recorder.launches++;
	for (int i = 0; i < graph->steps && r >= 0; i++)
		r = step_run(device, &graph->step[i], queue);
	return r;
}

static void graph_destroy(struct kernel_device *device, struct kernel_graph *graph)
{
	(void)device;
	if (!graph)
		return;
	for (int i = 0; i < graph->steps; i++)
		free(graph->step[i].block);
	free(graph->step);
	free(graph);
	recorder.graphs--;
}

struct recorder *recorder_start(void)
{
	recorder = (struct recorder){ .table = kernel_backend_cpu, .refused = KERNEL_OP_COUNT };
#define X(name) recorder.table.run[KERNEL_OP_##name] = run_##name;
	KERNEL_OPS(X)
#undef X
	recorder.table.copy = copy;
	recorder.table.zero = zero;
	recorder.table.graph_begin = graph_begin;
	recorder.table.graph_end = graph_end;
	recorder.table.graph_launch = graph_launch;
	recorder.table.graph_destroy = graph_destroy;
	return &recorder;
}
