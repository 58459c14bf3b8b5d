/*
 * sana: live video editing by a text prompt, in fixed memory, for streams of any length.
 *
 * This header is the manual. A program opens a model (weights, configuration, a back end), opens a
 * stream on it (pictures of one size, all state that time carries), gives it a prompt and then turns
 * this loop:
 *
 *	sana_stream_push(stream, &picture, &error);     one source frame in
 *	while (sana_stream_step(stream, &stage, &error) > 0)
 *		while (sana_stream_pull(stream, &out, &info, &error) > 0)
 *			show(&out, &info);              edited frames out, in bursts
 *
 * Frames go in and come out one for one and in order; an edited frame carries the time stamp of its
 * source frame. Work happens only in `step`, one stage at a time, so that a caller can look after its
 * devices in between; a GPU goes on with what was begun meanwhile.
 *
 * Dimensions, the same letters everywhere: T latent frames of a chunk; H, W picture rows and columns;
 * h, w latent rows and columns; S = h·w tokens per latent frame; N = T·S; C channels; D lanes per head.
 *
 * Threads. A model may be shared by any threads. A stream belongs to one thread at a time, but for
 * sana_stream_set_prompt, sana_stream_request_reset and sana_stream_statistics, which any thread may
 * call at any time.
 *
 * The CPU back end uses OpenMP. libgomp's threads spin while they wait for each other, which costs a
 * stream most of its speed as soon as other programs want the same cores: start such a program with
 * OMP_WAIT_POLICY=passive in its environment (the tools see to it themselves).
 *
 * Memory. sana_plan says what a model and a stream take before anything is taken; each takes one
 * block. After the second chunk of a stream nothing allocates, but for sana_prompt_create.
 *
 * Errors. Functions return 0 or a positive value, or a negative errno with `error` filled: a stable
 * name and one sentence that says what to do. `error` may be NULL. Outputs are untouched on failure.
 * Nothing prints, exits or reads the environment.
 */
#pragma once

#include "base/error.h"
#include "engine/model_config.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* "0.1.0" */
const char *sana_version(void);

/* ---------------------------------------------------------------------------------- back ends */

struct sana_backend_info {
	const char *name, *description;
};

/* Fills up to `capacity` entries; returns how many back ends this program has. */
int sana_backends(struct sana_backend_info *ret, int capacity);

/* ------------------------------------------------------------------------------------- models */

struct sana_model; /* counted reference; weights, text encoder, tokenizer, back end */

enum sana_weights_mode {
	/*
	 * CPU: widened to F32 once where memory_limit allows, network by network. GPU: the DiT and the VAE
	 * are resident, the text encoder is brought layer by layer for each prompt.
	 */
	SANA_WEIGHTS_AUTO,
	SANA_WEIGHTS_MAPPED, /* CPU: read as they are in the file, a panel at a time; GPU: as AUTO */
	SANA_WEIGHTS_WIDENED, /* all of them, once, at opening */
};

struct sana_model_options {
	const char *directory;	 /* model directory; or NULL with `shape` */
	const char *shape;	 /* "2b" or "demo": configuration with synthetic weights */
	uint64_t synthetic_seed; /* of those weights */
	/*
	 * "cpu" (NULL too), "cuda", or "auto": the GPU where it can be used, else the CPU, and
	 * sana_model_backend_note says why. "cuda-portable", for measurements: a GPU with the kernels that
	 * run on every chip alone.
	 */
	const char *backend;
	int threads; /* 0: one per online core */
	enum sana_weights_mode weights;
	size_t memory_limit_bytes; /* for model and stream together; 0: what the machine has free */
	bool without_text; /* no text encoder: captions come from sana_prompt_from_features */
	/*
	 * GPU: the same bits in every process. Without it, which kernel makes a matrix product is measured once,
	 * while a stream opens; the choice is the same as long as the file of `tuning_directory` is, and so are
	 * the bits. The CPU is always deterministic.
	 */
	bool deterministic;
	/* Where a GPU's measured choices are kept for the next process; read while opening; NULL: nowhere. */
	const char *tuning_directory;
	/* Progress of loading, 0 … 1, called from this thread; NULL: none. */
	void (*progress)(void *context, const char *what, double fraction);
	void *progress_context;
	/* Called after every op of the text encoder, from the thread that makes a prompt; NULL: none. */
	void (*alive)(void *context);
	void *alive_context;
};

