/* Inside of a stream: its buffers and where a frame is on its way. Not for users of sana.h. */
#pragma once

#include "engine/edit.h"
#include "engine/model.h"

/* A source frame on its way: pushed and not yet given out or dropped. */
struct stream_tag {
	uint64_t frame;
	int64_t timestamp_ns;
};

/* A chunk that is being filled with source latents, or one that is being edited. */
struct stream_chunk {
	uint64_t index;
	int latents; /* T */
	int encoded; /* source latents so far */
	int frames;  /* source frames pushed into it */
	bool first;  /* starts a new history */
	bool prompt_applied;
	struct sana_prompt *prompt; /* taken at its start (restart); else NULL */
	uint64_t ticket;
	enum sana_prompt_switch mode;
};

/* Of the chunk being edited. */
enum stream_phase {
	STREAM_IDLE,
	STREAM_DENOISE, /* steps are left */
	STREAM_CHECK,	/* all steps were started; nothing is shown before they were looked at */
	STREAM_DECODE,	/* latents are left to decode */
	STREAM_CACHE,	/* the cache pass is left */
	STREAM_SAVE,	/* it was started */
};

/*
 * Stages run on three queues, the later one the more urgent: what shows a frame goes before what
 * begins a chunk. Encoding and decoding share their scratch and wait for each other; beside the DiT
 * each may run.
 */
enum stream_lane_name { STREAM_LANE_ENCODE, STREAM_LANE_EDIT, STREAM_LANE_DECODE, STREAM_LANES };

/*
 * Stages of a lane that were started and not ended: the device has the next one before it is done
 * with the last, and the caller copies pictures meanwhile. As many outputs are decoded to, for the
 * same reason.
 */
enum { STREAM_AHEAD = 2 };

struct stream_work {
	enum sana_stage stage;
	int64_t start_ns;
	struct kernel_fence *start, *end; /* NULL: the back end's ops are done when they return */
};

struct stream_lane {
	struct kernel_queue *queue;
	struct op_context op;
	struct stream_work work[STREAM_AHEAD]; /* ring: [first, first + count) */
	int first, count;
};

/* What another thread asked for; guarded by `lock`. */
struct stream_requests {
	struct sana_prompt *prompt;
	enum sana_prompt_switch mode;
	uint64_t ticket, last_ticket;
	bool reset;
};

/* Frames of one decode stage. */
struct stream_output {
	bool running;		      /* not decoded yet */
	bool ends_chunk;	      /* the last ones of a chunk */
	int frames, next;	      /* not yet pulled: [next, frames) */
	struct sana_frame_info *info; /* [output_capacity] */
	bool *real;		      /* false: a copy made by finish, not given out */
	uint8_t *host; /* [output_capacity][H][W][3] that the device copies to, or NULL: in output_rgb */
};

struct sana_stream {
	struct sana_model *model;
	struct sana_stream_options options;
	int width, height, latent_width, latent_height, decode_latents, output_capacity;
	struct vae_encoder encoder;
	struct vae_decoder decoder;
	struct editor editor;
	struct stream_lane lane[STREAM_LANES];
	bool can_overlap, overlap; /* the back end has fences; the caller wants it */
	void *block;
	size_t block_bytes;

	/* device */
	uint8_t *picture, *output_rgb; /* u8 [temporal_ratio or output_capacity][H][W][3] */

	/*
	 * Host memory that the device copies from and to (kernel_backend.host_allocate), or NULL. Pictures of
	 * one latent fill one half while the device may still read the other.
	 */
	uint8_t *host_picture; /* [STREAM_AHEAD][temporal_ratio][H][W][3] */
	uint32_t *host_flags;  /* the editor's */
	int host_half;

	/* host */
	struct op_profile *profile; /* NULL: nobody asked */
	struct stream_tag *tag;	    /* ring */
	int tag_capacity, tag_first, tag_count;
	float *noise; /* [max chunk tokens][channels] when the caller brings noise */
	float *sink_latents, *sink_source;
	sana_latent_sink latent_sink;
	void *latent_sink_context;

