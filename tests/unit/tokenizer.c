/* The tokenizer: the demo model's token tests, literal pieces, concurrent use, hostile files. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "engine/tokenizer.h"
#include "engine/tokenizer_check.h"
#include "tests/common/expected.h"

enum { MAX_IDS = 256, THREADS = 4, ENCODES = 300, TRAILING = 64 };

struct scene {
	struct tokenizer *tokenizer;
	char *bytes; /* of the demo model's tokenizer */
	size_t size;
	char directory[32];
	char path[64]; /* of a file in it */
};

static int scene_begin(void **state)
{
	struct scene *s = calloc(1, sizeof(*s));
	struct sana_error error = { 0 };

	if (!s)
		return -1;
	*state = s;
	(void)strcpy(s->directory, "/tmp/sana-test-XXXXXX");
	if (!mkdtemp(s->directory))
		return -1;
	(void)snprintf(s->path, sizeof(s->path), "%s/tokenizer.model", s->directory);
	if (file_read(EXPECTED_TOKENIZER, TOKENIZER_MAX_BYTES, "test", &s->bytes, &s->size,
		      &error) < 0 ||
	    tokenizer_open(EXPECTED_TOKENIZER, &s->tokenizer, &error) < 0) {
		print_error("%s\n", error.text);
		return -1;
	}
	return 0;
}

static int scene_end(void **state)
{
	struct scene *s = *state;

	tokenizer_close(s->tokenizer);
	(void)unlink(s->path);
	(void)rmdir(s->directory);
	free(s->bytes);
	free(s);
	return 0;
}

static int encode(const struct scene *s, const char *text, int32_t *ids, int capacity)
{
	return tokenizer_encode(s->tokenizer, text, strlen(text), ids, capacity);
}

/* ------------------------------------------------------------------------------------ encoding */

static void test_demo_vocabulary(void **state)
{
	const struct scene *s = *state;

	assert_int_equal(tokenizer_pieces(s->tokenizer), 512);
	assert_int_equal(tokenizer_bos(s->tokenizer), 2);
}

/* Spaces around a prompt are stripped here, as the rule says. */
static void check_prompt(const struct scene *s, const json_t *test)
{
	const char *prompt = json_string_value(json_object_get(test, "prompt"));
	const json_t *want = json_object_get(test, "ids");
	const int n = (int)json_integer_value(json_object_get(test, "n"));
	int32_t ids[MAX_IDS];
	size_t length;
	int count;

	prompt += strspn(prompt, " ");
	for (length = strlen(prompt); length && prompt[length - 1] == ' ';)
		length--;
	count = tokenizer_encode(s->tokenizer, prompt, length, ids, MAX_IDS);
	print_message("\"%s\": %d pieces, %d tokens expected\n", prompt, count, n);
	/* The longest one is cut by the rule, not by the tokenizer. */
	assert_true(count + 1 == n || (count + 1 > n && n == 32));
	for (int i = 1; i < n; i++)
		assert_int_equal(ids[i - 1], json_integer_value(json_array_get(want, (size_t)i)));
}

static void test_demo_token_tests(void **state)
{
	json_t *rules = expected_rules();
	const json_t *tests = json_object_get(rules, "token_tests");

	assert_non_null(rules);
	assert_int_equal(json_array_size(tests), 12);
	for (size_t i = 0; i < json_array_size(tests); i++)
		check_prompt(*state, json_array_get(tests, i));
	json_decref(rules);
}

static void test_capacity_bounds_what_is_stored(void **state)
{
	int32_t all[MAX_IDS], some[4] = { -7, -7, -7, -7 };
	const int n = encode(*state, "turn day into night", all, MAX_IDS);

	assert_int_equal(n, 6);
	assert_int_equal(encode(*state, "turn day into night", some, 3), n);
	assert_memory_equal(some, all, 3 * sizeof(*all));
	assert_int_equal(some[3], -7);
	assert_int_equal(encode(*state, "turn day into night", NULL, 0), n);
	assert_int_equal(tokenizer_encode(((struct scene *)*state)->tokenizer, NULL, 0, NULL, 0),
			 0);
	assert_int_equal(tokenizer_encode(((struct scene *)*state)->tokenizer, NULL, 1, NULL, 0),
			 -EINVAL);
}

