/* The engine thread: loads the model, pushes frames as they come, steps, takes edited frames out. */
#include "daemon/pipeline_private.h"

#include "base/util.h"

#include <errno.h>
#include <poll.h>
#include <unistd.h>

enum {
	/* Chunks run before the daemon calls itself ready: the first of a history and an ordinary one. */
	WARM_CHUNKS = 2,
	WARM_FRAMES = 4096, /* far more than two chunks have */
	FAILURES = 2,	    /* in a row without a frame: the model is opened again */
	REBUILD_MOST_S = 30,
	POOL_WAIT_MS = 5,
};

const struct pipeline_engine pipeline_engine_sana = {
	.model_open = sana_model_open,
	.model_ref = sana_model_ref,
	.model_unref = sana_model_unref,
	.model_backend = sana_model_backend,
	.model_backend_note = sana_model_backend_note,
	.prompt_create = sana_prompt_create,
	.prompt_unref = sana_prompt_unref,
	.stream_open = sana_stream_open,
	.stream_close = sana_stream_close,
	.set_prompt = sana_stream_set_prompt,
	.discard = sana_stream_discard,
	.push = sana_stream_push,
	.step = sana_stream_step,
	.pull = sana_stream_pull,
	.statistics = sana_stream_statistics,
};

static const struct pipeline_engine *api(const struct pipeline *p)
{
	return p->options.engine;
}

static void beat(struct pipeline *p)
{
	atomic_fetch_add(&p->engine.beat, 1);
}

static void say(struct pipeline *p, enum pipeline_event_kind kind, const char *name,
		const char *text)
{
	struct pipeline_event event = { .kind = kind };

	(void)snprintf(event.name, sizeof(event.name), "%s", name);
	(void)snprintf(event.text, sizeof(event.text), "%s", text);
	events_send(&p->events, &event);
}

/* ----------------------------------------------------------------------------------- the model */

static void loading(void *context, const char *what, double fraction)
{
	struct pipeline *p = context;
	struct pipeline_event event = { .kind = PIPELINE_EVENT_LOADING,
					.percent = (int)(100.0 * fraction) };

	beat(p);
	(void)snprintf(event.text, sizeof(event.text), "%s", what);
	events_send(&p->events, &event);
	(void)pthread_mutex_lock(&p->lock);
	(void)snprintf(p->wanted.loading, sizeof(p->wanted.loading), "LOADING %.32s %d %%", what,
		       event.percent);
	(void)pthread_mutex_unlock(&p->lock);
}

static int model_open(struct pipeline *p, struct sana_model **ret, struct sana_error *error)
{
	struct sana_model_options options = p->options.model;

	options.progress = loading;
	options.progress_context = p;
	if (!options.backend)
		options.backend = "auto";
	return api(p)->model_open(&options, ret, error);
}

static void engine_close(struct pipeline *p)
{
	struct engine_worker *e = &p->engine;
	struct sana_stream *stream;
	struct sana_model *model;

	atomic_store(&e->wants, false);
	(void)pthread_mutex_lock(&p->lock);
	stream = TAKE_PTR(e->stream);
	model = TAKE_PTR(e->model);
	(void)pthread_mutex_unlock(&p->lock);
	if (stream)
		(void)api(p)->stream_close(stream);
	if (model)
		(void)api(p)->model_unref(model);
}

static int engine_open(struct pipeline *p, struct sana_error *error)
{
	struct engine_worker *e = &p->engine;
	struct sana_stream *stream = NULL;
	struct sana_model *model = NULL;
	int r;

	r = model_open(p, &model, error);
	if (r < 0)
		return r;
	r = api(p)->stream_open(model, &p->options.stream, &stream, error);
	if (r < 0) {
		(void)api(p)->model_unref(model);
		return r;
	}
	(void)pthread_mutex_lock(&p->lock);
	e->model = model;
	e->stream = stream;
	p->wanted.loading[0] = '\0';
	(void)pthread_mutex_unlock(&p->lock);
	atomic_fetch_add(&e->rebuilds, 1);
	say(p, PIPELINE_EVENT_MODEL, api(p)->model_backend(model),
	    p->model_directory ? p->model_directory : p->model_shape);
	if (*api(p)->model_backend_note(model))
		say(p, PIPELINE_EVENT_BACKEND, api(p)->model_backend(model),
		    api(p)->model_backend_note(model));
	return 0;
}

/* ---------------------------------------------------------------------------------- the prompt */

static void ticket_note(struct engine_worker *e, uint64_t engine, uint64_t own)
{
	e->ticket[e->tickets++ % TICKETS] = (struct ticket_pair){ engine, own };
}

