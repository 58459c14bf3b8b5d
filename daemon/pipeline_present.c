/* The present thread: an even output clock, and something to show at each of its ticks. */
#include "daemon/pipeline_private.h"

#include "base/util.h"

#include <errno.h>

enum {
	/* A lost source is seen within 2 s, whatever is still on its way. */
	LOST_MOST_MS = 1700,
	/* Between two edited frames of a slow source. */
	LOST_GAP_MS = 300,
};

static void frame_release(void *context, void *frame)
{
	(void)context;
	(void)frame_unref(frame);
}

static void present_start(struct pipeline *p)
{
	const struct pacer_wish wish = {
		.fps_num = p->options.fps_num,
		.fps_den = p->options.fps_den,
		.cap_ns = p->options.settings.latency_cap_ns,
		/* One burst that is shown while the next one comes. */
		.capacity = MIN_OF(p->first_chunk_frames + p->chunk_frames, PACER_CAPACITY),
		.release = frame_release,
	};

	p->present.first_tick_ns = clock_now_ns();
	pacer_init(&p->present.pacer, &wish, p->present.first_tick_ns);
}

static void frames_arrive(struct pipeline *p)
{
	struct frame *frame;

	while ((frame = ring_pop(&p->present.ring)))
		pacer_arrive(&p->present.pacer, frame->ready_ns, frame->capture_ns, frame);
}

/* ------------------------------------------------------------------------------- what is shown */

/* The card is drawn when its text changes, which is not often. */
static struct frame *card_get(struct pipeline *p, const char *text)
{
	struct present *s = &p->present;

	if (s->card && strcmp(s->card_text, text) == 0)
		return frame_ref(s->card);
	s->card = frame_unref(s->card);
	s->card = frame_get(p->pool);
	if (!s->card)
		return NULL;
	s->card->capture_ns = 0;
	(void)snprintf(s->card_text, sizeof(s->card_text), "%s", text);
	card_draw(s->card->rgb, p->width, p->height, text);
	return frame_ref(s->card);
}

/* What is missing, for whoever sees the card. */
static struct frame *card_of(struct pipeline *p, const struct wanted *wanted)
{
	char text[sizeof(p->present.card_text)];

	if (wanted->paused)
		(void)snprintf(text, sizeof(text), "PAUSED");
	else if (!wanted->source[0])
		(void)snprintf(text, sizeof(text), "NO SOURCE SET");
	else if (!atomic_load(&p->capture.alive))
		(void)snprintf(text, sizeof(text), "NO SIGNAL\n%s", wanted->source);
	else if (wanted->loading[0])
		(void)snprintf(text, sizeof(text), "%s", wanted->loading);
	else
		(void)snprintf(text, sizeof(text), "PLEASE WAIT");
	return card_get(p, text);
}

static struct frame *fallback(struct pipeline *p, const struct wanted *wanted,
			      enum pipeline_show show)
{
	struct frame *frame = NULL;

	if (show == PIPELINE_SHOW_LAST && p->present.current)
		return frame_ref(p->present.current);
	if (show == PIPELINE_SHOW_SOURCE && !wanted->paused)
		frame = capture_latest(p);
	if (frame && clock_now_ns() - frame->capture_ns > wanted->settings.hold_ns)
		frame = frame_unref(frame);
	return frame ? frame : card_of(p, wanted);
}

/* What was on its way when the source was lost is shown, and then held, but not for long. */
static bool lost_holds(const struct present *s, int64_t hold_ns, int64_t dead_ns, int64_t shown_ns)
{
	if (dead_ns >= MAX_OF(hold_ns, LOST_MOST_MS * CLOCK_MS_NS))
		return false;
	return dead_ns <= hold_ns || s->pacer.count > 0 || shown_ns <= LOST_GAP_MS * CLOCK_MS_NS;
}

/* Whether the last edited frame stays. Once something else took its place, only a new one comes back. */
static bool current_holds(struct pipeline *p, int64_t hold_ns, int64_t now_ns)
{
	const struct present *s = &p->present;
	const int64_t shown_ns = now_ns - s->current_ns;

	if (!s->current || !s->running)
		return false;
	if (!atomic_load(&p->capture.alive))
		return lost_holds(s, hold_ns, now_ns - atomic_load(&p->capture.dead_since_ns),
				  shown_ns);
	/* A slow engine is not a lost one. */
	if (atomic_load(&p->engine.wants))
		hold_ns = MAX_OF(hold_ns, 2 * s->pacer.delay_ns);
	return shown_ns <= hold_ns;
}