static void test_long_text_needs_no_fixed_buffer(void **state)
{
	const struct scene *s = *state;
	const size_t length = 200000;
	_cleanup_(freep) char *text = malloc(length);
	_cleanup_(freep) int32_t *ids = calloc(length, sizeof(*ids));
	int n;

	assert_non_null(text);
	assert_non_null(ids);
	memset(text, 'Q', length); /* a piece of its own, in no longer one */
	n = tokenizer_encode(s->tokenizer, text, length, ids, (int)length);
	assert_int_equal(n, length);
	for (size_t i = 0; i < length; i++)
		assert_int_equal(ids[i], 510);
}

/* The plain library spells control pieces out; the other function turns them into their ids. */
static void test_literal_control_pieces(void **state)
{
	const struct scene *s = *state;
	const char text[] = "sepia<s><pad>sepia<bos></s";
	int32_t plain[MAX_IDS], literal[MAX_IDS], sepia[MAX_IDS], rest[MAX_IDS];
	const int n_sepia = encode(s, "sepia", sepia, MAX_IDS);
	const int n_rest = encode(s, "sepia<bos></s", rest, MAX_IDS);
	int n = encode(s, text, plain, MAX_IDS);

	assert_true(n > 0);
	for (int i = 0; i < n; i++)
		assert_true(plain[i] > 3);
	n = tokenizer_encode_literals(s->tokenizer, text, strlen(text), literal, MAX_IDS);
	assert_int_equal(n, n_sepia + 2 + n_rest);
	assert_memory_equal(literal, sepia, (size_t)n_sepia * sizeof(*sepia));
	assert_int_equal(literal[n_sepia], 2);
	assert_int_equal(literal[n_sepia + 1], 0);
	assert_memory_equal(literal + n_sepia + 2, rest, (size_t)n_rest * sizeof(*rest));
}

static void *encode_often(void *context)
{
	static const char *const texts[] = { "turn day into night",
					     "colour 42 \xc3\x9c"
					     "bung",
					     "MAKE IT A POSTER" };
	const struct scene *s = context;
	int32_t want[ARRAY_SIZE(texts)][MAX_IDS], ids[MAX_IDS];
	int n[ARRAY_SIZE(texts)];
	intptr_t wrong = 0;

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		n[i] = encode(s, texts[i], want[i], MAX_IDS);
	for (int k = 0; k < ENCODES; k++) {
		const size_t i = (size_t)k % ARRAY_SIZE(texts);

		wrong += encode(s, texts[i], ids, MAX_IDS) != n[i] ||
			 memcmp(ids, want[i], (size_t)n[i] * sizeof(*ids)) != 0;
	}
	return (void *)wrong;
}

static void test_concurrent_encodes(void **state)
{
	pthread_t threads[THREADS];
	void *wrong;

	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, encode_often, *state), 0);
	for (int i = 0; i < THREADS; i++) {
		assert_int_equal(pthread_join(threads[i], &wrong), 0);
		assert_null(wrong);
	}
}

/* --------------------------------------------------------------------------------- wrong files */

static void expect_refused(const char *path, int code)
{
	struct tokenizer *const untouched = (struct tokenizer *)&expect_refused;
	struct tokenizer *tokenizer = untouched;
	struct sana_error error = { 0 };
	int r = tokenizer_open(path, &tokenizer, &error);

	print_message("%d %s\n", r, error.text);
	assert_int_equal(r, code);
	assert_int_equal(error.code, code);
	assert_string_equal(error.name, "tokenizer.open");
	assert_non_null(strstr(error.text, path));
	assert_ptr_equal(tokenizer, untouched);
	assert_int_equal(tokenizer_open(path, &tokenizer, NULL), code);
}

