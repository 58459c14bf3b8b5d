/* Inside of sana-edit. */
#pragma once

#include "engine/sana.h"
#include "media/sink.h"
#include "media/source.h"

/* What the program ends with; listed in its manual. */
enum edit_status {
	EDIT_DONE = 0,
	EDIT_FAILED = 1, /* model, engine, memory */
	EDIT_USAGE = 2,
	EDIT_INPUT = 3,
	EDIT_OUTPUT = 4,
	EDIT_INTERRUPTED = 130,
};

static const int64_t EDIT_SECOND_NS = 1000000000;

/* A place in the source: a time since its start, or a frame number. */
struct edit_time {
	int64_t ns;
	int64_t frame; /* −1: `ns` counts */
};

struct edit_prompt {
	const char *text;
	struct edit_time at;
};

struct edit_rate {
	int num, den; /* num 0: none given */
};

struct edit_options {
	bool backend_said; /* --backend was given */
	const char *in, *out;
	struct edit_prompt *prompt; /* [prompts], the first one at frame 0; on the heap */
	size_t prompts;
	struct sana_model_options model;
	struct sana_stream_options stream;
	struct edit_rate fps;
	struct edit_time duration; /* 0 ns: all of it */
	const char *codec;	   /* NULL: by the name of the output */
	const char *latents_path;  /* NULL: none */
	bool no_antialias, no_audio, overwrite, keep_partial, json, quiet;
};

/* ----------------------------------------------------------------------------- options, values */

/* 0: go on; 1: answered (help, version); −EINVAL: wrong, and said on stderr. */
int edit_options_parse(int count, char **arguments, struct edit_options *ret);
void edit_options_finish(struct edit_options *options);

/* "5s", "5", "250ms", "1:02.5", "1:02:03", "#120". */
int edit_time_parse(const char *text, struct edit_time *ret);
/* "24", "29.97" (exactly 30000/1001, as all NTSC rates), "30000/1001". */
int edit_rate_parse(const char *text, struct edit_rate *ret);

bool edit_time_is_reached(const struct edit_time *time, int64_t frame, int64_t timestamp_ns);

/* ------------------------------------------------------------------------------------- model */

/*
 * The directory given, or else the demo model: installed beside the program, or in its build's
 * checkout, or in models/demo. "model.directory" when there is none. The caller frees *ret.
 */
int edit_model_find(const char *given, char **ret, struct sana_error *error);

/* ---------------------------------------------------------------------------------- interrupts */

/* SIGINT and SIGTERM are noted once; the second one ends the program. */
void edit_interrupt_catch(void);
bool edit_interrupted(void *unused);

/* -------------------------------------------------------------------------------------- frames */

/* Pictures of a source as RGB of the stream's size, at the source's times or at a constant rate. */
struct edit_frames;

struct edit_frame {
	const uint8_t *rgb; /* rows of 3·width bytes; until the next call */
	int64_t timestamp_ns, duration_ns;
};

int edit_frames_create(struct media_source *source, const struct edit_options *options, int width,
		       int height, struct edit_frames **ret, struct sana_error *error);
void edit_frames_destroy(struct edit_frames *frames); /* NULL accepted */

/* 1: a frame; 0: the end; negative: as media_source_read. */
int edit_frames_next(struct edit_frames *frames, struct edit_frame *ret, struct sana_error *error);

/* ------------------------------------------------------------------------------------- latents */

/* Collects latents in a nameless file and writes them as safetensors at the end. */
struct edit_latents;

/* "latents.open". `config` is the model's. */
int edit_latents_create(const char *path, bool overwrite, int width, int height,
			const struct stream_config *config, struct edit_latents **ret,
			struct sana_error *error);
void edit_latents_destroy(struct edit_latents *latents); /* NULL accepted */

/* A sana_latent_sink; failures are kept for edit_latents_write. */
void edit_latents_add(void *context, uint64_t chunk, int frames, const float *latents,
		      const float *source);

/* latents, source_latents: F32 [C][T][h][w]; chunk_latents: I64 [chunks]. "latents.write". */
int edit_latents_write(struct edit_latents *latents, struct sana_error *error);

/* -------------------------------------------------------------------------------------- report */

/* What the user sees: words on stderr, a progress line on a terminal, or JSON lines. */
struct edit_report {
	bool json, quiet, terminal;
	FILE *events;	 /* of JSON: stdout, or stderr when stdout carries the video */
	bool line_shown; /* a progress line is on the terminal */
	int64_t start_ns, shown_ns;
	int64_t expected; /* frames; 0: unknown */
};

void edit_report_init(struct edit_report *report, const struct edit_options *options);

/* Monotonic. */
int64_t edit_now_ns(void);

void edit_report_start(struct edit_report *report, const struct edit_options *options,
		       const struct media_source_info *source, const struct media_sink_info *sink,
		       const char *model, const char *backend, int width, int height);
void edit_report_loading(struct edit_report *report, const char *what, double fraction);
/* Cheap; shows something when enough time has gone by. */
void edit_report_progress(struct edit_report *report, int64_t frames);
void edit_report_prompt(struct edit_report *report, const struct edit_prompt *prompt,
			const struct sana_frame_info *info);
void edit_report_warning(struct edit_report *report, const char *format, ...) _printf_(2, 3);
void edit_report_error(struct edit_report *report, enum edit_status status,
		       const struct sana_error *error);

struct edit_result {
	enum edit_status status;
	const char *path; /* where the frames are; NULL: nowhere */
	int64_t frames, repeated;
	uint64_t chunks, chunks_dropped;
	int64_t wall_ns; /* from the first frame in to the last one out */
};

void edit_report_done(struct edit_report *report, const struct edit_result *result);

/* ----------------------------------------------------------------------------------------- run */

enum edit_status edit_run(const struct edit_options *options);
