/*
 * Errors as they go over the bus:
 *
 *	org.sana.Stream1.Error.InvalidPrompt	empty, too long, not UTF-8, control characters
 *	….Denied				the deny list has it
 *	….InvalidArgument			an identity that is none, too many sinks
 *	….Unsupported				policy or part that is not there; the text has what is
 *	….NotAuthorized				polkit or the group says no
 *	….RateLimited				more calls than a caller may make
 *	….Busy					the same slow call is still being answered
 *	….Failed				anything else; the text says what
 */
#pragma once

#include "base/error.h"

#include <systemd/sd-bus.h>

/* The last part of the name that goes with an error of the stream. */
const char *bus_error_of(const char *name);

/* Fills `to` from an error of the stream; returns a negative errno for sd-bus. */
int bus_error_take(sd_bus_error *to, const struct sana_error *error);

/* org.sana.Stream1.Error.`what`. */
int bus_error_say(sd_bus_error *to, const char *what, const char *format, ...) _printf_(3, 4);
