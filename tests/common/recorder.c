/* The CPU back end with graphs, and late. */
#include "tests/common/recorder.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { STEPS_AT_FIRST = 64, QUEUES = 8, RANDOM_STEPS = 40 };

enum step_kind {
	STEP_OP,     /* with its block, and the rotation that the block points to */
	STEP_BYTES,  /* from `from` (NULL: zeros) to `to` */
	STEP_LAUNCH, /* of a graph */
	STEP_AFTER,  /* another queue up to a place */
};

struct step {
	enum step_kind kind;
	enum kernel_op op;
	void *block;
	struct kernel_rope rope;
	void *to;
	const void *from;
	size_t bytes;
	struct kernel_graph *graph;
	struct kernel_queue *other;
	uint64_t place;
};

struct steps {
	struct step *step;
	int count, capacity;
};

struct kernel_graph {
	struct steps steps;
};

/* Steps [done, enqueued) wait; steps.step[0] is step `done`. */
struct kernel_queue {
	struct steps steps;
	uint64_t done, enqueued;
	int status;
};

struct kernel_fence {
	struct kernel_queue *queue;
	uint64_t place;
};

static struct recorder recorder;
static struct kernel_queue *queues[QUEUES];

static struct step *step_add(struct steps *steps)
{
	if (steps->count == steps->capacity) {
		steps->capacity = steps->capacity ? 2 * steps->capacity : STEPS_AT_FIRST;
		steps->step = realloc(steps->step, (size_t)steps->capacity * sizeof(*steps->step));
		if (!steps->step)
			abort();
	}
	return memset(&steps->step[steps->count++], 0, sizeof(*steps->step));
}

/* Where a call goes now: NULL: it is run. */
static struct step *step_take(struct kernel_queue *queue)
{
	if (recorder.recording)
		return step_add(&recorder.recording->steps);
	if (!recorder.late)
		return NULL;
	queue->enqueued++;
	if (queue->steps.count >= recorder.most_waiting)
		recorder.most_waiting = queue->steps.count + 1;
	return step_add(&queue->steps);
}

/* ------------------------------------------------------------------------------------ running */

/* Ops may keep nothing of host memory but weights beyond their return: the rotation is copied too. */
static const struct kernel_rope **rope_of(enum kernel_op op, void *block)
{
	if (op == KERNEL_OP_gdn)
		return &((struct kernel_gdn *)block)->rope;
	if (op == KERNEL_OP_qk_norm_rope)
		return &((struct kernel_qk_norm_rope *)block)->rope;
	return NULL;
}

static int op_now(struct kernel_device *device, enum kernel_op op, const void *params)
{
	if (op == recorder.failed && recorder.calls_left-- == 0)
		return -EIO;
	return kernel_backend_cpu.run[op](device, params, NULL);
}

static void bytes_now(void *to, const void *from, size_t bytes)
{
	if (bytes && from)
		memmove(to, from, bytes);
	else if (bytes)
		memset(to, 0, bytes);
}

static int steps_run(struct kernel_device *device, struct steps *steps);
static int queue_run(struct kernel_device *device, struct kernel_queue *queue, uint64_t place);

static int step_run(struct kernel_device *device, struct step *step)
{
	const struct kernel_rope **rope;

	switch (step->kind) {
	case STEP_OP:
		rope = rope_of(step->op, step->block);
		if (rope && *rope)
			*rope = &step->rope;
		return op_now(device, step->op, step->block);
	case STEP_BYTES:
		bytes_now(step->to, step->from, step->bytes);
		return 0;
	case STEP_LAUNCH:
		return steps_run(device, &step->graph->steps);
	case STEP_AFTER:
		return queue_run(device, step->other, step->place);
	}
	return 0;
}

static int steps_run(struct kernel_device *device, struct steps *steps)
{
	int r = 0;

	for (int i = 0; i < steps->count && r >= 0; i++)
		r = step_run(device, &steps->step[i]);
	return r;
}

static void steps_free(struct steps *steps)
{
	for (int i = 0; i < steps->count; i++)
		free(steps->step[i].block);
	free(steps->step);
}

/* What failed fails ever after, until the engine has waited for all of it and begins again. */
static int queue_run(struct kernel_device *device, struct kernel_queue *queue, uint64_t place)
{
	struct steps *steps = &queue->steps;
	int count = 0;

	while (queue->done < place) {
		struct step *step = &steps->step[count++];
		const int r = queue->status < 0 ? 0 : step_run(device, step);

		queue->done++;
		free(step->block);
		step->block = NULL;
		if (r < 0)
			queue->status = r;
	}
	steps->count -= count;
	if (steps->count)
		memmove(steps->step, steps->step + count,
			(size_t)steps->count * sizeof(*steps->step));
	return queue->status;
}

static uint32_t random_next(void)
{
	recorder.random = recorder.random * 1664525u + 1013904223u;
	return recorder.random >> 8;
}

/* Some queue goes on by some steps. */
static void random_run(struct kernel_device *device)
{
	struct kernel_queue *queue = queues[random_next() % QUEUES];
	const uint64_t steps = random_next() % RANDOM_STEPS;

	if (!queue)
		return;
	if (queue->enqueued - queue->done < steps)
		(void)queue_run(device, queue, queue->enqueued);
	else
		(void)queue_run(device, queue, queue->done + steps);
}

/* --------------------------------------------------------------------------------- what is called */

static int op_record(struct step *step, enum kernel_op op, const void *params)
{
	const struct kernel_rope **rope;

	*step = (struct step){ .kind = STEP_OP, .op = op };
	step->block = malloc(kernel_op_params_bytes(op));
	if (!step->block)
		abort();
	memcpy(step->block, params, kernel_op_params_bytes(op));
	rope = rope_of(op, step->block);
	if (rope && *rope)
		step->rope = **rope;
	return 0;
}

