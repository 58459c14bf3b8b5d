/* A camera's buffers: mapped, queued, waited for, taken. */
#include "daemon/source_v4l2_camera.h"

#include "base/clock.h"
#include "base/util.h"

#include <errno.h>

enum {
	FIRST_WAIT_NS_MS = 5000, /* cameras wake up slowly */
	WAIT_MS = 2000,		 /* the longest gap that is not a fault */
	/*
	 * Between two questions whether to stop; also, not every driver wakes who waits when its device
	 * leaves, but a new poll sees it.
	 */
	SLICE_MS = 100,
	FRAMES_PER_WAIT = 10, /* slow cameras may miss this many pictures */
	MAX_EVENTS = 64,
};

/* ------------------------------------------------------------------------------- start, end */

static int buffer_queue(struct source_v4l2_camera *c, int index)
{
	struct v4l2_buffer b = {
		.index = (uint32_t)index,
		.type = V4L2_BUF_TYPE_VIDEO_CAPTURE,
		.memory = V4L2_MEMORY_MMAP,
	};
	int r = source_v4l2_control(c, VIDIOC_QBUF, &b);

	c->buffer[index].queued = r == 0;
	return r;
}

static int buffer_map(struct source_v4l2_camera *c, int index, struct sana_error *error)
{
	struct v4l2_buffer b = {
		.index = (uint32_t)index,
		.type = V4L2_BUF_TYPE_VIDEO_CAPTURE,
		.memory = V4L2_MEMORY_MMAP,
	};
	int r = source_v4l2_control(c, VIDIOC_QUERYBUF, &b);

	if (r < 0)
		return source_v4l2_fail(c, r, "source.buffer", "a buffer cannot be asked for",
					error);
	if (b.length < 1 || b.length < c->shape.bytes)
		return sana_error_set(error, -EPROTO, "source.buffer",
				      "%s: the driver's buffers of %u bytes do not hold a picture "
				      "of %zu.",
				      c->name, b.length, c->shape.bytes);
	c->buffer[index].data = c->io->map(b.length, c->fd, b.m.offset);
	if (!c->buffer[index].data)
		return source_v4l2_fail(c, -errno, "source.buffer", "a buffer cannot be mapped",
					error);
	c->buffer[index].bytes = b.length;
	c->buffers = index + 1;
	return 0;
}

static int buffers_take(struct source_v4l2_camera *c, struct sana_error *error)
{
	struct v4l2_requestbuffers request = {
		.count = SOURCE_V4L2_BUFFERS,
		.type = V4L2_BUF_TYPE_VIDEO_CAPTURE,
		.memory = V4L2_MEMORY_MMAP,
	};
	int r = source_v4l2_control(c, VIDIOC_REQBUFS, &request);

	if (r == -EBUSY)
		return sana_error_set(error, r, "source.busy",
				      "%s: another program streams from it; close it.", c->name);
	if (r < 0)
		return source_v4l2_fail(c, r, "source.buffer", "the driver gives no buffers",
					error);
	if (request.count < 2)
		return sana_error_set(error, -ENOMEM, "source.buffer",
				      "%s: the driver gives %u buffers; two are needed.", c->name,
				      request.count);
	for (uint32_t i = 0; i < MIN_OF(request.count, (uint32_t)SOURCE_V4L2_MAX_BUFFERS); i++) {
		r = buffer_map(c, (int)i, error);
		if (r < 0)
			return r;
	}
	for (int i = 0; i < c->buffers; i++) {
		r = buffer_queue(c, i);
		if (r < 0)
			return source_v4l2_fail(c, r, "source.buffer", "a buffer cannot be queued",
						error);
	}
	return 0;
}

int source_v4l2_start(struct source_v4l2_camera *camera, struct sana_error *error)
{
	struct source_v4l2_camera *c = camera;
	int type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
	int r = buffers_take(c, error);

	if (r < 0)
		return r;
	r = source_v4l2_control(c, VIDIOC_STREAMON, &type);
	if (r == -EBUSY || r == -ENOSPC)
		return sana_error_set(error, r, "source.busy",
				      r == -ENOSPC ? "%s: the USB bus has no room for it; unplug "
						     "another device or use another socket." :
						     "%s: another program streams from it; close "
						     "it.",
				      c->name);
	if (r == -ENOLINK || r == -ENOLCK)
		return sana_error_set(error, r, "source.no-signal", "%s: no signal comes in.",
				      c->name);
	if (r < 0)
		return source_v4l2_fail(c, r, "source.protocol",
					"the driver does not start to stream", error);
	c->streaming = true;
	c->stall_ns = MAX_OF(WAIT_MS * CLOCK_MS_NS, FRAMES_PER_WAIT * c->frame_ns);
	c->deadline_ns = clock_now_ns() + MAX_OF(FIRST_WAIT_NS_MS * CLOCK_MS_NS, c->stall_ns);
	return 0;
}

