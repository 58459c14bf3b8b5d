/* Displays as a media sink: three buffers, and a thread that flips them. */
#include "daemon/sink_kms.h"

#include "base/clock.h"
#include "base/util.h"
#include "daemon/device.h"
#include "daemon/sink_kms_card.h"
#include "media/letterbox.h"
#include "media/sink_ops.h"

#include <errno.h>
#include <fcntl.h>
#include <libavutil/pixfmt.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum {
	BUFFERS = 3, /* on the screen, on its way there, being drawn or waiting */
	NONE = -1,
	BACKOFF_MIN_MS = 250,
	BACKOFF_MAX_MS = 4000,
	LOOK_MS = 1000,	     /* between two looks whether a display is still there */
	FLIP_MS = 500,	     /* the longest wait for a flip when closing */
	RETRY_MS = 10,	     /* after a flip that came too early for the driver */
	FLIP_MOST_MS = 5000, /* a flip without its event: the driver is stuck */
};

enum state {
	STATE_SHOWING,
	STATE_NO_MASTER,
	STATE_UNPLUGGED,
	STATE_LOST,
	STATE_BROKEN,
};

struct kms {
	struct media_sink sink;
	char name[96]; /* for errors: the identity */
	char note[32]; /* of the mode: "1920x1080@60" */
	struct sink_kms_card card;
	struct sink_kms_console console;
	bool console_saved;
	struct sink_kms_buffer buffer[BUFFERS];
	struct sink_kms_rectangle source, target;
	struct media_letterbox box;
	pthread_t thread;
	bool has_thread;
	int wake_fd;

	/* The rest is shared with the thread. */
	pthread_mutex_t lock;
	bool stop;
	enum state state;
	int code; /* of STATE_BROKEN */
	int front, pending, queued;
	bool retry;
	int64_t flip_ns; /* when the pending one was sent */
	int64_t replaced;
};

/* ------------------------------------------------------------------------------- the thread */

static void flipped(int fd, unsigned int sequence, unsigned int seconds, unsigned int microseconds,
		    unsigned int crtc, void *context)
{
	struct kms *k = context;

	(void)fd;
	(void)sequence;
	(void)seconds;
	(void)microseconds;
	(void)crtc;
	pthread_mutex_lock(&k->lock);
	if (k->pending != NONE) {
		k->front = k->pending;
		k->pending = NONE;
	}
	pthread_mutex_unlock(&k->lock);
}

static enum state state_of(int code)
{
	switch (code) {
	case -EACCES:
	case -EPERM:
		return STATE_NO_MASTER;
	case -ENODEV:
		return STATE_LOST;
	}
	return STATE_BROKEN;
}

static void state_set(struct kms *k, enum state state, int code)
{
	pthread_mutex_lock(&k->lock);
	k->state = state;
	k->code = code;
	pthread_mutex_unlock(&k->lock);
}

/* Sends what waits, if nothing is on its way. */
static void flip(struct kms *k)
{
	int index, r;

	pthread_mutex_lock(&k->lock);
	index = k->state == STATE_SHOWING && k->pending == NONE ? k->queued : NONE;
	if (index != NONE) {
		k->pending = index;
		k->queued = NONE;
		k->flip_ns = clock_now_ns();
	} else if (k->pending != NONE && clock_now_ns() - k->flip_ns > FLIP_MOST_MS * CLOCK_MS_NS) {
		/* The screen stands still and nobody would ever know. */
		k->state = STATE_BROKEN;
		k->code = -ETIMEDOUT;
	}
	k->retry = false;
	pthread_mutex_unlock(&k->lock);
	if (index == NONE)
		return;
	r = sink_kms_card_flip(&k->card, k->buffer[index].framebuffer, k);
	if (r == 0)
		return;
	pthread_mutex_lock(&k->lock);
	k->pending = NONE;
	/* A newer one may have come meanwhile. */
	if (k->queued == NONE)
		k->queued = index;
	k->retry = r == -EBUSY;
	if (r != -EBUSY) {
		k->state = state_of(r);
		k->code = r;
	}
	pthread_mutex_unlock(&k->lock);
}

/* Asks for the card again, and sets everything again: the other owner left nothing as it was. */
static bool master_regain(struct kms *k)
{
	int front, r;

	if (!drmIsMaster(k->card.fd) && drmSetMaster(k->card.fd) < 0)
		return false;
	pthread_mutex_lock(&k->lock);
	front = k->front;
	pthread_mutex_unlock(&k->lock);
	r = sink_kms_card_set(&k->card, k->buffer[front].framebuffer, &k->source, &k->target, 0);
	if (r == -EACCES || r == -EPERM)
		return false;
	state_set(k, r < 0 ? state_of(r) : STATE_SHOWING, r);
	return true;
}

