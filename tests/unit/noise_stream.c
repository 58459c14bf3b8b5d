/* A stream's noise: a function of seed and latent counter alone, whatever the chunks. */
#include "tests/common/stream_fixture.h"

#include <math.h>

#include "tests/common/expected.h"

enum {
	LATENT_ROWS = FIXTURE_SMALL_HEIGHT / FIXTURE_RATIO,
	LATENT_COLUMNS = FIXTURE_SMALL_WIDTH / FIXTURE_RATIO,
	CHUNKS = STREAM_FIXTURE_SLOW ? 2 : 4,
	MOST_LATENTS = 5 + 3 * 3,
};

/* Noise changes the picture a little and the latents visibly. */
#define DIFFERENT 1e-3

/* Philox4x32-10 as its authors define it, written for this test. */
static void philox(uint32_t x[4], uint64_t seed)
{
	uint32_t key[2] = { (uint32_t)seed, (uint32_t)(seed >> 32) };

	for (int round = 0; round < 10; round++) {
		const uint64_t p0 = x[0] * 0xd2511f53ull, p1 = x[2] * 0xcd9e8d57ull;
		const uint32_t next[4] = { (uint32_t)(p1 >> 32) ^ x[1] ^ key[0], (uint32_t)p1,
					   (uint32_t)(p0 >> 32) ^ x[3] ^ key[1], (uint32_t)p0 };

		memcpy(x, next, sizeof(next));
		key[0] += 0x9e3779b9u;
		key[1] += 0xbb67ae85u;
	}
}

static float normal(uint64_t seed, uint64_t frame, int channel, int y, int x)
{
	uint32_t w[4] = { (uint32_t)y << 16 | (uint32_t)x, (uint32_t)channel, (uint32_t)frame,
			  (uint32_t)(frame >> 32) };

	philox(w, seed);
	return (float)(sqrt(-2 * log((w[0] + 1.0) / 4294967296.0)) *
		       cos(2 * 3.14159265358979323846 * (w[1] / 4294967296.0)));
}

/* [channels][latents][h][w], to be given to a stream as noise of the caller's. */
static float *noise_from(uint64_t seed, uint64_t first)
{
	const size_t area = (size_t)LATENT_ROWS * LATENT_COLUMNS;
	float *noise = malloc(FIXTURE_CHANNELS * MOST_LATENTS * area * sizeof(*noise));
	float *at = noise;

	assert_non_null(noise);
	for (int c = 0; c < FIXTURE_CHANNELS; c++)
		for (int t = 0; t < MOST_LATENTS; t++)
			for (int y = 0; y < LATENT_ROWS; y++)
				for (int x = 0; x < LATENT_COLUMNS; x++)
					*at++ = normal(seed, first + (uint64_t)t, c, y, x);
	return noise;
}

/* The values that the generator's authors publish for it. */
static void test_generator(void **state)
{
	uint32_t zeros[4] = { 0, 0, 0, 0 }, ones[4] = { ~0u, ~0u, ~0u, ~0u };
	const uint32_t want_zeros[4] = { 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 };
	const uint32_t want_ones[4] = { 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd };

	(void)state;
	philox(zeros, 0);
	philox(ones, UINT64_MAX);
	assert_memory_equal(zeros, want_zeros, sizeof(zeros));
	assert_memory_equal(ones, want_ones, sizeof(ones));
}

/*
 * A stream with a seed equals one that is given the same noise latent by latent: chunks of any size
 * take their latents one after the other. Equal up to the last bit of a logarithm or cosine.
 */
static void check_noise(const struct stream_fixture *fixture, int first_chunk, uint64_t seed,
			uint64_t first_latent)
{
	_cleanup_(freep) float *noise = noise_from(seed, first_latent);
	struct sana_stream_options options = stream_fixture_small();
	struct recording *counted, *given;
	double distance;

	options.first_chunk_latents = first_chunk;
	options.seed = seed;
	options.first_latent = first_latent;
	counted = recording_open(fixture, &options, fixture->prompt_a);
	options.noise = noise;
	options.noise_latents = MOST_LATENTS;
	given = recording_open(fixture, &options, fixture->prompt_a);
	recording_feed_chunks(counted, CHUNKS);
	recording_feed_chunks(given, CHUNKS);
	distance = recording_chunk_distance(counted, 0, given, 0, CHUNKS);
	print_message("first chunk of %d, seed %llx, latent %llx on: %.2e\n", first_chunk,
		      (unsigned long long)seed, (unsigned long long)first_latent, distance);
	assert_true(distance < 1e-6);
	assert_int_equal(stream_fixture_statistics(counted->stream).latent,
			 first_latent + (uint64_t)counted->latents);
	recording_close(given);
	recording_close(counted);
}

static void test_noise_does_not_depend_on_chunks(void **state)
{
	check_noise(*state, 5, 1, 0);
	check_noise(*state, 4, 1, 0);
	check_noise(*state, 3, 1, 0);
}

static void test_large_seeds_and_counters(void **state)
{
	check_noise(*state, 5, 0xfedcba9876543210, 0xffffffff - 3);
	check_noise(*state, 3, 0x100000000, (uint64_t)1 << 40);
}

static struct recording *seeded(const struct stream_fixture *fixture, uint64_t seed,
				uint64_t first_latent)
{
	struct sana_stream_options options = stream_fixture_small();
	struct recording *r;

	options.seed = seed;
	options.first_latent = first_latent;
	r = recording_open(fixture, &options, fixture->prompt_a);
	recording_feed_chunks(r, 2);
	return r;
}

static void test_seeds(void **state)
{
	const struct stream_fixture *fixture = *state;
	struct recording *first = seeded(fixture, 1, 0), *again = seeded(fixture, 1, 0);
	struct recording *others[] = {
		seeded(fixture, 2, 0),
		seeded(fixture, (uint64_t)1 << 32 | 1, 0),
		seeded(fixture, 1, 1),
		seeded(fixture, 1, (uint64_t)1 << 32),
	};

	recording_assert_same(first, 0, again, 0, 2);
	for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
		const double distance = recording_chunk_distance(others[i], 0, first, 0, 2);

		print_message("another seed or start: %.2e\n", distance);
		assert_true(distance > DIFFERENT);
		recording_close(others[i]);
	}
	recording_close(again);
	recording_close(first);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_generator),
		cmocka_unit_test(test_noise_does_not_depend_on_chunks),
		cmocka_unit_test(test_large_seeds_and_counters),
		cmocka_unit_test(test_seeds),
	};

	return cmocka_run_group_tests_name("noise stream", tests, stream_fixture_setup,
					   stream_fixture_teardown);
}
