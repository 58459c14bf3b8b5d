/* The live stream as it is: state, lists, statistics. */
#include "daemon/stream_private.h"

#include "base/clock.h"
#include "base/util.h"

#include <stdarg.h>

enum { LIST_MOST = 64 };

enum live_state live_stream_state(const struct live_stream *s)
{
	return s->state;
}

const char *live_stream_prompt(const struct live_stream *s)
{
	return s->prompt;
}

const char *live_stream_policy(const struct live_stream *s)
{
	return stream_policy_of(s->backend);
}

const char *live_stream_source(const struct live_stream *s)
{
	return s->source;
}

int live_stream_sinks(const struct live_stream *s, const char *const **ret_identities)
{
	*ret_identities = s->sink_list;
	return s->sinks;
}

const char *live_stream_model(const struct live_stream *s)
{
	return s->model;
}

const char *live_stream_backend(const struct live_stream *s)
{
	return s->backend;
}

const char *live_stream_fault(const struct live_stream *s)
{
	return s->fault;
}

bool live_stream_is_ready(const struct live_stream *s)
{
	return s->warm;
}

bool live_stream_engine_fails(struct live_stream *s)
{
	return pipeline_engine_fails(s->pipeline);
}

bool live_stream_needs_new_process(struct live_stream *s)
{
	return pipeline_needs_new_process(s->pipeline);
}

uint64_t live_stream_progress(struct live_stream *s)
{
	return pipeline_progress(s->pipeline);
}

int64_t live_stream_latency_ns(const struct live_stream *s)
{
	struct pipeline_statistics statistics;

	pipeline_statistics(s->pipeline, &statistics);
	return statistics.age_p50_ns;
}

/* ------------------------------------------------------------------------------------------ lists */

static int list(media_list_function function, struct live_device *ret, int capacity)
{
	struct media_device device[LIST_MOST];
	int count = function ? function(device, LIST_MOST) : 0;

	count = MIN_OF(count, LIST_MOST);
	for (int i = 0; i < MIN_OF(count, capacity); i++) {
		memcpy(ret[i].identity, device[i].identity, sizeof(ret->identity));
		memcpy(ret[i].description, device[i].description, sizeof(ret->description));
		ret[i].present = device[i].present;
	}
	return count;
}

int live_stream_list_sources(struct live_stream *s, struct live_device *ret, int capacity)
{
	return list(s->options.list_sources, ret, capacity);
}

int live_stream_list_sinks(struct live_stream *s, struct live_device *ret, int capacity)
{
	return list(s->options.list_sinks, ret, capacity);
}

/* ------------------------------------------------------------------------------------- statistics */

struct table {
	struct live_statistic *to;
	int capacity, count;
};

static struct live_statistic *table_next(struct table *t, const char *name)
{
	struct live_statistic *to;

	if (t->count == t->capacity)
		return NULL;
	to = &t->to[t->count++];
	*to = (struct live_statistic){ 0 };
	(void)snprintf(to->name, sizeof(to->name), "%s", name);
	return to;
}

static void put(struct table *t, const char *name, uint64_t value)
{
	struct live_statistic *to = table_next(t, name);

	if (to)
		to->value = value;
}

static void put_text(struct table *t, const char *name, const char *text)
{
	struct live_statistic *to = table_next(t, name);

	if (!to)
		return;
	to->is_text = true;
	(void)snprintf(to->text, sizeof(to->text), "%s", text);
}

static void put_frames(struct table *t, const struct pipeline_statistics *p)
{
	put(t, "frames-captured", p->frames_captured);
	put(t, "frames-damaged", p->frames_lost);
	put(t, "frames-missed", p->frames_missed);
	put(t, "frames-dropped-overload", p->dropped_overload);
	put(t, "frames-dropped-queue", p->dropped_ring);
	put(t, "frames-dropped-stale", p->dropped_stale);
	put(t, "frames-edited", p->frames_edited);
	put(t, "frames-screened", p->frames_screened);
	put(t, "frames-shown", p->frames_shown);
	put(t, "frames-skipped", p->frames_skipped);
	put(t, "frames-late", p->frames_late);
	put(t, "frames-repeated", p->frames_repeated);
	put(t, "frames-output", p->ticks);
	put(t, "ticks-missed", p->ticks_missed);
	put(t, "sink-frames", p->sink_frames);
	put(t, "sink-frames-dropped", p->sink_dropped);
}

