/* Frames through a stream: every length, size, first chunk, piece of decoding; streams side by side. */
#include "tests/common/stream_fixture.h"

#include <stdatomic.h>

#include "tests/common/expected.h"

enum { SMALLEST = 32 };

/* Frames 0 … n − 1, each once, with its own time, chunk by chunk. */
static void check_order(const struct recording *r, int first_latents)
{
	const int first = stream_frames(r->stream, first_latents, true);

	assert_int_equal(r->frames, r->pushed);
	for (int i = 0; i < r->frames; i++) {
		const int behind = i - first;
		const struct sana_frame_info *info = &r->info[i];

		assert_int_equal(info->frame, i);
		assert_int_equal(info->timestamp_ns, stream_fixture_time((uint64_t)i));
		assert_int_equal(info->chunk, behind < 0 ? 0 : 1 + behind / FIXTURE_CHUNK_FRAMES);
		assert_int_equal(info->index_in_chunk,
				 behind < 0 ? i : behind % FIXTURE_CHUNK_FRAMES);
		assert_int_equal(info->prompt_changed, i == 0);
	}
	assert_true(floats_are_finite(r->latent, (size_t)r->latents * r->latent_floats));
}

/* ------------------------------------------------------------------------------------- finish */

static void check_finish(const struct stream_fixture *fixture, int first_latents, int most)
{
	struct sana_stream_options options = stream_fixture_small();
	const int first = 1 + 2 * (first_latents - 1);
	struct recording *whole;

	options.width = options.height = SMALLEST;
	options.first_chunk_latents = first_latents;
	whole = recording_open(fixture, &options, fixture->prompt_a);
	recording_feed(whole, first + (most - first) / 6 * 6);
	for (int frames = 0; frames <= most; frames++) {
		struct recording *r = recording_open(fixture, &options, fixture->prompt_a);
		const int complete = frames < first ? 0 : first + (frames - first) / 6 * 6;

		recording_feed(r, frames);
		assert_false(sana_stream_is_drained(r->stream));
		recording_finish(r);
		check_order(r, first_latents);
		assert_int_equal(stream_fixture_statistics(r->stream).frames_dropped, 0);
		/* Whole chunks do not know that the stream will end. */
		assert_memory_equal(r->rgb, whole->rgb, (size_t)complete * r->picture_bytes);
		recording_close(r);
	}
	print_message("first chunk of %d latents: 0 to %d frames in, as many out\n", first_latents,
		      most);
	recording_close(whole);
}

static void test_finish_after_any_frame(void **state)
{
	check_finish(*state, 5, STREAM_FIXTURE_SLOW ? 11 : 20);
	check_finish(*state, 3, 7);
	check_finish(*state, 4, 9);
}

/* Finished with frames still on their way: not stepped, or stepped and not pulled. */
static void test_finish_early(void **state)
{
	const struct stream_fixture *fixture = *state;
	const struct sana_stream_options options = stream_fixture_small();
	struct recording *r = recording_open(fixture, &options, fixture->prompt_a);
	enum sana_stage stage = SANA_STAGE_NONE;

	recording_feed(r, 8);
	recording_push(r);
	while (stage != SANA_STAGE_DECODE)
		assert_int_equal(sana_stream_step(r->stream, &stage, NULL), 1);
	assert_int_equal(sana_stream_finish(r->stream, NULL), 0);
	assert_false(sana_stream_is_drained(r->stream));
	/* The rest is decoded only when there is room for it. */
	assert_int_equal(sana_stream_step(r->stream, &stage, NULL), 0);
	assert_int_equal(stage, SANA_STAGE_NONE);
	assert_false(sana_stream_is_drained(r->stream));
	recording_finish(r);
	check_order(r, 5);
	assert_int_equal(stream_fixture_statistics(r->stream).stage_count[SANA_STAGE_CACHE], 0);
	recording_close(r);
}

/* --------------------------------------------------------------------------------- sizes, rows */

