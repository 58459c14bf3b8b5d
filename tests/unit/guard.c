/* Screening and audit of prompts, token buckets of callers. */
#include "base/clock.h"
#include "base/util.h"
#include "daemon/guard.h"
#include "dbus/callers.h"
#include "tests/common/scratch.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <cmocka.h>

static struct guard_options options_of(const char *deny, const char *log, bool text)
{
	return (struct guard_options){ .prompt_max_bytes = 64,
				       .deny_list = deny,
				       .audit_log = log,
				       .key_file = "",
				       .audit_max_bytes = 4096,
				       .audit_text = text };
}

static struct guard *guard_make(const struct guard_options *options)
{
	struct sana_error error = { 0 };
	struct guard *guard = NULL;

	if (guard_create(options, &guard, &error) < 0)
		fail_msg("%s: %s", error.name, error.text);
	return guard;
}

/* The error's name, "" for none. */
static const char *verdict(struct guard *guard, const char *text)
{
	static struct sana_error error;

	error = (struct sana_error){ 0 };
	if (guard_check_prompt(guard, text, &error) >= 0)
		return "";
	return error.name;
}

static void texts_that_read_alike_are_alike(void **state)
{
	static const struct {
		const char *text, *wanted;
	} cases[] = {
		{ "make it snow", "" },
		{ "bad word", "prompt.denied" },
		{ "a BAD WORD here", "prompt.denied" },
		{ "b\u00e1d w\u00f6rd", "prompt.denied" },			    /* accents */
		{ "ba\u0301d wo\u0308rd", "prompt.denied" },			    /* combining */
		{ "\uff42\uff41\uff44 \uff57\uff4f\uff52\uff44", "prompt.denied" }, /* full width */
		{ "b\u0430d w\u043erd", "prompt.denied" },   /* Cyrillic a, o */
		{ "b\u200bad w\u00adord", "prompt.denied" }, /* invisible */
		{ "bad-word", "prompt.denied" },
		{ "bad\tword!", "prompt.denied" },
		{ "bad w0rd", "prompt.denied" },
		{ "\U0001d41b\U0001d41a\U0001d41d word", "prompt.denied" }, /* mathematical bold */
		{ "badword", "" },
		{ "bad wordy", "" },
		{ "notbad word", "" },
		{ "secret", "prompt.denied" },
		{ "the secretary", "" },
	};
	struct scratch scratch;
	struct guard_options options;
	struct guard *guard;
	char path[256];

	(void)state;
	scratch_create(&scratch);
	scratch_write_text(&scratch, "deny", "# a comment\n\nBad Word\r\n  secret\n");
	(void)snprintf(path, sizeof(path), "%s", scratch_path(&scratch, "deny"));
	options = options_of(path, "", false);
	guard = guard_make(&options);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const char *got = verdict(guard, cases[i].text);

		printf("  %-28s %s\n", cases[i].text, *got ? got : "taken");
		assert_string_equal(got, cases[i].wanted);
	}
	(void)guard_destroy(guard);
	scratch_remove(&scratch);
}

static void prompts_that_are_none(void **state)
{
	struct guard_options options = options_of("", "", false);
	struct guard *guard = guard_make(&options);
	char longest[66];

	(void)state;
	memset(longest, 'a', 64);
	longest[64] = '\0';
	assert_string_equal(verdict(guard, longest), "");
	longest[64] = 'a';
	longest[65] = '\0';
	assert_string_equal(verdict(guard, longest), "prompt.too-long");
	assert_string_equal(verdict(guard, ""), "prompt.empty");
	assert_string_equal(verdict(guard, " \t\n"), "prompt.empty");
	assert_string_equal(verdict(guard, "a\x01"), "prompt.control");
	assert_string_equal(verdict(guard, "a\x7f"), "prompt.control");
	assert_string_equal(verdict(guard, "\xff\xfe"), "prompt.not-utf8");
	assert_string_equal(verdict(guard, "caf\xc3"), "prompt.not-utf8");
	assert_string_equal(verdict(guard, "two\nlines\tand a tab"), "");
	(void)guard_destroy(guard);
}

static void lists_that_cannot_be_read(void **state)
{
	static const struct {
		const char *text;
		size_t bytes;
	} lists[] = { { "good\n\xff\xff\n", 8 }, { "a\0b", 3 }, { "...\n", 4 } };
	struct sana_error error = { 0 };
	struct guard_options options;
	struct scratch scratch;
	struct guard *guard = NULL;
	char path[256];

	(void)state;
	scratch_create(&scratch);
	(void)snprintf(path, sizeof(path), "%s", scratch_path(&scratch, "deny"));
	options = options_of(path, "", false);
	assert_true(guard_create(&options, &guard, &error) < 0);
	assert_string_equal(error.name, "guard.deny-list");
	printf("  %s\n", strstr(error.text, "deny"));
	for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
		scratch_write(&scratch, "deny", lists[i].text, lists[i].bytes);
		assert_true(guard_create(&options, &guard, &error) < 0);
		printf("  %s\n", strstr(error.text, "deny"));
		assert_string_equal(error.name, "guard.deny-list");
	}
	/* A list that breaks later leaves the old one in force. */
	scratch_write_text(&scratch, "deny", "secret\n");
	guard = guard_make(&options);
	scratch_write_text(&scratch, "deny", "\xff\n");
	assert_true(guard_update(guard, &options, &error) < 0);
	assert_string_equal(verdict(guard, "secret"), "prompt.denied");
	(void)guard_destroy(guard);
	scratch_remove(&scratch);
}

