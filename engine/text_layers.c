/*
 * Where the text encoder's matrices are when a run needs them: prepared once with the model, or, on a
 * back end that reads weights from its own memory, brought there during the run. Then two layers have a
 * place: one is computed while the next one is copied, and of the embedding only the rows looked up move.
 */
#include "engine/text_encoder.h"

#include <errno.h>

enum { LAYER_MATRICES = 7 };

static void matrices_of(struct text_layer_weights *layer, struct kernel_weight *ret[LAYER_MATRICES])
{
	ret[0] = &layer->q;
	ret[1] = &layer->k;
	ret[2] = &layer->v;
	ret[3] = &layer->o;
	ret[4] = &layer->gate;
	ret[5] = &layer->up;
	ret[6] = &layer->down;
}

static size_t prepared_bytes(const struct backend *backend, const struct kernel_weight *weight)
{
	return align_up(backend->table->weight_prepare_bytes(backend->device, weight),
			KERNEL_ALIGNMENT);
}

/* All layers are alike, so that any layer's place serves every other one. */
static size_t layer_bytes(const struct backend *backend, struct text_layer_weights layer)
{
	struct kernel_weight *matrix[LAYER_MATRICES];
	size_t bytes = 0;

	matrices_of(&layer, matrix);
	for (int i = 0; i < LAYER_MATRICES; i++)
		bytes += prepared_bytes(backend, matrix[i]);
	return bytes;
}

void text_layers_layout(struct text_encoder *encoder, const struct backend *backend,
			struct arena *arena)
{
	static const char line[] = "text encoder/two layers and embedding rows";
	const struct text_weights *w = encoder->weights;
	struct text_layers *l = &encoder->layers;
	struct kernel_weight rows = w->embedding;

	l->streamed = backend->table->weights_on_device && !w->layer[0].q.prepared;
	l->gathered = backend->table->weights_on_device && !w->embedding.prepared;
	for (int i = 0; i < 2 && l->streamed; i++)
		l->place[i] = arena_take(arena, line, 1, layer_bytes(backend, w->layer[0]));
	rows.out = encoder->max_tokens;
	if (l->gathered)
		l->rows = arena_take(arena, line, 1, prepared_bytes(backend, &rows));
}

int text_layers_prepare(struct text_encoder *encoder, const struct backend *backend)
{
	struct text_layers *l = &encoder->layers;

	if (!l->streamed || l->queue)
		return 0;
	return backend->table->queue_create(backend->device, 0, &l->queue);
}

void text_encoder_finish(struct text_encoder *encoder, const struct backend *backend)
{
	struct text_layers *l = &encoder->layers;

	if (l->queue) {
		(void)backend->table->queue_wait(backend->device, l->queue);
		backend->table->queue_destroy(backend->device, l->queue);
	}
	l->queue = NULL;
}

/* Enqueues the copies of a layer into its place; its descriptors say where. */
static void layer_bring(struct text_encoder *encoder, struct op_context *context, int index)
{
	const struct backend *b = context->backend;
	struct text_layers *l = &encoder->layers;
	struct text_layer_weights *layer = &l->layer[index & 1];
	struct kernel_weight *matrix[LAYER_MATRICES];
	uintptr_t place = (uintptr_t)l->place[index & 1];

	*layer = encoder->weights->layer[index];
	matrices_of(layer, matrix);
	for (int i = 0; i < LAYER_MATRICES; i++) {
		if (context->planning)
			matrix[i]->prepared = (void *)place;
		else if (context->status >= 0)
			op_note(context, b->table->weight_prepare(b->device, matrix[i],
								  (void *)place, l->queue));
		place += prepared_bytes(b, matrix[i]);
	}
}

static void queue_after(struct op_context *context, struct kernel_queue *queue,
			struct kernel_queue *first)
{
	const struct backend *b = context->backend;

	if (!context->planning && context->status >= 0)
		op_note(context, b->table->queue_after(b->device, queue, first));
}

void text_layers_begin(struct text_encoder *encoder, struct op_context *context)
{
	struct text_layers *l = &encoder->layers;

	if (!l->streamed)
		return;
	queue_after(context, l->queue, context->queue);
	layer_bring(encoder, context, 0);
}

const struct text_layer_weights *text_layers_take(struct text_encoder *encoder,
						  struct op_context *context, int index)
{
	struct text_layers *l = &encoder->layers;

	if (!l->streamed)
		return &encoder->weights->layer[index];
	queue_after(context, context->queue, l->queue);
	/* The other place is free once the layer before this one, enqueued already, is done. */
	queue_after(context, l->queue, context->queue);
	return &l->layer[index & 1];
}

void text_layers_next(struct text_encoder *encoder, struct op_context *context, int index)
{
	if (encoder->layers.streamed && index + 1 < encoder->config->layers)
		layer_bring(encoder, context, index + 1);
}

const struct kernel_weight *text_rows_bring(struct text_encoder *encoder,
					    struct op_context *context, const int32_t *ids,
					    int tokens, int32_t *ret_ids)
{
	const struct kernel_weight *table = &encoder->weights->embedding;
	const struct backend *b = context->backend;
	const size_t row = (size_t)table->in * kernel_dtype_bytes(table->dtype);
	struct text_layers *l = &encoder->layers;
	_cleanup_(freep) char *rows = NULL;

	if (!context->planning && ids)
		memcpy(ret_ids, ids, (size_t)tokens * sizeof(*ids));
	if (!l->gathered)
		return table;
	l->embedding = *table;
	l->embedding.out = tokens;
	l->embedding.prepared = l->rows;
	if (context->planning || context->status < 0)
		return &l->embedding;
	rows = malloc((size_t)tokens * row);
	if (!rows) {
		op_note(context, -ENOMEM);
		return &l->embedding;
	}
	for (int i = 0; i < tokens; i++) {
		memcpy(rows + (size_t)i * row, (const char *)table->data + (size_t)ids[i] * row,
		       row);
		ret_ids[i] = i;
	}
	l->embedding.data = rows;
	op_note(context,
		b->table->weight_prepare(b->device, &l->embedding, l->rows, context->queue));
	(void)op_wait(context); /* the rows are freed */
	l->embedding.data = NULL;
	return &l->embedding;
}
