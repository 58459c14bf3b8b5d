/*
 * Cameras and capture cards as a media source (media/source.h), with mapped buffers, through libv4l2
 * without its conversions: formats are converted by media/convert.h alone, and what a driver was asked for
 * is what is compared.
 *
 * wish->path is an identity, "v4l2:…" (media/device.h). The picture should cover width x height at the
 * rate, 0: 1280x720, 30; what the camera offers decides (daemon/source_v4l2_format.h has the rules), and
 * info tells what it became. threads, duration and endless mean nothing here.
 *
 * capture_ns is the driver's time; where a driver has no CLOCK_MONOTONIC, or one that does not grow,
 * it is the time the buffer was taken (info.restamped). A picture's planes are the driver's own buffer.
 *
 * Drivers with the multi-planar interface alone work as far as libv4l2's plugin goes (not tested on any).
 * Not supported: single fields, H.264 and raw sensors. JPEG alone allocates while it runs: libjpeg's own, per
 * picture.
 *
 * Names of failures:
 *
 *	source.no-device   nothing has this identity, or the node is gone
 *	source.permission  the node may not be opened
 *	source.busy        another program streams, or the USB bus has no room
 *	source.no-signal   the input has no signal, or none it can lock to
 *	source.format      no format, size or timing that can be used; a wish that is none
 *	source.changed     the signal has another size now: open again
 *	source.stalled     no buffer in time
 *	source.buffer      the driver refused buffers
 *	source.damaged     a picture was lost: error flag, too short, no JPEG (info.damaged)
 *	source.lost        unplugged or unbound while streaming
 *	source.failed      the device failed (EIO)
 *	source.protocol    the driver broke off streaming, or answered what V4L2 does not allow
 *	source.interrupted wish->stop_fd or wish->stopped
 *
 * source.damaged, and source.no-signal while it streams, come with −EAGAIN: read on.
 */
#pragma once

#include "media/device.h"
#include "media/source.h"

#include <poll.h>

int source_v4l2_open(const struct media_source_wish *wish, struct media_source **ret,
		     struct sana_error *error);

/* Cameras that are there. Opens no node. */
int source_v4l2_list(struct media_device *ret, int capacity);

/* The system calls of a camera, for tests that play a driver. */
struct source_v4l2_io {
	int (*open)(const char *path, int flags);
	int (*close)(int fd);
	int (*ioctl)(int fd, unsigned long request, void *argument);
	void *(*map)(size_t bytes, int fd, int64_t offset); /* NULL: errno */
	int (*unmap)(void *memory, size_t bytes);
	int (*poll)(struct pollfd *fds, unsigned long count, int timeout_ms);
};

/* The same with a node that was found already, and other system calls. */
int source_v4l2_open_node(const struct media_source_wish *wish, const char *node,
			  const struct source_v4l2_io *io, struct media_source **ret,
			  struct sana_error *error);

extern const struct source_v4l2_io source_v4l2_library_io;