/*
 * Opens and checks everything: configuration, every tensor's name and shape, tokenizer. Error
 * names: "model.options" (no model, or two), "model.directory", "model.config", "model.weights",
 * "model.tokenizer", "weights.open", "weights.index", "weights.mismatch", "checkpoint.safetensors",
 * "weights.synthetic", "model.manifest", "tokenizer.open", "prompt.rule", "file.open",
 * "backend.unknown", "backend.open", "backend.no-device" (no driver or GPU), "backend.driver" (too
 * old), "backend.architecture" (no code for this GPU), "backend.unsupported" (not built in, or no
 * kernel for a size of the model), "memory" (the plan does not fit; the text has its numbers),
 * "backend.failed", "backend.kernel", "backend.lost".
 */
int sana_model_open(const struct sana_model_options *options, struct sana_model **ret,
		    struct sana_error *error);
struct sana_model *sana_model_ref(struct sana_model *model);
struct sana_model *sana_model_unref(struct sana_model *model); /* NULL accepted; returns NULL */

/* The checked configuration; lives as long as the model. */
const struct model_config *sana_model_config(const struct sana_model *model);
const char *sana_model_backend(const struct sana_model *model);

/* Under "auto": why an earlier choice was not taken, to be logged once; else "". */
const char *sana_model_backend_note(const struct sana_model *model);

/*
 * Where the VAE decoder comes from, as the directory's manifest.json says: "published", "converted"
 * (made causal by a rule: blurred motion is to be expected, docs/models.md), or "" when it does not say.
 */
const char *sana_model_decoder_origin(const struct sana_model *model);

/* ------------------------------------------------------------------------------------ prompts */

struct sana_prompt; /* counted reference: a caption, independent of any stream */

/*
 * Runs the tokenizer and the text encoder: heavy, on the calling thread, one at a time per model.
 * Errors: "prompt.empty", "prompt.too-long", "prompt.not-utf8", "prompt.control", "prompt.tokens",
 * "prompt.unsupported" (opened without its text encoder), "backend.failed", "backend.kernel",
 * "backend.lost", "memory".
 */
int sana_prompt_create(struct sana_model *model, const char *text, struct sana_prompt **ret,
		       struct sana_error *error);

/*
 * From caption rows of another program: F32 [rows][caption_channels], all valid. "prompt.features".
 */
int sana_prompt_from_features(struct sana_model *model, const float *features, int rows,
			      struct sana_prompt **ret, struct sana_error *error);
struct sana_prompt *sana_prompt_ref(struct sana_prompt *prompt);
struct sana_prompt *sana_prompt_unref(struct sana_prompt *prompt);

const char *sana_prompt_text(const struct sana_prompt *prompt); /* "" for features */
bool sana_prompt_was_cut(const struct sana_prompt *prompt);	/* longer than the model reads */
const float *sana_prompt_features(const struct sana_prompt *prompt, int *ret_rows);
const int32_t *sana_prompt_ids(const struct sana_prompt *prompt, int *ret_count);

/* ------------------------------------------------------------------------------------ streams */

struct sana_stream;