static int op_call(struct kernel_device *device, enum kernel_op op, const void *params,
		   struct kernel_queue *queue)
{
	struct step *step;

	if (recorder.recording && op == recorder.refused)
		return -EIO;
	step = step_take(queue);
	return step ? op_record(step, op, params) : op_now(device, op, params);
}

#define X(name)                                                                 \
	static int run_##name(struct kernel_device *device, const void *params, \
			      struct kernel_queue *queue)                       \
	{                                                                       \
		return op_call(device, KERNEL_OP_##name, params, queue);        \
	}
KERNEL_OPS(X)
#undef X

static int copy(struct kernel_device *device, void *to, const void *from, size_t bytes,
		struct kernel_queue *queue)
{
	struct step *step = step_take(queue);

	(void)device;
	if (step)
		*step = (struct step){ .kind = STEP_BYTES, .to = to, .from = from, .bytes = bytes };
	else
		bytes_now(to, from, bytes);
	return 0;
}

static int zero(struct kernel_device *device, void *to, size_t bytes, struct kernel_queue *queue)
{
	return copy(device, to, NULL, bytes, queue);
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
	struct step *step = step_take(queue);

	recorder.launches++;
	if (!step)
		return steps_run(device, &graph->steps);
	*step = (struct step){ .kind = STEP_LAUNCH, .graph = graph };
	return 0;
}

static void graph_destroy(struct kernel_device *device, struct kernel_graph *graph)
{
	(void)device;
	if (!graph)
		return;
	steps_free(&graph->steps);
	free(graph);
	recorder.graphs--;
}

/* ------------------------------------------------------------------------------ queues and fences */

static int queue_create(struct kernel_device *device, int priority, struct kernel_queue **ret)
{
	(void)device;
	(void)priority;
	for (int i = 0; i < QUEUES; i++) {
		if (queues[i])
			continue;
		*ret = queues[i] = calloc(1, sizeof(**ret));
		return *ret ? 0 : -ENOMEM;
	}
	return -ENOMEM;
}

static void queue_destroy(struct kernel_device *device, struct kernel_queue *queue)
{
	(void)device;
	for (int i = 0; i < QUEUES; i++)
		if (queues[i] == queue)
			queues[i] = NULL;
	steps_free(&queue->steps);
	free(queue);
}

static int place_wait(struct kernel_device *device, struct kernel_queue *queue, uint64_t place)
{
	recorder.waits += queue->done < place;
	return queue_run(device, queue, place);
}

/* A failure is told once. */
static int queue_wait(struct kernel_device *device, struct kernel_queue *queue)
{
	const int r = place_wait(device, queue, queue->enqueued);

	queue->status = 0;
	return r;
}

static int queue_after(struct kernel_device *device, struct kernel_queue *queue,
		       struct kernel_queue *first)
{
	(void)device;
	*step_take(queue) =
		(struct step){ .kind = STEP_AFTER, .other = first, .place = first->enqueued };
	return 0;
}

static int fence_create(struct kernel_device *device, struct kernel_fence **ret)
{
	(void)device;
	*ret = calloc(1, sizeof(**ret));
	return *ret ? 0 : -ENOMEM;
}

static void fence_destroy(struct kernel_device *device, struct kernel_fence *fence)
{
	(void)device;
	free(fence);
}

static int fence_set(struct kernel_device *device, struct kernel_fence *fence,
		     struct kernel_queue *queue)
{
	(void)device;
	*fence = (struct kernel_fence){ queue, queue->enqueued };
	return 0;
}

static int fence_wait(struct kernel_device *device, struct kernel_fence *fence)
{
	return place_wait(device, fence->queue, fence->place);
}

static int fence_passed(struct kernel_device *device, struct kernel_fence *fence)
{
	random_run(device);
	if (fence->queue->status < 0)
		return fence->queue->status;
	return fence->queue->done >= fence->place;
}

static int fence_ns(struct kernel_device *device, struct kernel_fence *first,
		    struct kernel_fence *second, int64_t *ret_ns)
{
	(void)device;
	*ret_ns = (int64_t)(second->place - first->place);
	return 0;
}

static int host_allocate(struct kernel_device *device, size_t bytes, void **ret)
{
	(void)device;
	*ret = malloc(bytes);
	return *ret ? 0 : -ENOMEM;
}

static void host_release(struct kernel_device *device, void *memory)
{
	(void)device;
	free(memory);
}

/* -------------------------------------------------------------------------------------- tables */

struct recorder *recorder_start(void)
{
	recorder = (struct recorder){ .table = kernel_backend_cpu,
				      .refused = KERNEL_OP_COUNT,
				      .failed = KERNEL_OP_COUNT };
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

struct recorder *recorder_start_late(uint32_t seed)
{
	(void)recorder_start();
	recorder.late = true;
	recorder.random = seed;
	recorder.table.upload = copy;
	recorder.table.download = copy;
	recorder.table.queue_create = queue_create;
	recorder.table.queue_destroy = queue_destroy;
	recorder.table.queue_wait = queue_wait;
	recorder.table.queue_after = queue_after;
	recorder.table.fence_create = fence_create;
	recorder.table.fence_destroy = fence_destroy;
	recorder.table.fence_set = fence_set;
	recorder.table.fence_wait = fence_wait;
	recorder.table.fence_passed = fence_passed;
	recorder.table.fence_ns = fence_ns;
	recorder.table.host_allocate = host_allocate;
	recorder.table.host_release = host_release;
	return &recorder;
}
