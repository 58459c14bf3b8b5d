/* The way in from outside: the bus, and the guard that screens and notes down. */
#pragma once

#include "daemon/guard.h"
#include "daemon/main_config.h"
#include "dbus/bus.h"

struct main_door {
	struct guard *guard;
	struct bus *bus;
	struct live_stream *stream;
};

/* The guard, before there is a stream; "prompt.…": it does not let the configuration's own prompt in. */
int main_door_guard(struct main_door *door, const struct main_config *config,
		    struct sana_error *error);

/* The bus, for a stream that outlives the door. */
int main_door_bus(struct main_door *door, const struct main_config *config,
		  struct live_stream *stream, sd_event *event, const char *instance, bool session,
		  struct sana_error *error);

/* Whether main_door_update would work, and its prompt would be let in. Changes nothing. */
int main_door_try(const struct main_config *config, struct sana_error *error);

/* Live keys of a new configuration; a deny list that cannot be read fails, and the old one stays. */
int main_door_update(struct main_door *door, const struct main_config *config,
		     struct sana_error *error);

void main_door_close(struct main_door *door);
