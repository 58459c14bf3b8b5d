/*
 * The way of a frame through the daemon: one source, one engine, any number of sinks, each on threads
 * of their own, with bounded queues between them.
 *
 *	capture  opens the source (and opens it again with back-off), reads, converts to R'G'B' of the
 *		 model's size, admits what the engine can keep up with
 *	engine   opens model and stream (and builds them again after failures), pushes frames as they
 *		 come, steps, pulls edited frames
 *	caption  runs the text encoder
 *	present  turns bursts into an even output clock (daemon/pacer.h), falls back to the source, a
 *		 card or the last frame when there is nothing better
 *	sink n	 opens its sink (and again), writes; the slowest one disturbs no other
 *
 * Pictures are reference counted and come from one pool that is taken at creation: after warm-up
 * nothing allocates. Each carries the time its source frame was captured.
 *
 * Devices are opened through functions given at creation: nothing here knows what kinds there are.
 *
 * Functions may be called from one thread, the owner's, and never wait for a device or the engine, but
 * for pipeline_destroy. What the owner has to know comes as events.
 */
#pragma once

#include "base/error.h"
#include "engine/sana.h"
#include "media/sink.h"
#include "media/source.h"

enum {
	PIPELINE_SINKS = 8,
	PIPELINE_FAULTS = 32, /* kinds that are told apart; more are counted as "other" */
	PIPELINE_PROMPT_BYTES = 4096,
	PIPELINE_IDENTITY_BYTES = 256,
};

/* What is shown while there is no edited frame to show. */
enum pipeline_show {
	PIPELINE_SHOW_INVALID = -1,
	PIPELINE_SHOW_SOURCE, /* "pass-through": the unedited source; a card while there is none */
	PIPELINE_SHOW_SLATE,  /* "slate": a card that says what is missing */
	PIPELINE_SHOW_LAST,   /* "last-frame": the last edited frame; a card before the first */
	PIPELINE_SHOW_COUNT,
};

const char *pipeline_show_name(enum pipeline_show show);
enum pipeline_show pipeline_show_from_name(const char *name); /* INVALID */

/* May change while frames flow. */
struct pipeline_settings {
	enum pipeline_show while_warming; /* before the first edited frame */
	enum pipeline_show while_lost;	  /* source or engine missing, after hold_ns */
	enum pipeline_show while_paused;
	/*
	 * The last edited frame stays this long before a fall-back; 0.1 … 10 s. A lost source: since the
	 * loss, longer while edited frames are on their way, then 1.7 s at most.
	 */
	int64_t hold_ns;
	/*
	 * No frame older than this is newly shown. An edited frame is as old as its chunk is long and as
	 * the engine takes for it: choose at least twice the chunk's length. 0.1 … 60 s
	 */
	int64_t latency_cap_ns;
	bool sleep_unwatched;	/* camera and model rest while no sink is watched */
	int64_t unwatched_ns;	/* … for this long */
	int64_t backoff_min_ns; /* between two attempts to open a device; doubles up to … */
	int64_t backoff_max_ns;
};

void pipeline_settings_init(struct pipeline_settings *settings); /* the defaults */

/* The engine as the pipeline uses it: the functions of engine/sana.h, or a test's. */
struct pipeline_engine {
	int (*model_open)(const struct sana_model_options *options, struct sana_model **ret,
			  struct sana_error *error);
	struct sana_model *(*model_unref)(struct sana_model *model);
	struct sana_model *(*model_ref)(struct sana_model *model);
	const char *(*model_backend)(const struct sana_model *model);
	const char *(*model_backend_note)(const struct sana_model *model);
	int (*prompt_create)(struct sana_model *model, const char *text, struct sana_prompt **ret,
			     struct sana_error *error);
	struct sana_prompt *(*prompt_unref)(struct sana_prompt *prompt);
	int (*stream_open)(struct sana_model *model, const struct sana_stream_options *options,
			   struct sana_stream **ret, struct sana_error *error);
	struct sana_stream *(*stream_close)(struct sana_stream *stream);
	int (*set_prompt)(struct sana_stream *stream, struct sana_prompt *prompt,
			  enum sana_prompt_switch mode, uint64_t *ret_ticket,
			  struct sana_error *error);
	void (*discard)(struct sana_stream *stream);
	int (*push)(struct sana_stream *stream, const struct sana_picture *picture,
		    int64_t timestamp_ns, struct sana_error *error);
	int (*step)(struct sana_stream *stream, enum sana_stage *ret_stage,
		    struct sana_error *error);
	int (*pull)(struct sana_stream *stream, struct sana_picture *picture,
		    struct sana_frame_info *ret_info, struct sana_error *error);
	void (*statistics)(struct sana_stream *stream, struct sana_statistics *ret);
	void (*tuning)(struct sana_stream *stream, struct sana_tuning *ret); /* or NULL */
};

