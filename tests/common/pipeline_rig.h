/* A pipeline over the fake engine and fake devices, and waiting for what it does. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/util.h"
#include "daemon/pipeline.h"
#include "tests/common/fake_devices.h"
#include "tests/common/fake_engine.h"

enum { RIG_WIDTH = 64, RIG_HEIGHT = 32, RIG_EVENTS = 512 };

struct rig {
	struct fake_devices devices;
	struct pipeline_options options;
	struct pipeline *pipeline;
	struct pipeline_event event[RIG_EVENTS]; /* all there were, with their times */
	int64_t event_ns[RIG_EVENTS];
	int events;
};

/* Options for rig_start: published chunk lengths, pictures of RIG_WIDTH x RIG_HEIGHT. */
void rig_init(struct rig *rig);

/* Creates the pipeline with source and sinks (NULL ends them), a prompt, and starts it. */
void rig_start(struct rig *rig, const char *source, const char *sink, const char *second_sink);
void rig_finish(struct rig *rig);

/* Takes the events that wait. */
void rig_drain(struct rig *rig);

/* Index of the first event of a kind (and name, unless NULL) from `from` on; −1 for none. */
int rig_find(const struct rig *rig, int from, enum pipeline_event_kind kind, const char *name);

/* Waits for such an event; fails the test after `seconds`. Returns its index. */
int rig_wait_event(struct rig *rig, int from, enum pipeline_event_kind kind, const char *name,
		   double seconds);

/* Draining events for so long. */
void rig_run(struct rig *rig, double seconds);

/* Waits until sink `number` was given a picture whose first pixel is this one after `after_ns`; the time. */
int64_t rig_wait_pixel(struct rig *rig, int number, const uint8_t pixel[3], int64_t after_ns,
		       double seconds);

struct pipeline_statistics rig_statistics(struct rig *rig);
uint64_t rig_fault(struct rig *rig, const char *name);

extern const uint8_t rig_source[3], rig_edited[3], rig_card[3];
