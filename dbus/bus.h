/*
 * The stream on the bus: methods, properties and signals of org.sana.Stream1 (dbus/org.sana.Stream1.xml
 * is the interface). It translates; the stream decides.
 *
 * Every call first passes its caller's token bucket; what changes something then passes polkit, or, where
 * there is no polkit, is left to root, the service's own user and one group. Answers that need a while
 * (polkit's, a snapshot's) keep their message and hold up nobody. Names of errors: see dbus/error.h.
 *
 * The connection is made again, with back-off, when the bus goes away. A bus that answers late, or never, is
 * waited for by events; the one call that is waited for, who a caller is, at most 2 s, and without an answer the
 * caller may do nothing.
 */
#pragma once

#include "base/error.h"
#include "daemon/stream.h"

#include <systemd/sd-event.h>

struct bus;

struct bus_limits {
	const char *group; /* who may control without polkit; copied */
	int calls_per_second, call_burst, prompts_per_minute, prompt_burst;
};

/* What became of a call that wanted to change something. */
struct bus_verdict {
	const char *method, *sender; /* ":1.42" */
	int64_t uid, pid;	     /* −1: unknown */
	const char *decision; /* "allowed", "denied", "rate-limited", "not-authorized", "failed" */
	const char *reason;   /* name of the error; "" */
	const char *argument; /* prompt, policy, identity; "" */
	uint64_t ticket;
};

struct bus_options {
	struct live_stream *stream;
	sd_event *event;
	const char *instance; /* NULL: the plain name */
	bool session;	      /* the session's bus, for tests */
	struct bus_limits limits;
	void (*audit)(void *context, const struct bus_verdict *verdict); /* NULL: none */
	void *context;
};

/* Succeeds without a bus, too: it is tried again. "memory"; "bus.instance": no name for a bus. */
int bus_create(const struct bus_options *options, struct bus **ret, struct sana_error *error);
struct bus *bus_destroy(struct bus *bus); /* NULL accepted; returns NULL */

/*
 * Whether the bus was heard: the name is ours, or was refused; or there was no answer in 2 s. Who says
 * "ready" no earlier keeps the name a promise to clients that start then, as far as it can be one.
 */
bool bus_is_settled(const struct bus *bus);

/* An event of the stream: becomes signals, changed properties, the answer of a kept call. */
void bus_tell(struct bus *bus, const struct live_event *event);

/* After a reload. */
void bus_set_limits(struct bus *bus, const struct bus_limits *limits);

/* Counters for GetStatistics, beside the stream's. */
struct bus_counters {
	uint64_t calls, rate_limited, not_authorized, disconnects;
};