/* The values of a member, one after another, of both files of the log. */
static int lines_read(const char *path, json_t **ret, int most)
{
	char line[4096];
	FILE *file = fopen(path, "r");
	int count = 0;

	while (file && count < most && fgets(line, sizeof(line), file)) {
		ret[count] = json_loads(line, 0, NULL);
		assert_non_null(ret[count]);
		count++;
	}
	fclosep(&file);
	return count;
}

static const char *member(json_t *line, const char *name)
{
	return json_string_value(json_object_get(line, name));
}

static void audit_tells_without_telling(void **state)
{
	enum { LINES = 64 };
	struct guard_record record = { .method = "SetPrompt",
				       .sender = ":1.7",
				       .decision = "allowed",
				       .reason = "",
				       .argument = "",
				       .uid = 1000,
				       .pid = 42,
				       .ticket = 3,
				       .prompt = "make it snow",
				       .model = "models/demo",
				       .policy = "fp32" };
	json_t *lines[LINES];
	struct guard_options options;
	struct scratch scratch;
	struct guard *guard;
	struct stat status;
	char path[256], other[300];
	int count, turned;

	(void)state;
	scratch_create(&scratch);
	(void)snprintf(path, sizeof(path), "%s", scratch_path(&scratch, "audit"));
	options = options_of("", path, false);
	guard = guard_make(&options);
	guard_audit(guard, &record);
	guard_audit(guard, &record);
	record.prompt = "make it rain";
	guard_audit(guard, &record);
	count = lines_read(path, lines, LINES);
	assert_int_equal(count, 3);
	printf("  prompt_digest %s\n", member(lines[0], "prompt_digest"));
	assert_string_equal(member(lines[0], "prompt_digest"), member(lines[1], "prompt_digest"));
	assert_string_not_equal(member(lines[0], "prompt_digest"),
				member(lines[2], "prompt_digest"));
	assert_int_equal(strlen(member(lines[0], "model")), 64);
	assert_int_equal(strlen(member(lines[0], "policy")), 64);
	assert_int_equal(json_integer_value(json_object_get(lines[0], "prompt_bytes")), 12);
	for (int i = 0; i < count; i++) {
		char *text = json_dumps(lines[i], 0);

		assert_null(strstr(text, "snow"));
		free(text);
		json_decref(lines[i]);
	}
	(void)snprintf(other, sizeof(other), "%s.key", path);
	assert_int_equal(stat(other, &status), 0);
	assert_int_equal(status.st_mode & 0777, 0600);
	/* Turned over at 4096 bytes; nothing is lost but what two files cannot hold. */
	for (int i = 0; i < 20; i++)
		guard_audit(guard, &record);
	(void)snprintf(other, sizeof(other), "%s.1", path);
	turned = lines_read(other, lines, LINES);
	for (int i = 0; i < turned; i++)
		json_decref(lines[i]);
	assert_int_equal(stat(other, &status), 0);
	printf("  %d lines, %lld bytes in the old file\n", turned, (long long)status.st_size);
	assert_true(turned > 3 && status.st_size <= 4096);
	(void)guard_destroy(guard);
	scratch_remove(&scratch);
}

/* A disk that is full in the middle of a line, a file that cannot be turned over, arguments without end. */
static void audit_goes_on(void **state)
{
	enum { LINES = 256, LONG = 10000 };
	struct guard_record record = { .method = "SetSource",
				       .sender = ":1.7",
				       .decision = "failed",
				       .reason = "",
				       .model = "",
				       .policy = "" };
	struct rlimit before, less;
	json_t *lines[LINES];
	char argument[LONG + 1], path[256], old[300];
	struct guard_options options;
	struct scratch scratch;
	struct guard *guard;
	struct stat status;
	int count;

	(void)state;
	/* A character of two bytes lies across the place where it is cut. */
	for (int i = 0; i < LONG; i++)
		argument[i] = i == 0 ? 'a' : i % 2 ? '\xc3' : '\xa9';
	argument[LONG - 1] = '\0';
	record.argument = argument;
	scratch_create(&scratch);
	(void)snprintf(path, sizeof(path), "%s", scratch_path(&scratch, "audit"));
	(void)snprintf(old, sizeof(old), "%s.1", path);
	options = options_of("", path, false);
	guard = guard_make(&options);
	guard_audit(guard, &record);
	assert_int_equal(stat(path, &status), 0);
	/* Room for half a line more. */
	(void)signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	less = (struct rlimit){ (rlim_t)(status.st_size + status.st_size / 2), before.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &less), 0);
	guard_audit(guard, &record);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	guard_audit(guard, &record);
	count = lines_read(path, lines, LINES);
	assert_int_equal(count, 2);
	printf("  an argument of %d bytes is noted down as %zu\n", LONG - 1,
	       strlen(member(lines[0], "argument")));
	assert_int_equal(strlen(member(lines[0], "argument")), 255);
	for (int i = 0; i < count; i++)
		json_decref(lines[i]);
	/* Where LOG.1 is a directory the log grows. */
	assert_int_equal(mkdir(old, 0700), 0);
	for (int i = 0; i < 20; i++)
		guard_audit(guard, &record);
	count = lines_read(path, lines, LINES);
	assert_int_equal(count, 22);
	for (int i = 0; i < count; i++)
		json_decref(lines[i]);
	(void)guard_destroy(guard);
	scratch_remove(&scratch);
}

