/* The configuration as the daemon's parts take it. */
#pragma once

#include "base/log.h"
#include "conf/settings.h"
#include "daemon/main_devices.h"
#include "daemon/stream_options.h"

struct main_config {
	struct live_stream_config stream; /* its strings belong to `settings` */
	struct main_devices devices;
	enum log_level log_level;
	struct settings *settings;
	char cache[4096]; /* directory of what can be made again */
	char *demo;	  /* the demo model's directory, where no other is given */
};

/*
 * NULL: all defaults. On failure *ret is untouched; `error` has the first mistake, `report` (which the
 * caller finishes) all of them.
 */
int main_config_load(const char *path, struct main_config **ret, struct settings_report *report,
		     struct sana_error *error);
struct main_config *main_config_free(struct main_config *config); /* NULL accepted; returns NULL */
