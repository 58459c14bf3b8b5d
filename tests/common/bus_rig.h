/*
 * The real process on a bus of its own, and a connection to that: for tests of the bus. With the demo model
 * and the test pattern; under the sanitizers, where the demo model takes minutes, with a small one. Failures
 * are assertions.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/common/scratch.h"

#include <sys/types.h>
#include <systemd/sd-bus.h>

#ifdef __SANITIZE_ADDRESS__
enum { BUS_RIG_START_S = 120, BUS_RIG_SLOW = 10 };
#else
enum { BUS_RIG_START_S = 60, BUS_RIG_SLOW = 1 };
#endif

struct bus_rig {
	struct scratch scratch; /* the daemon's: socket, log, audit, notify, … */
	pid_t bus, daemon;
	char address[160];
	sd_bus *connection;
};

extern struct bus_rig bus_rig;

/* Of the group: the daemon streams from here on. Exits with a skip where there is no dbus-daemon. */
int bus_rig_set_up(void **state);
int bus_rig_tear_down(void **state);

void bus_rig_start_bus(void);
void bus_rig_connect(sd_bus **ret);
void bus_rig_stop(pid_t *pid);
void bus_rig_sleep_ms(int ms);

/* A text property; "" while there is no answer. */
const char *bus_rig_property(const char *name);

/* UINT64_MAX: it has no such number. */
uint64_t bus_rig_statistic(const char *wanted);

/* Handles signals until the state is the one wanted. */
void bus_rig_wait_state(const char *wanted, int seconds);

/* The last part of the error's name, "" for none. */
const char *bus_rig_call(sd_bus *connection, const char *method, const char *types, ...);