static void a_key_that_others_can_read(void **state)
{
	struct sana_error error = { 0 };
	struct guard *guard = NULL;
	struct guard_options options;
	struct scratch scratch;
	char path[256], key[300];

	(void)state;
	scratch_create(&scratch);
	(void)snprintf(path, sizeof(path), "%s", scratch_path(&scratch, "audit"));
	(void)snprintf(key, sizeof(key), "%s.key", path);
	scratch_write_text(&scratch, "audit.key", "0123456789abcdef0123456789abcdef");
	assert_int_equal(chmod(key, 0644), 0);
	options = options_of("", path, false);
	assert_true(guard_create(&options, &guard, &error) < 0);
	printf("  %s\n", strstr(error.text, "audit"));
	assert_string_equal(error.name, "guard.audit");
	scratch_remove(&scratch);
}

static void buckets(void **state)
{
	struct bucket bucket = { 0 };
	int taken = 0;

	(void)state;
	for (int i = 0; i < 100; i++)
		taken += bucket_take(&bucket, 10, 5, CLOCK_SECOND_NS);
	assert_int_equal(taken, 5);
	for (int ms = 0; ms < 1000; ms++)
		taken += bucket_take(&bucket, 10, 5, CLOCK_SECOND_NS + ms * CLOCK_MS_NS);
	printf("  a burst of 5 and 10 a second: %d in one second\n", taken);
	assert_in_range(taken, 14, 15);
}

/* As many callers as like: the tables keep their size, and users that are there keep their place. */
static void callers_are_bounded(void **state)
{
	struct callers *callers = test_calloc(1, sizeof(*callers));
	struct quota *first = callers_quota(callers, 1000, CLOCK_SECOND_NS);
	char name[32];

	(void)state;
	for (int i = 0; i < 10000; i++) {
		(void)snprintf(name, sizeof(name), ":1.%d", i);
		callers_find(callers, name, CLOCK_SECOND_NS + i)->uid = i;
		(void)callers_quota(callers, 1000 + i, CLOCK_SECOND_NS + i);
	}
	assert_int_equal(callers->replaced, 10000 - CALLERS);
	assert_int_equal(callers_find(callers, ":1.9999", 2 * CLOCK_SECOND_NS)->uid, 9999);
	assert_int_equal(callers_find(callers, ":1.0", 2 * CLOCK_SECOND_NS)->uid, -1);
	assert_ptr_equal(callers_quota(callers, 1000, 2 * CLOCK_SECOND_NS), first);
	printf("  %llu users shared one bucket\n", (unsigned long long)callers->shared);
	assert_int_equal(callers->shared, 10000 - QUOTAS);
	/* Once the others are quiet, a new one takes a place. */
	assert_ptr_not_equal(callers_quota(callers, 1, 60 * CLOCK_SECOND_NS), &callers->others);
	test_free(callers);
}

/* A log is not filled by those who may do nothing. */
static void refusals_are_noted_once_a_minute(void **state)
{
	struct quota quota = { 0 };
	uint64_t unsaid = 0;
	int noted = 0;

	(void)state;
	for (int s = 1; s <= 121; s++)
		for (int i = 0; i < 10; i++)
			noted += quota_refusal(&quota, s * CLOCK_SECOND_NS, &unsaid);
	assert_int_equal(noted, 3);
	assert_int_equal(unsaid, 599);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(texts_that_read_alike_are_alike),
		cmocka_unit_test(prompts_that_are_none),
		cmocka_unit_test(lists_that_cannot_be_read),
		cmocka_unit_test(audit_tells_without_telling),
		cmocka_unit_test(audit_goes_on),
		cmocka_unit_test(a_key_that_others_can_read),
		cmocka_unit_test(buckets),
		cmocka_unit_test(callers_are_bounded),
		cmocka_unit_test(refusals_are_noted_once_a_minute),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
