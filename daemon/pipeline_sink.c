/* One thread per sink: opens it, writes to it, opens it again. A slow or broken one disturbs no other. */
#include "daemon/pipeline_private.h"

#include "base/util.h"

#include <errno.h>

/* ----------------------------------------------------------------------------------- the mailbox */

static bool mailbox_take(struct mailbox *m, struct mail *ret)
{
	if (m->count == 0)
		return false;
	*ret = m->mail[m->first];
	m->first = (m->first + 1) % SINK_WAITING;
	m->count--;
	return true;
}

void sink_mail(struct sink_slot *s, const struct mail *mail)
{
	struct mailbox *m = &s->mailbox;
	struct mail evicted = { 0 };

	(void)pthread_mutex_lock(&m->lock);
	if (m->count == SINK_WAITING)
		(void)mailbox_take(m, &evicted);
	m->mail[(m->first + m->count) % SINK_WAITING] = *mail;
	m->mail[(m->first + m->count) % SINK_WAITING].frame = frame_ref(mail->frame);
	m->count++;
	(void)pthread_cond_signal(&m->filled);
	(void)pthread_mutex_unlock(&m->lock);
	if (evicted.frame && atomic_load(&s->open))
		atomic_fetch_add(&s->dropped, 1);
	(void)frame_unref(evicted.frame);
}

static bool mailbox_wait(struct mailbox *m, int64_t deadline_ns, struct mail *ret)
{
	const struct timespec deadline = clock_to_timespec(deadline_ns);
	bool there;

	(void)pthread_mutex_lock(&m->lock);
	while (deadline_ns && m->count == 0 && !m->woken)
		if (pthread_cond_timedwait(&m->filled, &m->lock, &deadline) == ETIMEDOUT)
			break;
	m->woken = false;
	there = mailbox_take(m, ret);
	(void)pthread_mutex_unlock(&m->lock);
	return there;
}

static void mailbox_wake(struct mailbox *m)
{
	(void)pthread_mutex_lock(&m->lock);
	m->woken = true;
	(void)pthread_cond_signal(&m->filled);
	(void)pthread_mutex_unlock(&m->lock);
}

static void mailbox_empty(struct mailbox *m)
{
	struct mail mail;

	while (mailbox_wait(m, 0, &mail))
		(void)frame_unref(mail.frame);
}

/* -------------------------------------------------------------------------------------- the sink */

static int sink_open(struct sink_slot *s, struct sana_error *error)
{
	struct pipeline *p = s->pipeline;
	const struct media_sink_wish wish = {
		.path = s->identity,
		.width = p->width,
		.height = p->height,
		.codec = p->sink_codec,
		.fps_num = p->options.fps_num,
		.fps_den = p->options.fps_den,
		.time_base_num = p->options.fps_den,
		.time_base_den = p->options.fps_num,
		.threads = 1,
	};

	s->origin_ns = s->last_timestamp_ns = -1;
	return p->options.devices.open_sink(p->options.devices.context, &wish, &s->sink, error);
}

static void sink_close(struct sink_slot *s, enum media_finish how)
{
	struct sana_error error = { 0 };

	if (!s->sink)
		return;
	if (media_sink_finish(s->sink, how, &error) < 0)
		fault_note(&s->pipeline->events, &error);
	s->sink = media_sink_close(s->sink);
	atomic_store(&s->open, false);
	atomic_store(&s->watched, false);
}

static void sink_fail(struct sink_slot *s, const struct sana_error *error)
{
	fault_set(&s->pipeline->events, FAULT_SINK + s->number, error);
	backoff_fail(&s->backoff, s->pipeline, 0);
}

/* Only what was newly shown has an age that counts: repeats are as old as the engine lets them get. */
static void sink_measure(struct pipeline *p, const struct mail *mail)
{
	struct present *present = &p->present;
	const int64_t now_ns = clock_now_ns();

	if (!mail->fresh)
		return;
	(void)pthread_mutex_lock(&present->measures_lock);
	histogram_add(&present->age, now_ns, now_ns - mail->frame->capture_ns);
	(void)pthread_mutex_unlock(&present->measures_lock);
}

