/* The configuration file as the daemon's parts take it. */
#pragma once

#include "base/log.h"
#include "daemon/main_devices.h"
#include "daemon/stream_options.h"

struct main_config {
	struct live_stream_config stream; /* its strings belong to this struct */
	struct main_devices devices;
	enum log_level log_level;
	void *owner; /* what the strings lie in */
};

/*
 * NULL: all defaults. On failure *ret is untouched; the text names file, line and key of the first
 * mistake, and how many more there are.
 */
int main_config_load(const char *path, struct main_config **ret, struct sana_error *error);
struct main_config *main_config_free(struct main_config *config); /* NULL accepted; returns NULL */
