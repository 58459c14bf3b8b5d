/* Which code opens which identity (media/device.h): the one list of kinds. */
#pragma once

#include "daemon/pipeline.h"
#include "media/device.h"

/* What the configuration says of devices beside their names. NULL: the device's choice. */
struct main_devices {
	const char *source_pixel_format, *source_matrix, *source_range;
	const char *sink_pixel_format, *sink_mode;
	bool sink_unscaled;
	const char *state_directory;
};

/* `devices` is borrowed while the functions are in use. */
struct pipeline_devices main_devices_functions(struct main_devices *devices);

int main_devices_list_sources(struct media_device *ret, int capacity);
int main_devices_list_sinks(struct media_device *ret, int capacity);