static void look(struct kms *k)
{
	if (!sink_kms_card_is_connected(&k->card))
		state_set(k, STATE_UNPLUGGED, -ENODEV);
}

static void wait_for_work(struct kms *k, int timeout_ms)
{
	drmEventContext events = { .version = 3, .page_flip_handler2 = flipped };
	struct pollfd fds[] = {
		{ .fd = k->card.fd, .events = POLLIN },
		{ .fd = k->wake_fd, .events = POLLIN },
	};
	uint64_t count;

	if (poll(fds, ARRAY_SIZE(fds), timeout_ms) <= 0)
		return;
	if (fds[1].revents & POLLIN)
		(void)!read(k->wake_fd, &count, sizeof(count));
	if (fds[0].revents & (POLLHUP | POLLERR | POLLNVAL))
		state_set(k, STATE_LOST, -ENODEV);
	else if (fds[0].revents & POLLIN)
		(void)drmHandleEvent(k->card.fd, &events);
}

static void *kms_run(void *context)
{
	struct kms *k = context;
	int64_t look_ns = clock_now_ns() + LOOK_MS * CLOCK_MS_NS, ask_ns = 0;
	int backoff_ms = BACKOFF_MIN_MS;

	for (;;) {
		enum state state;
		int64_t next_ns;
		bool retry;

		pthread_mutex_lock(&k->lock);
		if (k->stop) {
			pthread_mutex_unlock(&k->lock);
			return NULL;
		}
		state = k->state;
		pthread_mutex_unlock(&k->lock);
		/* What cannot come back waits for the close. */
		next_ns = look_ns;
		if (state == STATE_NO_MASTER) {
			if (!ask_ns)
				ask_ns = clock_now_ns() + backoff_ms * CLOCK_MS_NS;
			next_ns = ask_ns;
		} else if (state == STATE_SHOWING) {
			ask_ns = 0;
			backoff_ms = BACKOFF_MIN_MS;
			flip(k);
		}
		pthread_mutex_lock(&k->lock);
		retry = k->retry;
		pthread_mutex_unlock(&k->lock);
		wait_for_work(k, retry ? RETRY_MS : clock_poll_ms(next_ns));
		if (ask_ns && clock_now_ns() >= ask_ns) {
			if (!master_regain(k))
				backoff_ms = MIN_OF(2 * backoff_ms, (int)BACKOFF_MAX_MS);
			ask_ns = 0;
		}
		if (clock_now_ns() >= look_ns) {
			if (state == STATE_SHOWING)
				look(k);
			look_ns = clock_now_ns() + LOOK_MS * CLOCK_MS_NS;
		}
	}
}

static void wake(struct kms *k)
{
	const uint64_t one = 1;

	(void)!write(k->wake_fd, &one, sizeof(one));
}

/* ---------------------------------------------------------------------------------- writing */

/* A buffer that neither the screen nor a flip needs; one that waits is drawn over. */
static int buffer_take(struct kms *k)
{
	int index = 0;

	pthread_mutex_lock(&k->lock);
	if (k->queued != NONE) {
		index = k->queued;
		k->queued = NONE;
		k->replaced++;
	} else {
		while (index == k->front || index == k->pending)
			index++;
	}
	pthread_mutex_unlock(&k->lock);
	return index;
}

static int state_error(const struct kms *k, enum state state, int code, struct sana_error *error)
{
	switch (state) {
	case STATE_SHOWING:
		break;
	case STATE_NO_MASTER:
		return sana_error_set(error, -EAGAIN, "sink.master-lost",
				      "%s: another program owns the display now.", k->name);
	case STATE_UNPLUGGED:
		return sana_error_set(error, -ENODEV, "sink.unplugged",
				      "%s: the display was unplugged.", k->name);
	case STATE_LOST:
		return sana_error_set(error, -ENODEV, "sink.lost", "%s: the graphics card is gone.",
				      k->name);
	case STATE_BROKEN:
		return sana_error_set(error, code, "sink.protocol",
				      "%s: the driver refuses pictures: %s.", k->name,
				      strerror(-code));
	}
	return 0;
}

