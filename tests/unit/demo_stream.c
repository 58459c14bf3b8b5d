/* The demo model through the public interface, against the values that come with it. */
#include "tests/common/stream_fixture.h"

#include <math.h>

#include "tests/common/expected.h"

/*
 * The expected values are an F32 run of other code. Two such runs differ by rounding alone, about
 * 1e-6 of the norm after six chunks; ten times that is allowed.
 */
#define TOLERANCE 1e-5

/* Decoded samples within one grey level: half a level of rounding can go either way. */
#define PIXEL_SHARE 0.999

enum {
	LATENTS = 19,
	LATENT_AREA = 9 * 16,
	CAPTION_ROWS = 32,
	SWITCH_CHUNK = 3,
	FIRST_LATENTS = 4,
	CHUNKS = 6,
	PICTURE_BYTES = FIXTURE_WIDTH * FIXTURE_HEIGHT * 3,
};

static const int boundaries[CHUNKS + 1] = { 0, 4, 7, 10, 13, 16, 19 };

/* --------------------------------------------------------------------------- the noise's rule */

static uint64_t fnv1a64(const char *text)
{
	uint64_t hash = 0xcbf29ce484222325;

	for (; *text; text++)
		hash = (hash ^ (uint8_t)*text) * 0x100000001b3;
	return hash;
}

