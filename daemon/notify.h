/*
 * What the service manager is told: ready, status, more time to start, signs of life. Everything is a
 * no-op where none listens.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* The first time: READY=1. */
void notify_ready(void);

/* Loading goes on: the start may take this much longer from now. */
void notify_extend_start(int64_t ns);

/* One line for `systemctl status`, whatever is in it. */
void notify_status(const char *line);

void notify_reloading(void); /* ends with notify_ready */
void notify_stopping(void);

/* How often signs of life are due; 0: none are waited for. */
int64_t notify_watchdog_ns(void);
void notify_alive(void);