static void sink_write(struct sink_slot *s, const struct mail *mail)
{
	struct pipeline *p = s->pipeline;
	const struct frame *frame = mail->frame;
	struct sana_error error = { 0 };
	int r;

	if (mail->timestamp_ns <= s->last_timestamp_ns)
		return;
	/* A recording begins at its own beginning. */
	if (s->origin_ns < 0)
		s->origin_ns = mail->timestamp_ns;
	s->last_timestamp_ns = mail->timestamp_ns;
	r = media_sink_write(s->sink, frame->rgb, frame_row_bytes(frame),
			     mail->timestamp_ns - s->origin_ns, 0, &error);
	if (r == -EAGAIN) {
		/* Counted once for as long as it lasts. */
		if (!s->held_back)
			fault_set(&p->events, FAULT_SINK + s->number, &error);
		s->held_back = true;
		return;
	}
	s->held_back = false;
	if (r < 0) {
		sink_fail(s, &error);
		sink_close(s, MEDIA_FINISH_CUT);
		return;
	}
	atomic_fetch_add(&s->frames, 1);
	s->backoff = (struct backoff){ 0 };
	fault_clear(&p->events, FAULT_SINK + s->number);
	sink_measure(p, mail);
}

static void sink_try(struct sink_slot *s)
{
	struct sana_error error = { 0 };
	const char *partial;

	if (sink_open(s, &error) < 0) {
		sink_fail(s, &error);
		return;
	}
	/* Writing to a device is little work; the encoder of a recording is not. */
	partial = media_sink_info(s->sink)->partial_path;
	if (!partial || !*partial)
		pipeline_thread_is_light();
	atomic_fetch_add(&s->opens, 1);
	atomic_store(&s->watched, true);
	atomic_store(&s->open, true);
}

static void sink_turn(struct sink_slot *s)
{
	struct pipeline *p = s->pipeline;
	const int64_t deadline_ns = clock_now_ns() + BEAT_MS / 2 * CLOCK_MS_NS;
	struct mail mail = { 0 };
	const bool mailed = mailbox_wait(&s->mailbox, deadline_ns, &mail);
	const struct wanted wanted = pipeline_wanted(p);
	bool watched;

	if (!wanted.active)
		sink_close(s, MEDIA_FINISH_COMPLETE);
	else if (!s->sink && !backoff_waits(&s->backoff, p))
		sink_try(s);
	if (s->sink) {
		watched = media_sink_is_watched(s->sink);
		if (watched != atomic_exchange(&s->watched, watched) && watched)
			pipeline_poke(p);
		/* The first frame is written anyway: some devices are seen only once they have one. */
		if (mailed && (watched || !wanted.settings.sleep_unwatched ||
			       media_sink_info(s->sink)->frames == 0))
			sink_write(s, &mail);
	}
	(void)frame_unref(mail.frame);
}

void *sink_main(void *argument)
{
	struct sink_slot *s = argument;
	struct pipeline *p = s->pipeline;
	bool works = true;

	while (works) {
		sink_turn(s);
		(void)pthread_mutex_lock(&p->lock);
		works = s->phase == SINK_WORKS;
		(void)pthread_mutex_unlock(&p->lock);
	}
	sink_close(s, MEDIA_FINISH_COMPLETE);
	fault_clear(&p->events, FAULT_SINK + s->number);
	(void)pthread_mutex_lock(&p->lock);
	s->phase = SINK_ENDED;
	(void)pthread_mutex_unlock(&p->lock);
	mailbox_empty(&s->mailbox);
	return NULL;
}

/* ------------------------------------------------------------------------------ the list of sinks */

void sinks_reap(struct pipeline *p, bool wait)
{
	for (int i = 0; i < SINK_SLOTS; i++) {
		struct sink_slot *s = &p->sink[i];
		enum sink_phase phase;

		(void)pthread_mutex_lock(&p->lock);
		phase = s->phase;
		(void)pthread_mutex_unlock(&p->lock);
		if (phase == SINK_UNUSED || (phase != SINK_ENDED && !wait))
			continue;
		(void)pthread_join(s->thread, NULL);
		/* What the present thread gave it after its last look. */
		mailbox_empty(&s->mailbox);
		(void)pthread_mutex_lock(&p->lock);
		s->phase = SINK_UNUSED;
		(void)pthread_mutex_unlock(&p->lock);
	}
}