/* What the sinks get at this tick; a reference. */
static struct frame *choose(struct pipeline *p, const struct wanted *wanted, int64_t now_ns)
{
	struct present *s = &p->present;

	if (wanted->paused)
		return fallback(p, wanted, wanted->settings.while_paused);
	if (current_holds(p, wanted->settings.hold_ns, now_ns))
		return frame_ref(s->current);
	/* Whoever comes back is told. */
	s->running = false;
	return fallback(p, wanted,
			s->current ? wanted->settings.while_lost : wanted->settings.while_warming);
}

static void edited_take(struct pipeline *p, struct frame *frame, int64_t now_ns)
{
	struct present *s = &p->present;
	/* Which life of the source this is. */
	const int64_t source_ns = atomic_load(&p->capture.discontinuity_ns);

	(void)frame_unref(s->current);
	s->current = frame;
	s->current_ns = now_ns;
	if (frame->capture_ns >= source_ns && atomic_load(&p->capture.alive) &&
	    (!s->running || s->running_source_ns != source_ns)) {
		s->running = true;
		s->running_source_ns = source_ns;
		events_send(&p->events, &(struct pipeline_event){ .kind = PIPELINE_EVENT_RUNNING });
	}
}

/* ------------------------------------------------------------------------------------ to the sinks */

/* Frames are handed on by pointer; each sink writes at its own pace. */
static void hand_out(struct pipeline *p, const struct mail *mail)
{
	struct frame *old;

	(void)pthread_mutex_lock(&p->lock);
	for (int i = 0; i < SINK_SLOTS; i++)
		if (p->sink[i].phase == SINK_WORKS)
			sink_mail(&p->sink[i], mail);
	old = p->present.shown;
	p->present.shown = mail->frame;
	(void)pthread_mutex_unlock(&p->lock);
	(void)frame_unref(old);
}

static void measure(struct pipeline *p, int64_t now_ns)
{
	struct present *s = &p->present;
	const struct pacer *pacer = &s->pacer;

	(void)pthread_mutex_lock(&s->measures_lock);
	if (s->last_output_ns)
		histogram_add(&s->interval, now_ns, now_ns - s->last_output_ns);
	s->last_output_ns = now_ns;
	s->counters[PRESENT_TICKS]++;
	s->counters[PRESENT_MISSED] = pacer->missed;
	s->counters[PRESENT_SHOWN] = pacer->shown;
	s->counters[PRESENT_SKIPPED] = pacer->skipped;
	s->counters[PRESENT_LATE] = pacer->late;
	s->counters[PRESENT_REPEATED] = pacer->repeated;
	s->counters[PRESENT_OVERRUN] = pacer->overrun;
	s->delay_ns = pacer->delay_ns;
	s->waiting = pacer->count;
	(void)pthread_mutex_unlock(&s->measures_lock);
}

/* --------------------------------------------------------------------------------------- resting */

/* All sinks that are open have nobody who looks, and have had nobody for a while. */
static void watch(struct pipeline *p, const struct wanted *wanted, int64_t now_ns)
{
	struct present *s = &p->present;
	int open = 0, watched = 0;
	bool rest;

	for (int i = 0; i < SINK_SLOTS; i++) {
		open += atomic_load(&p->sink[i].open);
		watched += atomic_load(&p->sink[i].open) && atomic_load(&p->sink[i].watched);
	}
	if (!wanted->settings.sleep_unwatched || open == 0 || watched > 0)
		s->unwatched_since_ns = 0;
	else if (!s->unwatched_since_ns)
		s->unwatched_since_ns = now_ns;
	rest = s->unwatched_since_ns &&
	       now_ns - s->unwatched_since_ns >= wanted->settings.unwatched_ns;
	if (rest == wanted->resting)
		return;
	(void)pthread_mutex_lock(&p->lock);
	p->wanted.resting = rest;
	(void)pthread_mutex_unlock(&p->lock);
	pipeline_poke(p);
	events_send(&p->events,
		    &(struct pipeline_event){ .kind = PIPELINE_EVENT_WATCHED, .on = !rest });
}

/* -------------------------------------------------------------------------------------- the thread */

