/*
 * Devices for tests of the pipeline: "pattern:" as it is, "v4l2:fake" a camera that can be pulled out,
 * "v4l2:yuyv" the same with 640x360 in YUYV, and "loopback:N" sinks that keep what was written to them.
 */
#pragma once

#include "daemon/pipeline.h"

#include <stdatomic.h>

enum { FAKE_SINKS = 3, FAKE_WRITES = 8192 };

struct fake_camera {
	atomic_bool there;
	atomic_bool silent; /* it is there, but gives no frames: read blocks */
	atomic_int soft;    /* so many reads give −EAGAIN */
	atomic_int_fast64_t frame_ns;
	atomic_int open; /* now */
	atomic_uint_fast64_t opened, read;
};

struct fake_write {
	int64_t at_ns, timestamp_ns;
	uint8_t pixel[3]; /* the first one */
};

struct fake_sink {
	atomic_bool watched;
	atomic_bool blocks;  /* writes take as long as it is set */
	atomic_int failures; /* so many writes fail */
	atomic_int open_failures;
	atomic_uint_fast64_t opened, finished;
	atomic_int writes;
	struct fake_write write[FAKE_WRITES]; /* the first `writes`; more are only counted */
};

struct fake_devices {
	struct fake_camera camera;
	struct fake_sink sink[FAKE_SINKS];
};

/*
 * The camera's frames have this colour; its negative is what the fake engine makes of it. From FAKE_NUMBER_X
 * on they are grey, each another grey than the one before (not in YUYV).
 */
enum { FAKE_RED = 200, FAKE_GREEN = 100, FAKE_BLUE = 50, FAKE_NUMBER_X = 48 };

void fake_devices_init(struct fake_devices *devices);
struct pipeline_devices fake_devices_functions(struct fake_devices *devices);