struct sana_stream_options {
	int width, height;	 /* pixels; 0: the model's default; multiples of its ratio */
	int first_chunk_latents; /* 0: the model's default; else one of its sizes */
	int decode_latents;	 /* latents per decode stage; 0: chunk_latents */
	int rebase_latents;	 /* positions are moved back when they reach this; 0: 512 */
	enum sana_prompt_switch prompt_switch; /* INVALID: the model's own (on_prompt_switch) */
	uint64_t seed;			       /* of the noise */
	/*
	 * The latent frame counter starts here: it selects the counter-based noise, and positions are
	 * differences to it, so that only the noise depends on it.
	 */
	uint64_t first_latent;
	/*
	 * Noise of the caller's instead: F32 [channels][noise_latents][h][w], borrowed while the stream
	 * lives; latent i of the stream takes slice i. Running past it is the error "stream.noise".
	 */
	const float *noise;
	int noise_latents;
	bool truncate;		/* u8 by truncation as the reference, not by rounding */
	float health_limit;	/* larger carried values are absurd; 0: 1e6 */
	int health_reset_after; /* dropped chunks in a row before a restart; 0: 3 */
	/*
	 * Called after every op of a stage, from the thread that steps: a sign of life from stages that take a
	 * CPU minutes. NULL: none.
	 */
	void (*alive)(void *context);
	void *alive_context;
};

void sana_stream_options_init(struct sana_stream_options *options); /* all defaults */

/*
 * "stream.options", "memory", "backend.failed", "backend.kernel", "backend.lost"; "stream.decoder":
 * the model's decoder is not causal, it decodes whole clips only. The model stays referenced while
 * the stream lives.
 */
int sana_stream_open(struct sana_model *model, const struct sana_stream_options *options,
		     struct sana_stream **ret, struct sana_error *error);
struct sana_stream *sana_stream_close(struct sana_stream *stream); /* NULL accepted; returns NULL */

/*
 * From the next chunk boundary on. `mode` INVALID: the stream's option. Thread-safe; a prompt set
 * before the last one took effect replaces it. The ticket (> 0) comes back in sana_frame_info of the
 * first chunk edited with it. The stream takes a reference.
 */
int sana_stream_set_prompt(struct sana_stream *stream, struct sana_prompt *prompt,
			   enum sana_prompt_switch mode, uint64_t *ret_ticket,
			   struct sana_error *error);

/* Forgets all history at the next chunk boundary, as a prompt with SANA_SWITCH_RESTART would. */
void sana_stream_request_reset(struct sana_stream *stream);

/* 8-bit R'G'B', interleaved. Rows may be padded. */
struct sana_picture {
	uint8_t *rgb;
	size_t row_bytes;
	int width, height;
};

/*
 * Copies one source frame in. 1: taken; 0: no room, call sana_stream_step first. Time stamps must
 * grow ("stream.order"). "stream.picture": another size than the stream's; "stream.prompt": no prompt
 * was ever set; "stream.finished".
 */
int sana_stream_push(struct sana_stream *stream, const struct sana_picture *picture,
		     int64_t timestamp_ns, struct sana_error *error);

/*
 * What was pushed and is not being edited yet is dropped, and the next frame begins a new history: for a
 * source that was lost or changed, whose next picture has nothing to do with the last. Edited frames on
 * their way still come out. A prompt that waits is kept.
 */
void sana_stream_discard(struct sana_stream *stream);

/* No more frames: what is pending is completed by repeating the last frame, whose copies are not
 * given out. Nothing pushed: nothing comes out. */
int sana_stream_finish(struct sana_stream *stream, struct sana_error *error);

enum sana_stage {
	SANA_STAGE_NONE,    /* nothing to do: push a frame, or pull what is decoded */
	SANA_STAGE_ENCODE,  /* source frames → one source latent */
	SANA_STAGE_PROMPT,  /* text keys and values, re-cache or restart */
	SANA_STAGE_DENOISE, /* one network call */
	SANA_STAGE_DECODE,  /* some latents → frames to pull */
	SANA_STAGE_CACHE,   /* the chunk's cache pass: nobody waits for it but the next chunk */
	SANA_STAGE_COUNT,
};

const char *sana_stage_name(enum sana_stage stage);