/* Frames that are too old for the cap, one after another: somebody has to know why nothing moves. */
static void cap_watch(struct pipeline *p, uint64_t late_before, uint64_t shown_before)
{
	const struct pacer *pacer = &p->present.pacer;
	struct sana_error error;

	if (pacer->shown != shown_before) {
		fault_clear(&p->events, FAULT_LATENCY);
		return;
	}
	if (pacer->late == late_before ||
	    clock_now_ns() - p->present.current_ns < pacer->wish.cap_ns)
		return;
	(void)sana_error_set(&error, -ETIME, "latency.cap",
			     "Edited frames are older than the latency cap of %.1f s when they are "
			     "done and are not shown: raise the cap, or take a faster engine or a "
			     "smaller picture.",
			     (double)pacer->wish.cap_ns / 1e9);
	fault_set(&p->events, FAULT_LATENCY, &error);
}

static void tick(struct pipeline *p, const struct wanted *wanted)
{
	struct present *s = &p->present;
	const int64_t now_ns = clock_now_ns();
	const uint64_t late = s->pacer.late, shown = s->pacer.shown;
	struct mail mail = { 0 };
	struct frame *frame;
	uint64_t number;

	pacer_set_cap(&s->pacer, wanted->settings.latency_cap_ns);
	frames_arrive(p);
	/* A stop and a start between two ticks leave no other trace here, and RUNNING is waited for. */
	if (s->running_serial != wanted->start_serial)
		s->running = false;
	s->running_serial = wanted->start_serial;
	/* What is under way when the stream is paused is not shown any more. */
	if (wanted->paused)
		pacer_clear(&s->pacer);
	frame = pacer_tick(&s->pacer, now_ns, &number);
	if (frame)
		edited_take(p, frame, now_ns);
	cap_watch(p, late, shown);
	watch(p, wanted, now_ns);
	mail.frame = choose(p, wanted, now_ns);
	if (!mail.frame)
		return;
	mail.fresh = frame && mail.frame == frame;
	mail.timestamp_ns = pacer_tick_ns(&s->pacer, number) - s->first_tick_ns;
	hand_out(p, &mail);
	measure(p, now_ns);
}

/* What comes after a rest begins as at the first start. */
static void present_forget(struct pipeline *p)
{
	p->present.current = frame_unref(p->present.current);
	p->present.running = false;
}

/* Until the next tick or a change, but never longer than a beat. */
static void present_wait(struct pipeline *p, int64_t until_ns)
{
	const struct timespec until = clock_to_timespec(until_ns);

	(void)pthread_mutex_lock(&p->lock);
	if (!atomic_load(&p->stopping))
		(void)pthread_cond_timedwait(&p->present.wake, &p->lock, &until);
	(void)pthread_mutex_unlock(&p->lock);
}

/* Nothing is shown any more; the next start begins with what is there then. */
static void present_rest(struct pipeline *p)
{
	struct present *s = &p->present;
	struct frame *frame;

	while ((frame = ring_pop(&s->ring)))
		(void)frame_unref(frame);
	pacer_clear(&s->pacer);
	pacer_skip_to(&s->pacer, clock_now_ns());
	present_forget(p);
	(void)pthread_mutex_lock(&p->lock);
	frame = s->shown;
	s->shown = NULL;
	(void)pthread_mutex_unlock(&p->lock);
	(void)frame_unref(frame);
	(void)pthread_mutex_lock(&s->measures_lock);
	s->last_output_ns = 0;
	(void)pthread_mutex_unlock(&s->measures_lock);
}

/* Nobody looks: no clock runs. A sink whose reader comes wakes us. */
static void present_sleep(struct pipeline *p, const struct wanted *wanted)
{
	frames_arrive(p);
	pacer_clear(&p->present.pacer);
	present_forget(p);
	present_wait(p, clock_now_ns() + BEAT_MS * CLOCK_MS_NS);
	pacer_skip_to(&p->present.pacer, clock_now_ns());
	watch(p, wanted, clock_now_ns());
}

void *present_main(void *argument)
{
	struct pipeline *p = argument;
	struct present *s = &p->present;

	pipeline_thread_is_light();
	present_start(p);
	while (!atomic_load(&p->stopping)) {
		const struct wanted wanted = pipeline_wanted(p);
		const int64_t next_ns = pacer_next_ns(&s->pacer);

		atomic_fetch_add(&s->beat, 1);
		if (!wanted.active) {
			present_rest(p);
			present_wait(p, clock_now_ns() + BEAT_MS * CLOCK_MS_NS);
		} else if (wanted.resting) {
			present_sleep(p, &wanted);
		} else if (clock_now_ns() < next_ns) {
			present_wait(p, next_ns);
		} else {
			tick(p, &wanted);
		}
	}
	present_rest(p);
	s->card = frame_unref(s->card);
	return NULL;
}
