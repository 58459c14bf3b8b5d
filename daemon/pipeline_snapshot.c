/* The snapshot thread: source beside result as a PNG, into a descriptor that may be slow. */
#include "daemon/pipeline_private.h"

#include "base/util.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <png.h>
#include <unistd.h>

enum {
	PATIENCE_S = 10, /* for a reader that does not read, and for the result */
	LOOK_MS = 5,
	END_S = 2, /* the pipeline's end waits for a write no longer */
};

struct writer {
	struct pipeline *pipeline;
	int fd;
	int64_t deadline_ns;
	int failure;
};

static int64_t patience_ns(const struct pipeline *p)
{
	return p->options.snapshot_ns ? p->options.snapshot_ns : PATIENCE_S * CLOCK_SECOND_NS;
}

/*
 * Descriptors of others may block, and how they do is not ours to set. PIPE_BUF bytes do not where poll says
 * so, if it is a pipe; of a file on a server that is gone poll says so, too, and nothing ends that write:
 * snapshot_look.
 */
static int writable_wait(const struct writer *w)
{
	struct pollfd fd[] = { { .fd = w->fd, .events = POLLOUT },
			       { .fd = w->pipeline->stop_fd, .events = POLLIN } };

	if (poll(fd, ARRAY_SIZE(fd), clock_poll_ms(w->deadline_ns)) < 0)
		return errno == EINTR ? 0 : -errno;
	if (fd[1].revents)
		return -ECANCELED;
	return fd[0].revents ? 0 : -ETIMEDOUT;
}

static void write_all(png_structp png, png_bytep data, size_t bytes)
{
	struct writer *w = png_get_io_ptr(png);

	while (bytes > 0 && w->failure == 0) {
		ssize_t n;

		w->failure = writable_wait(w);
		if (w->failure < 0)
			break;
		n = write(w->fd, data, MIN_OF(bytes, PIPE_BUF));
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			w->failure = -errno;
		if (n > 0) {
			data += n;
			bytes -= (size_t)n;
		}
	}
	if (w->failure < 0)
		png_error(png, "write");
}

static void write_flush(png_structp png)
{
	(void)png;
}

/* libpng's own way to say these is the standard error. */
static void png_complain(png_structp png, png_const_charp text)
{
	(void)text;
	png_longjmp(png, 1);
}

static void png_ignore(png_structp png, png_const_charp text)
{
	(void)png;
	(void)text;
}

/* Two pictures side by side; row by row, so that one row is all the memory it takes. */
static int png_write_pair(struct writer *w, const struct frame *left, const struct frame *right,
			  uint8_t *row)
{
	const size_t bytes = frame_row_bytes(left);
	const png_uint_32 width = (png_uint_32)left->pool->width;
	const png_uint_32 height = (png_uint_32)left->pool->height;
	png_structp png =
		png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, png_complain, png_ignore);
	png_infop info = png ? png_create_info_struct(png) : NULL;

	if (!info) {
		png_destroy_write_struct(&png, NULL);
		return -ENOMEM;
	}
	if (setjmp(png_jmpbuf(png))) {
		png_destroy_write_struct(&png, &info);
		return w->failure ? w->failure : -EIO;
	}
	png_set_write_fn(png, w, write_all, write_flush);
	png_set_IHDR(png, info, 2 * width, height, 8, PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
		     PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
	png_set_compression_level(png, 3);
	png_write_info(png, info);
	for (png_uint_32 y = 0; y < height; y++) {
		memcpy(row, left->rgb + bytes * y, bytes);
		memcpy(row + bytes, right->rgb + bytes * y, bytes);
		png_write_row(png, row);
	}
	png_write_end(png, info);
	png_destroy_write_struct(&png, &info);
	return 0;
}

/* The source frame, or the first that the engine took after it, is shown edited; or never will be. */
static bool result_take(struct pipeline *p, int64_t deadline_ns)
{
	struct snapshot *s = &p->snapshot;
	struct frame *old = NULL;
	bool done;

	(void)pthread_mutex_lock(&p->lock);
	done = !p->wanted.active || p->wanted.paused || !atomic_load(&p->capture.alive) ||
	       !atomic_load(&p->engine.wants) || clock_now_ns() > deadline_ns;
	if (p->present.shown) {
		done |= p->present.shown->capture_ns >= s->source->capture_ns;
		old = s->result;
		s->result = frame_ref(p->present.shown);
	}
	(void)pthread_mutex_unlock(&p->lock);
	(void)frame_unref(old);
	return done;
}

/* The edited picture of one moment comes later than the moment. */
static void result_wait(struct pipeline *p)
{
	const int64_t most_ns = MIN_OF(pipeline_wanted(p).settings.latency_cap_ns, patience_ns(p));
	const int64_t deadline_ns = clock_now_ns() + most_ns;
	struct pollfd fd = { .fd = p->stop_fd, .events = POLLIN };

	while (!result_take(p, deadline_ns) && poll(&fd, 1, LOOK_MS) == 0)
		;
}

static int snapshot_write(struct pipeline *p)
{
	struct snapshot *s = &p->snapshot;
	struct writer writer = { .pipeline = p, .fd = s->descriptor };
	uint8_t *row = malloc(2 * frame_row_bytes(s->source));
	int r = -ENOMEM;

	result_wait(p);
	writer.deadline_ns = clock_now_ns() + patience_ns(p);
	if (row)
		r = png_write_pair(&writer, s->source, s->result, row);
	free(row);
	(void)close(s->descriptor);
	return r;
}

