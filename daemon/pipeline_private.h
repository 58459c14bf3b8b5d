/* Inside of the pipeline: its threads and what they share. */
#pragma once

#include "base/clock.h"
#include "base/histogram.h"
#include "base/ring.h"
#include "daemon/pacer.h"
#include "daemon/pipeline.h"
#include "daemon/pipeline_admit.h"
#include "daemon/pipeline_events.h"
#include "daemon/pipeline_frame.h"
#include "media/convert.h"

#include <pthread.h>
#include <stdatomic.h>

enum {
	SINK_SLOTS = 2 * PIPELINE_SINKS, /* those that close files and those that open new ones */
	SINK_WAITING = 2,		 /* frames a busy sink may be behind */
	PRESENT_WAITING = PACER_CAPACITY,
	TICKETS = 8,   /* prompts between the engine and us */
	BEAT_MS = 200, /* no thread waits longer without a sign of life */
};

/* Time between two attempts. */
struct backoff {
	int64_t wait_ns; /* of the next failure */
	int64_t until_ns;
	uint64_t retry_seen;
};

/* What the owner wants; guarded by pipeline.lock. */
struct wanted {
	bool active, paused, resting;
	char source[PIPELINE_IDENTITY_BYTES];
	uint64_t source_serial; /* changes with every source that is set */
	uint64_t retry_serial;
	uint64_t start_serial; /* changes with every start, and with every end of a pause */
	struct pipeline_settings settings;
	char loading[64]; /* for the card */
};

struct capture {
	pthread_t thread;
	bool started;
	int wake_fd; /* eventfd: the source is to be looked at again */
	struct media_convert *convert;
	struct ring ring;
	struct admit admit; /* guarded by pipeline.lock */
	struct backoff backoff;
	char identity[PIPELINE_IDENTITY_BYTES]; /* of the open source */
	uint64_t serial;
	struct media_source *source;
	bool lost, seen;   /* lost was said; a picture came since the source was opened */
	int64_t anchor_ns; /* files: capture time of time stamp 0; INT64_MIN: unset */
	int64_t last_ns;   /* capture time of the last picture */
	int64_t last_good_ns;
	int64_t missed_seen;		   /* of the open source's counter */
	struct frame *latest;		   /* guarded by pipeline.lock */
	atomic_bool alive;		   /* pictures come */
	atomic_int_fast64_t dead_since_ns; /* when they ended, while !alive */
	atomic_uint_fast64_t beat, captured, lost_frames, missed, overload, opens;
	atomic_int_fast64_t discontinuity_ns; /* edited frames of before are not shown */
};

struct ticket_pair {
	uint64_t engine, own;
};

struct engine_worker {
	pthread_t thread;
	bool started;
	struct sana_model *model;   /* changed under pipeline.lock */
	struct sana_stream *stream; /* likewise */
	struct sana_prompt *prompt; /* in force */
	uint64_t prompt_ticket, announced;
	struct ticket_pair ticket[TICKETS];
	int tickets;
	struct frame *held; /* popped, and the engine had no room yet */
	struct backoff backoff;
	int failures; /* in a row */
	int refusals; /* in a row, of a GPU that this process has had */
	char backend[32]; /* the best there was when the choice was ours; "": none yet, or not the best */
	bool warm;
	uint64_t warm_chunks; /* of this stream: thrown away, not counted outside */
	uint64_t chunks;      /* of this stream, whose work was measured */
	int64_t busy_ns, busy_since_ns;
	int busy_frames;
	int64_t last_push_ns; /* capture time */
	uint64_t given_out;
	atomic_bool wants; /* frames: there is a stream with a prompt */
	atomic_bool reset;
	atomic_bool hopeless; /* for this process */
	atomic_uint_fast64_t beat, edited, screened, stale, rebuilds;
};

struct caption_worker {
	pthread_t thread;
	bool started;
	pthread_cond_t wake;
	/* Guarded by pipeline.lock. */
	bool ready; /* the engine is warm: before, the engine thread takes the text itself */
	bool waiting;
	char text[PIPELINE_PROMPT_BYTES];
	uint64_t ticket, last_ticket;
	struct sana_prompt *done; /* for the engine to take */
	uint64_t done_ticket;
	atomic_uint_fast64_t beat;
};

struct present {
	pthread_t thread;
	bool started;
	pthread_cond_t wake;
	struct ring ring; /* edited frames */
	struct pacer pacer;
	struct frame *current, *card;
	char card_text[2 * PIPELINE_IDENTITY_BYTES];
	int64_t current_ns;    /* when `current` was first shown */
	int64_t first_tick_ns; /* of the output's time stamps */
	int64_t unwatched_since_ns;
	bool running;		   /* RUNNING was said … */
	uint64_t running_serial;   /* … after this start */
	int64_t running_source_ns; /* … for the source that was opened then */
	bool was_resting;
	struct frame *shown; /* guarded by pipeline.lock: what the sinks have */
	atomic_uint_fast64_t beat;
	/* Guarded by `measures_lock`. */
	pthread_mutex_t measures_lock;
	struct histogram age, interval;
	int64_t last_output_ns;
	uint64_t counters[8]; /* copies of the pacer's, enum present_counter */
	int64_t delay_ns;
	int waiting;
};

enum present_counter {
	PRESENT_TICKS,
	PRESENT_MISSED,
	PRESENT_SHOWN,
	PRESENT_SKIPPED,
	PRESENT_LATE,
	PRESENT_REPEATED,
	PRESENT_OVERRUN,
};

