/* What a virtual camera is asked for, and what its answer means. No device is touched here. */
#pragma once

#include "base/error.h"
#include "media/sink.h"

#include <linux/videodev2.h>

/* The picture a device has. */
struct sink_loopback_shape {
	uint32_t fourcc;
	int format; /* enum AVPixelFormat */
	const char *name;
	int width, height;
	size_t bytes; /* written per frame: exactly the picture's, whatever padding the driver likes */
};

/* "sink.format": a pixel format or size that is none, or odd. */
int sink_loopback_shape_wish(const struct media_sink_wish *wish, struct sink_loopback_shape *ret,
			     struct sana_error *error);

/* From what S_FMT gave back. "sink.format": a format that cannot be written, rows with padding. */
int sink_loopback_shape_read(const struct v4l2_pix_format *pix, struct sink_loopback_shape *ret,
			     struct sana_error *error);
