/* The capture thread: the source's frames, in the model's size, with their times. */
#include "daemon/pipeline_private.h"

#include "base/util.h"

#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>

enum {
	/* Damaged pictures count as a fault of the source when no good one came for so long. */
	SOFT_FAULT_MS = 500,
	/* A file that is read this much too late is not caught up with. */
	BEHIND_MS = 500,
};

/* The source is to be closed: another is wanted, or none. */
static bool capture_is_over(void *context)
{
	struct pipeline *p = context;
	bool over;

	if (atomic_load(&p->stopping))
		return true;
	/* Asked while waiting for a device, which is a sign of life. */
	atomic_fetch_add(&p->capture.beat, 1);
	(void)pthread_mutex_lock(&p->lock);
	over = !pipeline_works(&p->wanted) || p->wanted.source_serial != p->capture.serial;
	(void)pthread_mutex_unlock(&p->lock);
	return over;
}

/* Until the deadline, or until somebody pokes. */
static void capture_wait(struct pipeline *p, int64_t deadline_ns)
{
	struct pollfd fd = { .fd = p->capture.wake_fd, .events = POLLIN };
	const int64_t beat_ns = clock_now_ns() + BEAT_MS * CLOCK_MS_NS;
	eventfd_t value;

	atomic_fetch_add(&p->capture.beat, 1);
	if (poll(&fd, 1, clock_poll_ms(MIN_OF(deadline_ns, beat_ns))) > 0)
		(void)eventfd_read(p->capture.wake_fd, &value);
}

static void capture_say(struct pipeline *p, enum pipeline_event_kind kind)
{
	struct pipeline_event event = { .kind = kind };

	(void)snprintf(event.text, sizeof(event.text), "%s", p->capture.identity);
	events_send(&p->events, &event);
}

static void capture_dies(struct capture *c)
{
	if (atomic_load(&c->alive))
		atomic_store(&c->dead_since_ns, clock_now_ns());
	atomic_store(&c->alive, false);
}

static void capture_lose(struct pipeline *p, const struct sana_error *error)
{
	fault_set(&p->events, FAULT_SOURCE, error);
	capture_dies(&p->capture);
	if (!p->capture.lost)
		capture_say(p, PIPELINE_EVENT_SOURCE_LOST);
	p->capture.lost = true;
}

static int capture_open(struct pipeline *p, struct sana_error *error)
{
	struct capture *c = &p->capture;
	const struct media_source_wish wish = {
		.path = c->identity,
		.width = p->options.source_width,
		.height = p->options.source_height,
		.fps_num = p->options.source_fps_num,
		.fps_den = p->options.source_fps_den,
		.threads = 1,
		.stopped = capture_is_over,
		.stopped_context = p,
		.stop_fd = c->wake_fd,
		.endless = true,
	};

	c->seen = false;
	c->missed_seen = 0;
	c->anchor_ns = INT64_MIN;
	return p->options.devices.open_source(p->options.devices.context, &wish, &c->source, error);
}

/* ---------------------------------------------------------------------------------- one picture */

/* Files are read at their own speed. False: the wait was ended. */
static bool capture_wait_until(struct pipeline *p, int64_t due_ns)
{
	while (clock_now_ns() < due_ns) {
		capture_wait(p, due_ns);
		if (capture_is_over(p))
			return false;
	}
	return true;
}

/* When the picture was captured; strictly growing. False: the wait for it was ended. */
static bool capture_time(struct pipeline *p, const struct media_picture *picture, int64_t *ret_ns)
{
	struct capture *c = &p->capture;
	const int64_t now_ns = clock_now_ns();
	int64_t ns = picture->capture_ns;

	if (!media_source_info(c->source)->live && !ns) {
		if (c->anchor_ns == INT64_MIN ||
		    now_ns - c->anchor_ns - picture->timestamp_ns > BEHIND_MS * CLOCK_MS_NS)
			c->anchor_ns = now_ns - picture->timestamp_ns;
		ns = c->anchor_ns + picture->timestamp_ns;
		if (!capture_wait_until(p, ns))
			return false;
	}
	/* A driver's clock may be wrong, or another one. */
	if (ns <= 0 || ns > clock_now_ns() || now_ns - ns > 10 * CLOCK_SECOND_NS)
		ns = now_ns;
	c->last_ns = MAX_OF(ns, c->last_ns + 1);
	*ret_ns = c->last_ns;
	return true;
}

/* To the model, if it wants it and keeps up. */
static void capture_give(struct pipeline *p, struct frame *frame)
{
	struct capture *c = &p->capture;
	bool admitted;

	(void)pthread_mutex_lock(&p->lock);
	admitted = admit_offer(&c->admit, frame->capture_ns);
	(void)pthread_mutex_unlock(&p->lock);
	if (!atomic_load(&p->engine.wants))
		return;
	if (admitted)
		(void)frame_unref(ring_push(&c->ring, frame_ref(frame)));
	else
		atomic_fetch_add(&c->overload, 1);
}

static int capture_take(struct pipeline *p, const struct media_picture *picture, int64_t capture_ns,
			struct sana_error *error)
{
	struct capture *c = &p->capture;
	struct frame *frame = frame_get(p->pool);
	struct frame *old;
	int r;