enum sink_phase { SINK_UNUSED, SINK_WORKS, SINK_ENDS, SINK_ENDED };

/* A frame on its way to a sink. */
struct mail {
	struct frame *frame;
	int64_t timestamp_ns;
	bool fresh; /* shown for the first time */
};

/* The newest frames for a sink; older ones make room. */
struct mailbox {
	pthread_mutex_t lock;
	pthread_cond_t filled;
	struct mail mail[SINK_WAITING];
	int first, count;
	bool woken;
};

struct sink_slot {
	struct pipeline *pipeline;
	pthread_t thread;
	int number;
	enum sink_phase phase; /* guarded by pipeline.lock */
	char identity[PIPELINE_IDENTITY_BYTES];
	struct mailbox mailbox;
	struct media_sink *sink;
	struct backoff backoff;
	int64_t origin_ns, last_timestamp_ns; /* of the first and the last frame since it is open */
	bool held_back;			      /* the last write was refused for now */
	atomic_bool open, watched;
	atomic_uint_fast64_t frames, dropped, opens;
};

enum snapshot_phase {
	SNAPSHOT_NONE,
	SNAPSHOT_RUNS,
	SNAPSHOT_ENDED, /* its thread can be joined */
	SNAPSHOT_LEFT,	/* the pipeline was destroyed meanwhile: its thread frees it */
};

struct snapshot {
	pthread_t thread;
	/* Guarded by pipeline.lock. */
	pthread_cond_t ended;
	enum snapshot_phase phase;
	bool overdue; /* its end was said without it */
	/* The thread's while it runs. */
	int descriptor;
	struct frame *source, *result;
	/* Owner's. */
	uint64_t ticket;
	int64_t overdue_ns;
};

struct pipeline {
	struct pipeline_options options;
	char *model_directory, *model_shape, *backend, *tuning_directory, *sink_codec;
	int width, height;
	int chunk_frames, first_chunk_frames;
	struct frame_pool *pool;
	atomic_bool stopping;
	int stop_fd; /* eventfd, readable for good once stopping */
	pthread_mutex_t lock;
	struct wanted wanted;
	struct pipeline_events events;
	struct capture capture;
	struct engine_worker engine;
	struct caption_worker caption;
	struct present present;
	struct sink_slot sink[SINK_SLOTS];
	struct snapshot snapshot;
	/* Owner's thread alone. */
	uint64_t last_beat[4], progress;
	int64_t last_cpu_ns;
};

/* Threads' mains; the argument is the pipeline, of sinks the slot. */
void *capture_main(void *argument);
void *engine_main(void *argument);
void *caption_main(void *argument);
void *present_main(void *argument);
void *sink_main(void *argument);

/* Says that the engine's thread lives: the watchdog is fed by it (pipeline_progress). */
void engine_beat(struct pipeline *pipeline);

/* Of the engine thread: opens model and stream; closes them, if they are. */
int engine_open(struct pipeline *pipeline, struct sana_error *error);
void engine_close(struct pipeline *pipeline);

/* Runs what a first chunk would be late by; the caption thread takes over from here on. */
int engine_warm(struct pipeline *pipeline, struct sana_error *error);

/* Puts a prompt (taken over) in force from the next chunk boundary on; or says that it is not used. */
int engine_use(struct pipeline *pipeline, struct sana_prompt *prompt, uint64_t ticket,
	       struct sana_error *error);
void engine_refuse(struct pipeline *pipeline, uint64_t ticket, const struct sana_error *error);
void prompt_replaced(struct pipeline *pipeline, uint64_t ticket);

/* A cond that waits by CLOCK_MONOTONIC. */
void pipeline_cond_init(pthread_cond_t *cond);

/* For the calling thread: it is to run before the engine's. */
void pipeline_thread_is_light(void);

/* Wakes whoever looks at `wanted`. */
void pipeline_poke(struct pipeline *pipeline);

/* Copies what is wanted. */
struct wanted pipeline_wanted(struct pipeline *pipeline);
bool pipeline_works(const struct wanted *wanted); /* capture and engine have something to do */

/* Of a device. Doubles the wait, up to the settings' most; `alive_ns` is how long the last attempt lasted. */
void backoff_fail(struct backoff *backoff, struct pipeline *pipeline, int64_t alive_ns);
bool backoff_waits(struct backoff *backoff, struct pipeline *pipeline); /* false: try now */

/* Of the engine: a model is dearer to open than a camera, and its pauses are its own. */
void engine_backoff_fail(struct backoff *backoff, int64_t now_ns);

/* The newest source frame, referenced; NULL when there is none. */
struct frame *capture_latest(struct pipeline *pipeline);
void capture_forget(struct pipeline *pipeline);

/* Writes a card of some lines into a frame: light text on dark grey. */
void card_draw(uint8_t *rgb, int width, int height, const char *text);

/* Hands a frame (not taken over) to a working sink. Call with the lock held. */
void sink_mail(struct sink_slot *slot, const struct mail *mail);

/* Slots whose threads have ended are joined and free again. */
void sinks_reap(struct pipeline *pipeline, bool wait);

/* Says the end of one whose thread does not: no deadline of ours ends a write that the kernel does not. */
void snapshot_look(struct pipeline *pipeline);

/*
 * The end, of all threads the last. False: the thread is stuck in a write, and calls pipeline_free once it is
 * not: then nothing of the pipeline is the caller's any more.
 */
bool snapshot_finish(struct pipeline *pipeline);
void pipeline_free(struct pipeline *pipeline);