static void test_sizes_and_first_chunks(void **state)
{
	static const int sizes[][2] = { { 64, 48 }, { 160, 96 }, { 32, 32 }, { 48, 112 } };
	const struct stream_fixture *fixture = *state;
	struct sana_stream_options options = stream_fixture_small();

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		for (int first = 3; first <= 5; first++) {
			struct recording *r;

			options.width = sizes[i][0];
			options.height = sizes[i][1];
			options.first_chunk_latents = first;
			r = recording_open(fixture, &options, fixture->prompt_a);
			recording_feed_chunks(r, 2);
			recording_finish(r);
			check_order(r, first);
			assert_int_equal(r->chunks, 2);
			assert_int_equal(r->chunk_latents[0], first);
			assert_int_equal(r->chunk_latents[1], 3);
			recording_close(r);
		}
	}
}

/* The model's own size and first chunk where the options name none. */
static void test_defaults(void **state)
{
	const struct stream_fixture *fixture = *state;
	struct sana_stream_options options;
	struct sana_stream *stream;

	sana_stream_options_init(&options);
	stream = stream_fixture_open(fixture, &options);
	assert_int_equal(stream->width, 256);
	assert_int_equal(stream->height, 144);
	assert_int_equal(stream->options.first_chunk_latents, 5);
	assert_int_equal(stream->options.prompt_switch, SANA_SWITCH_RESTART);
	assert_int_equal(stream->decode_latents, 3);
	(void)sana_stream_close(stream);
}

static uint8_t *tight_copy(const struct sana_picture *from)
{
	const size_t row = (size_t)from->width * 3;
	uint8_t *to = malloc(row * (size_t)from->height);

	assert_non_null(to);
	for (int y = 0; y < from->height; y++)
		memcpy(to + row * (size_t)y, from->rgb + from->row_bytes * (size_t)y, row);
	return to;
}

/* The fixture's pictures are cut from larger ones; these have not a byte between their rows. */
static void test_padded_rows_in(void **state)
{
	const struct stream_fixture *fixture = *state;
	const struct sana_stream_options options = stream_fixture_small();
	struct recording *padded = recording_open(fixture, &options, fixture->prompt_a);
	struct recording *tight = recording_open(fixture, &options, fixture->prompt_a);

	recording_feed_chunks(padded, 2);
	for (; tight->pushed < padded->pushed; tight->pushed++) {
		struct sana_picture picture =
			stream_fixture_picture(fixture, tight->pushed, tight->width, tight->height);
		_cleanup_(freep) uint8_t *rgb = tight_copy(&picture);

		picture.rgb = rgb;
		picture.row_bytes = (size_t)picture.width * 3;
		assert_int_equal(sana_stream_push(tight->stream, &picture,
						  stream_fixture_time(tight->pushed), NULL),
				 1);
		/* Copied: the caller's memory is his own again. */
		memset(rgb, 0xaa, picture.row_bytes * (size_t)picture.height);
		recording_settle(tight);
	}
	recording_assert_same(tight, 0, padded, 0, 2);
	recording_close(tight);
	recording_close(padded);
}

static void test_padded_rows_out(void **state)
{
	enum { PAD = 5, ROW = FIXTURE_SMALL_WIDTH * 3, STRIDE = ROW + PAD };
	const struct stream_fixture *fixture = *state;
	const struct sana_stream_options options = stream_fixture_small();
	struct recording *r = recording_open(fixture, &options, fixture->prompt_a);
	struct recording *other = recording_open(fixture, &options, fixture->prompt_a);
	uint8_t rgb[STRIDE * FIXTURE_SMALL_HEIGHT];
	struct sana_picture picture = { rgb, STRIDE, FIXTURE_SMALL_WIDTH, FIXTURE_SMALL_HEIGHT };
	enum sana_stage stage = SANA_STAGE_NONE;
	struct sana_frame_info info;

	recording_feed_chunks(r, 1);
	recording_feed(other, 8);
	recording_push(other);
	while (stage != SANA_STAGE_DECODE)
		assert_int_equal(sana_stream_step(other->stream, &stage, NULL), 1);
	memset(rgb, 0x5a, sizeof(rgb));
	assert_int_equal(sana_stream_pull(other->stream, &picture, &info, NULL), 1);
	for (int y = 0; y < FIXTURE_SMALL_HEIGHT; y++) {
		assert_memory_equal(rgb + y * STRIDE, recording_frame(r, 0) + y * ROW, ROW);
		for (int i = ROW; i < STRIDE; i++)
			assert_int_equal(rgb[y * STRIDE + i], 0x5a);
	}
	recording_close(other);
	recording_close(r);
}

