/* From what the pipeline tells to what its users see: events, states, log messages. */
#include "daemon/stream_private.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/utf8.h"
#include "base/util.h"

#include <sys/eventfd.h>

static const char *const state_names[LIVE_STATE_COUNT] = {
	[LIVE_STATE_IDLE] = "idle",	    [LIVE_STATE_WARMING] = "warming",
	[LIVE_STATE_RUNNING] = "running",   [LIVE_STATE_PAUSED] = "paused",
	[LIVE_STATE_DEGRADED] = "degraded", [LIVE_STATE_STOPPING] = "stopping",
};

const char *live_state_name(enum live_state state)
{
	return (unsigned int)state < LIVE_STATE_COUNT ? state_names[state] : "?";
}

/* --------------------------------------------------------------------------------- the own queue */

void stream_say(struct live_stream *s, const struct live_event *event)
{
	struct live_event *to = NULL;

	if (s->count == LIVE_EVENTS) {
		for (int i = 0; i < s->count && !to; i++) {
			struct live_event *old = &s->event[(s->first + i) % LIVE_EVENTS];

			if (old->kind == event->kind && strcmp(old->name, event->name) == 0)
				to = old;
		}
		s->events_dropped++;
	} else {
		to = &s->event[(s->first + s->count++) % LIVE_EVENTS];
	}
	if (!to)
		return;
	*to = *event;
	(void)eventfd_write(s->own_fd, 1);
}

void stream_say_property(struct live_stream *s, const char *name)
{
	struct live_event event = { .kind = LIVE_EVENT_PROPERTY };

	(void)snprintf(event.name, sizeof(event.name), "%s", name);
	stream_say(s, &event);
}

static bool queue_take(struct live_stream *s, struct live_event *ret)
{
	if (s->count == 0)
		return false;
	*ret = s->event[s->first];
	s->first = (s->first + 1) % LIVE_EVENTS;
	s->count--;
	return true;
}

/* -------------------------------------------------------------------------------------- the state */

static enum live_state state_of(const struct live_stream *s)
{
	if (s->stopping)
		return LIVE_STATE_STOPPING;
	if (!s->started)
		return LIVE_STATE_IDLE;
	if (s->fault[0])
		return LIVE_STATE_DEGRADED;
	if (s->paused)
		return LIVE_STATE_PAUSED;
	return s->running ? LIVE_STATE_RUNNING : LIVE_STATE_WARMING;
}

void stream_update_state(struct live_stream *s)
{
	const enum live_state state = state_of(s);
	struct live_event event = { .kind = LIVE_EVENT_STATE };

	if (state == s->state)
		return;
	s->state = state;
	(void)snprintf(event.name, sizeof(event.name), "%s", live_state_name(state));
	(void)snprintf(event.text, sizeof(event.text), "%s", s->fault_text);
	log_fields(LOG_LEVEL_INFO,
		   (struct log_field[]){ { "SANA_STATE", live_state_name(state) }, { 0 } },
		   "The stream is %s%s%s.", live_state_name(state), s->fault[0] ? ": " : "",
		   s->fault);
	stream_say(s, &event);
}

/* The worst fault that is present: the engine's before the source's before a sink's. */
static void fault_refresh(struct live_stream *s)
{
	static const char *const order[] = { "model.",	"weights.", "backend.", "memory",
					     "stream.", "source.",  "latency.", "sink." };
	struct pipeline_statistics statistics;
	const char *worst = "", *text = "";
	size_t rank = ARRAY_SIZE(order) + 1;

	pipeline_statistics(s->pipeline, &statistics);
	for (int i = 0; i < statistics.faults; i++) {
		size_t r = 0;

		if (!statistics.fault[i].present)
			continue;
		while (r < ARRAY_SIZE(order) &&
		       strncmp(statistics.fault[i].name, order[r], strlen(order[r])) != 0)
			r++;
		if (r < rank) {
			rank = r;
			worst = statistics.fault[i].name;
			text = statistics.fault[i].text;
		}
	}
	(void)snprintf(s->fault, sizeof(s->fault), "%s", worst);
	(void)snprintf(s->fault_text, sizeof(s->fault_text), "%s", text);
}

/* ------------------------------------------------------------------------------ from the pipeline */

static void on_fault(struct live_stream *s, const struct pipeline_event *from)
{
	struct live_event event = { .kind = LIVE_EVENT_FAULT };
	const struct log_field fields[] = { { "SANA_FAULT", from->name }, { 0 } };
	char before[sizeof(s->fault)];

	memcpy(before, s->fault, sizeof(before));
	fault_refresh(s);
	if (from->on) {
		log_fields(LOG_LEVEL_WARNING, fields, "%s: %s", from->name, from->text);
		memcpy(event.name, from->name, sizeof(event.name));
		memcpy(event.text, from->text, sizeof(event.text));
		stream_say(s, &event);
	} else {
		log_fields(LOG_LEVEL_NOTICE, fields, "%s: over.", from->name);
	}
	if (strcmp(before, s->fault) != 0)
		stream_say_property(s, "Fault");
}

