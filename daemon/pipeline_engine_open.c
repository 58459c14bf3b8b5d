/* The engine thread's beginning: the model opened, the prompt in force, everything warm. */
#include "daemon/pipeline_private.h"

#include "base/util.h"

#include <errno.h>

enum {
	/* Chunks run before the daemon calls itself ready: the first of a history and an ordinary one. */
	WARM_CHUNKS = 2,
	WARM_FRAMES = 4096, /* far more than two chunks have */
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
	.tuning = sana_stream_tuning,
};

static void stage_lives(void *context)
{
	engine_beat(context);
}

/* A prompt is made by the caption thread, or, before the engine is warm, by the engine's own. */
static void prompt_lives(void *context)
{
	struct pipeline *p = context;

	engine_beat(p);
	atomic_fetch_add(&p->caption.beat, 1);
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

	engine_beat(p);
	(void)snprintf(event.text, sizeof(event.text), "%s", what);
	events_send(&p->events, &event);
	(void)pthread_mutex_lock(&p->lock);
	(void)snprintf(p->wanted.loading, sizeof(p->wanted.loading), "LOADING %.32s %d %%", what,
		       event.percent);
	(void)pthread_mutex_unlock(&p->lock);
}

/*
 * Under "auto" the first opening chooses. If it got the best there is, later ones want nothing less: a GPU that
 * failed or is full for a moment is waited for, not replaced by a CPU for good.
 */
static int model_open(struct pipeline *p, struct sana_model **ret, struct sana_error *error)
{
	struct sana_model_options options = p->options.model;
	struct engine_worker *e = &p->engine;
	const bool choice = !options.backend || strcmp(options.backend, "auto") == 0;
	int r;

	options.progress = loading;
	options.progress_context = p;
	options.alive = prompt_lives;
	options.alive_context = p;
	if (choice)
		options.backend = e->backend[0] ? e->backend : "auto";
	r = p->options.engine->model_open(&options, ret, error);
	if (r >= 0 && choice && !*p->options.engine->model_backend_note(*ret))
		(void)snprintf(e->backend, sizeof(e->backend), "%s",
			       p->options.engine->model_backend(*ret));
	return r;
}

void engine_close(struct pipeline *p)
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
		(void)p->options.engine->stream_close(stream);
	if (model)
		(void)p->options.engine->model_unref(model);
}

static void tuning_say(struct pipeline *p, struct sana_stream *stream)
{
	struct pipeline_event event = { .kind = PIPELINE_EVENT_TUNING, .on = true };
	_cleanup_(freep) struct sana_tuning *tuning = calloc(1, sizeof(*tuning));

	if (!tuning || !p->options.engine->tuning)
		return;
	p->options.engine->tuning(stream, tuning);
	(void)snprintf(event.name, sizeof(event.name), "chosen");
	(void)snprintf(event.text, sizeof(event.text), "%s", tuning->text);
	if (event.text[0])
		events_send(&p->events, &event);
	event.on = false;
	(void)snprintf(event.name, sizeof(event.name), "file");
	(void)snprintf(event.text, sizeof(event.text), "%s", tuning->note);
	if (event.text[0])
		events_send(&p->events, &event);
}

int engine_open(struct pipeline *p, struct sana_error *error)
{
	struct engine_worker *e = &p->engine;
	struct sana_stream_options options;
	struct sana_stream *stream = NULL;
	struct sana_model *model = NULL;
	int r;

	r = model_open(p, &model, error);
	if (r < 0)
		return r;
	/*
	 * Latent by latent the first pictures of a chunk come while its last ones are decoded: on an H100
	 * at the same cost (16.6 ms against 51 for three). A CPU decodes them together in less.
	 */
	options = p->options.stream;
	options.alive = stage_lives;
	options.alive_context = p;
	if (!options.decode_latents && strcmp(p->options.engine->model_backend(model), "cpu") != 0)
		options.decode_latents = 1;
	r = p->options.engine->stream_open(model, &options, &stream, error);
	if (r < 0) {
		(void)p->options.engine->model_unref(model);
		return r;
	}
	(void)pthread_mutex_lock(&p->lock);
	e->model = model;
	e->stream = stream;
	p->wanted.loading[0] = '\0';
	(void)pthread_mutex_unlock(&p->lock);
	atomic_fetch_add(&e->rebuilds, 1);
	e->warm_chunks = 0;
	e->chunks = 0;
	/* A stream counts its tickets anew, from 1; which prompts wait for an answer stays. */
	for (int i = 0; i < TICKETS; i++)
		e->ticket[i].engine = 0;
	say(p, PIPELINE_EVENT_MODEL, p->options.engine->model_backend(model),
	    p->model_directory ? p->model_directory : p->model_shape);
	if (*p->options.engine->model_backend_note(model))
		say(p, PIPELINE_EVENT_BACKEND, p->options.engine->model_backend(model),
		    p->options.engine->model_backend_note(model));
	tuning_say(p, stream);
	return 0;
}

