/* Counters and measures, and whether there is progress. */
#include "daemon/pipeline_private.h"

#include "base/util.h"

uint64_t pipeline_progress(struct pipeline *p)
{
	const uint64_t beat[] = {
		atomic_load(&p->capture.beat),
		atomic_load(&p->engine.beat),
		atomic_load(&p->caption.beat),
		atomic_load(&p->present.beat),
	};

	snapshot_look(p);
	for (size_t i = 0; i < ARRAY_SIZE(beat); i++)
		if (beat[i] == p->last_beat[i])
			return p->progress;
	memcpy(p->last_beat, beat, sizeof(beat));
	return ++p->progress;
}

bool pipeline_engine_fails(struct pipeline *p)
{
	return fault_is_present(&p->events, FAULT_ENGINE);
}

bool pipeline_needs_new_process(struct pipeline *p)
{
	return atomic_load(&p->engine.hopeless);
}

static int64_t thread_cpu_ns(pthread_t thread)
{
	struct timespec t;
	clockid_t clock;

	if (pthread_getcpuclockid(thread, &clock) != 0 || clock_gettime(clock, &t) < 0)
		return 0;
	return (int64_t)t.tv_sec * CLOCK_SECOND_NS + t.tv_nsec;
}

static void statistics_of_sinks(struct pipeline *p, struct pipeline_statistics *ret)
{
	(void)pthread_mutex_lock(&p->lock);
	for (int i = 0; i < SINK_SLOTS; i++) {
		const struct sink_slot *s = &p->sink[i];

		ret->sink_frames += atomic_load(&s->frames);
		ret->sink_dropped += atomic_load(&s->dropped);
		ret->sink_opens += atomic_load(&s->opens);
		ret->sinks += s->phase == SINK_WORKS && atomic_load(&s->open);
		if (s->phase == SINK_WORKS)
			ret->cpu_ns += thread_cpu_ns(s->thread);
	}
	(void)pthread_mutex_unlock(&p->lock);
}

static void statistics_of_present(struct present *s, struct pipeline_statistics *ret)
{
	(void)pthread_mutex_lock(&s->measures_lock);
	ret->ticks = s->counters[PRESENT_TICKS];
	ret->ticks_missed = s->counters[PRESENT_MISSED];
	ret->frames_shown = s->counters[PRESENT_SHOWN];
	ret->frames_skipped = s->counters[PRESENT_SKIPPED] + s->counters[PRESENT_OVERRUN];
	ret->frames_late = s->counters[PRESENT_LATE];
	ret->frames_repeated = s->counters[PRESENT_REPEATED];
	ret->age_p50_ns = histogram_quantile(&s->age, 0.5);
	ret->age_p99_ns = histogram_quantile(&s->age, 0.99);
	ret->age_max_ns = histogram_most(&s->age);
	ret->interval_p50_ns = histogram_quantile(&s->interval, 0.5);
	ret->interval_p99_ns = histogram_quantile(&s->interval, 0.99);
	ret->delay_ns = s->delay_ns;
	ret->present_waiting = s->waiting;
	(void)pthread_mutex_unlock(&s->measures_lock);
}

void pipeline_statistics(struct pipeline *p, struct pipeline_statistics *ret)
{
	const struct ring_counters ring = ring_counters(&p->capture.ring);

	*ret = (struct pipeline_statistics){
		.frames_captured = atomic_load(&p->capture.captured),
		.frames_lost = atomic_load(&p->capture.lost_frames),
		.frames_missed = atomic_load(&p->capture.missed),
		.dropped_overload = atomic_load(&p->capture.overload),
		.dropped_ring = ring.evicted,
		.dropped_stale = atomic_load(&p->engine.stale),
		.frames_edited = atomic_load(&p->engine.edited),
		.frames_screened = atomic_load(&p->engine.screened),
		.engine_rebuilds = atomic_load(&p->engine.rebuilds),
		.source_opens = atomic_load(&p->capture.opens),
		.pool_empty = frame_pool_refused(p->pool),
		.capture_waiting = ring.count,
		.width = p->width,
		.height = p->height,
		.cpu_ns = thread_cpu_ns(p->capture.thread) + thread_cpu_ns(p->present.thread),
	};
	statistics_of_present(&p->present, ret);
	statistics_of_sinks(p, ret);
	ret->faults = faults_copy(&p->events, ret->fault, &ret->events_dropped);
	(void)pthread_mutex_lock(&p->lock);
	if (p->engine.stream)
		p->options.engine->statistics(p->engine.stream, &ret->engine);
	(void)pthread_mutex_unlock(&p->lock);
}
