/*
 * Streams of the demo model for tests: the model, its source frames and two prompts, opened once, and
 * recordings of all that comes out of a stream. Failures are assertions.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/stream.h"

/* Fewer chunks where every access is checked: runs take ten times as long there. */
#ifdef __SANITIZE_ADDRESS__
#define STREAM_FIXTURE_SLOW 1
#else
#define STREAM_FIXTURE_SLOW 0
#endif

enum {
	FIXTURE_WIDTH = 256, /* of the source pictures */
	FIXTURE_HEIGHT = 144,
	FIXTURE_SOURCE_FRAMES = 37,
	FIXTURE_CHANNELS = 64,	  /* of a latent */
	FIXTURE_RATIO = 16,	  /* pixels per latent, each way */
	FIXTURE_CHUNK_FRAMES = 6, /* 3 latents of 2 frames */
	FIXTURE_FRAME_NS = 40000000,
	FIXTURE_FIRST_NS = -7, /* time stamps may begin anywhere */
	/* A picture that costs a twelfth of the whole one; the smallest the model takes is 32x32. */
	FIXTURE_SMALL_WIDTH = 64,
	FIXTURE_SMALL_HEIGHT = 48,
};

struct stream_fixture {
	struct sana_model *model;
	struct sana_prompt *prompt_a, *prompt_b; /* those of the expected values */
	char *text_a, *text_b;
	uint8_t *source; /* [FIXTURE_SOURCE_FRAMES][FIXTURE_HEIGHT][FIXTURE_WIDTH][3] */
};

/*
 * cmocka group functions: *state is a struct stream_fixture. Its model has one thread: with small
 * pictures several of them wait for each other longer than they work.
 */
int stream_fixture_setup(void **state);
int stream_fixture_teardown(void **state);

struct sana_model *stream_fixture_model(enum sana_weights_mode weights, int threads);

/* Default options at the small picture's size. */
struct sana_stream_options stream_fixture_small(void);

struct sana_stream *stream_fixture_open(const struct stream_fixture *fixture,
					const struct sana_stream_options *options);

/* Returns the ticket. */
uint64_t stream_fixture_prompt(struct sana_stream *stream, struct sana_prompt *prompt,
			       enum sana_prompt_switch mode);

/*
 * Source frame i, running to and fro over the clip without an end, its top left corner cut to the
 * size asked for: rows are padded by what is cut off.
 */
struct sana_picture stream_fixture_picture(const struct stream_fixture *fixture, uint64_t i,
					   int width, int height);
int64_t stream_fixture_time(uint64_t frame);

/* All that came out of a stream, in order. */
struct recording {
	const struct stream_fixture *fixture;
	struct sana_stream *stream;
	int width, height;
	size_t latent_floats, picture_bytes; /* of one */
	uint64_t pushed;
	int chunks, chunk_capacity;
	uint64_t *chunk_index; /* [chunks] */
	int *chunk_latents;    /* [chunks] */
	int latents, latent_capacity;
	float *latent, *source; /* [latents][h][w][C] */
	int frames, frame_capacity;
	uint8_t *rgb; /* [frames][height][width][3] */
	struct sana_frame_info *info;
};

/* Opens a stream and a recording of it. `prompt` (or NULL) is set with the stream's own mode. */
struct recording *recording_open(const struct stream_fixture *fixture,
				 const struct sana_stream_options *options,
				 struct sana_prompt *prompt);

/* Closes the stream too. */
void recording_close(struct recording *recording);

/* Pushes the next frame and does nothing else. */
void recording_push(struct recording *recording);

/* Pushes that many frames; after each one runs every stage that can and pulls what is there. */
void recording_feed(struct recording *recording, int frames);

/* Frames that complete the first chunk and `chunks` − 1 more. */
void recording_feed_chunks(struct recording *recording, int chunks);

/* All frames that are ready. */
void recording_pull(struct recording *recording);

/* Finishes the stream; all that is pending comes out. */
void recording_finish(struct recording *recording);

/* The stages that can run now, until none can; pulls in between. */
void recording_settle(struct recording *recording);

/* The first latent of the n-th chunk recorded. */
const float *recording_chunk(const struct recording *recording, int n);
size_t recording_chunk_floats(const struct recording *recording, int n);

const uint8_t *recording_frame(const struct recording *recording, int n);

struct sana_statistics stream_fixture_statistics(struct sana_stream *stream);

/* Chunks [first, first + count) of a equal those of b from `b_first` on: relative L2 over all of them. */
double recording_chunk_distance(const struct recording *a, int first, const struct recording *b,
				int b_first, int count);

/* Latents and pictures of chunks [a_first, a_first + count) are the same bits. */
void recording_assert_same(const struct recording *a, int a_first, const struct recording *b,
			   int b_first, int count);

/* The share of samples that differ by at most one grey level; *ret_worst: the largest difference. */
double pictures_within_one(const uint8_t *a, const uint8_t *b, size_t bytes, int *ret_worst);

bool floats_are_finite(const float *values, size_t count);