	struct stream_chunk fill, run;
	enum stream_phase phase;
	int step, decoded;	      /* within run */
	int input_frames, input_last; /* in `picture`; index of the newest frame */
	uint64_t next_chunk, next_frame;
	uint64_t latent;	     /* noise counter of the next chunk */
	uint64_t noise_used;	     /* latents taken from the caller's noise */
	uint64_t ticket;	     /* of the prompt in force; 0: none */
	bool announce;		     /* the next frame given out is the first under `ticket` */
	struct sana_prompt *caption; /* in force: its rows may still be copied from */
	bool restart;		     /* the next chunk filled starts a new history */
	bool finished, has_timestamp;
	int64_t last_timestamp_ns;
	int bad_in_a_row;
	struct stream_output output[STREAM_AHEAD]; /* ring: [output_first, output_first + outputs) */
	int output_first, outputs;
	pthread_mutex_t lock; /* requests and statistics */
	struct stream_requests requests;
	struct sana_statistics statistics;
};

/*
 * Measures a stream's block on a measured or opened model. Returns −EINVAL with the stream's sizes
 * wrong.
 */
int stream_measure(struct sana_model *model, const struct sana_stream_options *options,
		   struct arena *arena, struct sana_error *error);

/* Checks options against the model and fills what follows from them. */
int stream_init(struct sana_stream *stream, struct sana_model *model,
		const struct sana_stream_options *options, struct sana_error *error);

/*
 * Fills the plan's ops from planning passes over a stream that was initialised and not opened, on a
 * model that was measured. −EOVERFLOW: more distinct ops than there are lines.
 */
int plan_ops_fill(struct sana_stream *stream, struct sana_plan *plan);

/* Lays the device block out: twice, measuring and placed. */
void stream_layout(struct sana_stream *stream, struct arena *arena);

/* -------------------------------------------------------------------- stages on their way (stream_lanes.c) */

/* Queues and fences. */
int stream_lanes_open(struct sana_stream *stream);

/* Waits for all of it first. */
void stream_lanes_close(struct sana_stream *stream);

struct op_context *stream_op(struct sana_stream *stream, enum stream_lane_name lane);

/* Everything enqueued on `lane` from now on runs after what is enqueued on `first`. */
void stream_lane_after(struct sana_stream *stream, enum stream_lane_name lane,
		       enum stream_lane_name first);

/* The first failure of any lane; *ret_op (or NULL) is its context. */
int stream_status(struct sana_stream *stream, struct op_context **ret_op);

/* Waits for what was enqueued, whatever failed: nothing uses the caller's memory any more. */
void stream_lanes_wait(struct sana_stream *stream);

/* Stages are not waited for at once. Those whose ops are timed are. */
static inline bool stream_overlaps(const struct sana_stream *stream)
{
	return stream->overlap && !stream->lane[0].op.profile;
}

/* Forgets failures and what was on its way. */
void stream_lanes_reset(struct sana_stream *stream);

/* Around the ops of a stage. There is room: stream_lane_is_full was false. */
void stream_work_begin(struct sana_stream *stream, enum stream_lane_name lane,
		       enum sana_stage stage);
void stream_work_end(struct sana_stream *stream, enum stream_lane_name lane);
bool stream_lane_is_full(const struct sana_stream *stream, enum stream_lane_name lane);

/*
 * Ends the oldest stage of a lane, *ret_stage: 1. Waits for it, or, with wait false, answers 0
 * while it runs. 0 also for an empty lane. < 0: it failed. Its time is counted.
 */
int stream_work_take(struct sana_stream *stream, enum stream_lane_name lane, bool wait,
		     enum sana_stage *ret_stage);

/* ------------------------------------------------------------------------------------------------------------ */

/* Adds to a counter of the statistics. */
void stream_count(struct sana_stream *stream, uint64_t *counter, uint64_t by);

/* The oldest frames to pull, or NULL: none are decoded. Lets go of outputs that hold none any more. */
struct stream_output *stream_output_next(struct sana_stream *stream);

/* Nothing more can be pushed before a stage has run. */
bool stream_fill_is_full(const struct sana_stream *stream);

/* Starts the next chunk to be filled unless one is open; takes a pending restart. */
void stream_fill_begin(struct sana_stream *stream);

/* Lets the back end measure its choices for this stream's passes, in its block, which is zeroed again. */
int stream_tune(struct sana_stream *stream);

/* After an error of the back end: what is in flight is lost, the next frame starts a new history. */
void stream_fail(struct sana_stream *stream);

/* Frames that `latents` latents stand for, when the first of them is the stream's first. */
static inline int stream_frames(const struct sana_stream *stream, int latents, bool first)
{
	const int ratio = stream->model->config.stream.temporal_ratio;

	return first ? 1 + (latents - 1) * ratio : latents * ratio;
}
