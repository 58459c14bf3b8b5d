/* The audit log: JSON lines, turned over at a size. */
#pragma once

#include "daemon/guard.h"

struct guard_log;

int guard_log_open(const struct guard_options *options, struct guard_log **ret,
		   struct sana_error *error);
struct guard_log *guard_log_close(struct guard_log *log); /* NULL accepted; returns NULL */

/* 0 or a negative errno. */
int guard_log_write(struct guard_log *log, const struct guard_record *record);