static int kms_write(struct media_sink *sink, const uint8_t *rgb, size_t row_bytes,
		     int64_t timestamp_ns, int64_t duration_ns, struct sana_error *error)
{
	struct kms *k = (struct kms *)sink;
	const int index = buffer_take(k);
	const struct media_target to = {
		.plane = { k->buffer[index].data },
		.row_bytes = { k->buffer[index].row_bytes },
		.format = AV_PIX_FMT_BGR0,
	};
	enum state state;
	int code;

	(void)timestamp_ns; /* shown at the next blank */
	(void)duration_ns;
	media_letterbox_run(&k->box, rgb, row_bytes, &to);
	pthread_mutex_lock(&k->lock);
	k->queued = index;
	state = k->state;
	code = k->code;
	k->sink.info.replaced = k->replaced;
	pthread_mutex_unlock(&k->lock);
	wake(k);
	return state_error(k, state, code, error);
}

static bool kms_is_watched(struct media_sink *sink)
{
	struct kms *k = (struct kms *)sink;
	bool watched;

	pthread_mutex_lock(&k->lock);
	/* One that is gone is not unwatched: the next picture says so, and the sink is opened again. */
	watched = k->state != STATE_NO_MASTER;
	pthread_mutex_unlock(&k->lock);
	return watched;
}

/* ---------------------------------------------------------------------------------- closing */

static bool flip_is_pending(struct kms *k)
{
	bool pending;

	pthread_mutex_lock(&k->lock);
	pending = k->pending != NONE && k->state == STATE_SHOWING;
	pthread_mutex_unlock(&k->lock);
	return pending;
}

static void thread_end(struct kms *k)
{
	const int64_t deadline_ns = clock_now_ns() + FLIP_MS * CLOCK_MS_NS;

	pthread_mutex_lock(&k->lock);
	k->stop = true;
	pthread_mutex_unlock(&k->lock);
	wake(k);
	(void)pthread_join(k->thread, NULL);
	/* A driver refuses the next mode while a flip is on its way. */
	while (flip_is_pending(k) && clock_now_ns() < deadline_ns)
		wait_for_work(k, clock_poll_ms(deadline_ns));
}

static void kms_close(struct media_sink *sink)
{
	struct kms *k = (struct kms *)sink;

	if (k->has_thread)
		thread_end(k);
	if (k->console_saved)
		sink_kms_console_restore(&k->console, k->card.fd);
	for (int i = 0; i < BUFFERS; i++)
		sink_kms_buffer_finish(&k->buffer[i], k->card.fd);
	if (k->card.mode_blob)
		(void)drmModeDestroyPropertyBlob(k->card.fd, k->card.mode_blob);
	if (k->card.fd >= 0)
		(void)close(k->card.fd);
	if (k->wake_fd >= 0)
		(void)close(k->wake_fd);
	media_letterbox_finish(&k->box);
	(void)pthread_mutex_destroy(&k->lock);
	free(k);
}

static const struct media_sink_ops kms_ops = {
	.write = kms_write,
	.close = kms_close,
	.is_watched = kms_is_watched,
};

/* ---------------------------------------------------------------------------------- opening */

