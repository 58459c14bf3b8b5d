/*
 * The live stream: one source, one model, any number of sinks, and the state machine over them.
 * This is all that the bus sees of the daemon; it translates, the decisions are made here.
 *
 * Threads. Every function may be called from the thread that owns the event loop, and from that one
 * only; the pipeline's own threads never call back. What they have to tell is queued as events:
 * the loop polls `live_stream_event_fd` and drains `live_stream_next_event`. No function here waits
 * for the engine, a device or a file: what takes longer is started, and its end is an event.
 *
 * Errors are negative errno with `error` filled (base/error.h): name and one sentence.
 */
#pragma once

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct live_stream;

enum live_state {
	LIVE_STATE_INVALID = -1,
	LIVE_STATE_IDLE,    /* stopped: nothing is open but the model */
	LIVE_STATE_WARMING, /* model being loaded, or the first chunk not out yet */
	LIVE_STATE_RUNNING, /* edited frames flow */
	LIVE_STATE_PAUSED,  /* held by Pause */
	LIVE_STATE_DEGRADED, /* source, sink or engine missing: something is shown, recovery is tried */
	LIVE_STATE_STOPPING, /* on its way to idle or to the end of the process */
	LIVE_STATE_COUNT,
};

const char *live_state_name(enum live_state state); /* "idle", "warming", … */

/* What happened, for signals, properties and the watchdog. Texts are owned by the event. */
enum live_event_kind {
	LIVE_EVENT_STATE,    /* the state, or why it is degraded, changed */
	LIVE_EVENT_PROPERTY, /* Prompt, Policy, Source, Sinks, Model or Backend changed: `name` */
	LIVE_EVENT_PROMPT_APPLIED, /* ticket, chunk: the first chunk that shows it */
	LIVE_EVENT_PROMPT_REFUSED, /* ticket; name and text of the error: the old prompt stays */
	LIVE_EVENT_FAULT,	/* name (kind) and text; sent when a kind appears, then counted */
	LIVE_EVENT_SOURCE_LOST, /* text: its identity */
	LIVE_EVENT_SOURCE_RESTORED, /* text: its identity */
	LIVE_EVENT_SNAPSHOT, /* ticket: the PNG of live_stream_snapshot is written, or name and text */
	LIVE_EVENT_COUNT,
};

struct live_event {
	enum live_event_kind kind;
	uint64_t ticket, chunk;
	char name[48];
	char text[SANA_ERROR_TEXT_BYTES];
};

/* Readable while events wait. The queue is bounded: when it is full, events of a kind and name that
 * already waits replace it and the rest is counted as "events-dropped". */
int live_stream_event_fd(const struct live_stream *stream);
bool live_stream_next_event(struct live_stream *stream, struct live_event *ret);

/*
 * Requests. Each is answered at once; what follows from it comes as events.
 *
 * set_prompt checks the text (size, UTF-8; guard: deny list) and answers with a ticket; the text
 * encoder runs on a thread of its own and the prompt takes effect at a chunk boundary. A prompt that
 * waits is replaced by a newer one ("prompt.replaced" for the older one's ticket); while the model is
 * loaded it is kept. Errors: "prompt.empty", "prompt.too-long", and what the check given at creation says:
 * "prompt.not-utf8", "prompt.denied", …
 * set_policy: "policy.unsupported", the text names the ones this back end has.
 * set_source: "source.identity" (no kind of source, control characters, not UTF-8), "request.too-long".
 * "" takes the source away.
 * set_sinks: "sink.identity", "sink.twice", "sink.many", "sink.busy" (too many are still being closed).
 * start: "stream.stopping"; pause, resume: "stream.idle". Asking for what is so already is no error.
 * snapshot: "snapshot.busy" (one is being written), "snapshot.nothing" (no picture yet); its event:
 * "snapshot.write". reload: "reload.unsupported" (no file), and what the reader of the file says.
 */
int live_stream_set_prompt(struct live_stream *stream, const char *text, uint64_t *ret_ticket,
			   struct sana_error *error);
int live_stream_set_policy(struct live_stream *stream, const char *name, struct sana_error *error);
int live_stream_set_source(struct live_stream *stream, const char *identity,
			   struct sana_error *error);
int live_stream_set_sinks(struct live_stream *stream, const char *const *identities, int count,
			  struct sana_error *error);
int live_stream_start(struct live_stream *stream, struct sana_error *error);
int live_stream_stop(struct live_stream *stream, struct sana_error *error);
int live_stream_pause(struct live_stream *stream, struct sana_error *error);
int live_stream_resume(struct live_stream *stream, struct sana_error *error);
int live_stream_reset(struct live_stream *stream,
		      struct sana_error *error); /* forget all history */

/*
 * Writes a PNG, source beside result, to the descriptor (taken over) from a thread of its own. Where the file's
 * system does not answer, its event comes from live_stream_progress.
 */
int live_stream_snapshot(struct live_stream *stream, int descriptor, uint64_t *ret_ticket,
			 struct sana_error *error);

/* Re-reads the configuration (a function given at creation): live keys at the next chunk boundary. */
int live_stream_reload(struct live_stream *stream, struct sana_error *error);

/* State. Strings live until the next call on the stream. */
enum live_state live_stream_state(const struct live_stream *stream);
const char *live_stream_prompt(const struct live_stream *stream);
const char *live_stream_policy(const struct live_stream *stream);
const char *live_stream_source(const struct live_stream *stream);
int live_stream_sinks(const struct live_stream *stream, const char *const **ret_identities);
const char *live_stream_model(const struct live_stream *stream); /* directory; "" before loading */
const char *live_stream_backend(const struct live_stream *stream); /* "cpu", … */
const char *live_stream_fault(const struct live_stream *stream);   /* worst present kind; "" */
int64_t live_stream_latency_ns(const struct live_stream *stream);  /* p50 age at presentation */

struct live_device {
	char identity[256];    /* what set_source or set_sinks takes */
	char description[256]; /* for a person */
	bool present;	       /* policies: runs here */
};

/* Fills up to `capacity`; returns how many there are. */
int live_stream_list_sources(struct live_stream *stream, struct live_device *ret, int capacity);
int live_stream_list_sinks(struct live_stream *stream, struct live_device *ret, int capacity);
int live_stream_list_policies(struct live_stream *stream, struct live_device *ret, int capacity);

/* Counters and measures, one line each; the keys are the ones of GetStatistics. */
struct live_statistic {
	char name[48]; /* "frames-captured", "age-p99-ns", … docs: sana-streamd(8) */
	bool is_text;
	uint64_t value;
	char text[96];
};

int live_stream_statistics(struct live_stream *stream, struct live_statistic *ret, int capacity);