/*
 * Runs the next stage that can run. 1: one ran (*ret_stage); 0: none could. Where stages overlap (a
 * GPU) it is begun and not waited for, and 1 with SANA_STAGE_NONE says that one begun before has
 * ended: so a caller that pushes while there is room and steps once when there is none keeps the
 * GPU busy while it copies pictures, and one that steps until 0 has everything done. After an error
 * of the back end the stream is reset and may go on; sana_stream_statistics counts it. But after
 * "backend.kernel" (a kernel of a GPU failed) or "backend.lost" (the GPU went away) nothing works
 * any more on this model: close the stream and the model. CUDA's drivers give no other context to a
 * process in which a kernel failed: opening again then answers the same error, and only a new
 * process gets the GPU.
 */
int sana_stream_step(struct sana_stream *stream, enum sana_stage *ret_stage,
		     struct sana_error *error);

struct sana_frame_info {
	uint64_t frame;	      /* index of the source frame, from 0 */
	int64_t timestamp_ns; /* of the source frame */
	uint64_t chunk;	      /* from 0, dropped chunks counted */
	int index_in_chunk;
	uint64_t ticket;     /* of the prompt this chunk was edited with */
	bool prompt_changed; /* first frame of the first chunk under this ticket */
};

/* Writes the next edited frame into `picture` (of the stream's size). 1: one; 0: none is ready. */
int sana_stream_pull(struct sana_stream *stream, struct sana_picture *picture,
		     struct sana_frame_info *ret_info, struct sana_error *error);

/* Finished and everything pulled. */
bool sana_stream_is_drained(const struct sana_stream *stream);

/*
 * Copies latents out: called after each chunk's last step with F32 [frames][h][w][channels], and the
 * chunk's source latents in the same layout. For parity tests and --save-latents. Takes memory for one
 * chunk of both the first time: −ENOMEM, "memory". NULL ends it.
 */
typedef void (*sana_latent_sink)(void *context, uint64_t chunk, int frames, const float *latents,
				 const float *source);
int sana_stream_set_latent_sink(struct sana_stream *stream, sana_latent_sink sink, void *context,
				struct sana_error *error);

struct sana_statistics {
	uint64_t frames_in, frames_out, frames_dropped; /* dropped: with their chunk */
	uint64_t chunks;				/* edited and given out */
	uint64_t chunks_dropped;   /* non-finite or absurd latents: never shown */
	uint64_t states_discarded; /* non-finite or absurd carried state: last good one kept */
	uint64_t resets;	   /* by request, prompt or repeated bad states */
	uint64_t recaches, rebases, prompts;
	uint64_t failures;		    /* of the back end */
	uint64_t latent;		    /* frame counter */
	int64_t stage_ns[SANA_STAGE_COUNT]; /* time spent, by stage; overlapping ones count each */
	uint64_t stage_count[SANA_STAGE_COUNT];
	size_t model_bytes, stream_bytes; /* blocks taken */
	size_t mapped_bytes;		  /* weights read from their files */
};

void sana_stream_statistics(struct sana_stream *stream, struct sana_statistics *ret);

/* ------------------------------------------------------------------------------ where time goes */

/*
 * Whether stages may run at the same time, and beside the caller: true at first where the back end
 * can. false: each step waits for its stage, so that stages can be timed one by one; pictures are
 * the same. Returns whether the back end can.
 */
bool sana_stream_set_overlap(struct sana_stream *stream, bool overlap);

/*
 * One op of one stage: calls of equal cost share a line. flops and bytes: what one call must do at least
 * (kernels/cost.h). ns: all calls together, measured on the device.
 */
struct sana_profile_line {
	enum sana_stage stage;
	char op[24];	  /* "linear", "conv3d", … */
	char kernels[96]; /* what the back end ran for it, "a+b"; "" where it does not tell */
	int calls;
	double flops, bytes;
	int64_t ns;
};

enum { SANA_PROFILE_LINES = 320 };

/*
 * From the next stage on every op is timed, which costs a little time itself, and stages do not
 * overlap; a second call starts from nothing. sana_stream_profile ends it and returns how many
 * lines there are (at most SANA_PROFILE_LINES), of which it fills up to `capacity`. What a pushed
 * frame costs belongs to the encode stage.
 */
int sana_stream_profile_start(struct sana_stream *stream, struct sana_error *error);
int sana_stream_profile(struct sana_stream *stream, struct sana_profile_line *ret, int capacity);