static void write_file(const struct scene *s, const void *bytes, size_t size)
{
	FILE *file = fopen(s->path, "wb");

	assert_non_null(file);
	assert_int_equal(fwrite(bytes, 1, size, file), size);
	assert_int_equal(fclose(file), 0);
}

static void test_missing_directory_empty_huge(void **state)
{
	const struct scene *s = *state;

	expect_refused("models/demo/no-such-file", -ENOENT);
	expect_refused(s->directory, -EISDIR);
	expect_refused("/dev/null", -EINVAL);
	write_file(s, "", 0);
	expect_refused(s->path, -EINVAL);
	assert_int_equal(truncate(s->path, (off_t)65 << 20), 0);
	expect_refused(s->path, -EINVAL);
}

/* Any cut is refused: in a field, or between fields, where the settings or pieces are missing. */
static void test_truncated(void **state)
{
	const struct scene *s = *state;
	struct sana_error error = { 0 };

	assert_int_equal(tokenizer_check(s->bytes, s->size, NULL), 0);
	for (size_t cut = 0; cut < s->size; cut++) {
		/* Exactly so long, for the sanitizers. */
		char *copy = malloc(cut ? cut : 1);

		assert_non_null(copy);
		memcpy(copy, s->bytes, cut);
		assert_int_equal(tokenizer_check(copy, cut, &error), -EINVAL);
		assert_string_equal(error.name, "tokenizer.open");
		free(copy);
	}
	write_file(s, s->bytes, s->size / 2);
	expect_refused(s->path, -EINVAL);
	write_file(s, s->bytes, s->size - 1);
	expect_refused(s->path, -EINVAL);
}

static void test_random_bytes(void **state)
{
	const struct scene *s = *state;
	uint32_t random = 1;
	uint8_t bytes[4096];

	for (int round = 0; round < 200; round++) {
		for (size_t i = 0; i < sizeof(bytes); i++)
			bytes[i] = (uint8_t)((random = random * 1664525u + 1013904223u) >> 24);
		assert_int_equal(tokenizer_check(bytes, sizeof(bytes), NULL), -EINVAL);
	}
	write_file(s, bytes, sizeof(bytes));
	expect_refused(s->path, -EINVAL);
}

/* A whole model made of pieces given as wire bytes; settings are added unless told not to. */
struct made {
	uint8_t bytes[8192];
	size_t size;
};

static void made_add(struct made *made, const void *bytes, size_t size)
{
	assert_true(made->size + size <= sizeof(made->bytes));
	memcpy(made->bytes + made->size, bytes, size);
	made->size += size;
}

static void made_field(struct made *made, uint8_t tag, const void *content, uint8_t size)
{
	made_add(made, (uint8_t[]){ tag, size }, 2);
	made_add(made, content, size);
}

static void made_piece(struct made *made, const char *text, float score, uint8_t type)
{
	struct made piece = { .size = 0 };

	made_field(&piece, 0x0a, text, (uint8_t)strlen(text));
	made_add(&piece, "\x15", 1);
	made_add(&piece, &score, sizeof(score));
	made_add(&piece, (uint8_t[]){ 0x18, type }, 2);
	made_field(made, 0x0a, piece.bytes, (uint8_t)piece.size);
}

static void made_settings(struct made *made)
{
	made_field(made, 0x12, "\x18\x02", 2); /* BPE */
	made_field(made, 0x1a, "\x18\x00\x20\x00", 4);
}

static struct made made_good(void)
{
	struct made made = { .size = 0 };

	made_piece(&made, "<unk>", 0, 2);
	made_piece(&made, "<s>", 0, 3);
	made_piece(&made, "a", -1, 1);
	made_settings(&made);
	return made;
}

