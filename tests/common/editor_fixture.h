/*
 * The editor without a stream around it: carried states that a stream should reach are made here by
 * other calls, and states are copied out to be compared. CPU back end: device memory is read as it is.
 */
#pragma once

#include "tests/common/stream_fixture.h"

struct editor_fixture {
	struct sana_model *model;
	struct editor editor;
	struct op_context op;
	void *block;
	size_t block_bytes;
	uint64_t latent; /* noise counter of the next chunk */
};

/* An editor such as a stream with these options has inside. Failures are assertions. */
struct editor_fixture *editor_fixture_open(const struct stream_fixture *fixture,
					   const struct sana_stream_options *options);
void editor_fixture_close(struct editor_fixture *fixture);

void editor_fixture_caption(struct editor_fixture *fixture, const struct sana_prompt *prompt);

/* Denoises one chunk; the cache pass is the caller's: editor_save or editor_drop. */
void editor_fixture_edit(struct editor_fixture *fixture, const float *source, int latents);

/* Edits the n-th chunk of a recording from its source latents. */
void editor_fixture_follow(struct editor_fixture *fixture, const struct recording *recording,
			   int n);

/* The chunk edited last has the very bits of the recording's n-th. */
void editor_fixture_assert_same(const struct editor_fixture *fixture,
				const struct recording *recording, int n);

/* All floats that the next chunk would read: current set, window, sink and its master. To be freed. */
float *cache_copy(const struct cache *cache, size_t *ret_floats);
