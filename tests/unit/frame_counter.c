/*
 * The latent frame counter started high: positions are differences to the start, so with noise of the
 * caller's own nothing depends on it, not even near the ends of 32 bits; with its own noise all does.
 */
#include "tests/common/stream_fixture.h"

#include "engine/synthetic.h"

enum {
	SIDE = 32,
	CHUNKS = STREAM_FIXTURE_SLOW ? 3 : 12,
	REBASE_LATENTS = 8, /* several times within the run */
	MOST_LATENTS = 5 + 3 * (12 - 1),
	LATENT_FLOATS = SIDE / FIXTURE_RATIO * (SIDE / FIXTURE_RATIO) * FIXTURE_CHANNELS,
};

static const uint64_t starts[] = {
	((uint64_t)1 << 31) - 20,
	((uint64_t)1 << 32) - 2,
	(uint64_t)1 << 40,
	UINT64_MAX - 1000,
};

static struct recording *record(const struct stream_fixture *fixture, uint64_t first_latent,
				const float *noise)
{
	struct sana_stream_options options;
	struct recording *recording;
	struct sana_statistics s;

	sana_stream_options_init(&options);
	options.width = options.height = SIDE;
	options.rebase_latents = REBASE_LATENTS;
	options.first_latent = first_latent;
	options.noise = noise;
	options.noise_latents = noise ? MOST_LATENTS : 0;
	recording = recording_open(fixture, &options, fixture->prompt_a);
	recording_feed_chunks(recording, CHUNKS);
	recording_finish(recording);
	s = stream_fixture_statistics(recording->stream);
	assert_int_equal(s.chunks, CHUNKS);
	assert_int_equal(s.latent, first_latent + (uint64_t)recording->latents);
	assert_true(s.rebases >= 1 || CHUNKS < 4);
	return recording;
}

static void positions_do_not_depend_on_the_counter(void **state)
{
	const size_t count = (size_t)MOST_LATENTS * LATENT_FLOATS;
	_cleanup_(freep) float *noise = malloc(count * sizeof(*noise));
	struct recording *plain;

	assert_non_null(noise);
	synthetic_fill("frame-counter", "noise", 0, 1.7320508, 0, count, noise);
	plain = record(*state, 0, noise);
	for (size_t i = 0; i < ARRAY_SIZE(starts); i++) {
		struct recording *high = record(*state, starts[i], noise);

		print_message("from %llu: ", (unsigned long long)starts[i]);
		recording_assert_same(high, 0, plain, 0, CHUNKS);
		recording_close(high);
	}
	recording_close(plain);
}

/* The upper half of the counter reaches the noise: 2^40 has the lower half of 0. */
static void noise_depends_on_the_whole_counter(void **state)
{
	struct recording *plain = record(*state, 0, NULL);

	for (size_t i = 0; i < ARRAY_SIZE(starts); i++) {
		struct recording *high = record(*state, starts[i], NULL);
		const double off = recording_chunk_distance(high, 0, plain, 0, CHUNKS);

		print_message("from %llu: %.3f away\n", (unsigned long long)starts[i], off);
		assert_true(off > 1e-3);
		assert_true(floats_are_finite(high->latent,
					      (size_t)high->latents * high->latent_floats));
		recording_close(high);
	}
	recording_close(plain);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(positions_do_not_depend_on_the_counter),
		cmocka_unit_test(noise_depends_on_the_whole_counter),
	};

	return cmocka_run_group_tests_name("frame_counter", tests, stream_fixture_setup,
					   stream_fixture_teardown);
}
