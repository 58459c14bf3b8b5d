/* Inside of sana-ctl. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <systemd/sd-bus.h>

/* Exit statuses; docs/sana-ctl.1. */
enum {
	CTL_DONE = 0,
	CTL_FAILED = 1, /* the daemon said no, or something broke; doctor: problems found */
	CTL_USAGE = 2,
	CTL_ABSENT = 3,	     /* no bus, or no daemon of that name on it */
	CTL_REFUSED = 4,     /* not authorised, rate limited, denied */
	CTL_UNSUPPORTED = 5, /* policy or part that is not there */
};

struct ctl {
	sd_bus *bus;
	const char *instance; /* NULL: the plain name */
	char name[160];
	bool session, json, follow, wait, quiet;
};

/* Opens the bus; says what is wrong on standard error. CTL_…. */
int ctl_connect(struct ctl *ctl);

/*
 * Calls a method of the stream with arguments of `types` (as sd_bus_call_methodv). `ret_reply` may be NULL.
 * CTL_…; a failure was said on standard error.
 */
int ctl_call(struct ctl *ctl, sd_bus_message **ret_reply, const char *method, const char *types,
	     ...);

/*
 * A method call to the daemon for sd_bus_call, as ctl_call makes it: it lets polkit ask the person at the
 * keyboard, and only "Start" starts a service that does not run. Negative errno.
 */
int ctl_call_new(struct ctl *ctl, const char *interface, const char *method, sd_bus_message **ret);

/* A property as JSON; NULL when it cannot be read. */
json_t *ctl_property(struct ctl *ctl, const char *name);

/* What an error of the bus means; says it. */
int ctl_refused(const struct ctl *ctl, const sd_bus_error *error, int r);

/* Prints JSON and drops it. */
int ctl_print(json_t *value);

/* The commands. */
int ctl_status(struct ctl *ctl);
int ctl_prompt(struct ctl *ctl, const char *text);
int ctl_policy(struct ctl *ctl, const char *name);	      /* NULL: list */
int ctl_source(struct ctl *ctl, const char *identity);	      /* NULL: list */
int ctl_sinks(struct ctl *ctl, char **identities, int count); /* 0: list */
int ctl_statistics(struct ctl *ctl);
int ctl_snapshot(struct ctl *ctl, const char *path);
int ctl_doctor(struct ctl *ctl);