static uint64_t ticket_of(const struct engine_worker *e, uint64_t engine)
{
	for (int i = 0; i < TICKETS; i++)
		if (e->ticket[i].engine == engine)
			return e->ticket[i].own;
	return 0;
}

static void refuse(struct pipeline *p, uint64_t ticket, const struct sana_error *error)
{
	struct pipeline_event event = { .kind = PIPELINE_EVENT_PROMPT_REFUSED, .ticket = ticket };

	memcpy(event.name, error->name, sizeof(event.name));
	memcpy(event.text, error->text, sizeof(event.text));
	events_send(&p->events, &event);
}

/* Puts `prompt` (taken over) in force from the next chunk boundary on. */
static int prompt_use(struct pipeline *p, struct sana_prompt *prompt, uint64_t ticket,
		      struct sana_error *error)
{
	struct engine_worker *e = &p->engine;
	uint64_t engine_ticket;
	int r;

	r = api(p)->set_prompt(e->stream, prompt, SANA_SWITCH_INVALID, &engine_ticket, error);
	if (r < 0) {
		(void)api(p)->prompt_unref(prompt);
		return r;
	}
	ticket_note(e, engine_ticket, ticket);
	if (e->prompt != prompt) {
		(void)api(p)->prompt_unref(e->prompt);
		e->prompt = prompt;
	}
	e->prompt_ticket = ticket;
	return 0;
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
	if (prompt_use(p, prompt, ticket, &error) < 0)
		refuse(p, ticket, &error);
	else
		atomic_store(&p->engine.wants, true);
}

/* -------------------------------------------------------------------------------- edited frames */

static void announce(struct pipeline *p, const struct sana_frame_info *info)
{
	struct engine_worker *e = &p->engine;
	struct pipeline_event event = { .kind = PIPELINE_EVENT_PROMPT_APPLIED,
					.ticket = ticket_of(e, info->ticket),
					.chunk = info->chunk };

	if (!info->prompt_changed || event.ticket <= e->announced)
		return;
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
		r = api(p)->pull(e->stream, &picture, &info, error);
		if (r <= 0) {
			(void)frame_unref(frame);
			return r;
		}
		*ret_any = true;
		frame_give(p, frame, &picture, &info);
	}
}

/* ------------------------------------------------------------------------------------ the work */

/* A chunk is done: how much work a frame is. */
static void work_measure(struct pipeline *p)
{
	struct engine_worker *e = &p->engine;
	const int64_t now_ns = clock_now_ns();

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
		api(p)->discard(e->stream);
	return api(p)->push(e->stream, &picture, frame->capture_ns, error);
}

/* Decoded frames wait in the engine for a picture of the pool to come back. */
static void pool_wait(struct pipeline *p)
{
	struct pollfd fd = { .fd = p->stop_fd, .events = POLLIN };

	(void)poll(&fd, 1, POOL_WAIT_MS);
}

/* One frame in, one stage, what is ready out. *worked: there may be more to do at once. */
static int engine_turn(struct pipeline *p, bool *worked, struct sana_error *error)
{
	struct engine_worker *e = &p->engine;
	struct frame *frame = frame_next(p, *worked);
	enum sana_stage stage = SANA_STAGE_NONE;
	int r;

	*worked = false;
	prompt_take(p);
	if (frame && !e->prompt) {
		frame = frame_unref(frame);
	} else if (frame) {
		const int64_t capture_ns = frame->capture_ns;

		r = frame_push(p, frame, error);
		if (r == 0) {
			e->held = frame;
		} else {
			(void)frame_unref(frame);
			if (r < 0)
				return r;
			e->last_push_ns = MAX_OF(e->last_push_ns, capture_ns);
			*worked = true;
		}
	}
	beat(p);
	r = api(p)->step(e->stream, &stage, error);
	if (r < 0)
		return r;
	*worked = *worked || r > 0;
	r = frames_pull(p, worked, error);
	if (stage == SANA_STAGE_CACHE)
		work_measure(p);
	if (e->held && !*worked)
		pool_wait(p);
	return r;
}

/* ---------------------------------------------------------------------------------- warming up */

/* The text that waits, or one of no meaning: warming up needs some prompt. */
static int warm_prompt(struct pipeline *p, struct sana_error *error)
{
	struct engine_worker *e = &p->engine;
	struct caption_worker *c = &p->caption;
	char text[PIPELINE_PROMPT_BYTES] = "";
	struct sana_prompt *prompt = NULL;
	uint64_t ticket = 0;
	int r = -ENODATA;

	(void)pthread_mutex_lock(&p->lock);
	if (c->waiting) {
		memcpy(text, c->text, sizeof(text));
		ticket = c->ticket;
		c->waiting = false;
	}
	(void)pthread_mutex_unlock(&p->lock);
	if (ticket) {
		r = api(p)->prompt_create(e->model, text, &prompt, error);
		if (r < 0)
			refuse(p, ticket, error);
	}
	if (r < 0) {
		ticket = 0;
		r = api(p)->prompt_create(e->model, "warming up", &prompt, error);
	}
	return r < 0 ? r : prompt_use(p, prompt, ticket, error);
}

