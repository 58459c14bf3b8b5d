/* A stream's queues, and the stages that were started on them and not ended. */
#include "engine/stream.h"

#include <errno.h>
#include <time.h>

static int64_t now_ns(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

void stream_count(struct sana_stream *stream, uint64_t *counter, uint64_t by)
{
	(void)pthread_mutex_lock(&stream->lock);
	*counter += by;
	(void)pthread_mutex_unlock(&stream->lock);
}

struct op_context *stream_op(struct sana_stream *stream, enum stream_lane_name lane)
{
	return &stream->lane[lane].op;
}

/* -------------------------------------------------------------------------- opening, closing */

static int lane_open(struct sana_stream *stream, enum stream_lane_name name)
{
	const struct backend *b = &stream->model->backend;
	struct stream_lane *lane = &stream->lane[name];
	int r = b->table->queue_create(b->device, (int)name, &lane->queue);

	lane->op.backend = b;
	lane->op.queue = lane->queue;
	lane->op.alive = stream->options.alive;
	lane->op.alive_context = stream->options.alive_context;
	for (int i = 0; i < STREAM_AHEAD && stream->can_overlap && r >= 0; i++) {
		r = b->table->fence_create(b->device, &lane->work[i].start);
		if (r >= 0)
			r = b->table->fence_create(b->device, &lane->work[i].end);
	}
	return r;
}

int stream_lanes_open(struct sana_stream *stream)
{
	int r = 0;

	for (int i = 0; i < STREAM_LANES && r >= 0; i++)
		r = lane_open(stream, (enum stream_lane_name)i);
	return r;
}

void stream_lanes_close(struct sana_stream *stream)
{
	const struct backend *b = &stream->model->backend;

	stream_lanes_wait(stream);
	for (int i = 0; i < STREAM_LANES; i++) {
		struct stream_lane *lane = &stream->lane[i];

		for (int k = 0; k < STREAM_AHEAD && stream->can_overlap; k++) {
			b->table->fence_destroy(b->device, lane->work[k].start);
			b->table->fence_destroy(b->device, lane->work[k].end);
		}
		if (lane->queue)
			b->table->queue_destroy(b->device, lane->queue);
		*lane = (struct stream_lane){ 0 };
	}
}

/* ------------------------------------------------------------------------------- order, failures */

void stream_lane_after(struct sana_stream *stream, enum stream_lane_name lane,
		       enum stream_lane_name first)
{
	const struct backend *b = &stream->model->backend;

	op_note(&stream->lane[lane].op, b->table->queue_after(b->device, stream->lane[lane].queue,
							      stream->lane[first].queue));
}

int stream_status(struct sana_stream *stream, struct op_context **ret_op)
{
	for (int i = 0; i < STREAM_LANES; i++) {
		struct op_context *op = &stream->lane[i].op;

		if (op->status >= 0)
			continue;
		if (ret_op)
			*ret_op = op;
		return op->status;
	}
	return 0;
}

void stream_lanes_wait(struct sana_stream *stream)
{
	for (int i = 0; i < STREAM_LANES; i++)
		if (stream->lane[i].queue)
			(void)op_wait(&stream->lane[i].op);
}

void stream_lanes_reset(struct sana_stream *stream)
{
	stream_lanes_wait(stream);
	for (int i = 0; i < STREAM_LANES; i++) {
		stream->lane[i].op.status = 0;
		stream->lane[i].count = 0;
	}
}

/* ------------------------------------------------------------------------------------- stages */

bool stream_lane_is_full(const struct sana_stream *stream, enum stream_lane_name lane)
{
	return stream->lane[lane].count == STREAM_AHEAD;
}

void stream_work_begin(struct sana_stream *stream, enum stream_lane_name name,
		       enum sana_stage stage)
{
	const struct backend *b = &stream->model->backend;
	struct stream_lane *lane = &stream->lane[name];
	struct stream_work *work = &lane->work[(lane->first + lane->count++) % STREAM_AHEAD];

	work->stage = stage;
	work->start_ns = now_ns();
	if (work->start)
		op_note(&lane->op, b->table->fence_set(b->device, work->start, lane->queue));
}

void stream_work_end(struct sana_stream *stream, enum stream_lane_name name)
{
	const struct backend *b = &stream->model->backend;
	struct stream_lane *lane = &stream->lane[name];
	struct stream_work *work = &lane->work[(lane->first + lane->count - 1) % STREAM_AHEAD];

	if (work->end)
		op_note(&lane->op, b->table->fence_set(b->device, work->end, lane->queue));
}

/* What the device took; with nothing that runs beside it also what the host did for it. */
static int64_t work_ns(const struct sana_stream *stream, const struct stream_work *work)
{
	const struct backend *b = &stream->model->backend;
	int64_t ns = now_ns() - work->start_ns;

	if (stream_overlaps(stream) && work->end)
		(void)b->table->fence_ns(b->device, work->start, work->end, &ns);
	return ns;
}

int stream_work_take(struct sana_stream *stream, enum stream_lane_name name, bool wait,
		     enum sana_stage *ret_stage)
{
	const struct backend *b = &stream->model->backend;
	struct stream_lane *lane = &stream->lane[name];
	const struct stream_work *work = &lane->work[lane->first];
	struct sana_statistics *statistics = &stream->statistics;
	int r = 1;

	if (lane->count == 0)
		return 0;
	*ret_stage = work->stage;
	if (work->end)
		r = wait ? b->table->fence_wait(b->device, work->end) :
			   b->table->fence_passed(b->device, work->end);
	op_note(&lane->op, r);
	if (lane->op.status < 0)
		return lane->op.status;
	if (!wait && r == 0)
		return 0;
	(void)pthread_mutex_lock(&stream->lock);
	statistics->stage_ns[work->stage] += work_ns(stream, work);
	statistics->stage_count[work->stage]++;
	(void)pthread_mutex_unlock(&stream->lock);
	lane->first = (lane->first + 1) % STREAM_AHEAD;
	lane->count--;
	return 1;
}