/* ----------------------------------------------------------------------------------- decoding */

/* Pieces of decoding change when pictures come, not what they are. */
static void test_decode_in_pieces(void **state)
{
	static const int pieces[] = { 1, 2, 3, 4, 5, MODEL_MAX_CHUNK_LATENTS };
	const struct stream_fixture *fixture = *state;
	struct sana_stream_options options = stream_fixture_small();
	struct recording *whole = recording_open(fixture, &options, fixture->prompt_a);
	double share;
	int worst;

	recording_feed_chunks(whole, 3);
	for (size_t i = 0; i < ARRAY_SIZE(pieces); i++) {
		struct recording *r;

		options.decode_latents = pieces[i];
		r = recording_open(fixture, &options, fixture->prompt_a);
		recording_feed_chunks(r, 3);
		check_order(r, 5);
		assert_int_equal(r->latents, whole->latents);
		assert_memory_equal(r->latent, whole->latent,
				    (size_t)r->latents * r->latent_floats * sizeof(float));
		share = pictures_within_one(r->rgb, whole->rgb,
					    (size_t)r->frames * r->picture_bytes, &worst);
		print_message("%d latents at a time: worst difference %d\n", pieces[i], worst);
		assert_true(worst <= 1 && share == 1);
		recording_close(r);
	}
	recording_close(whole);
}

/* Truncated samples are the rounded ones or one less, and about half of them one less. */
static void test_truncation(void **state)
{
	const struct stream_fixture *fixture = *state;
	struct sana_stream_options options = stream_fixture_small();
	struct recording *rounded = recording_open(fixture, &options, fixture->prompt_a), *r;
	size_t count, less = 0;

	options.truncate = true;
	r = recording_open(fixture, &options, fixture->prompt_a);
	recording_feed_chunks(rounded, 1);
	recording_feed_chunks(r, 1);
	count = (size_t)r->frames * r->picture_bytes;
	for (size_t i = 0; i < count; i++) {
		assert_in_range(rounded->rgb[i] - r->rgb[i], 0, 1);
		less += rounded->rgb[i] != r->rgb[i];
	}
	print_message("%.1f %% of the samples are one less\n",
		      100.0 * (double)less / (double)count);
	assert_in_range(less * 100 / count, 25, 75);
	recording_close(rounded);
	recording_close(r);
}

/* ------------------------------------------------------------------------------- side by side */