static int card_open(struct kms *k, const char *node, struct sana_error *error)
{
	k->card.fd = open(node, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (k->card.fd >= 0)
		return 0;
	if (errno == EACCES || errno == EPERM)
		return sana_error_set(error, -errno, "sink.permission",
				      "%s: %s may not be opened; put the user into the group that "
				      "owns it (usually video), or allow it in the unit.",
				      k->name, node);
	return sana_error_set(error, -errno, "sink.no-device", "%s: %s: %s.", k->name, node,
			      strerror(errno));
}

static int buffers_make(struct kms *k, int width, int height)
{
	int r = 0;

	for (int i = 0; i < BUFFERS && r == 0; i++) {
		sink_kms_buffer_finish(&k->buffer[i], k->card.fd);
		r = sink_kms_buffer_init(&k->buffer[i], k->card.fd, width, height);
	}
	return r;
}

/* Buffers of `width` x `height`, shown whole at `target`: will the hardware do it? */
static int plan_try(struct kms *k, int width, int height, const struct sink_kms_rectangle *target)
{
	int r = buffers_make(k, width, height);

	k->source = (struct sink_kms_rectangle){ 0, 0, width, height };
	k->target = *target;
	if (r == 0)
		r = sink_kms_card_set(&k->card, k->buffer[0].framebuffer, &k->source, &k->target,
				      DRM_MODE_ATOMIC_TEST_ONLY);
	return r;
}

/* The plane places and scales the picture where it can; else we draw the whole screen. */
static int plan(struct kms *k, const struct media_sink_wish *wish, bool by_plane,
		struct sana_error *error)
{
	const int width = k->card.mode.hdisplay, height = k->card.mode.vdisplay;
	const struct media_place p =
		media_place_contain(wish->width, wish->height, width, height, !wish->unscaled);
	const struct sink_kms_rectangle place = { p.x, p.y, p.width, p.height };
	const struct sink_kms_rectangle all = { 0, 0, width, height };
	int r = by_plane ? plan_try(k, wish->width, wish->height, &place) : -EINVAL;

	media_letterbox_finish(&k->box);
	if (r == 0) {
		r = media_letterbox_init(&k->box, wish->width, wish->height, wish->width,
					 wish->height, false);
	} else {
		r = plan_try(k, width, height, &all);
		if (r == 0)
			r = media_letterbox_init(&k->box, wish->width, wish->height, width, height,
						 !wish->unscaled);
	}
	if (r == -ENOMEM)
		return sana_error_set(error, r, "memory", "Out of memory.");
	if (r < 0)
		return sana_error_set(error, r, r == -EACCES ? "sink.busy" : "sink.format",
				      "%s: the display cannot show %dx%d@%.4g: %s.", k->name, width,
				      height, sink_kms_mode_rate(&k->card.mode), strerror(-r));
	return 0;
}

static int thread_start(struct kms *k, struct sana_error *error)
{
	int r;

	k->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (k->wake_fd < 0)
		return sana_error_set(error, -errno, "memory", "eventfd: %s.", strerror(errno));
	r = pthread_create(&k->thread, NULL, kms_run, k);
	if (r)
		return sana_error_set(error, -r, "memory", "A thread cannot be started: %s.",
				      strerror(r));
	k->has_thread = true;
	return 0;
}

static int kms_start(struct kms *k, const struct media_sink_wish *wish, const struct device *device,
		     struct sana_error *error)
{
	int r = card_open(k, device->node, error);

	if (r == 0)
		r = sink_kms_card_prepare(&k->card, error);
	if (r == 0)
		r = sink_kms_card_find(&k->card, device->connector, wish->mode, error);
	if (r == 0)
		r = plan(k, wish, true, error);
	if (r < 0)
		return r;
	sink_kms_console_save(&k->console, &k->card, device->connector, wish->state_directory);
	k->console_saved = true;
	r = sink_kms_card_set(&k->card, k->buffer[0].framebuffer, &k->source, &k->target, 0);
	/* Some drivers promise in the test what they then cannot do. */
	if (r < 0 && r != -EACCES && plan(k, wish, false, error) == 0)
		r = sink_kms_card_set(&k->card, k->buffer[0].framebuffer, &k->source, &k->target,
				      0);
	if (r < 0)
		return sana_error_set(error, r, "sink.protocol", "%s: the mode cannot be set: %s.",
				      k->name, strerror(-r));
	return thread_start(k, error);
}

static void info_fill(struct kms *k)
{
	struct media_sink_info *info = &k->sink.info;

	(void)snprintf(k->note, sizeof(k->note), "%dx%d@%.4g", k->card.mode.hdisplay,
		       k->card.mode.vdisplay, sink_kms_mode_rate(&k->card.mode));
	info->codec = "xrgb8888";
	info->encoder = k->note;
	info->container = "kms";
	info->constant_rate = true;
	info->partial_path = "";
}

int sink_kms_open(const struct media_sink_wish *wish, struct media_sink **ret,
		  struct sana_error *error)
{
	struct device_identity identity;
	struct device device;
	struct kms *k;
	int r;

	r = device_identity_parse(wish->path, &identity, error);
	if (r == 0 && identity.kind != DEVICE_DISPLAY)
		r = sana_error_set(error, -EINVAL, "device.identity",
				   "\"%.100s\" is no display: \"kms:CONNECTOR\" or \"kms:\" would "
				   "be.",
				   wish->path);
	if (r == 0)
		r = device_find(&identity, "sink.no-device", &device, error);
	if (r < 0)
		return r;
	k = calloc(1, sizeof(*k));
	if (!k)
		return sana_error_set(error, -ENOMEM, "memory", "Out of memory.");
	k->sink.ops = &kms_ops;
	k->card.fd = k->wake_fd = -1;
	k->card.name = k->name;
	k->pending = k->queued = NONE;
	(void)pthread_mutex_init(&k->lock, NULL);
	(void)snprintf(k->name, sizeof(k->name), "%s", wish->path);
	r = kms_start(k, wish, &device, error);
	if (r < 0) {
		kms_close(&k->sink);
		return r;
	}
	info_fill(k);
	*ret = &k->sink;
	return 0;
}

int sink_kms_list(struct media_device *ret, int capacity)
{
	return device_list_media(DEVICE_DISPLAYS, ret, capacity);
}
