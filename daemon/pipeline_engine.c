/* The engine thread: pushes frames as they come, steps, takes edited frames out, and begins again. */
#include "daemon/pipeline_private.h"

#include "base/util.h"

#include <errno.h>
#include <poll.h>
#include <unistd.h>

enum {
	FAILURES = 2, /* in a row without a frame: the model is opened again */
	/* Pauses between attempts to open it: 0.1, 0.4, 1.6, 6.4, 25.6, then 30 s. */
	REBUILD_FIRST_MS = 100,
	REBUILD_GROWTH = 4,
	REBUILD_MOST_S = 30,
	KERNEL_REFUSALS = 2, /* the first may meet what is not closed yet */
	LOST_REFUSALS = 6,   /* by these pauses a minute: a GPU may be reset */
	POOL_WAIT_MS = 5,
};

void engine_beat(struct pipeline *p)
{
	atomic_fetch_add(&p->engine.beat, 1);
}

static uint64_t ticket_of(const struct engine_worker *e, uint64_t engine)
{
	for (int i = 0; i < TICKETS; i++)
		if (e->ticket[i].engine == engine)
			return e->ticket[i].own;
	return 0;
}

static bool ticket_is_known(const struct engine_worker *e, uint64_t own)
{
	for (int i = 0; i < TICKETS; i++)
		if (e->ticket[i].own == own)
			return true;
	return false;
}

/* What the caption thread has made. */
static void prompt_take(struct pipeline *p)
{
	struct caption_worker *c = &p->caption;
	struct sana_error error = { 0 };
	struct sana_prompt *prompt;
	uint64_t ticket;

	(void)pthread_mutex_lock(&p->lock);
	prompt = TAKE_PTR(c->done);
	ticket = c->done_ticket;
	(void)pthread_mutex_unlock(&p->lock);
	if (!prompt)
		return;
	if (engine_use(p, prompt, ticket, &error) < 0)
		engine_refuse(p, ticket, &error);
	else
		atomic_store(&p->engine.wants, true);
}

/* -------------------------------------------------------------------------------- edited frames */

/* Prompts that the stream had and a newer one took the place of are answered with it. */
static void announce(struct pipeline *p, const struct sana_frame_info *info)
{
	struct engine_worker *e = &p->engine;
	struct pipeline_event event = { .kind = PIPELINE_EVENT_PROMPT_APPLIED,
					.ticket = ticket_of(e, info->ticket),
					.chunk = info->chunk - e->warm_chunks };

	if (!info->prompt_changed || event.ticket <= e->announced)
		return;
	for (uint64_t own = e->announced + 1; own < event.ticket; own++)
		if (ticket_is_known(e, own))
			prompt_replaced(p, own);
	e->announced = event.ticket;
	events_send(&p->events, &event);
}

/* Test switch: what a driver that never returns looks like. */
static void hang(void)
{
	for (;;)
		(void)pause();
}

static void frame_give(struct pipeline *p, struct frame *frame, const struct sana_picture *picture,
		       const struct sana_frame_info *info)
{
	struct engine_worker *e = &p->engine;

	atomic_fetch_add(&e->edited, 1);
	e->busy_frames++;
	e->failures = 0;
	announce(p, info);
	if (p->options.screen && p->options.screen(p->options.screen_context, picture, info) < 0) {
		atomic_fetch_add(&e->screened, 1);
		(void)frame_unref(frame);
	} else if (info->timestamp_ns < atomic_load(&p->capture.discontinuity_ns)) {
		/* Of before the source was opened again. */
		atomic_fetch_add(&e->stale, 1);
		(void)frame_unref(frame);
	} else {
		frame->capture_ns = info->timestamp_ns;
		frame->ready_ns = clock_now_ns();
		(void)frame_unref(ring_push(&p->present.ring, frame));
	}
	if (++e->given_out == p->options.hang_after_frames)
		hang();
}

/* All that is decoded. A pool without a picture left ends it; the rest stays in the engine. */
static int frames_pull(struct pipeline *p, bool *ret_any, struct sana_error *error)
{
	struct engine_worker *e = &p->engine;
	int r;

	for (;;) {
		struct frame *frame = frame_get(p->pool);
		struct sana_frame_info info;
		struct sana_picture picture;

		if (!frame)
			return 0;
		picture = (struct sana_picture){ frame->rgb, frame_row_bytes(frame), p->width,
						 p->height };
		r = p->options.engine->pull(e->stream, &picture, &info, error);
		if (r <= 0) {
			(void)frame_unref(frame);
			return r;
		}
		*ret_any = true;
		frame_give(p, frame, &picture, &info);
	}
}

