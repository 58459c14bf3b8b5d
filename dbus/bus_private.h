/* Inside of the bus. */
#pragma once

#include "dbus/bus.h"
#include "dbus/callers.h"
#include "dbus/names.h"

#include <systemd/sd-bus.h>

enum {
	BUS_PENDING = 32,	   /* calls that wait for polkit; more are told Busy … */
	BUS_PENDING_EACH = 4,	   /* … and those of one user, too */
	BUS_REQUEST_BYTES = 65536, /* of text in a call that is kept meanwhile */
	BUS_DEVICES = 64,	   /* lists are no longer */
	BUS_GROUP_BYTES = 64,
	BUS_NAME_BYTES = 256,
};

/* What a call does once its caller may: returns what a method handler returns. */
typedef int (*bus_action)(struct bus *bus, sd_bus_message *message, sd_bus_error *error);

/* A call that waits for polkit. */
struct bus_pending {
	struct bus *bus;
	sd_bus_message *message; /* NULL: free */
	sd_bus_slot *slot;
	bus_action action;
	int64_t uid;
};

struct bus {
	struct bus_options options;
	char name[BUS_NAME_BYTES], group[BUS_GROUP_BYTES];
	sd_bus *connection; /* NULL: being tried again */
	bool named;	    /* and the name is ours */
	bool settled;	    /* bus_is_settled() */
	int64_t settle_by_ns;
	sd_event_source *retry;
	uint64_t retry_usec;
	bool told_missing; /* that there is no bus, or no name, was logged */
	int name_error; /* why the name is not ours, as it was logged last; 0: it is, or unknown */
	bool no_polkit; /* was logged */
	struct callers callers;
	struct bus_counters counters;
	struct bus_pending pending[BUS_PENDING];
	sd_bus_message *snapshot; /* waits for its picture */
	uint64_t snapshot_ticket;
};

extern const sd_bus_vtable bus_vtable[];

/*
 * Lets `action` run now or later, or refuses. `polkit_action` is one of BUS_ACTION_….
 */
int bus_authorise(struct bus *bus, sd_bus_message *message, const char *polkit_action,
		  bus_action action, sd_bus_error *error);
void bus_pending_drop(struct bus *bus);

/* Of the loop's turn. */
int64_t bus_now_ns(struct bus *bus);

/* The caller's entry; uid and pid are known once bus_authorise has let the call pass. Never NULL. */
struct caller *bus_caller(struct bus *bus, sd_bus_message *message);

/* The buckets of the caller's user; never NULL. */
struct quota *bus_quota(struct bus *bus, sd_bus_message *message);

/* As bus_audit, once a minute and user: a log must not be filled by those who may do nothing. */
void bus_audit_refusal(struct bus *bus, sd_bus_message *message, const char *decision);

void bus_audit(struct bus *bus, sd_bus_message *message, const char *decision, const char *reason,
	       const char *argument, uint64_t ticket);
