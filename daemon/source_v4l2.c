/* A camera as a media source: finding, opening, closing. */
#include "daemon/source_v4l2.h"

#include "base/util.h"
#include "daemon/device.h"
#include "daemon/source_v4l2_camera.h"

#include <errno.h>
#include <fcntl.h>
#include <libv4l2.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>

/* ------------------------------------------------------------------------------ system calls */

/* libv4l2 says on stderr what comes back as an error, too. */
static void library_hush(void)
{
	v4l2_log_file = fopen("/dev/null", "we");
}

/*
 * Through libv4l2 for its plugins: they give drivers with the multi-planar interface alone this one. What
 * it does not take over (no camera, or more than it has room for) its other functions hand on as it is.
 */
static int library_open(const char *path, int flags)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	const int fd = open(path, flags);

	(void)pthread_once(&once, library_hush);
	if (fd >= 0)
		(void)v4l2_fd_open(fd, V4L2_DISABLE_CONVERSION);
	return fd;
}

static int library_ioctl(int fd, unsigned long request, void *argument)
{
	return v4l2_ioctl(fd, request, argument);
}

static void *library_map(size_t bytes, int fd, int64_t offset)
{
	void *memory = v4l2_mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, offset);

	return memory == MAP_FAILED ? NULL : memory;
}

static int system_poll(struct pollfd *fds, unsigned long count, int timeout_ms)
{
	return poll(fds, count, timeout_ms);
}

const struct source_v4l2_io source_v4l2_library_io = {
	library_open, v4l2_close, library_ioctl, library_map, v4l2_munmap, system_poll,
};

int source_v4l2_control(const struct source_v4l2_camera *camera, unsigned long request,
			void *argument)
{
	int r;

	do
		r = camera->io->ioctl(camera->fd, request, argument);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : 0;
}

int source_v4l2_fail(const struct source_v4l2_camera *camera, int code, const char *name,
		     const char *what, struct sana_error *error)
{
	if (code == -ENODEV || code == -ENXIO)
		return sana_error_set(error, -ENODEV, "source.lost", "%s: the camera is gone.",
				      camera->name);
	/* Which call learns of it is chance. */
	if (code == -EIO)
		name = "source.failed";
	return sana_error_set(error, code, name, "%s: %s: %s.", camera->name, what,
			      strerror(-code));
}

/* ----------------------------------------------------------------------------------- opening */

static int node_open(struct source_v4l2_camera *c, const char *node, struct sana_error *error)
{
	c->fd = c->io->open(node, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (c->fd >= 0)
		return 0;
	switch (errno) {
	case EACCES:
	case EPERM:
		return sana_error_set(error, -errno, "source.permission",
				      "%s: %s may not be opened; put the user into the group that "
				      "owns it (usually video), or allow it in the unit.",
				      c->name, node);
	case EBUSY:
		return sana_error_set(error, -errno, "source.busy",
				      "%s: another program uses %s; close it.", c->name, node);
	case ENOENT:
	case ENODEV:
	case ENXIO:
		return sana_error_set(error, -ENODEV, "source.no-device", "%s: %s is gone.",
				      c->name, node);
	}
	return source_v4l2_fail(c, -errno, "source.protocol", node, error);
}

static void camera_close(struct media_source *source)
{
	struct source_v4l2_camera *c = (struct source_v4l2_camera *)source;

	source_v4l2_end(c);
	source_v4l2_jpeg_finish(&c->jpeg);
	if (c->fd >= 0)
		(void)c->io->close(c->fd);
	free(c);
}

static void camera_closep(struct source_v4l2_camera **camera)
{
	if (*camera)
		camera_close(&(*camera)->source);
}

static const struct media_source_ops camera_ops = { source_v4l2_read, camera_close };

static void info_fill(struct source_v4l2_camera *c)
{
	const struct source_v4l2_shape *s = &c->shape;
	struct media_source_info *info = &c->source.info;

	info->width = s->width;
	info->height = s->height;
	info->time_base_num = 1;
	info->time_base_den = 1000000; /* struct timeval */
	info->live = true;
	info->timed = true;
	(void)snprintf(info->description, sizeof(info->description), "%s %dx%d at %.4g/s, %.32s",
		       source_v4l2_fourcc_text(s->layout->fourcc).text, s->width, s->height,
		       info->fps_num ? (double)info->fps_num / info->fps_den : 0.0,
		       (const char *)c->capability.card);
}

int source_v4l2_open_node(const struct media_source_wish *wish, const char *node,
			  const struct source_v4l2_io *io, struct media_source **ret,
			  struct sana_error *error)
{
	_cleanup_(camera_closep) struct source_v4l2_camera *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return sana_error_set(error, -ENOMEM, "memory", "Out of memory.");
	c->source.ops = &camera_ops;
	c->source.info.fps_den = 1;
	c->io = io;
	c->fd = c->held = -1;
	c->stop_fd = wish->stop_fd > 0 ? wish->stop_fd : -1;
	c->stopped = wish->stopped;
	c->stopped_context = wish->stopped_context;
	(void)snprintf(c->name, sizeof(c->name), "%s", wish->path);
	r = node_open(c, node, error);
	if (r == 0)
		r = source_v4l2_negotiate(c, wish, error);
	if (r == 0 && c->shape.layout->jpeg) {
		r = source_v4l2_jpeg_init(&c->jpeg, c->shape.width, c->shape.height);
		if (r < 0)
			return sana_error_set(error, r, "memory", "Out of memory.");
	}
	if (r == 0)
		r = source_v4l2_start(c, error);
	if (r < 0)
		return r;
	info_fill(c);
	*ret = &c->source;
	c = NULL;
	return 0;
}

int source_v4l2_open(const struct media_source_wish *wish, struct media_source **ret,
		     struct sana_error *error)
{
	struct device_identity identity;
	struct device device;
	int r;

	r = device_identity_parse(wish->path, &identity, error);
	if (r == 0 && identity.kind != DEVICE_BY_ID && identity.kind != DEVICE_BY_PATH &&
	    identity.kind != DEVICE_CARD)
		r = sana_error_set(error, -EINVAL, "device.identity",
				   "\"%.100s\" is no camera: \"v4l2:by-id/NAME\", "
				   "\"v4l2:by-path/NAME\" or \"v4l2:card=NAME\" would be.",
				   wish->path);
	if (r == 0)
		r = device_find(&identity, "source.no-device", &device, error);
	return r < 0 ? r :
		       source_v4l2_open_node(wish, device.node, &source_v4l2_library_io, ret,
					     error);
}

int source_v4l2_list(struct media_device *ret, int capacity)
{
	return device_list_media(DEVICE_CAMERAS, ret, capacity);
}