void source_v4l2_end(struct source_v4l2_camera *camera)
{
	struct source_v4l2_camera *c = camera;
	struct v4l2_requestbuffers none = {
		.type = V4L2_BUF_TYPE_VIDEO_CAPTURE,
		.memory = V4L2_MEMORY_MMAP,
	};
	int type = V4L2_BUF_TYPE_VIDEO_CAPTURE;

	if (c->streaming)
		(void)source_v4l2_control(c, VIDIOC_STREAMOFF, &type);
	for (int i = 0; i < c->buffers; i++)
		(void)c->io->unmap(c->buffer[i].data, c->buffer[i].bytes);
	if (c->buffers)
		(void)source_v4l2_control(c, VIDIOC_REQBUFS, &none);
	c->streaming = false;
	c->buffers = 0;
	c->held = -1;
}

/* ---------------------------------------------------------------------------------- waiting */

static int interrupted(const struct source_v4l2_camera *c, struct sana_error *error)
{
	return sana_error_set(error, -EINTR, "source.interrupted", "%s: reading was interrupted.",
			      c->name);
}

static int no_signal(struct source_v4l2_camera *c, struct sana_error *error)
{
	c->deadline_ns = clock_now_ns() + c->stall_ns;
	return sana_error_set(error, -EAGAIN, "source.no-signal",
			      "%s: no signal comes in; check the cable and the device behind it.",
			      c->name);
}

/* Nothing came in time: why? */
static int silence(struct source_v4l2_camera *c, struct sana_error *error)
{
	c->signal_missing = source_v4l2_signal_missing(c);
	if (c->signal_missing)
		return no_signal(c, error);
	return sana_error_set(error, -ETIMEDOUT, "source.stalled", "%s: no picture for %.1f s.",
			      c->name, (double)c->stall_ns / (double)CLOCK_SECOND_NS);
}

/* The driver has something to say about the signal. */
static int events_take(struct source_v4l2_camera *c, struct sana_error *error)
{
	struct v4l2_event event;

	for (int i = 0; i < MAX_EVENTS; i++)
		if (source_v4l2_control(c, VIDIOC_DQEVENT, &event) < 0)
			break;
	if (source_v4l2_signal_changed(c) > 0)
		return sana_error_set(error, -ESTALE, "source.changed",
				      "%s: the signal has another size or rate now.", c->name);
	c->signal_missing = source_v4l2_signal_missing(c);
	return c->signal_missing ? no_signal(c, error) : 0;
}

/* 0: a buffer may be there; 1: an error, which the next ioctl should tell. */
static int buffer_wait(struct source_v4l2_camera *c, struct sana_error *error)
{
	for (;;) {
		struct pollfd fds[] = {
			{ .fd = c->fd, .events = POLLIN | (c->has_events ? POLLPRI : 0) },
			{ .fd = c->stop_fd, .events = POLLIN },
		};
		const int wait_ms = clock_poll_ms(c->deadline_ns);
		int r;

		if (c->stopped && c->stopped(c->stopped_context))
			return interrupted(c, error);
		r = c->io->poll(fds, ARRAY_SIZE(fds), MIN_OF(wait_ms, (int)SLICE_MS));
		if (r < 0 && errno != EINTR)
			return source_v4l2_fail(c, -errno, "source.protocol", "poll", error);
		if (r > 0 && fds[1].revents)
			return interrupted(c, error);
		if (r > 0 && fds[0].revents & POLLPRI && c->has_events) {
			const int event = events_take(c, error);

			if (event < 0)
				return event;
		}
		if (r > 0 && fds[0].revents & (POLLIN | POLLERR | POLLHUP | POLLNVAL))
			return !(fds[0].revents & POLLIN);
		if (clock_now_ns() >= c->deadline_ns)
			return silence(c, error);
	}
}

/* ----------------------------------------------------------------------------------- taking */

/* 1: a buffer; 0: none yet. */
static int buffer_take(struct source_v4l2_camera *c, struct v4l2_buffer *b,
		       struct sana_error *error)
{
	int r;

	*b = (struct v4l2_buffer){
		.type = V4L2_BUF_TYPE_VIDEO_CAPTURE,
		.memory = V4L2_MEMORY_MMAP,
	};
	r = source_v4l2_control(c, VIDIOC_DQBUF, b);
	if (r == -EAGAIN)
		return 0;
	if (r < 0)
		return source_v4l2_fail(c, r, "source.protocol", "the driver broke off streaming",
					error);
	if (b->index >= (uint32_t)c->buffers || !c->buffer[b->index].queued)
		return sana_error_set(error, -EPROTO, "source.protocol",
				      "%s: the driver gave buffer %u, which it did not have.",
				      c->name, b->index);
	c->buffer[b->index].queued = false;
	c->held = (int)b->index;
	return 1;
}