static void put_times(struct table *t, const struct pipeline_statistics *p)
{
	put(t, "age-p50-ns", (uint64_t)p->age_p50_ns);
	put(t, "age-p99-ns", (uint64_t)p->age_p99_ns);
	put(t, "age-max-ns", (uint64_t)p->age_max_ns);
	put(t, "interval-p50-ns", (uint64_t)p->interval_p50_ns);
	put(t, "interval-p99-ns", (uint64_t)p->interval_p99_ns);
	put(t, "delay-ns", (uint64_t)p->delay_ns);
	put(t, "cpu-ns", (uint64_t)p->cpu_ns);
}

static void put_engine(struct table *t, const struct sana_statistics *e)
{
	char name[48];

	put(t, "chunks", e->chunks);
	put(t, "chunks-dropped", e->chunks_dropped);
	put(t, "states-discarded", e->states_discarded);
	put(t, "engine-resets", e->resets);
	put(t, "engine-failures", e->failures);
	put(t, "engine-rebases", e->rebases);
	put(t, "prompts-applied", e->prompts);
	put(t, "model-bytes", e->model_bytes);
	put(t, "stream-bytes", e->stream_bytes);
	for (int i = SANA_STAGE_NONE + 1; i < SANA_STAGE_COUNT; i++) {
		(void)snprintf(name, sizeof(name), "stage-%s-ns",
			       sana_stage_name((enum sana_stage)i));
		put(t, name, (uint64_t)e->stage_ns[i]);
		(void)snprintf(name, sizeof(name), "stage-%s-count",
			       sana_stage_name((enum sana_stage)i));
		put(t, name, e->stage_count[i]);
	}
}

static void put_faults(struct table *t, const struct pipeline_statistics *p)
{
	char name[48];

	for (int i = 0; i < p->faults; i++) {
		(void)snprintf(name, sizeof(name), "fault-%.40s", p->fault[i].name);
		put(t, name, p->fault[i].count);
	}
}

int live_stream_statistics(struct live_stream *s, struct live_statistic *ret, int capacity)
{
	struct table t = { ret, capacity, 0 };
	struct pipeline_statistics p;

	pipeline_statistics(s->pipeline, &p);
	put_text(&t, "state", live_state_name(s->state));
	put_text(&t, "fault", s->fault);
	put_frames(&t, &p);
	put_times(&t, &p);
	put(&t, "capture-waiting", (uint64_t)p.capture_waiting);
	put(&t, "present-waiting", (uint64_t)p.present_waiting);
	put(&t, "width", (uint64_t)p.width);
	put(&t, "height", (uint64_t)p.height);
	put(&t, "sinks-open", (uint64_t)p.sinks);
	put(&t, "source-opens", p.source_opens);
	put(&t, "sink-opens", p.sink_opens);
	put(&t, "engine-opens", p.engine_rebuilds);
	put(&t, "pictures-wanting", p.pool_empty);
	put(&t, "events-dropped", p.events_dropped + s->events_dropped);
	put_engine(&t, &p.engine);
	put_faults(&t, &p);
	return t.count;
}

/* Over a second or more: lines are also asked for when something happens. */
static void rate_measure(struct live_stream *s, int64_t now_ns, uint64_t shown)
{
	const int64_t passed_ns = now_ns - s->described_ns;

	if (passed_ns < CLOCK_SECOND_NS)
		return;
	s->rate = s->described_ns && s->state == LIVE_STATE_RUNNING ?
			  (double)(shown - s->described_shown) * 1e9 / (double)passed_ns :
			  0.0;
	s->described_ns = now_ns;
	s->described_shown = shown;
}

void live_stream_describe(struct live_stream *s, char *ret, size_t bytes)
{
	const int64_t now_ns = clock_now_ns();
	struct pipeline_statistics p;

	pipeline_statistics(s->pipeline, &p);
	rate_measure(s, now_ns, p.frames_shown);
	if (!s->model_open && !pipeline_engine_fails(s->pipeline))
		(void)snprintf(ret, bytes, "%s: loading %s", live_state_name(s->state), s->loading);
	else if (s->fault[0])
		(void)snprintf(ret, bytes, "%s: %s: %s", live_state_name(s->state), s->fault,
			       s->fault_text);
	else if (!s->watched)
		(void)snprintf(ret, bytes, "%s: resting, nobody looks", live_state_name(s->state));
	else if (s->started && !s->prompt[0])
		(void)snprintf(ret, bytes, "%s: waiting for a prompt", live_state_name(s->state));
	else if (s->state == LIVE_STATE_RUNNING && s->rate > 0.0)
		(void)snprintf(ret, bytes, "running: %.1f edited frames/s, %.2f s old", s->rate,
			       (double)p.age_p50_ns / 1e9);
	else
		(void)snprintf(ret, bytes, "%s", live_state_name(s->state));
}