static uint64_t splitmix64(uint64_t z)
{
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

/* F32 [channels][LATENTS][h][w], as options.noise wants it and expected.json says it. */
static float *rule_noise(void)
{
	const size_t count = (size_t)FIXTURE_CHANNELS * LATENTS * LATENT_AREA;
	const uint64_t start = fnv1a64("demo-model/noise");
	float *noise = malloc(count * sizeof(*noise));

	assert_non_null(noise);
	for (size_t i = 0; i < count; i++) {
		const uint64_t mixed = splitmix64(start + (i + 1) * 0x9e3779b97f4a7c15);
		const double u = (double)(mixed >> 40) * 0x1p-24;

		noise[i] = (float)(1.7320508 * (2 * u - 1));
	}
	return noise;
}

/* ----------------------------------------------------------------------------------- the runs */

enum edit { EDIT_A, EDIT_B, EDIT_SWITCH };

static struct recording *edit_run(const struct stream_fixture *fixture, enum edit edit, int chunks,
				  const float *noise)
{
	struct sana_prompt *prompt = edit == EDIT_B ? fixture->prompt_b : fixture->prompt_a;
	const int before = edit == EDIT_SWITCH ? SWITCH_CHUNK : 1;
	struct sana_stream_options options;
	struct recording *recording;

	sana_stream_options_init(&options);
	options.first_chunk_latents = FIRST_LATENTS;
	options.noise = noise;
	options.noise_latents = LATENTS;
	recording = recording_open(fixture, &options, prompt);
	recording_feed_chunks(recording, before);
	if (edit == EDIT_SWITCH)
		assert_int_equal(stream_fixture_prompt(recording->stream, fixture->prompt_b,
						       SANA_SWITCH_KEEP),
				 2);
	recording_feed(recording, (chunks - before) * FIXTURE_CHUNK_FRAMES - 1);
	/* Finished before the last chunk is edited, so that the stream knows that it is the last. */
	recording_push(recording);
	recording_finish(recording);
	return recording;
}

/* Expected [C][T][h][w] as the stream gives it: [T][h][w][C]. */
static float *latents_expected(const char *name)
{
	const size_t count = (size_t)FIXTURE_CHANNELS * LATENTS * LATENT_AREA;
	_cleanup_(freep) float *from = expected_tensor(name, count * sizeof(float));
	float *to = malloc(count * sizeof(*to));
	const size_t pixels = (size_t)LATENTS * LATENT_AREA;

	assert_non_null(from);
	assert_non_null(to);
	for (size_t c = 0; c < FIXTURE_CHANNELS; c++)
		for (size_t p = 0; p < pixels; p++)
			to[p * FIXTURE_CHANNELS + c] = from[c * pixels + p];
	return to;
}

static void check_latents(const char *name, const float *got, int latents)
{
	const size_t count = (size_t)FIXTURE_CHANNELS * (size_t)latents * LATENT_AREA;
	_cleanup_(freep) float *want = latents_expected(name);
	const double distance = expected_relative_l2(got, want, count);

	print_message("%-16s %d latents, relative L2 %.2e\n", name, latents, distance);
	assert_true(distance < TOLERANCE);
}

/* Frames before `end` at the indices that a list of expected.json names. */
static void check_frames(const char *name, const char *indices_name, const uint8_t *rgb, int end)
{
	json_t *rules = expected_rules();
	const json_t *indices = json_object_get(rules, indices_name);
	const size_t frames = json_array_size(indices);
	_cleanup_(freep) uint8_t *want = expected_tensor(name, frames * PICTURE_BYTES);
	int worst = 0, worst_of_all = 0, compared = 0;
	double share = 0;

	assert_non_null(want);
	for (size_t i = 0; i < frames; i++) {
		const json_int_t at = json_integer_value(json_array_get(indices, i));

		assert_in_range(at, 0, FIXTURE_SOURCE_FRAMES - 1);
		if (at >= end)
			continue;
		share += pictures_within_one(rgb + (size_t)at * PICTURE_BYTES,
					     want + i * PICTURE_BYTES, PICTURE_BYTES, &worst);
		worst_of_all = MAX_OF(worst, worst_of_all);
		compared++;
	}
	json_decref(rules);
	assert_true(compared > 0);
	share /= compared;
	print_message("%-16s %d frames, %.4f %% within 1, worst %d\n", name, compared, 100 * share,
		      worst_of_all);
	assert_true(share >= PIXEL_SHARE);
}

/* One for one, in order, and every chunk under the prompt that was in force. */
static void check_info(const struct recording *recording, enum edit edit, int chunks)
{
	int changes = 0, chunk = 0, in_chunk = 0;

	assert_int_equal(recording->frames, recording->pushed);
	assert_int_equal(recording->chunks, chunks);
	for (int i = 0; i < recording->frames; i++) {
		const struct sana_frame_info *info = &recording->info[i];
		const bool switched = edit == EDIT_SWITCH && chunk >= SWITCH_CHUNK;

		assert_int_equal(info->frame, i);
		assert_int_equal(info->timestamp_ns, stream_fixture_time((uint64_t)i));
		assert_int_equal(info->chunk, chunk);
		assert_int_equal(info->index_in_chunk, in_chunk);
		assert_int_equal(info->ticket, switched ? 2 : 1);
		assert_int_equal(info->prompt_changed,
				 i == 0 || (switched && chunk == SWITCH_CHUNK && in_chunk == 0));
		changes += info->prompt_changed;
		if (++in_chunk ==
		    stream_frames(recording->stream, recording->chunk_latents[chunk], chunk == 0)) {
			in_chunk = 0;
			chunk++;
		}
	}
	assert_int_equal(changes, edit == EDIT_SWITCH ? 2 : 1);
	for (int i = 0; i < chunks; i++) {
		assert_int_equal(recording->chunk_index[i], i);
		assert_int_equal(recording->chunk_latents[i], boundaries[i + 1] - boundaries[i]);
	}
}

static void check_edit(const struct stream_fixture *fixture, enum edit edit, int chunks)
{
	static const char *const latents[] = { "latents.a", "latents.b", "latents.switch" };
	static const char *const frames[] = { "frames.a", "frames.b", "frames.switch" };
	_cleanup_(freep) float *noise = rule_noise();
	struct recording *recording = edit_run(fixture, edit, chunks, noise);
	const struct sana_statistics s = stream_fixture_statistics(recording->stream);

	check_latents(latents[edit], recording->latent, recording->latents);
	check_latents("source_latents", recording->source, recording->latents);
	check_frames(frames[edit], "frame_indices", recording->rgb, recording->frames);
	check_info(recording, edit, chunks);
	assert_int_equal(s.frames_in, recording->pushed);
	assert_int_equal(s.frames_out, recording->pushed);
	assert_int_equal(s.frames_dropped + s.chunks_dropped + s.states_discarded + s.resets +
				 s.recaches + s.rebases + s.failures,
			 0);
	assert_int_equal(s.chunks, chunks);
	assert_int_equal(s.prompts, edit == EDIT_SWITCH ? 2 : 1);
	assert_int_equal(s.latent, boundaries[chunks]);
	/* No cache pass after the last chunk. */
	assert_int_equal(s.stage_count[SANA_STAGE_CACHE], chunks - 1);
	assert_int_equal(s.stage_count[SANA_STAGE_DENOISE], 4 * chunks);
	recording_close(recording);
}

/* The fixture's own model: widened weights, one thread. */
static void test_prompt_b(void **state)
{
	check_edit(*state, EDIT_B, STREAM_FIXTURE_SLOW ? 2 : 3);
}

static void test_prompt_a_on_two_threads(void **state)
{
	struct stream_fixture fixture = *(struct stream_fixture *)*state;

	fixture.model = stream_fixture_model(SANA_WEIGHTS_WIDENED, 2);
	check_edit(&fixture, EDIT_A, STREAM_FIXTURE_SLOW ? 2 : CHUNKS);
	(void)sana_model_unref(fixture.model);
}

/* Weights read as they are in their files: the same values by another road. */
static void test_switch_mapped_on_two_threads(void **state)
{
	struct stream_fixture fixture = *(struct stream_fixture *)*state;

	fixture.model = stream_fixture_model(SANA_WEIGHTS_MAPPED, 2);
	check_edit(&fixture, EDIT_SWITCH, STREAM_FIXTURE_SLOW ? SWITCH_CHUNK + 1 : CHUNKS);
	(void)sana_model_unref(fixture.model);
}

static void test_mapped_on_one_thread(void **state)
{
	struct stream_fixture fixture = *(struct stream_fixture *)*state;

	fixture.model = stream_fixture_model(SANA_WEIGHTS_MAPPED, 1);
	check_edit(&fixture, EDIT_A, 2);
	(void)sana_model_unref(fixture.model);
}

static void check_caption(const char *name, const struct sana_prompt *prompt, const char *text)
{
	const size_t count = (size_t)CAPTION_ROWS * FIXTURE_CHANNELS;
	_cleanup_(freep) float *want = expected_tensor(name, count * sizeof(float));
	const float *got;
	double distance;
	int rows, ids;

	assert_non_null(want);
	got = sana_prompt_features(prompt, &rows);
	(void)sana_prompt_ids(prompt, &ids);
	assert_int_equal(rows, ids);
	assert_in_range(rows, 3, CAPTION_ROWS - 1);
	assert_string_equal(sana_prompt_text(prompt), text);
	assert_false(sana_prompt_was_cut(prompt));
	distance = expected_relative_l2(got, want, (size_t)rows * FIXTURE_CHANNELS);
	print_message("%-16s %d rows, relative L2 %.2e\n", name, rows, distance);
	assert_true(distance < TOLERANCE);
}

static void test_captions(void **state)
{
	const struct stream_fixture *fixture = *state;

	check_caption("caption.a", fixture->prompt_a, fixture->text_a);
	check_caption("caption.b", fixture->prompt_b, fixture->text_b);
}

/* Source latents decoded by a stream's own decoder, chunk by chunk. */
static void test_source_through_vae(void **state)
{
	const struct stream_fixture *fixture = *state;
	_cleanup_(freep) uint8_t *rgb = malloc((size_t)FIXTURE_SOURCE_FRAMES * PICTURE_BYTES);
	_cleanup_(freep) float *source = latents_expected("source_latents");
	struct sana_stream_options options;
	struct sana_stream *stream;
	struct op_context *op;
	int frames = 0, made;

	sana_stream_options_init(&options);
	stream = stream_fixture_open(fixture, &options);
	op = stream_op(stream, STREAM_LANE_DECODE);
	assert_non_null(rgb);
	for (int at = 0; at < LATENTS; at += made) {
		const size_t row = FIXTURE_WIDTH * 3;
		int produced;

		made = MIN_OF(stream->decode_latents, LATENTS - at);
		assert_int_equal(
			vae_decoder_run(&stream->decoder, op,
					source + (size_t)at * LATENT_AREA * FIXTURE_CHANNELS, made,
					NULL, &produced),
			0);
		assert_int_equal(produced, stream_frames(stream, made, at == 0));
		OP(op, unpatchify,
		   {
			   .x = stream->decoder.patches,
			   .pixels = rgb + (size_t)frames * PICTURE_BYTES,
			   .row_bytes = row,
			   .frame_bytes = PICTURE_BYTES,
			   .frames = produced,
			   .height = FIXTURE_HEIGHT,
			   .width = FIXTURE_WIDTH,
			   .channels = 3,
			   .patch = fixture->model->config.vae.patch,
		   });
		assert_int_equal(op_wait(op), 0);
		frames += produced;
	}
	assert_int_equal(frames, FIXTURE_SOURCE_FRAMES);
	check_frames("frames.source_through_vae", "frame_indices_source_through_vae", rgb,
		     FIXTURE_SOURCE_FRAMES);
	(void)sana_stream_close(stream);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_captions),
		cmocka_unit_test(test_prompt_b),
		cmocka_unit_test(test_prompt_a_on_two_threads),
		cmocka_unit_test(test_switch_mapped_on_two_threads),
		cmocka_unit_test(test_mapped_on_one_thread),
		cmocka_unit_test(test_source_through_vae),
	};

	return cmocka_run_group_tests_name("demo stream", tests, stream_fixture_setup,
					   stream_fixture_teardown);
}