/* Two streams on one model, turn by turn, and the same two one after the other. */
static void test_two_streams_on_one_model(void **state)
{
	const struct stream_fixture *fixture = *state;
	struct sana_stream_options options[2] = { stream_fixture_small(), stream_fixture_small() };
	struct sana_prompt *prompts[2] = { fixture->prompt_a, fixture->prompt_b };
	struct recording *turns[2], *alone[2];

	options[0].seed = 3;
	options[1].seed = 4;
	options[1].width = 48;
	options[1].first_chunk_latents = 3;
	options[1].rebase_latents = 4;
	for (int i = 0; i < 2; i++) {
		alone[i] = recording_open(fixture, &options[i], prompts[i]);
		recording_feed(alone[i], 21);
	}
	for (int i = 0; i < 2; i++)
		turns[i] = recording_open(fixture, &options[i], prompts[i]);
	/* Pushes and single stages of both, mixed: each stage of one comes between two of the other. */
	while (turns[0]->frames < 21 || turns[1]->frames < 17) {
		for (int i = 0; i < 2; i++) {
			enum sana_stage stage;
			int r = sana_stream_step(turns[i]->stream, &stage, NULL);

			assert_true(r >= 0);
			if (r == 0 && !stream_output_next(turns[i]->stream))
				recording_push(turns[i]);
			else if (r == 0 || stage == SANA_STAGE_DECODE)
				recording_settle(turns[i]);
		}
	}
	recording_assert_same(turns[0], 0, alone[0], 0, 3);
	recording_assert_same(turns[1], 0, alone[1], 0, 3);
	for (int i = 0; i < 2; i++) {
		recording_close(turns[i]);
		recording_close(alone[i]);
	}
}

/* A stream keeps its model; a prompt outlives both. */
static void test_references(void **state)
{
	const struct stream_fixture *fixture = *state;
	struct stream_fixture own = *fixture;
	const struct sana_stream_options options = stream_fixture_small();
	struct sana_prompt *prompt;
	struct recording *r;
	int rows;

	own.model = stream_fixture_model(SANA_WEIGHTS_MAPPED, 1);
	assert_int_equal(sana_prompt_create(own.model, fixture->text_b, &prompt, NULL), 0);
	r = recording_open(&own, &options, prompt);
	(void)sana_model_unref(own.model);
	(void)sana_prompt_unref(sana_prompt_ref(prompt));
	recording_feed_chunks(r, 2);
	assert_int_equal(r->frames, 15);
	recording_close(r);
	assert_non_null(sana_prompt_features(prompt, &rows));
	assert_string_equal(sana_prompt_text(prompt), fixture->text_b);
	assert_null(sana_prompt_unref(prompt));
	assert_null(sana_stream_close(NULL));
	assert_null(sana_model_unref(NULL));
	assert_null(sana_prompt_unref(NULL));
}

/* Each stage says that it lives, op by op. */
struct signs {
	pthread_t thread;
	uint64_t count;
};

static void sign_of_life(void *context)
{
	struct signs *signs = context;

	assert_true(pthread_equal(pthread_self(), signs->thread));
	signs->count++;
}

static void test_signs_of_life(void **state)
{
	const struct stream_fixture *fixture = *state;
	struct sana_stream_options options = stream_fixture_small();
	struct signs signs = { .thread = pthread_self() };
	uint64_t least[SANA_STAGE_COUNT] = { 0 };
	struct sana_error error = { 0 };
	enum sana_stage stage;
	struct recording *r;
	int result;

	options.alive = sign_of_life;
	options.alive_context = &signs;
	r = recording_open(fixture, &options, fixture->prompt_a);
	assert_int_equal(signs.count, 0);
	do {
		const uint64_t before = signs.count;

		result = sana_stream_step(r->stream, &stage, &error);
		assert_true(result >= 0);
		if (result > 0 && (!least[stage] || signs.count - before < least[stage]))
			least[stage] = signs.count - before;
		if (result == 0)
			recording_push(r);
		recording_pull(r);
	} while (!least[SANA_STAGE_CACHE]);
	print_message("ops of a stage, at least: encode %d, denoise %d, decode %d, cache %d\n",
		      (int)least[SANA_STAGE_ENCODE], (int)least[SANA_STAGE_DENOISE],
		      (int)least[SANA_STAGE_DECODE], (int)least[SANA_STAGE_CACHE]);
	assert_true(least[SANA_STAGE_ENCODE] > 5 && least[SANA_STAGE_DECODE] > 5);
	assert_true(least[SANA_STAGE_DENOISE] > 50 && least[SANA_STAGE_CACHE] > 50);
	recording_close(r);
}