static int held_return(struct source_v4l2_camera *c, struct sana_error *error)
{
	const int held = c->held;
	int r;

	if (held < 0)
		return 0;
	c->held = -1;
	r = buffer_queue(c, held);
	return r < 0 ? source_v4l2_fail(c, r, "source.buffer", "a buffer cannot be queued", error) :
		       0;
}

static int damaged(struct source_v4l2_camera *c, struct sana_error *error, const char *why)
{
	c->source.info.damaged++;
	if (why)
		(void)sana_error_set(error, -EAGAIN, "source.damaged", "%s: %s.", c->name, why);
	else
		(void)sana_error_prefix(error, "%s", c->name);
	if (error)
		error->code = -EAGAIN;
	return -EAGAIN;
}

/* The driver's time, if it is of our clock, not ahead of it, and grows. */
static int64_t capture_time(struct source_v4l2_camera *c, const struct v4l2_buffer *b)
{
	const int64_t now = clock_now_ns();
	const bool monotonic = (b->flags & V4L2_BUF_FLAG_TIMESTAMP_MASK) ==
			       V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC;
	int64_t ns;

	if (monotonic && b->timestamp.tv_sec >= 0 && b->timestamp.tv_sec <= now / CLOCK_SECOND_NS &&
	    b->timestamp.tv_usec >= 0 && b->timestamp.tv_usec < 1000000) {
		ns = (int64_t)b->timestamp.tv_sec * CLOCK_SECOND_NS +
		     (int64_t)b->timestamp.tv_usec * 1000;
		/* Some tell the time a picture was due, which may be a little ahead. */
		if (ns > now && ns - now <= c->frame_ns)
			ns = now;
		if (ns > c->last_ns && ns <= now)
			return ns;
	}
	c->source.info.restamped++;
	return MAX_OF(now, c->last_ns + 1);
}

/* The driver numbers what the camera sends; what it had no buffer for is missing. */
static void gaps_count(struct source_v4l2_camera *c, const struct v4l2_buffer *b)
{
	enum { ABSURD = 1000 }; /* that is a driver that does not number */
	const uint32_t gap = b->sequence - c->last_sequence;

	if (c->first_ns && gap > 1 && gap < ABSURD)
		c->source.info.missed += gap - 1;
	c->last_sequence = b->sequence;
}

static int picture_make(struct source_v4l2_camera *c, const struct v4l2_buffer *b,
			struct media_picture *ret, struct sana_error *error)
{
	const struct source_v4l2_shape *s = &c->shape;
	const size_t bytes = MIN_OF((size_t)b->bytesused, c->buffer[b->index].bytes);
	const uint8_t *data = c->buffer[b->index].data;
	struct media_picture p;

	if (b->flags & V4L2_BUF_FLAG_ERROR)
		return damaged(c, error, "the driver says that a picture is damaged");
	/* Drivers that leave bytesused 0 mean the whole buffer. */
	if (!s->layout->jpeg && b->bytesused && bytes < s->bytes)
		return damaged(c, error, "a picture came too short");
	source_v4l2_shape_picture(s, data, &p);
	if (s->layout->jpeg && source_v4l2_jpeg_decode(&c->jpeg, data, bytes, &p, error) < 0)
		return damaged(c, error, NULL);
	p.capture_ns = capture_time(c, b);
	if (!c->first_ns)
		c->first_ns = p.capture_ns;
	p.timestamp_ns = p.capture_ns - c->first_ns;
	p.duration_ns = c->frame_ns;
	c->last_ns = p.capture_ns;
	*ret = p;
	return 1;
}

int source_v4l2_read(struct media_source *source, struct media_picture *ret,
		     struct sana_error *error)
{
	struct source_v4l2_camera *c = (struct source_v4l2_camera *)source;
	struct v4l2_buffer b;
	int r;

	r = held_return(c, error);
	while (r == 0) {
		const int broken = buffer_wait(c, error);

		r = broken < 0 ? broken : buffer_take(c, &b, error);
		if (r == 0 && broken > 0)
			r = source_v4l2_fail(c, -EIO, "source.protocol",
					     "the driver broke off streaming", error);
		/* A driver that says "ready" and has nothing, for ever, is stalled, too. */
		if (r == 0 && clock_now_ns() >= c->deadline_ns)
			r = silence(c, error);
	}
	if (r < 0)
		return r;
	c->deadline_ns = clock_now_ns() + c->stall_ns;
	gaps_count(c, &b);
	/* Some hardware goes on with noise: that is no picture. */
	if (c->signal_missing)
		c->signal_missing = source_v4l2_signal_missing(c);
	if (c->signal_missing)
		return no_signal(c, error);
	return picture_make(c, &b, ret, error);
}
