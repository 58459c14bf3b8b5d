/*
 * How a live stream is made: for daemon/main, which fills this from the configuration. What the bus
 * sees is daemon/stream.h.
 */
#pragma once

#include "daemon/pipeline.h"
#include "daemon/stream.h"
#include "media/device.h"

struct live_stream_config {
	struct pipeline_options pipeline; /* its devices and settings included */
	const char *source;		  /* identity; "" : none until set_source */
	const char *sinks[PIPELINE_SINKS];
	int sink_count;
	const char *policy; /* NULL or "": the back end's own; one it lacks is a fault, said once */
	const char *prompt; /* in force from the start; "" : the stream waits for one */
	bool autostart; /* starts by itself, at once: what there is is shown while the model loads */
};

struct live_stream_options {
	struct live_stream_config config;	      /* strings are copied */
	media_list_function list_sources, list_sinks; /* NULL: none */
	/* Screens a prompt: 0, or a negative errno with name and text ("prompt.denied"). NULL: lets all in. */
	int (*check_prompt)(void *context, const char *text, struct sana_error *error);
	/* Re-reads the configuration; on failure the old one stays. NULL: "reload.unsupported". */
	int (*reload)(void *context, struct live_stream_config *ret, struct sana_error *error);
	/* What it read is taken, or is not: then nothing of it may stay. NULL: nobody asks. */
	void (*reload_end)(void *context, bool taken);
	void *context;
};

int live_stream_create(const struct live_stream_options *options, struct live_stream **ret,
		       struct sana_error *error);
struct live_stream *
live_stream_destroy(struct live_stream *stream); /* NULL accepted; returns NULL */

/* A device came or went: what waits for one tries at once. */
void live_stream_devices_changed(struct live_stream *stream);

/* The process ends: nothing starts any more. Files are completed by live_stream_destroy. */
void live_stream_shut_down(struct live_stream *stream);

/* Why it is what it is, one line for STATUS= and the log: "running: 24.0 frames/s, 1.31 s old". */
void live_stream_describe(struct live_stream *stream, char *ret, size_t bytes);

/* The watchdog's: moves while there is progress (daemon/pipeline.h). */
uint64_t live_stream_progress(struct live_stream *stream);
/* The last attempt to open the model failed: waiting for the next one is no progress. */
bool live_stream_engine_fails(struct live_stream *stream);
/* Only another process can have the GPU again (daemon/pipeline.h). */
bool live_stream_needs_new_process(struct live_stream *stream);

/* Weights resident and one warm chunk done: READY=1 may be sent. */
bool live_stream_is_ready(const struct live_stream *stream);
