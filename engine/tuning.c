/* Measuring the back end's choices on the very memory that a stream's passes will use. */
#include "engine/stream.h"

#include <errno.h>

/* What ran has left values behind, measured or not; the block is as it was allocated again. */
static int block_clear(struct sana_stream *stream)
{
	const struct backend *b = &stream->model->backend;
	struct kernel_queue *queue = stream_op(stream, STREAM_LANE_EDIT)->queue;
	int r = b->table->zero(b->device, stream->block, stream->block_bytes, queue);

	if (r >= 0)
		r = b->table->queue_wait(b->device, queue);
	return r;
}

int stream_tune(struct sana_stream *stream)
{
	const struct backend *b = &stream->model->backend;
	struct op_context op = *stream_op(stream, STREAM_LANE_EDIT);
	_cleanup_(freep) struct kernel_tuning *tuning = NULL;

	if (!b->table->tune)
		return 0;
	tuning = calloc(1, sizeof(*tuning));
	if (!tuning)
		return -ENOMEM;
	op.planning = op.tuning = true;
	editor_tune(&stream->editor, &op);
	b->table->tuned(b->device, tuning);
	return op.status < 0 ? op.status : block_clear(stream);
}

static void line_copy(const struct kernel_tuning_line *from, struct sana_tuning_line *to)
{
	memcpy(to->shape, from->shape, sizeof(to->shape));
	memcpy(to->estimated, from->estimated, sizeof(to->estimated));
	memcpy(to->own, from->own, sizeof(to->own));
	memcpy(to->library, from->library, sizeof(to->library));
	to->estimated_ms = from->estimated_ms;
	to->own_ms = from->own_ms;
	to->library_ms = from->library_ms;
	to->chosen = from->chosen;
}

void sana_stream_tuning(struct sana_stream *stream, struct sana_tuning *ret)
{
	const struct backend *b = &stream->model->backend;
	_cleanup_(freep) struct kernel_tuning *tuning = calloc(1, sizeof(*tuning));

	*ret = (struct sana_tuning){ 0 };
	if (!tuning || !b->table->tuned)
		return;
	b->table->tuned(b->device, tuning);
	ret->measured = tuning->measured;
	ret->known = tuning->known;
	ret->left = tuning->left;
	ret->library = tuning->library;
	ret->seconds = tuning->seconds;
	memcpy(ret->text, tuning->text, sizeof(ret->text));
	memcpy(ret->note, tuning->note, sizeof(ret->note));
	ret->lines = MIN_OF(tuning->lines, SANA_TUNING_LINES);
	for (int i = 0; i < ret->lines; i++)
		line_copy(&tuning->line[i], &ret->line[i]);
}