/* So does a prompt's text encoder, on the thread that asks for it. */
static void test_signs_of_life_of_a_prompt(void **state)
{
	const struct stream_fixture *fixture = *state;
	struct signs signs = { .thread = pthread_self() };
	const struct sana_model_options options = {
		.directory = EXPECTED_DEMO,
		.threads = 1,
		.weights = SANA_WEIGHTS_MAPPED,
		.alive = sign_of_life,
		.alive_context = &signs,
	};
	struct sana_model *model;
	struct sana_prompt *prompt;

	assert_int_equal(sana_model_open(&options, &model, NULL), 0);
	assert_int_equal(signs.count, 0);
	assert_int_equal(sana_prompt_create(model, fixture->text_a, &prompt, NULL), 0);
	print_message("ops of a prompt: %d\n", (int)signs.count);
	assert_true(signs.count > 20);
	(void)sana_prompt_unref(prompt);
	(void)sana_model_unref(model);
}

struct caller {
	const struct stream_fixture *fixture;
	struct sana_stream *stream;
	atomic_bool stop;
	uint64_t calls, ticket;
};

/* What any thread may call at any time, as fast as it can. */
static void *call_all_the_time(void *context)
{
	struct caller *c = context;
	struct sana_statistics s;

	for (; !atomic_load(&c->stop); c->calls++) {
		struct sana_prompt *prompt = c->calls % 2 ? c->fixture->prompt_a :
							    c->fixture->prompt_b;
		const int mode = (int)(c->calls % SANA_SWITCH_COUNT);

		if (sana_stream_set_prompt(c->stream, prompt, mode, &c->ticket, NULL) < 0)
			break;
		sana_stream_statistics(c->stream, &s);
		if (c->calls % 1000 == 0)
			sana_stream_request_reset(c->stream);
	}
	return NULL;
}

static void test_calls_from_another_thread(void **state)
{
	const struct stream_fixture *fixture = *state;
	const struct sana_stream_options options = stream_fixture_small();
	struct caller caller = { .fixture = fixture };
	struct recording *r;
	pthread_t thread;

	r = recording_open(fixture, &options, fixture->prompt_a);
	caller.stream = r->stream;
	assert_int_equal(pthread_create(&thread, NULL, call_all_the_time, &caller), 0);
	recording_feed(r, STREAM_FIXTURE_SLOW ? 16 : 40);
	atomic_store(&caller.stop, true);
	assert_int_equal(pthread_join(thread, NULL), 0);
	recording_finish(r);
	print_message("%d calls, ticket %d; %d prompts taken, %d resets\n", (int)caller.calls,
		      (int)caller.ticket, (int)stream_fixture_statistics(r->stream).prompts,
		      (int)stream_fixture_statistics(r->stream).resets);
	assert_true(caller.calls > 100);
	assert_int_equal(caller.ticket, caller.calls + 1);
	assert_int_equal(r->frames, r->pushed);
	for (int i = 1; i < r->frames; i++) {
		assert_int_equal(r->info[i].frame, i);
		assert_true(r->info[i].ticket >= r->info[i - 1].ticket);
		assert_int_equal(r->info[i].prompt_changed,
				 r->info[i].ticket != r->info[i - 1].ticket);
	}
	recording_close(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_finish_after_any_frame),
		cmocka_unit_test(test_finish_early),
		cmocka_unit_test(test_sizes_and_first_chunks),
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_padded_rows_in),
		cmocka_unit_test(test_padded_rows_out),
		cmocka_unit_test(test_decode_in_pieces),
		cmocka_unit_test(test_truncation),
		cmocka_unit_test(test_two_streams_on_one_model),
		cmocka_unit_test(test_references),
		cmocka_unit_test(test_signs_of_life),
		cmocka_unit_test(test_signs_of_life_of_a_prompt),
		cmocka_unit_test(test_calls_from_another_thread),
	};

	return cmocka_run_group_tests_name("stream frames", tests, stream_fixture_setup,
					   stream_fixture_teardown);
}
