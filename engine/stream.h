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

enum stream_phase { STREAM_IDLE, STREAM_DENOISE, STREAM_DECODE, STREAM_CACHE };

/* What another thread asked for; guarded by `lock`. */
struct stream_requests {
	struct sana_prompt *prompt;
	enum sana_prompt_switch mode;
	uint64_t ticket, last_ticket;
	bool reset;
};

struct stream_output {
	int frames, next;	      /* decoded and not yet pulled: [next, frames) */
	struct sana_frame_info *info; /* [output_capacity] */
	bool *real;		      /* false: a copy made by finish, not given out */
};

struct sana_stream {
	struct sana_model *model;
	struct sana_stream_options options;
	int width, height, latent_width, latent_height, decode_latents, output_capacity;
	struct vae_encoder encoder;
	struct vae_decoder decoder;
	struct editor editor;
	struct kernel_queue *queue;
	struct op_context op;
	void *block;
	size_t block_bytes;

	/* device */
	void *input;		       /* act patches [temporal_ratio][H/p][W/p][3p²] */
	void *output_patches;	       /* act patches [output_capacity][…] */
	uint8_t *picture, *output_rgb; /* u8 [H][W][3], [output_capacity][H][W][3] */

	/* host memory that the device copies from and to (kernel_backend.host_allocate), or NULL */
	uint8_t *host_picture; /* [temporal_ratio][H][W][3] */
	uint8_t *host_output;  /* [output_capacity][H][W][3] */

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
	int input_frames, input_last; /* in `input`; index of the newest frame */
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
	struct stream_output output;

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

/* Nothing more can be pushed before a stage has run. */
bool stream_fill_is_full(const struct sana_stream *stream);

/* Starts the next chunk to be filled unless one is open; takes a pending restart. */
void stream_fill_begin(struct sana_stream *stream);

/* After an error of the back end: what is in flight is lost, the next frame starts a new history. */
void stream_fail(struct sana_stream *stream);

/* Frames that `latents` latents stand for, when the first of them is the stream's first. */
static inline int stream_frames(const struct sana_stream *stream, int latents, bool first)
{
	const int ratio = stream->model->config.stream.temporal_ratio;

	return first ? 1 + (latents - 1) * ratio : latents * ratio;
}
