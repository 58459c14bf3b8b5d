/*
 * A camera's driver that the test plays, system call by system call. Tests set its fields between
 * driver_reset and opening a source with driver_io; what was done to it can be read from the rest.
 */
#pragma once

#include "daemon/source_v4l2.h"

#include <stdbool.h>
#include <stdint.h>

#include <linux/videodev2.h>

/* Of the plain mode; a line is padded. */
enum { WIDTH = 64, HEIGHT = 32, PADDING = 16, BYTES = (2 * WIDTH + PADDING) * HEIGHT };

struct mode {
	uint32_t fourcc;
	int width, height, fps;
};

/* One for the program: a table of system calls has no place for a context. */
struct driver {
	const struct mode *modes; /* ends with a fourcc of 0 */
	uint32_t caps;
	int open_errno;
	unsigned long fail_request; /* this ioctl fails … */
	int fail_errno, fail_after; /* … from its n-th call on */
	bool endless;		    /* enumerations never end */
	bool stepwise;
	struct v4l2_pix_format pix; /* what S_FMT gives back, where a field is not 0 */
	unsigned int buffers;	    /* what REQBUFS gives */
	uint32_t length;	    /* of a buffer */
	/* Of the next DQBUF. */
	int index; /* −1: as it should be */
	uint32_t bytesused, flags, sequence, step;
	int64_t time_ns; /* 0: now */
	uint32_t time_flags;
	bool silent; /* no buffer comes */
	bool hangs_up;
	bool digital;	 /* an HDMI input: timings and events */
	bool no_signal;	 /* and nothing comes in */
	bool event;	 /* one is told */
	bool gone;	 /* unplugged */
	uint32_t signal; /* its width; 0: 64 */

	int opened, closed, mapped, unmapped, calls, queued[32], count;
	bool streaming;
	uint8_t memory[32][BYTES + 4096];
	struct v4l2_pix_format set;
	struct v4l2_fract interval;
};

extern struct driver driver;
extern const struct source_v4l2_io driver_io;

/* One mode, YUYV at 64x32 and 30 frames a second; nothing fails. */
void driver_reset(void);