extern const struct pipeline_engine pipeline_engine_sana;

/* Devices by identity (media/device.h). Called from the pipeline's threads. */
struct pipeline_devices {
	int (*open_source)(void *context, const struct media_source_wish *wish,
			   struct media_source **ret, struct sana_error *error);
	int (*open_sink)(void *context, const struct media_sink_wish *wish, struct media_sink **ret,
			 struct sana_error *error);
	void *context;
};

/*
 * Looks at an edited frame between decode and present: 0 shows it, negative errno keeps it back
 * (counted). NULL: none, as in this version; the bus answers "unsupported".
 */
typedef int (*pipeline_screen)(void *context, const struct sana_picture *picture,
			       const struct sana_frame_info *info);

struct pipeline_options {
	struct sana_model_options model;   /* strings are copied; backend NULL: "auto" */
	struct sana_stream_options stream; /* width, height 0: the model's default */
	int fps_num, fps_den;		   /* of the output clock; 0: 24 */
	int source_width, source_height, source_fps_num, source_fps_den; /* wishes; 0: any */
	const char *sink_codec; /* of files; NULL: the sink's choice */
	struct pipeline_settings settings;
	const struct pipeline_engine *engine;
	struct pipeline_devices devices;
	pipeline_screen screen;
	void *screen_context;
	int64_t snapshot_ns; /* patience of a snapshot with its result, then with its file; 0: 10 s */
	/*
	 * Test switch: the engine thread stops for ever, asleep, once it has given out this many edited
	 * frames. 0: never. For the test of the watchdog.
	 */
	uint64_t hang_after_frames;
};

void pipeline_options_init(struct pipeline_options *options);

struct pipeline;

/*
 * Takes the pool's sizes from the model's configuration files (sana_plan's checks), starts all threads;
 * the model is loaded by the engine thread. "model.config", "memory", "stream.options".
 */
int pipeline_create(const struct pipeline_options *options, struct pipeline **ret,
		    struct sana_error *error);

/* Ends all threads, completes files. NULL accepted; returns NULL. */
struct pipeline *pipeline_destroy(struct pipeline *pipeline);

/* ------------------------------------------------------------------------------------- events */

enum pipeline_event_kind {
	PIPELINE_EVENT_LOADING, /* text: what; percent */
	PIPELINE_EVENT_BACKEND, /* name: the one that runs; text: why no better one does */
	PIPELINE_EVENT_TUNING,	/* text: how kernels were chosen; on: for all, else for debugging */
	PIPELINE_EVENT_MODEL,	/* weights are resident; text: directory; name: back end */
	PIPELINE_EVENT_WARM,	/* one chunk ran: the first frame is as quick as any */
	PIPELINE_EVENT_RUNNING, /* the first edited frame of a source is shown, or again after a loss */
	PIPELINE_EVENT_PROMPT_APPLIED, /* ticket, chunk */
	PIPELINE_EVENT_PROMPT_REFUSED, /* ticket, name, text */
	PIPELINE_EVENT_FAULT,	       /* name, text; on: it appeared, else it is over */
	PIPELINE_EVENT_SOURCE_LOST,    /* text: identity */
	PIPELINE_EVENT_SOURCE_RESTORED,
	PIPELINE_EVENT_SNAPSHOT, /* ticket; name and text when it failed, else "" */
	PIPELINE_EVENT_WATCHED,	 /* on: a sink is watched again; else all rest */
	PIPELINE_EVENT_COUNT,
};

struct pipeline_event {
	enum pipeline_event_kind kind;
	bool on;
	int percent;
	uint64_t ticket, chunk;
	char name[48];
	char text[SANA_ERROR_TEXT_BYTES];
};

/* Readable while events wait. Bounded: an event of a kind and name that waits already replaces it. */
int pipeline_event_fd(const struct pipeline *pipeline);
bool pipeline_next_event(struct pipeline *pipeline, struct pipeline_event *ret);