/* ---------------------------------------------------------------------------------- the prompt */

static void ticket_note(struct engine_worker *e, uint64_t engine, uint64_t own)
{
	e->ticket[e->tickets++ % TICKETS] = (struct ticket_pair){ engine, own };
}

/* It has its answer. */
static void ticket_forget(struct engine_worker *e, uint64_t own)
{
	for (int i = 0; i < TICKETS; i++)
		if (e->ticket[i].own == own)
			e->ticket[i] = (struct ticket_pair){ 0 };
}

void engine_refuse(struct pipeline *p, uint64_t ticket, const struct sana_error *error)
{
	struct pipeline_event event = { .kind = PIPELINE_EVENT_PROMPT_REFUSED, .ticket = ticket };

	memcpy(event.name, error->name, sizeof(event.name));
	memcpy(event.text, error->text, sizeof(event.text));
	events_send(&p->events, &event);
}

/* Puts `prompt` (taken over) in force from the next chunk boundary on. */
int engine_use(struct pipeline *p, struct sana_prompt *prompt, uint64_t ticket,
	       struct sana_error *error)
{
	struct engine_worker *e = &p->engine;
	uint64_t engine_ticket;
	int r;

	r = p->options.engine->set_prompt(e->stream, prompt, SANA_SWITCH_INVALID, &engine_ticket,
					  error);
	if (r < 0) {
		if (e->prompt == prompt) {
			e->prompt = NULL;
			ticket_forget(e, ticket);
			engine_refuse(p, ticket, error);
		}
		(void)p->options.engine->prompt_unref(prompt);
		return r;
	}
	ticket_note(e, engine_ticket, ticket);
	if (e->prompt != prompt) {
		(void)p->options.engine->prompt_unref(e->prompt);
		e->prompt = prompt;
	}
	e->prompt_ticket = ticket;
	return 0;
}

/* ---------------------------------------------------------------------------------- warming up */

/* A back end that fails says nothing about the text: it is kept for the next attempt. */
static void prompt_give_back(struct pipeline *p, const char *text, uint64_t ticket)
{
	struct caption_worker *c = &p->caption;
	bool newer;

	(void)pthread_mutex_lock(&p->lock);
	newer = c->waiting;
	if (!newer) {
		(void)snprintf(c->text, sizeof(c->text), "%s", text);
		c->ticket = ticket;
		c->waiting = true;
	}
	(void)pthread_mutex_unlock(&p->lock);
	if (newer)
		prompt_replaced(p, ticket);
}

/* The text that waits, the prompt of an attempt that failed, or one of no meaning: some prompt is needed. */
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
	if (!ticket && e->prompt_ticket && e->prompt)
		return engine_use(p, e->prompt, e->prompt_ticket, error);
	if (ticket) {
		r = p->options.engine->prompt_create(e->model, text, &prompt, error);
		if (r < 0 && strncmp(error->name, "prompt.", strlen("prompt.")) != 0) {
			prompt_give_back(p, text, ticket);
			return r;
		}
		if (r < 0)
			engine_refuse(p, ticket, error);
	}
	if (r < 0) {
		ticket = 0;
		r = p->options.engine->prompt_create(e->model, "warming up", &prompt, error);
	}
	return r < 0 ? r : engine_use(p, prompt, ticket, error);
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
		r = p->options.engine->push(e->stream, &picture, i, error);
		while (r >= 0 && !atomic_load(&p->stopping)) {
			engine_beat(p);
			r = p->options.engine->step(e->stream, &stage, error);
			if (r <= 0)
				break;
			if (stage == SANA_STAGE_CACHE)
				warm_measure(p, ++chunks, &since_ns);
			while (r > 0)
				r = p->options.engine->pull(e->stream, &picture, &info, error);
		}
		if (atomic_load(&p->stopping))
			break;
	}
	(void)frame_unref(frame);
	e->warm_chunks = (uint64_t)chunks;
	return r < 0 ? r : 0;
}

/* All that a first chunk would be late by happens here. The history is cleared afterwards. */
int engine_warm(struct pipeline *p, struct sana_error *error)
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
		r = engine_use(p, e->prompt, e->prompt_ticket, error);
	} else {
		/* The next frame waits for a prompt that somebody asks for. */
		e->prompt = p->options.engine->prompt_unref(e->prompt);
	}
	(void)pthread_mutex_lock(&p->lock);
	p->caption.ready = true;
	(void)pthread_cond_signal(&p->caption.wake);
	(void)pthread_mutex_unlock(&p->lock);
	say(p, PIPELINE_EVENT_WARM, "", "");
	return r;
}