/* ------------------------------------------------------------------------------------ the work */

/*
 * When a chunk's last frames are decoded: how much work a frame is. Stages are begun long before they end, so none
 * of them tells.
 */
static void work_measure(struct pipeline *p)
{
	struct engine_worker *e = &p->engine;
	const int64_t now_ns = clock_now_ns();
	struct sana_statistics statistics;

	p->options.engine->statistics(e->stream, &statistics);
	if (statistics.chunks == e->chunks)
		return;
	e->chunks = statistics.chunks;
	e->busy_ns += now_ns - e->busy_since_ns;
	e->busy_since_ns = now_ns;
	if (e->busy_frames > 0) {
		(void)pthread_mutex_lock(&p->lock);
		admit_measure(&p->capture.admit, e->busy_frames, e->busy_ns);
		(void)pthread_mutex_unlock(&p->lock);
	}
	e->busy_frames = 0;
	e->busy_ns = 0;
}

/* The next frame for the engine: the one it had no room for, or the oldest that waits. */
static struct frame *frame_next(struct pipeline *p, bool worked)
{
	struct engine_worker *e = &p->engine;
	struct frame *frame = TAKE_PTR(e->held);

	if (frame)
		return frame;
	if (worked)
		return ring_pop(&p->capture.ring);
	e->busy_ns += clock_now_ns() - e->busy_since_ns;
	frame = ring_pop_until(&p->capture.ring, clock_now_ns() + BEAT_MS * CLOCK_MS_NS);
	e->busy_since_ns = clock_now_ns();
	return frame;
}

/* 1: it went in, or was of no use; 0: no room. */
static int frame_push(struct pipeline *p, struct frame *frame, struct sana_error *error)
{
	struct engine_worker *e = &p->engine;
	const struct sana_picture picture = { frame->rgb, frame_row_bytes(frame), p->width,
					      p->height };

	if (frame->capture_ns < atomic_load(&p->capture.discontinuity_ns) ||
	    frame->capture_ns <= e->last_push_ns) {
		atomic_fetch_add(&e->stale, 1);
		return 1;
	}
	if (atomic_exchange(&e->reset, false))
		p->options.engine->discard(e->stream);
	return p->options.engine->push(e->stream, &picture, frame->capture_ns, error);
}

/* Decoded frames wait in the engine for a picture of the pool to come back. */
static void pool_wait(struct pipeline *p)
{
	struct pollfd fd = { .fd = p->stop_fd, .events = POLLIN };

	(void)poll(&fd, 1, POOL_WAIT_MS);
}

/* All that has come, as long as there is room: the next step may wait for a stage. */
static int frames_push(struct pipeline *p, bool *worked, struct sana_error *error)
{
	struct engine_worker *e = &p->engine;
	struct frame *frame = frame_next(p, *worked);
	int r;

	*worked = false;
	prompt_take(p);
	for (; frame; frame = ring_pop(&p->capture.ring)) {
		const int64_t capture_ns = frame->capture_ns;

		r = e->prompt ? frame_push(p, frame, error) : 1;
		if (r == 0) {
			e->held = frame;
			return 0;
		}
		(void)frame_unref(frame);
		if (r < 0)
			return r;
		if (!e->prompt)
			continue;
		e->last_push_ns = MAX_OF(e->last_push_ns, capture_ns);
		*worked = true;
	}
	return 0;
}

/* What has come in, one stage, what is ready out. *worked: there may be more to do at once. */
static int engine_turn(struct pipeline *p, bool *worked, struct sana_error *error)
{
	struct engine_worker *e = &p->engine;
	enum sana_stage stage;
	int r = frames_push(p, worked, error);

	if (r < 0)
		return r;
	engine_beat(p);
	r = p->options.engine->step(e->stream, &stage, error);
	if (r < 0)
		return r;
	*worked = *worked || r > 0;
	r = frames_pull(p, worked, error);
	work_measure(p);
	if (e->held && !*worked)
		pool_wait(p);
	return r;
}

/* ----------------------------------------------------------------------------------- the thread */