static void test_made_model_is_read(void **state)
{
	const struct scene *s = *state;
	const struct made made = made_good();
	struct tokenizer *tokenizer = NULL;
	struct sana_error error = { 0 };
	int32_t ids[4];

	write_file(s, made.bytes, made.size);
	if (tokenizer_open(s->path, &tokenizer, &error) < 0)
		fail_msg("%s", error.text);
	assert_int_equal(tokenizer_pieces(tokenizer), 3);
	assert_int_equal(tokenizer_bos(tokenizer), 1);
	assert_int_equal(tokenizer_encode(tokenizer, "aa", 2, ids, 4), 2);
	assert_int_equal(ids[0], 2);
	assert_int_equal(ids[1], 2);
	tokenizer_close(tokenizer);
}

/* What is added to a good model, and a word of the sentence that must follow. */
static void test_hostile_fields(void **state)
{
	static const struct {
		const char *what, *word;
		uint8_t bytes[TRAILING];
		size_t size;
	} hostile[] = {
		{ "length beyond the file", "damaged", { 0x0a, 0x7f, 0x0a }, 3 },
		{ "length of 2^63",
		  "damaged",
		  { 0x0a, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01 },
		  11 },
		{ "length of 11 bytes",
		  "damaged",
		  { 0x0a, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00 },
		  12 },
		{ "field number 0", "damaged", { 0x02, 0x00 }, 2 },
		{ "a group", "damaged", { 0x3b, 0x3c }, 2 },
		{ "wire type 7", "damaged", { 0x3f, 0x00 }, 2 },
		{ "a piece that is a number", "damaged", { 0x08, 0x01 }, 2 },
		{ "a piece without text", "empty", { 0x0a, 0x02, 0x18, 0x01 }, 4 },
		{ "an empty piece", "empty", { 0x0a, 0x02, 0x0a, 0x00 }, 4 },
		{ "an overlong piece text", "UTF-8", { 0x0a, 0x04, 0x0a, 0x02, 0xc0, 0x80 }, 6 },
		{ "a NUL in a piece", "UTF-8", { 0x0a, 0x04, 0x0a, 0x02, 'b', 0x00 }, 6 },
		{ "a text longer than its piece", "damaged", { 0x0a, 0x03, 0x0a, 0x02, 'b' }, 5 },
		{ "a score that is NaN",
		  "score",
		  { 0x0a, 0x08, 0x0a, 0x01, 'b', 0x15, 0, 0, 0xc0, 0x7f },
		  10 },
		{ "a score that is infinite",
		  "score",
		  { 0x0a, 0x08, 0x0a, 0x01, 'b', 0x15, 0, 0, 0x80, 0xff },
		  10 },
		{ "type 0", "type", { 0x0a, 0x05, 0x0a, 0x01, 'b', 0x18, 0x00 }, 7 },
		{ "type 7", "type", { 0x0a, 0x05, 0x0a, 0x01, 'b', 0x18, 0x07 }, 7 },
		{ "a second unknown piece",
		  "second unknown",
		  { 0x0a, 0x05, 0x0a, 0x01, 'b', 0x18, 0x02 },
		  7 },
		{ "a character map", "character map", { 0x1a, 0x03, 0x12, 0x01, 0xff }, 5 },
		{ "a character map for decoding",
		  "character map",
		  { 0x2a, 0x03, 0x12, 0x01, 0xff },
		  5 },
		{ "the same piece twice", "library", { 0x0a, 0x03, 0x0a, 0x01, 'a' }, 5 },
		{ "a byte piece that is none",
		  "library",
		  { 0x0a, 0x05, 0x0a, 0x01, 'b', 0x18, 0x06 },
		  7 },
	};
	const struct scene *s = *state;

	for (size_t i = 0; i < ARRAY_SIZE(hostile); i++) {
		struct made made = made_good();
		struct tokenizer *tokenizer;
		struct sana_error error = { 0 };

		print_message("%s: ", hostile[i].what);
		made_add(&made, hostile[i].bytes, hostile[i].size);
		write_file(s, made.bytes, made.size);
		expect_refused(s->path, -EINVAL);
		(void)tokenizer_open(s->path, &tokenizer, &error);
		assert_non_null(strstr(error.text, hostile[i].word));
	}
}

