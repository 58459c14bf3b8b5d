/* Inside of the pipeline: what it has to tell its owner, and which faults there are. */
#pragma once

#include "daemon/pipeline.h"

#include <pthread.h>

enum { EVENTS_WAITING = 64 };

/* Where a fault is; each place has at most one at a time. */
enum fault_scope {
	FAULT_ENGINE,
	FAULT_SOURCE,
	FAULT_LATENCY,
	FAULT_SINK, /* + number of the slot */
	FAULT_SCOPES = FAULT_SINK + 2 * PIPELINE_SINKS,
};

struct pipeline_events {
	pthread_mutex_t lock;
	int fd; /* eventfd */
	struct pipeline_event event[EVENTS_WAITING];
	int first, count;
	uint64_t dropped;
	struct pipeline_fault_count fault[PIPELINE_FAULTS];
	int faults;
	int present[FAULT_SCOPES]; /* index of the fault there, −1: none */
};

int events_init(struct pipeline_events *events);
void events_finish(struct pipeline_events *events); /* NULL-safe on a zeroed struct with fd 0 */

void events_send(struct pipeline_events *events, const struct pipeline_event *event);
bool events_next(struct pipeline_events *events, struct pipeline_event *ret);

/* Counts a fault and says it when its kind is new at that place. */
void fault_set(struct pipeline_events *events, enum fault_scope scope,
	       const struct sana_error *error);

/* Counts a fault that is over already; said the first time its kind appears. */
void fault_note(struct pipeline_events *events, const struct sana_error *error);

/* Some kind of fault is there at that place. */
bool fault_is_present(struct pipeline_events *events, enum fault_scope scope);

/* All is well at that place. */
void fault_clear(struct pipeline_events *events, enum fault_scope scope);

int faults_copy(struct pipeline_events *events, struct pipeline_fault_count *ret,
		uint64_t *ret_dropped);
