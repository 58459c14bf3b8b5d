/* The caption thread: texts to captions, beside the engine. */
#include "daemon/pipeline_private.h"

#include "base/util.h"

void prompt_replaced(struct pipeline *p, uint64_t ticket)
{
	static const struct sana_error replaced = {
		.name = "prompt.replaced",
		.text = "A newer prompt came before this one was used.",
	};

	engine_refuse(p, ticket, &replaced);
}

uint64_t pipeline_set_prompt(struct pipeline *p, const char *text)
{
	struct caption_worker *c = &p->caption;
	uint64_t ticket, replaced = 0;

	(void)pthread_mutex_lock(&p->lock);
	if (c->waiting)
		replaced = c->ticket;
	c->waiting = true;
	(void)snprintf(c->text, sizeof(c->text), "%s", text);
	ticket = c->ticket = ++c->last_ticket;
	(void)pthread_cond_signal(&c->wake);
	(void)pthread_mutex_unlock(&p->lock);
	if (replaced)
		prompt_replaced(p, replaced);
	return ticket;
}

/* Hands the caption to the engine, which takes it at its next turn. */
static void caption_give(struct pipeline *p, struct sana_prompt *prompt, uint64_t ticket)
{
	struct caption_worker *c = &p->caption;
	struct sana_prompt *unused;
	uint64_t unused_ticket;

	(void)pthread_mutex_lock(&p->lock);
	unused = c->done;
	unused_ticket = c->done_ticket;
	c->done = prompt;
	c->done_ticket = ticket;
	(void)pthread_mutex_unlock(&p->lock);
	ring_wake(&p->capture.ring);
	if (unused) {
		(void)p->options.engine->prompt_unref(unused);
		prompt_replaced(p, unused_ticket);
	}
}

/* The model is rebuilt at times: the text waits for it. */
static struct sana_model *caption_model(struct pipeline *p)
{
	struct sana_model *model = NULL;

	if (p->caption.ready && p->caption.waiting && p->engine.model)
		model = p->options.engine->model_ref(p->engine.model);
	return model;
}

void *caption_main(void *argument)
{
	struct pipeline *p = argument;
	struct caption_worker *c = &p->caption;
	const struct pipeline_engine *engine = p->options.engine;

	while (!atomic_load(&p->stopping)) {
		const struct timespec beat =
			clock_to_timespec(clock_now_ns() + BEAT_MS * CLOCK_MS_NS);
		char text[PIPELINE_PROMPT_BYTES];
		struct sana_prompt *prompt = NULL;
		struct sana_error error = { 0 };
		struct sana_model *model;
		uint64_t ticket = 0;

		atomic_fetch_add(&c->beat, 1);
		(void)pthread_mutex_lock(&p->lock);
		model = caption_model(p);
		if (model) {
			memcpy(text, c->text, sizeof(text));
			ticket = c->ticket;
			c->waiting = false;
		} else {
			(void)pthread_cond_timedwait(&c->wake, &p->lock, &beat);
		}
		(void)pthread_mutex_unlock(&p->lock);
		if (!model)
			continue;
		if (engine->prompt_create(model, text, &prompt, &error) < 0)
			engine_refuse(p, ticket, &error);
		else
			caption_give(p, prompt, ticket);
		(void)engine->model_unref(model);
	}
	return NULL;
}