/* ----------------------------------------------------------------------------------- requests */

/* Capture and engine work, or rest with the source closed. At first they rest. */
void pipeline_set_active(struct pipeline *pipeline, bool active);
/* Frames are captured no more, settings.while_paused is shown. */
void pipeline_set_paused(struct pipeline *pipeline, bool paused);
void pipeline_set_source(struct pipeline *pipeline, const char *identity);
int pipeline_set_sinks(struct pipeline *pipeline, const char *const *identities, int count,
		       struct sana_error *error); /* "sink.many", "sink.twice" */
/* Whether set_sinks would take them now; its errors. */
int pipeline_check_sinks(struct pipeline *pipeline, const char *const *identities, int count,
			 struct sana_error *error);
void pipeline_set_settings(struct pipeline *pipeline, const struct pipeline_settings *settings);
/* The newest waiting prompt wins; one that it replaces is answered by PROMPT_REFUSED, "prompt.replaced". */
uint64_t pipeline_set_prompt(struct pipeline *pipeline, const char *text);
void pipeline_reset(struct pipeline *pipeline);
/* Devices came or went: what waits to open one again tries at once. The engine keeps to its pauses. */
void pipeline_retry(struct pipeline *pipeline);
/* PNG, the newest source frame beside what becomes of it, written by a thread of its own as soon as that is
 * shown; where it will not be (paused, source lost, overdue), beside what is shown. The descriptor is taken
 * over. One at a time: −EBUSY "snapshot.busy". Its event comes after 21 s at the latest, from pipeline_progress where
 * the file's system does not answer; until that does, all further ones are refused as busy. */
int pipeline_snapshot(struct pipeline *pipeline, int descriptor, uint64_t *ret_ticket,
		      struct sana_error *error);

/* ------------------------------------------------------------------------------------ measures */

/*
 * Moves while the pipeline does what it should: stages and prompts get on op by op, or it rests, waits for a lost
 * device, or loads. Stands still when a thread hangs. The watchdog is fed by it.
 */
uint64_t pipeline_progress(struct pipeline *pipeline);
/* The last attempt to open the model, or the last chunk, failed. */
bool pipeline_engine_fails(struct pipeline *pipeline);
/* A GPU that this process has had is refused to it: a new process may get it. */
bool pipeline_needs_new_process(struct pipeline *pipeline);

struct pipeline_fault_count {
	char name[48];
	char text[SANA_ERROR_TEXT_BYTES]; /* as it was said last */
	uint64_t count;
	bool present;
};

struct pipeline_statistics {
	uint64_t frames_captured; /* read from the source */
	uint64_t frames_lost;	  /* the source said so: damaged, no signal */
	uint64_t frames_missed;	  /* a device had them and nobody took them in time */
	uint64_t dropped_overload, dropped_ring, dropped_stale; /* before the model, by cause */
	uint64_t frames_edited;					/* came out of the engine */
	uint64_t frames_screened;				/* kept back by the screen */
	uint64_t frames_shown;					/* edited ones, newly shown */
	uint64_t frames_skipped;  /* edited, but the next one was due too */
	uint64_t frames_late;	  /* edited, but older than the cap */
	uint64_t frames_repeated; /* ticks of the output clock without a newer frame */
	uint64_t ticks,
		ticks_missed; /* of the output clock; missed: the thread was late by more than one */
	uint64_t sink_frames, sink_dropped; /* all sinks together; dropped: a sink was busy */
	uint64_t events_dropped, engine_rebuilds, source_opens, sink_opens;
	uint64_t pool_empty;			    /* a picture was wanted and all were in use */
	int64_t age_p50_ns, age_p99_ns, age_max_ns; /* at presentation, of the last minute or so */
	int64_t interval_p50_ns, interval_p99_ns;   /* between two presentations, likewise */
	int64_t delay_ns;			    /* the pacer's: capture to presentation */
	int64_t cpu_ns; /* processor time of all threads but engine and caption */
	int capture_waiting, present_waiting; /* frames in the two queues */
	int width, height, sinks;
	struct pipeline_fault_count fault[PIPELINE_FAULTS];
	int faults;
	struct sana_statistics engine;
};

void pipeline_statistics(struct pipeline *pipeline, struct pipeline_statistics *ret);