	if (!frame)
		return 0;
	r = media_convert_run(c->convert, picture, frame->rgb, frame_row_bytes(frame), error);
	if (r < 0) {
		(void)frame_unref(frame);
		return r;
	}
	frame->capture_ns = capture_ns;
	(void)pthread_mutex_lock(&p->lock);
	old = c->latest;
	c->latest = frame_ref(frame);
	(void)pthread_mutex_unlock(&p->lock);
	(void)frame_unref(old);
	capture_give(p, frame);
	(void)frame_unref(frame);
	return 0;
}

/* A picture is lost, the source is not. */
static void capture_soft_fault(struct pipeline *p, const struct sana_error *error)
{
	atomic_fetch_add(&p->capture.lost_frames, 1);
	if (clock_now_ns() - p->capture.last_good_ns > SOFT_FAULT_MS * CLOCK_MS_NS)
		capture_lose(p, error);
	else
		fault_note(&p->events, error);
}

static void capture_is_well(struct pipeline *p)
{
	struct capture *c = &p->capture;

	c->last_good_ns = clock_now_ns();
	atomic_store(&c->alive, true);
	if (c->seen && !c->lost)
		return;
	c->seen = true;
	fault_clear(&p->events, FAULT_SOURCE);
	if (c->lost) {
		/* Also where it was never closed: what comes now has nothing to do with what was before. */
		atomic_store(&c->discontinuity_ns, c->last_ns);
		atomic_store(&p->engine.reset, true);
		capture_say(p, PIPELINE_EVENT_SOURCE_RESTORED);
	}
	c->lost = false;
}

/* Reads one picture. 1: go on; 0: the source is to be closed; negative: it failed. */
static int capture_turn(struct pipeline *p, struct sana_error *error)
{
	struct capture *c = &p->capture;
	struct media_picture picture;
	int64_t capture_ns;
	int r;

	atomic_fetch_add(&c->beat, 1);
	r = media_source_read(c->source, &picture, error);
	if (r == -EINTR || r == -EAGAIN) {
		if (r == -EAGAIN)
			capture_soft_fault(p, error);
		else
			capture_wait(p, 0); /* takes the poke */
		return capture_is_over(p) ? 0 : 1;
	}
	if (r == 0)
		return sana_error_set(error, -ENODATA, "source.ended", "%s: the source ended.",
				      c->identity);
	if (r < 0)
		return r;
	if (!capture_time(p, &picture, &capture_ns))
		return 0;
	atomic_fetch_add(&c->captured, 1);
	atomic_fetch_add(&c->missed,
			 (uint64_t)(media_source_info(c->source)->missed - c->missed_seen));
	c->missed_seen = media_source_info(c->source)->missed;
	capture_is_well(p);
	r = capture_take(p, &picture, capture_ns, error);
	if (r < 0)
		return r;
	return capture_is_over(p) ? 0 : 1;
}

/* ----------------------------------------------------------------------------------- the thread */

struct frame *capture_latest(struct pipeline *p)
{
	struct frame *frame = NULL;

	(void)pthread_mutex_lock(&p->lock);
	if (p->capture.latest)
		frame = frame_ref(p->capture.latest);
	(void)pthread_mutex_unlock(&p->lock);
	return frame;
}

void capture_forget(struct pipeline *p)
{
	struct frame *frame;

	(void)pthread_mutex_lock(&p->lock);
	frame = p->capture.latest;
	p->capture.latest = NULL;
	(void)pthread_mutex_unlock(&p->lock);
	(void)frame_unref(frame);
}

/* One life of the source, from opening to closing. */
static void capture_live(struct pipeline *p)
{
	struct capture *c = &p->capture;
	const int64_t opened_ns = clock_now_ns();
	struct sana_error error = { 0 };
	int r;

	r = capture_open(p, &error);
	if (r == 0) {
		atomic_fetch_add(&c->opens, 1);
		c->last_good_ns = clock_now_ns(); /* the first picture may be damaged */
		/* A device may have captured already while it was opened. */
		atomic_store(&c->discontinuity_ns, opened_ns);
		atomic_store(&p->engine.reset, true);
		do
			r = capture_turn(p, &error);
		while (r > 0);
		c->source = media_source_close(c->source);
		capture_forget(p);
		capture_dies(c);
	}
	if (r < 0 && r != -EINTR && !capture_is_over(p)) {
		capture_lose(p, &error);
		backoff_fail(&c->backoff, p, clock_now_ns() - opened_ns);
	}
}

void *capture_main(void *argument)
{
	struct pipeline *p = argument;
	struct capture *c = &p->capture;

	pipeline_thread_is_light();
	while (!atomic_load(&p->stopping)) {
		const struct wanted wanted = pipeline_wanted(p);

		if (wanted.source_serial != c->serial) {
			/* The old one is no one's concern any more. */
			c->serial = wanted.source_serial;
			memcpy(c->identity, wanted.source, sizeof(c->identity));
			c->backoff = (struct backoff){ 0 };
			c->lost = false;
			fault_clear(&p->events, FAULT_SOURCE);
		}
		if (!pipeline_works(&wanted))
			capture_wait(p, INT64_MAX);
		else if (backoff_waits(&c->backoff, p))
			capture_wait(p, c->backoff.until_ns);
		else
			capture_live(p);
	}
	return NULL;
}