/* Devices that come do not end it: most are no GPU, and each attempt that is refused counts. */
static void engine_wait(struct pipeline *p, int64_t now_ns)
{
	const int64_t until_ns = MIN_OF(p->engine.backoff.until_ns, now_ns + BEAT_MS * CLOCK_MS_NS);

	(void)frame_unref(ring_pop_until(&p->capture.ring, until_ns));
	engine_beat(p);
}

/* A GPU that is gone, or whose context a kernel has spoilt: only a new start of it helps. */
static bool is_final(const struct sana_error *error)
{
	return strcmp(error->name, "backend.lost") == 0 ||
	       strcmp(error->name, "backend.kernel") == 0;
}

/*
 * A process in which a kernel failed gets no context any more from CUDA's drivers ("the process must be
 * terminated and relaunched"; seen with branch 580), and one whose GPU was lost may not see it come back. So
 * when openings are refused, it is time for another process.
 */
static void refusal_count(struct pipeline *p, const struct sana_error *error)
{
	struct engine_worker *e = &p->engine;
	int most = 0;

	if (strcmp(error->name, "backend.kernel") == 0)
		most = KERNEL_REFUSALS;
	else if (strcmp(error->name, "backend.lost") == 0 ||
		 strcmp(error->name, "backend.no-device") == 0)
		most = LOST_REFUSALS;
	if (e->stream || !most || atomic_load(&e->rebuilds) == 0) {
		e->refusals = 0;
		return;
	}
	if (++e->refusals >= most)
		atomic_store(&e->hopeless, true);
}

void engine_backoff_fail(struct backoff *b, int64_t now_ns)
{
	const int64_t wait_ns = MAX_OF(b->wait_ns, REBUILD_FIRST_MS * CLOCK_MS_NS);

	b->until_ns = now_ns + wait_ns;
	b->wait_ns = MIN_OF(REBUILD_GROWTH * wait_ns, REBUILD_MOST_S * CLOCK_SECOND_NS);
}

static void engine_failed(struct pipeline *p, const struct sana_error *error)
{
	struct engine_worker *e = &p->engine;

	fault_set(&p->events, FAULT_ENGINE, error);
	refusal_count(p, error);
	if (!e->stream || ++e->failures >= FAILURES || !e->warm || is_final(error)) {
		engine_close(p);
		engine_backoff_fail(&e->backoff, clock_now_ns());
	}
}

/* Opens what is missing. 0: frames may go in. */
static int engine_prepare(struct pipeline *p, struct sana_error *error)
{
	struct engine_worker *e = &p->engine;
	int r = 0;

	if (e->stream)
		return 0;
	if (e->warm) {
		/* A prompt belongs to the model it was made with. */
		r = engine_open(p, error);
		if (r == 0 && e->prompt)
			r = engine_use(p, e->prompt, e->prompt_ticket, error);
	} else {
		r = engine_open(p, error);
		if (r == 0)
			r = engine_warm(p, error);
	}
	if (r < 0)
		return r;
	atomic_store(&e->reset, true);
	atomic_store(&e->wants, e->prompt != NULL);
	e->busy_since_ns = clock_now_ns();
	e->busy_ns = 0;
	e->busy_frames = 0;
	return 0;
}

void *engine_main(void *argument)
{
	struct pipeline *p = argument;
	struct engine_worker *e = &p->engine;
	bool worked = false, well = false;

	while (!atomic_load(&p->stopping)) {
		struct sana_error error = { 0 };
		const uint64_t edited = atomic_load(&e->edited);
		const int64_t now_ns = clock_now_ns();
		int r;

		if (!e->stream && now_ns < e->backoff.until_ns) {
			engine_wait(p, now_ns);
			continue;
		}
		r = engine_prepare(p, &error);
		if (r == 0 && !well && !e->failures) {
			fault_clear(&p->events, FAULT_ENGINE);
			well = true;
		}
		if (r == 0)
			r = engine_turn(p, &worked, &error);
		if (r < 0) {
			engine_failed(p, &error);
			worked = well = false;
		} else if (atomic_load(&e->edited) != edited) {
			e->backoff = (struct backoff){ 0 };
		}
	}
	engine_close(p);
	(void)frame_unref(e->held);
	if (e->prompt)
		(void)p->options.engine->prompt_unref(e->prompt);
	return NULL;
}
