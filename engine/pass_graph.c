/* Passes as graphs: run once, recorded, then launched. */
#include "engine/pass_graph.h"

static void entry_clear(struct pass_graph *entry, const struct backend *backend)
{
	if (entry->graph)
		backend->table->graph_destroy(backend->device, entry->graph);
	*entry = (struct pass_graph){ 0 };
}

void pass_graphs_clear(struct pass_graphs *graphs, const struct backend *backend)
{
	for (int i = 0; i < PASS_GRAPHS; i++)
		entry_clear(&graphs->graph[i], backend);
}

/* Keys are compared as bytes: they are made of int alone. */
static struct pass_graph *entry_find(struct pass_graphs *graphs, const struct pass_key *key)
{
	for (int i = 0; i < PASS_GRAPHS; i++)
		if (graphs->graph[i].used && memcmp(&graphs->graph[i].key, key, sizeof(*key)) == 0)
			return &graphs->graph[i];
	return NULL;
}

/* A free one, or the one used longest ago. */
static struct pass_graph *entry_take(struct pass_graphs *graphs, const struct pass_key *key,
				     const struct op_context *context)
{
	const struct backend *b = context->backend;
	struct pass_graph *oldest = &graphs->graph[0];

	for (int i = 1; i < PASS_GRAPHS; i++)
		if (graphs->graph[i].used < oldest->used)
			oldest = &graphs->graph[i];
	/* The device may still be at it. */
	if (oldest->graph)
		(void)b->table->queue_wait(b->device, context->queue);
	entry_clear(oldest, b);
	oldest->key = *key;
	return oldest;
}

/* Leaves entry->plain set where an op cannot be recorded; the context is then as before. */
static void record(struct pass_graph *entry, struct op_context *context,
		   void (*ops)(void *argument, struct op_context *context), void *argument)
{
	const struct backend *b = context->backend;
	int r = b->table->graph_begin(b->device, context->queue);

	if (r >= 0) {
		ops(argument, context);
		r = b->table->graph_end(b->device, context->queue, &entry->graph);
	}
	entry->plain = r < 0 || context->status < 0;
	if (!entry->plain)
		return;
	if (r >= 0)
		b->table->graph_destroy(b->device, entry->graph);
	entry->graph = NULL;
	context->status = 0;
}

void pass_graph_run(struct pass_graphs *graphs, struct op_context *context,
		    const struct pass_key *key,
		    void (*ops)(void *argument, struct op_context *context), void *argument)
{
	const struct backend *b = context->backend;
	struct pass_graph *entry;

	if (context->planning || context->profile || context->status < 0 ||
	    !b->table->graph_begin) {
		ops(argument, context);
		return;
	}
	entry = entry_find(graphs, key);
	if (entry && !entry->graph && !entry->plain) {
		record(entry, context, ops, argument);
		graphs->recorded += !entry->plain;
	}
	if (!entry)
		entry = entry_take(graphs, key, context);
	entry->used = ++graphs->clock;
	if (entry->graph) {
		graphs->launched++;
		op_note(context, b->table->graph_launch(b->device, entry->graph, context->queue));
		return;
	}
	graphs->plain++;
	ops(argument, context);
}