static void end_say(struct pipeline *p, uint64_t ticket, const char *why)
{
	struct pipeline_event event = { .kind = PIPELINE_EVENT_SNAPSHOT, .ticket = ticket };

	if (why) {
		(void)snprintf(event.name, sizeof(event.name), "snapshot.write");
		(void)snprintf(event.text, sizeof(event.text),
			       "The snapshot could not be written: %s.", why);
	}
	events_send(&p->events, &event);
}

static void *snapshot_main(void *argument)
{
	struct pipeline *p = argument;
	struct snapshot *s = &p->snapshot;
	const int r = snapshot_write(p);
	bool left;

	s->source = frame_unref(s->source);
	s->result = frame_unref(s->result);
	(void)pthread_mutex_lock(&p->lock);
	left = s->phase == SNAPSHOT_LEFT;
	if (!s->overdue)
		end_say(p, s->ticket, r < 0 ? strerror(-r) : NULL);
	s->phase = SNAPSHOT_ENDED;
	(void)pthread_cond_signal(&s->ended);
	(void)pthread_mutex_unlock(&p->lock);
	if (left)
		pipeline_free(p);
	return NULL;
}

void snapshot_look(struct pipeline *p)
{
	struct snapshot *s = &p->snapshot;

	(void)pthread_mutex_lock(&p->lock);
	if (s->phase == SNAPSHOT_RUNS && !s->overdue && clock_now_ns() > s->overdue_ns) {
		s->overdue = true;
		end_say(p, s->ticket, "the file system does not answer");
	}
	(void)pthread_mutex_unlock(&p->lock);
}

/* 0: none runs; what has ended is joined. */
static int snapshot_reap(struct pipeline *p, struct sana_error *error)
{
	struct snapshot *s = &p->snapshot;
	enum snapshot_phase phase;
	bool overdue;

	(void)pthread_mutex_lock(&p->lock);
	phase = s->phase;
	overdue = s->overdue;
	(void)pthread_mutex_unlock(&p->lock);
	if (phase == SNAPSHOT_RUNS)
		return sana_error_set(error, -EBUSY, "snapshot.busy", "%s",
				      overdue ? "The file system of an earlier snapshot's file "
						"does not answer; see to it." :
						"Another snapshot is being written; try again.");
	if (phase == SNAPSHOT_ENDED)
		(void)pthread_join(s->thread, NULL);
	s->phase = SNAPSHOT_NONE;
	return 0;
}

bool snapshot_finish(struct pipeline *p)
{
	const int64_t deadline_ns = clock_now_ns() + END_S * CLOCK_SECOND_NS;
	const struct timespec deadline = { .tv_sec = deadline_ns / CLOCK_SECOND_NS,
					   .tv_nsec = deadline_ns % CLOCK_SECOND_NS };
	struct snapshot *s = &p->snapshot;
	const pthread_t thread = s->thread;
	enum snapshot_phase phase;

	(void)pthread_mutex_lock(&p->lock);
	while (s->phase == SNAPSHOT_RUNS && clock_now_ns() < deadline_ns)
		(void)pthread_cond_timedwait(&s->ended, &p->lock, &deadline);
	phase = s->phase;
	if (phase == SNAPSHOT_RUNS)
		s->phase = SNAPSHOT_LEFT;
	(void)pthread_mutex_unlock(&p->lock);
	if (phase == SNAPSHOT_RUNS)
		(void)pthread_detach(thread);
	if (phase == SNAPSHOT_ENDED)
		(void)pthread_join(thread, NULL);
	return phase != SNAPSHOT_RUNS;
}

/* The newest source frame, or what is shown where there is none, and what is shown; result_wait looks on. */
static int pictures_take(struct pipeline *p, struct sana_error *error)
{
	struct snapshot *s = &p->snapshot;

	(void)pthread_mutex_lock(&p->lock);
	if (p->present.shown)
		s->result = frame_ref(p->present.shown);
	if (p->capture.latest)
		s->source = frame_ref(p->capture.latest);
	else if (s->result)
		s->source = frame_ref(s->result);
	(void)pthread_mutex_unlock(&p->lock);
	if (s->source && s->result)
		return 0;
	s->source = frame_unref(s->source);
	s->result = frame_unref(s->result);
	return sana_error_set(error, -ENODATA, "snapshot.nothing",
			      "There is no picture yet: start the stream and wait for its source.");
}

int pipeline_snapshot(struct pipeline *p, int descriptor, uint64_t *ret_ticket,
		      struct sana_error *error)
{
	struct snapshot *s = &p->snapshot;
	int r;

	r = snapshot_reap(p, error);
	if (r == 0)
		r = pictures_take(p, error);
	if (r < 0) {
		(void)close(descriptor);
		return r;
	}
	s->descriptor = descriptor;
	s->ticket++;
	s->overdue = false;
	/* The thread's own patience ends before. */
	s->overdue_ns = clock_now_ns() + 2 * patience_ns(p) + patience_ns(p) / 10;
	s->phase = SNAPSHOT_RUNS;
	r = -pthread_create(&s->thread, NULL, snapshot_main, p);
	if (r < 0) {
		s->phase = SNAPSHOT_NONE;
		s->source = frame_unref(s->source);
		s->result = frame_unref(s->result);
		(void)close(descriptor);
		return sana_error_set(error, r, "memory", "No thread for the snapshot.");
	}
	*ret_ticket = s->ticket;
	return 0;
}