static struct sink_slot *slot_find(struct pipeline *p, const char *identity)
{
	for (int i = 0; i < SINK_SLOTS; i++)
		if (p->sink[i].phase == SINK_WORKS && strcmp(p->sink[i].identity, identity) == 0)
			return &p->sink[i];
	return NULL;
}

static bool is_wanted(const char *identity, const char *const *identities, int count)
{
	for (int i = 0; i < count; i++)
		if (strcmp(identity, identities[i]) == 0)
			return true;
	return false;
}

static int slot_start(struct pipeline *p, const char *identity, struct sana_error *error)
{
	struct sink_slot *s = NULL;
	int r;

	for (int i = 0; i < SINK_SLOTS && !s; i++)
		if (p->sink[i].phase == SINK_UNUSED)
			s = &p->sink[i];
	if (!s)
		return sana_error_set(error, -EBUSY, "sink.busy",
				      "%s: too many sinks are still being closed; try again.",
				      identity);
	(void)snprintf(s->identity, sizeof(s->identity), "%s", identity);
	s->backoff = (struct backoff){ 0 };
	s->held_back = false;
	atomic_store(&s->open, false);
	s->phase = SINK_WORKS;
	r = -pthread_create(&s->thread, NULL, sink_main, s);
	if (r < 0) {
		s->phase = SINK_UNUSED;
		return sana_error_set(error, r, "sink.thread", "%s: no thread for it: %s.",
				      identity, strerror(-r));
	}
	return 0;
}

static int sinks_check(const char *const *identities, int count, struct sana_error *error)
{
	if (count > PIPELINE_SINKS)
		return sana_error_set(error, -E2BIG, "sink.many",
				      "%d sinks are asked for, at most %d go together.", count,
				      PIPELINE_SINKS);
	for (int i = 0; i < count; i++) {
		if (strlen(identities[i]) >= PIPELINE_IDENTITY_BYTES || !identities[i][0])
			return sana_error_set(error, -EINVAL, "sink.identity",
					      "A sink's name has 1 to %d bytes.",
					      PIPELINE_IDENTITY_BYTES - 1);
		if (is_wanted(identities[i], identities, i))
			return sana_error_set(error, -EINVAL, "sink.twice",
					      "%s is given twice: name each sink once.",
					      identities[i]);
	}
	return 0;
}

/* Room for those that do not run yet, before any is ended. The lock is held. */
static int slots_check(struct pipeline *p, const char *const *identities, int count,
		       struct sana_error *error)
{
	int unused = 0, needed = 0;

	for (int i = 0; i < SINK_SLOTS; i++)
		unused += p->sink[i].phase == SINK_UNUSED;
	for (int i = 0; i < count; i++)
		needed += slot_find(p, identities[i]) == NULL;
	return needed <= unused ?
		       0 :
		       sana_error_set(error, -EBUSY, "sink.busy",
				      "Too many sinks are still being closed; try again.");
}

int pipeline_check_sinks(struct pipeline *p, const char *const *identities, int count,
			 struct sana_error *error)
{
	int r;

	r = sinks_check(identities, count, error);
	if (r < 0)
		return r;
	sinks_reap(p, false);
	(void)pthread_mutex_lock(&p->lock);
	r = slots_check(p, identities, count, error);
	(void)pthread_mutex_unlock(&p->lock);
	return r;
}

int pipeline_set_sinks(struct pipeline *p, const char *const *identities, int count,
		       struct sana_error *error)
{
	int r;

	r = pipeline_check_sinks(p, identities, count, error);
	if (r < 0)
		return r;
	(void)pthread_mutex_lock(&p->lock);
	for (int i = 0; i < SINK_SLOTS; i++)
		if (p->sink[i].phase == SINK_WORKS &&
		    !is_wanted(p->sink[i].identity, identities, count)) {
			p->sink[i].phase = SINK_ENDS;
			mailbox_wake(&p->sink[i].mailbox);
		}
	for (int i = 0; i < count && r == 0; i++)
		if (!slot_find(p, identities[i]))
			r = slot_start(p, identities[i], error);
	(void)pthread_mutex_unlock(&p->lock);
	return r;
}
