/* Devices for tests of the pipeline. */
#include "tests/common/fake_devices.h"

#include "base/clock.h"
#include "base/util.h"
#include "media/sink_ops.h"
#include "media/source_ops.h"

#include <errno.h>
#include <libavutil/pixfmt.h>
#include <poll.h>
#include <unistd.h>

enum { WIDTH = 64, HEIGHT = 48, YUYV_WIDTH = 640, YUYV_HEIGHT = 360 };

struct camera {
	struct media_source source;
	struct fake_camera *fake;
	struct media_source_wish wish;
	int64_t next_ns, first_ns;
	unsigned int number;
	bool yuyv;
	uint8_t pixels[2 * YUYV_WIDTH * YUYV_HEIGHT];
};

struct sink {
	struct media_sink sink;
	struct fake_sink *fake;
};

void fake_devices_init(struct fake_devices *devices)
{
	memset(devices, 0, sizeof(*devices));
	devices->camera.there = true;
	devices->camera.frame_ns = CLOCK_SECOND_NS / 24;
	for (int i = 0; i < FAKE_SINKS; i++)
		devices->sink[i].watched = true;
}

static bool take(atomic_int *left)
{
	if (atomic_load(left) <= 0)
		return false;
	atomic_fetch_sub(left, 1);
	return true;
}

/* ----------------------------------------------------------------------------------------- camera */

static int camera_wait(struct camera *c, struct sana_error *error)
{
	struct pollfd fd = { .fd = c->wish.stop_fd, .events = POLLIN };

	for (;;) {
		if (!atomic_load(&c->fake->there))
			return sana_error_set(error, -ENODEV, "source.lost", "It was pulled out.");
		if (c->wish.stopped && c->wish.stopped(c->wish.stopped_context))
			return sana_error_set(error, -EINTR, "source.interrupted", "Interrupted.");
		if (!atomic_load(&c->fake->silent) && clock_now_ns() >= c->next_ns)
			return 0;
		if (poll(&fd, 1, MIN_OF(clock_poll_ms(c->next_ns), 20)) > 0)
			return sana_error_set(error, -EINTR, "source.interrupted", "Interrupted.");
	}
}

/* On the right, for whom it matters which picture it is. */
static void number_draw(struct camera *c)
{
	c->number++;
	if (!c->yuyv)
		for (int y = 0; y < HEIGHT; y++)
			memset(c->pixels + 3 * (WIDTH * y + FAKE_NUMBER_X),
			       (int)(8 * c->number) & 255, 3 * (WIDTH - FAKE_NUMBER_X));
}

static int camera_read(struct media_source *source, struct media_picture *ret,
		       struct sana_error *error)
{
	struct camera *c = (struct camera *)source;
	int r;

	r = camera_wait(c, error);
	if (r < 0)
		return r;
	number_draw(c);
	*ret = (struct media_picture){
		.plane = { c->pixels },
		.row_bytes = { c->yuyv ? 2 * YUYV_WIDTH : 3 * WIDTH },
		.format = c->yuyv ? AV_PIX_FMT_YUYV422 : AV_PIX_FMT_RGB24,
		.width = c->yuyv ? YUYV_WIDTH : WIDTH,
		.height = c->yuyv ? YUYV_HEIGHT : HEIGHT,
		.full_range = !c->yuyv,
		.siting = MEDIA_SITING_CENTRE,
		.aspect_num = 1,
		.aspect_den = 1,
		.timestamp_ns = c->next_ns - c->first_ns,
		.capture_ns = c->next_ns,
	};
	c->next_ns += atomic_load(&c->fake->frame_ns);
	if (take(&c->fake->soft))
		return sana_error_set(error, -EAGAIN, "source.damaged", "A picture was lost.");
	atomic_fetch_add(&c->fake->read, 1);
	return 1;
}

static void camera_close(struct media_source *source)
{
	struct camera *c = (struct camera *)source;

	atomic_fetch_sub(&c->fake->open, 1);
	free(c);
}

static const struct media_source_ops camera_ops = { .read = camera_read, .close = camera_close };

static int camera_open(struct fake_camera *fake, const struct media_source_wish *wish,
		       struct media_source **ret, struct sana_error *error)
{
	struct camera *c;

	if (!atomic_load(&fake->there))
		return sana_error_set(error, -ENODEV, "source.no-device", "There is no camera.");
	c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->yuyv = strcmp(wish->path, "v4l2:yuyv") == 0;
	for (int i = 0; i < WIDTH * HEIGHT; i++)
		memcpy(c->pixels + 3 * i, (uint8_t[]){ FAKE_RED, FAKE_GREEN, FAKE_BLUE }, 3);
	c->source.ops = &camera_ops;
	c->source.info.live = true;
	c->fake = fake;
	c->wish = *wish;
	c->first_ns = c->next_ns = clock_now_ns();
	atomic_fetch_add(&fake->open, 1);
	atomic_fetch_add(&fake->opened, 1);
	*ret = &c->source;
	return 0;
}

static int source_open(void *context, const struct media_source_wish *wish,
		       struct media_source **ret, struct sana_error *error)
{
	struct fake_devices *devices = context;

	if (strncmp(wish->path, "v4l2:", 5) == 0)
		return camera_open(&devices->camera, wish, ret, error);
	return media_source_open(wish, ret, error);
}

/* ------------------------------------------------------------------------------------------ sinks */

static int sink_write(struct media_sink *sink, const uint8_t *rgb, size_t row_bytes,
		      int64_t timestamp_ns, int64_t duration_ns, struct sana_error *error)
{
	struct fake_sink *fake = ((struct sink *)sink)->fake;
	const int n = atomic_load(&fake->writes);

	(void)row_bytes;
	(void)duration_ns;
	while (atomic_load(&fake->blocks))
		(void)usleep(5000);
	if (take(&fake->failures))
		return sana_error_set(error, -EIO, "sink.lost", "It was pulled out.");
	if (n < FAKE_WRITES) {
		fake->write[n].at_ns = clock_now_ns();
		fake->write[n].timestamp_ns = timestamp_ns;
		memcpy(fake->write[n].pixel, rgb, 3);
	}
	atomic_fetch_add(&fake->writes, 1);
	return 0;
}

static int sink_finish(struct media_sink *sink, enum media_finish how, struct sana_error *error)
{
	(void)how;
	(void)error;
	atomic_fetch_add(&((struct sink *)sink)->fake->finished, 1);
	return 0;
}

static bool sink_is_watched(struct media_sink *sink)
{
	return atomic_load(&((struct sink *)sink)->fake->watched);
}

static void sink_close(struct media_sink *sink)
{
	free(sink);
}

static const struct media_sink_ops sink_ops = {
	.write = sink_write,
	.finish = sink_finish,
	.close = sink_close,
	.is_watched = sink_is_watched,
};

static int sink_open(void *context, const struct media_sink_wish *wish, struct media_sink **ret,
		     struct sana_error *error)
{
	struct fake_devices *devices = context;
	const int number = atoi(wish->path + strlen("loopback:"));
	struct fake_sink *fake = &devices->sink[number % FAKE_SINKS];
	struct sink *s;

	if (take(&fake->open_failures))
		return sana_error_set(error, -ENODEV, "sink.no-device", "There is no such sink.");
	s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->sink.ops = &sink_ops;
	s->fake = fake;
	atomic_fetch_add(&fake->opened, 1);
	*ret = &s->sink;
	return 0;
}

struct pipeline_devices fake_devices_functions(struct fake_devices *devices)
{
	return (struct pipeline_devices){ source_open, sink_open, devices };
}