/* ------------------------------------------------------------------------------------- tuning */

enum { SANA_TUNING_LINES = 64 };

/* One product: its kernel by an estimate, our own fastest, and the matrix library's, in milliseconds. */
struct sana_tuning_line {
	char shape[64];				  /* "2240 of 6720, 2640 rows" */
	char estimated[48], own[48], library[64]; /* kernels; library "": it was not tried */
	double estimated_ms, own_ms, library_ms;
	int chosen; /* 0, 1, 2: estimated, own, library */
};

/* Which kernels make the matrix products of this device, and how that was found. */
struct sana_tuning {
	int measured, known, left,
		library; /* measured, from the file, by estimate; of them the library's */
	double seconds;
	char text[256]; /* a sentence to be logged once; "": there was nothing to choose */
	char note[256]; /* why the file was not read or not written, for debugging; "": nothing is amiss */
	int lines; /* what was measured in this process */
	struct sana_tuning_line line[SANA_TUNING_LINES];
};

void sana_stream_tuning(struct sana_stream *stream, struct sana_tuning *ret);

/* --------------------------------------------------------------------------------------- plan */

enum { SANA_PLAN_LINES = 160 };

struct sana_plan_line {
	char owner[24]; /* "model", "stream" */
	char name[72];
	size_t bytes;
	int count; /* pieces under that name */
};

/*
 * One line of the published model's byte tables (dit §6.1, vae §6.3), computed from the configuration:
 * what one copy of a stream's state takes in a given storage type. A stream's block holds more: two
 * sets of carried state, and on the CPU F32 where a GPU keeps BF16.
 */
struct sana_state_line {
	char name[72];
	char shape[40]; /* of one piece; "" for sums */
	int count;	/* blocks or convolutions; 0 for sums */
	size_t bytes_each, bytes;
};

enum { SANA_STATE_LINES = 128 };

/*
 * One op of one stage of a chunk, window full: what a call of it must do at least (kernels/cost.h),
 * by the storage types of the back end. Encode and decode are those of one chunk, denoise and cache of
 * one pass each. Calls of equal cost share a line.
 */
struct sana_op_line {
	enum sana_stage stage;
	char op[24]; /* "linear", "conv3d", … */
	int calls;
	double flops, bytes; /* of one call */
};

enum { SANA_OP_LINES = 320 };

struct sana_plan {
	int op_lines;
	struct sana_op_line op[SANA_OP_LINES];
	int lines;
	struct sana_plan_line line[SANA_PLAN_LINES];
	size_t model_bytes, stream_bytes; /* the two blocks */
	size_t mapped_bytes;		  /* weights that stay in their files */
	size_t available_bytes; /* what the machine (or the limit given) has for the blocks */
	bool fits;
	int state_lines;
	struct sana_state_line state[SANA_STATE_LINES];
	/* 2 per multiply-add, per chunk of chunk_latents with the window full */
	double dit_pass_flops, encode_flops, decode_flops;
	int passes; /* network calls per chunk */
	char name[64], backend[16];
	int width, height, first_chunk_latents, chunk_latents, chunk_frames, text_rows;
};

/*
 * Without opening weights and without taking memory: `model` needs `directory` or `shape`, `stream` may
 * be NULL for defaults. state_bf16: the state lines are those of BF16 storage (as published), else F32.
 */
int sana_plan(const struct sana_model_options *model, const struct sana_stream_options *stream,
	      bool state_bf16, struct sana_plan *ret, struct sana_error *error);

/* ----------------------------------------------------------------------------------- whole clip */

/*
 * Decodes normalised latents F32 [count][h][w][channels] with the bidirectional padding of
 * vae §3.3, all at once: for files and tests. RGB frames of 3·width bytes a row, one after another:
 * temporal_ratio·(count − 1) + 1 of them.
 */
int sana_decode_clip(struct sana_model *model, const float *latents, int count, int width,
		     int height, uint8_t *ret_rgb, struct sana_error *error);