/* How much work a frame is, before the first one comes: of an ordinary chunk, without any waiting. */
static void warm_measure(struct pipeline *p, int chunks, int64_t *since_ns)
{
	const int64_t now_ns = clock_now_ns();

	if (chunks == WARM_CHUNKS) {
		(void)pthread_mutex_lock(&p->lock);
		admit_measure(&p->capture.admit, p->chunk_frames, now_ns - *since_ns);
		(void)pthread_mutex_unlock(&p->lock);
	}
	*since_ns = now_ns;
}

/* Grey frames through all stages, thrown away. */
static int warm_chunks(struct pipeline *p, struct sana_error *error)
{
	struct engine_worker *e = &p->engine;
	struct frame *frame = frame_get(p->pool);
	struct sana_picture picture;
	struct sana_frame_info info;
	enum sana_stage stage;
	int64_t since_ns = 0;
	int chunks = 0, r = 0;

	if (!frame)
		return sana_error_set(error, -ENOBUFS, "memory", "No picture to warm up with.");
	picture = (struct sana_picture){ frame->rgb, frame_row_bytes(frame), p->width, p->height };
	for (int i = 1; i <= WARM_FRAMES && chunks < WARM_CHUNKS && r >= 0; i++) {
		memset(frame->rgb, 128, picture.row_bytes * (size_t)p->height);
		r = api(p)->push(e->stream, &picture, i, error);
		while (r >= 0 && !atomic_load(&p->stopping)) {
			beat(p);
			r = api(p)->step(e->stream, &stage, error);
			if (r <= 0)
				break;
			if (stage == SANA_STAGE_CACHE)
				warm_measure(p, ++chunks, &since_ns);
			while (r > 0)
				r = api(p)->pull(e->stream, &picture, &info, error);
		}
		if (atomic_load(&p->stopping))
			break;
	}
	(void)frame_unref(frame);
	return r < 0 ? r : 0;
}

/* All that a first chunk would be late by happens here. The history is cleared afterwards. */
static int engine_warm(struct pipeline *p, struct sana_error *error)
{
	struct engine_worker *e = &p->engine;
	int r;

	r = warm_prompt(p, error);
	if (r == 0)
		r = warm_chunks(p, error);
	if (r < 0)
		return r;
	e->warm = true;
	atomic_store(&e->reset, true);
	/* Again, so that it is announced by the first chunk that is shown. */
	if (e->prompt_ticket) {
		r = prompt_use(p, e->prompt, e->prompt_ticket, error);
	} else {
		/* The next frame waits for a prompt that somebody asks for. */
		e->prompt = api(p)->prompt_unref(e->prompt);
	}
	(void)pthread_mutex_lock(&p->lock);
	p->caption.ready = true;
	(void)pthread_cond_signal(&p->caption.wake);
	(void)pthread_mutex_unlock(&p->lock);
	say(p, PIPELINE_EVENT_WARM, "", "");
	return r;
}

/* ----------------------------------------------------------------------------------- the thread */

static void engine_wait(struct pipeline *p)
{
	struct frame *frame =
		ring_pop_until(&p->capture.ring, clock_now_ns() + BEAT_MS * CLOCK_MS_NS);

	(void)frame_unref(frame);
	beat(p);
}

/* A GPU that is gone, or whose context a kernel has spoilt: only a new start of it helps. */
static bool is_final(const struct sana_error *error)
{
	return strcmp(error->name, "backend.lost") == 0 ||
	       strcmp(error->name, "backend.kernel") == 0;
}

static void engine_failed(struct pipeline *p, const struct sana_error *error)
{
	struct engine_worker *e = &p->engine;

	fault_set(&p->events, FAULT_ENGINE, error);
	if (!e->stream || ++e->failures >= FAILURES || !e->warm || is_final(error)) {
		engine_close(p);
		backoff_fail(&e->backoff, p, 0);
		/* A model is dearer to open than a camera. */
		e->backoff.wait_ns =
			MIN_OF(2 * e->backoff.wait_ns, REBUILD_MOST_S * CLOCK_SECOND_NS);
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
			r = prompt_use(p, e->prompt, e->prompt_ticket, error);
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
		int r;

		if (!e->stream && backoff_waits(&e->backoff, p)) {
			engine_wait(p);
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
		(void)api(p)->prompt_unref(e->prompt);
	return NULL;
}