static void test_missing_parts(void **state)
{
	struct made none = { .size = 0 }, no_unknown = { .size = 0 }, no_settings = { .size = 0 };
	struct sana_error error = { 0 };

	(void)state;
	made_settings(&none);
	assert_int_equal(tokenizer_check(none.bytes, none.size, &error), -EINVAL);
	assert_non_null(strstr(error.text, "no pieces"));
	made_piece(&no_unknown, "a", 0, 1);
	made_settings(&no_unknown);
	assert_int_equal(tokenizer_check(no_unknown.bytes, no_unknown.size, &error), -EINVAL);
	assert_non_null(strstr(error.text, "no unknown piece"));
	made_piece(&no_settings, "<unk>", 0, 2);
	assert_int_equal(tokenizer_check(no_settings.bytes, no_settings.size, &error), -EINVAL);
	assert_non_null(strstr(error.text, "settings"));
}

/* A million pieces, and one more; and more control pieces than are kept. */
static void test_too_many_pieces(void **state)
{
	static const uint8_t unknown[] = { 0x0a, 0x05, 0x0a, 0x01, 'u', 0x18, 0x02 };
	static const uint8_t normal[] = { 0x0a, 0x03, 0x0a, 0x01, 'x' };
	static const uint8_t control[] = { 0x0a, 0x05, 0x0a, 0x01, 'c', 0x18, 0x03 };
	static const uint8_t settings[] = { 0x12, 0x00, 0x1a, 0x00 };
	const size_t size =
		sizeof(settings) + sizeof(unknown) + sizeof(normal) * (size_t)TOKENIZER_MAX_PIECES;
	_cleanup_(freep) uint8_t *bytes = malloc(size);
	struct sana_error error = { 0 };
	size_t used = 0;

	(void)state;
	assert_non_null(bytes);
	memcpy(bytes, settings, sizeof(settings));
	memcpy(bytes + sizeof(settings), unknown, sizeof(unknown));
	used = sizeof(settings) + sizeof(unknown);
	for (; used < size; used += sizeof(normal))
		memcpy(bytes + used, normal, sizeof(normal));
	assert_int_equal(tokenizer_check(bytes, size - sizeof(normal), &error), 0);
	assert_int_equal(tokenizer_check(bytes, size, &error), -EINVAL);
	assert_non_null(strstr(error.text, "too many pieces"));

	used = sizeof(settings) + sizeof(unknown);
	for (int i = 0; i < TOKENIZER_MAX_CONTROL_PIECES; i++, used += sizeof(control))
		memcpy(bytes + used, control, sizeof(control));
	assert_int_equal(tokenizer_check(bytes, used, &error), 0);
	memcpy(bytes + used, control, sizeof(control));
	assert_int_equal(tokenizer_check(bytes, used + sizeof(control), &error), -EINVAL);
	assert_non_null(strstr(error.text, "control piece"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_demo_vocabulary),
		cmocka_unit_test(test_demo_token_tests),
		cmocka_unit_test(test_capacity_bounds_what_is_stored),
		cmocka_unit_test(test_long_text_needs_no_fixed_buffer),
		cmocka_unit_test(test_literal_control_pieces),
		cmocka_unit_test(test_concurrent_encodes),
		cmocka_unit_test(test_missing_directory_empty_huge),
		cmocka_unit_test(test_truncated),
		cmocka_unit_test(test_random_bytes),
		cmocka_unit_test(test_made_model_is_read),
		cmocka_unit_test(test_hostile_fields),
		cmocka_unit_test(test_missing_parts),
		cmocka_unit_test(test_too_many_pieces),
	};

	return cmocka_run_group_tests_name("tokenizer", tests, scene_begin, scene_end);
}
