/* Inside of the V4L2 source: one camera, its negotiation and its buffers. */
#pragma once

#include "daemon/source_v4l2.h"
#include "daemon/source_v4l2_format.h"
#include "daemon/source_v4l2_jpeg.h"
#include "media/source_ops.h"

enum {
	SOURCE_V4L2_BUFFERS = 4, /* one is read, one being filled, two against jitter */
	SOURCE_V4L2_MAX_BUFFERS = 32,
};

struct source_v4l2_camera {
	struct media_source source;
	const struct source_v4l2_io *io;
	int fd, stop_fd; /* stop_fd −1: none */
	bool (*stopped)(void *context);
	void *stopped_context;
	char name[96]; /* for errors: the identity */

	/* Negotiated. */
	struct v4l2_capability capability;
	struct source_v4l2_target target;
	struct source_v4l2_shape shape;
	bool has_timings, has_events;
	struct v4l2_dv_timings timings;
	int64_t frame_ns; /* between two pictures; 0: unknown */

	/* Buffers. */
	struct {
		uint8_t *data;
		size_t bytes;
		bool queued;
	} buffer[SOURCE_V4L2_MAX_BUFFERS];
	int buffers;
	bool streaming, signal_missing;
	int held; /* index of the buffer the reader has; −1: none */
	struct source_v4l2_jpeg jpeg;

	int64_t stall_ns, deadline_ns;
	int64_t first_ns, last_ns; /* capture times; 0: none yet */
	uint32_t last_sequence;
};

/* An ioctl, again after signals. Negative errno. */
int source_v4l2_control(const struct source_v4l2_camera *camera, unsigned long request,
			void *argument);

/* ENODEV and its relatives as "source.lost"; otherwise `name` with "IDENTITY: WHAT: REASON". */
int source_v4l2_fail(const struct source_v4l2_camera *camera, int code, const char *name,
		     const char *what, struct sana_error *error);

/* Capability, signal, format, rate: from the open node to `shape`. */
int source_v4l2_negotiate(struct source_v4l2_camera *camera, const struct media_source_wish *wish,
			  struct sana_error *error);

/* True: the current input says that it has no signal. */
bool source_v4l2_signal_missing(const struct source_v4l2_camera *camera);

/* 1: the signal is another one than the negotiated; 0: the same or none. */
int source_v4l2_signal_changed(const struct source_v4l2_camera *camera);

/* Buffers mapped and queued, streaming on. */
int source_v4l2_start(struct source_v4l2_camera *camera, struct sana_error *error);

/* May be called twice, and on a camera that never started. */
void source_v4l2_end(struct source_v4l2_camera *camera);

int source_v4l2_read(struct media_source *source, struct media_picture *ret,
		     struct sana_error *error);