static void on_prompt(struct live_stream *s, const struct pipeline_event *from)
{
	struct live_event event = { .ticket = from->ticket, .chunk = from->chunk };
	const bool newest = from->ticket == s->prompt_ticket;

	if (from->kind == PIPELINE_EVENT_PROMPT_APPLIED) {
		event.kind = LIVE_EVENT_PROMPT_APPLIED;
		log_info("Prompt %llu is in force from chunk %llu on.",
			 (unsigned long long)from->ticket, (unsigned long long)from->chunk);
		if (newest)
			memcpy(s->applied, s->prompt, sizeof(s->applied));
	} else {
		event.kind = LIVE_EVENT_PROMPT_REFUSED;
		memcpy(event.name, from->name, sizeof(event.name));
		memcpy(event.text, from->text, sizeof(event.text));
		log_notice("Prompt %llu is not used: %s", (unsigned long long)from->ticket,
			   from->text);
		if (newest) {
			memcpy(s->prompt, s->applied, sizeof(s->prompt));
			stream_say_property(s, "Prompt");
		}
	}
	stream_say(s, &event);
}

static void on_source(struct live_stream *s, const struct pipeline_event *from)
{
	const bool lost = from->kind == PIPELINE_EVENT_SOURCE_LOST;
	struct live_event event = { .kind = lost ? LIVE_EVENT_SOURCE_LOST :
						   LIVE_EVENT_SOURCE_RESTORED };

	memcpy(event.text, from->text, sizeof(event.text));
	log_fields(lost ? LOG_LEVEL_WARNING : LOG_LEVEL_NOTICE,
		   (struct log_field[]){ { "SANA_SOURCE", from->text }, { 0 } },
		   lost ? "The source %s is lost; it is tried again." : "The source %s is back.",
		   from->text);
	stream_say(s, &event);
}

/* The configuration asks for a policy that does not run here: what does, runs, and it is said. */
static void policy_look(struct live_stream *s)
{
	struct live_event event = { .kind = LIVE_EVENT_FAULT };
	struct sana_error error = { 0 };

	if (!s->base.policy[0] || stream_policy_check(s->backend, s->base.policy, &error) == 0)
		return;
	log_warning("%s", error.text);
	memcpy(event.name, error.name, sizeof(event.name));
	memcpy(event.text, error.text, sizeof(event.text));
	stream_say(s, &event);
}

static void on_model(struct live_stream *s, const struct pipeline_event *from)
{
	s->model_open = true;
	s->loading[0] = '\0';
	(void)snprintf(s->model, sizeof(s->model), "%.255s", from->text);
	utf8_make_line(s->model);
	(void)snprintf(s->backend, sizeof(s->backend), "%.31s", from->name);
	log_info("The model %s runs on the back end %s, policy %s.", s->model, s->backend,
		 stream_policy_of(s->backend));
	policy_look(s);
	stream_say_property(s, "Model");
	stream_say_property(s, "Backend");
	stream_say_property(s, "Policy");
}

static void on_warm(struct live_stream *s)
{
	if (s->warm)
		return;
	s->warm = true;
	log_info("The engine is warm.");
}

static void on_snapshot(struct live_stream *s, const struct pipeline_event *from)
{
	struct live_event event = { .kind = LIVE_EVENT_SNAPSHOT, .ticket = from->ticket };

	memcpy(event.name, from->name, sizeof(event.name));
	memcpy(event.text, from->text, sizeof(event.text));
	stream_say(s, &event);
}

static void on_watched(struct live_stream *s, bool watched)
{
	s->watched = watched;
	log_info(watched ? "Somebody looks again: camera and model work." :
			   "Nobody looks: camera and model rest.");
}

static void on_event(struct live_stream *s, const struct pipeline_event *event)
{
	switch (event->kind) {
	case PIPELINE_EVENT_LOADING:
		(void)snprintf(s->loading, sizeof(s->loading), "%.64s %d %%", event->text,
			       event->percent);
		break;
	case PIPELINE_EVENT_BACKEND:
		log_notice("The model runs on the %s: %s", event->name, event->text);
		break;
	case PIPELINE_EVENT_TUNING:
		log_fields(event->on ? LOG_LEVEL_INFO : LOG_LEVEL_DEBUG, NULL, "%s", event->text);
		break;
	case PIPELINE_EVENT_MODEL:
		on_model(s, event);
		break;
	case PIPELINE_EVENT_WARM:
		on_warm(s);
		break;
	case PIPELINE_EVENT_RUNNING:
		s->running = true;
		break;
	case PIPELINE_EVENT_PROMPT_APPLIED:
	case PIPELINE_EVENT_PROMPT_REFUSED:
		on_prompt(s, event);
		break;
	case PIPELINE_EVENT_FAULT:
		on_fault(s, event);
		break;
	case PIPELINE_EVENT_SOURCE_LOST:
	case PIPELINE_EVENT_SOURCE_RESTORED:
		on_source(s, event);
		break;
	case PIPELINE_EVENT_SNAPSHOT:
		on_snapshot(s, event);
		break;
	case PIPELINE_EVENT_WATCHED:
		on_watched(s, event->on);
		break;
	case PIPELINE_EVENT_COUNT:
		break;
	}
	stream_update_state(s);
}

void stream_drain(struct live_stream *s)
{
	struct pipeline_event event;

	/* What does not fit the queue stays with the pipeline. */
	while (s->count < LIVE_EVENTS / 2 && pipeline_next_event(s->pipeline, &event))
		on_event(s, &event);
}

int live_stream_event_fd(const struct live_stream *s)
{
	return s->fd;
}

bool live_stream_next_event(struct live_stream *s, struct live_event *ret)
{
	eventfd_t value;

	stream_drain(s);
	if (queue_take(s, ret))
		return true;
	(void)eventfd_read(s->own_fd, &value);
	return false;
}
