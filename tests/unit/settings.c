/* The configuration: the shipped file, its mistakes, drop-ins, comparison. */
#include "base/util.h"
#include "base/utf8.h"
#include "conf/settings.h"
#include "tests/common/scratch.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static const char shipped[] = "conf/sana-streamd.conf";

static struct settings *load(const char *path)
{
	struct settings_report report = { 0 };
	struct settings *settings = NULL;
	struct sana_error error = { 0 };
	const int r = settings_load(path, &settings, &report, &error);

	for (int i = 0; i < report.kept; i++)
		printf("  %s\n", report.text[i]);
	assert_int_equal(r, 0);
	settings_report_finish(&report);
	return settings;
}

static void tell(void *context, const struct settings_key *key)
{
	(void)context;
	printf("  differs: %s\n", key->path);
}

static int differences;

static void count(void *context, const struct settings_key *key)
{
	tell(context, key);
	differences++;
}

/* What the shipped file says of every key is its default, and it names every key. */
static void shipped_is_the_defaults(void **state)
{
	struct settings *defaults = load(NULL), *read = load(shipped);
	char *text = NULL, name[64];
	size_t size = 0;
	FILE *file = fopen(shipped, "r");
	int keys = 0;

	(void)state;
	differences = 0;
	(void)settings_compare(defaults, read, count, NULL);
	assert_int_equal(differences, 0);
	assert_non_null(file);
	assert_true(getdelim(&text, &size, '\0', file) > 0);
	for (const struct settings_key *key = settings_keys; key->path; key++, keys++) {
		const char *last = strrchr(key->path, '.');

		(void)snprintf(name, sizeof(name), "\n%s%s = ", last ? "  " : "",
			       last ? last + 1 : key->path);
		if (!strstr(text, name))
			fail_msg("%s is not in the shipped file", key->path);
	}
	printf("  %d keys\n", keys);
	(void)fclose(file);
	free(text);
	(void)settings_free(read);
	(void)settings_free(defaults);
}

/* Twenty mistakes, each on its line: twenty messages in one run. */
static void twenty_mistakes(void **state)
{
	static const char *const lines[][2] = {
		{ "autostart = 1;", "autostart: expected true or false, not 1" },
		{ "model = { directory = \"models\";", "model.directory: expected a path that" },
		{ "  backend = \"gpu\";",
		  "model.backend: expected one of \"auto\", \"cpu\", \"cuda\", not" },
		{ "  threads = 257;",
		  "model.threads: expected a whole number from 0 to 256, not 257" },
		{ "  width = -1;", "model.width: expected a whole number from 0 to 8192" },
		{ "  seed = \"one\";", "model.seed: expected a whole number" },
		{ "  prompt_switch = \"keep\"; };",
		  "model.prompt_switch: there is no such key; did you mean \"model.prompt-switch\"?" },
		{ "source = { identity = \"/dev/video0\";",
		  "source.identity: expected v4l2:by-id/NAME" },
		{ "  fps = 23.976;",
		  "source.fps: expected a whole number from 0 to 240, not 23.976" },
		{ "  matrix = 709;", "source.matrix: expected one of" },
		{ "  range = \"tv\"; };", "source.range: expected one of" },
		{ "output = { sinks = \"loopback:\";", "output.sinks: expected a list" },
		{ "  fps = 0;", "output.fps: expected a whole number from 1 to 240, not 0" },
		{ "  mode = \"1080p\";", "output.mode: expected WIDTHxHEIGHT" },
		{ "  while-lost = \"black\";",
		  "output.while-lost: expected one of \"pass-through\"" },
		{ "  hold-ms = 1000000;",
		  "output.hold-ms: expected a whole number from 100 to 10000" },
		{ "  sleep-unwatched = \"yes\"; };",
		  "output.sleep-unwatched: expected true or false" },
		{ "bus = true;", "bus: expected a group: bus = { … };" },
		{ "colour = \"red\";", "colour: there is no such key" },
		{ "log = { level = { }; };", "log.level: expected one of" },
	};
	struct settings_report report = { 0 };
	struct settings *settings = NULL;
	struct sana_error error = { 0 };
	char text[4096] = "", path[256], expected[512];
	struct scratch scratch;

	(void)state;
	scratch_create(&scratch);
	(void)snprintf(path, sizeof(path), "%s", scratch_path(&scratch, "bad.conf"));
	for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
		(void)strcat(text, lines[i][0]);
		(void)strcat(text, "\n");
	}
	scratch_write_text(&scratch, "bad.conf", text);
	assert_int_equal(settings_load(path, &settings, &report, &error), -22);
	assert_null(settings);
	assert_string_equal(error.name, "config.mistake");
	for (int i = 0; i < report.kept; i++)
		printf("  %s\n", report.text[i] + strlen(path) - strlen("bad.conf"));
	assert_int_equal(report.mistakes, ARRAY_SIZE(lines));
	for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
		(void)snprintf(expected, sizeof(expected), "%s:%zu:%s", path, i + 1, lines[i][1]);
		if (strncmp(report.text[i], expected, strlen(expected)) != 0)
			fail_msg("\"%s\" does not begin with \"%s\"", report.text[i], expected);
	}
	settings_report_finish(&report);
	scratch_remove(&scratch);
}

/* A value is quoted up to a whole character, wherever that comes, and always as UTF-8. */
static void quoted_values_are_utf8(void **state)
{
	static const char *const characters[] = { "ä", "€", "𝄞", "\xff", "\x01" };
	char text[512], path[256];
	struct scratch scratch;

	(void)state;
	scratch_create(&scratch);
	(void)snprintf(path, sizeof(path), "%s", scratch_path(&scratch, "bad.conf"));
	for (size_t c = 0; c < ARRAY_SIZE(characters); c++)
		for (int pad = 0; pad < 4; pad++) {
			struct settings_report report = { 0 };
			struct settings *settings = NULL;
			struct sana_error error = { 0 };

			(void)snprintf(text, sizeof(text), "log = { level = \"%.*s", pad, "abcd");
			for (int i = 0; i < 80; i++)
				(void)strcat(text, characters[c]);
			(void)strcat(text, "\"; };\n");
			scratch_write_text(&scratch, "bad.conf", text);
			assert_int_equal(settings_load(path, &settings, &report, &error), -22);
			assert_int_equal(report.kept, 1);
			if (pad == 0)
				printf("  %s\n", report.text[0] + strlen(path));
			assert_true(utf8_is_line(report.text[0]) && utf8_is_line(error.text));
			assert_non_null(strstr(report.text[0], "…\""));
			assert_true(c >= 3 || !strchr(report.text[0], '?'));
			settings_report_finish(&report);
		}
	scratch_remove(&scratch);
}

static void mistakes_of_the_whole(void **state)
{
	static const struct {
		const char *text, *says;
	} cases[] = {
		{ "model = { width = 64; };", "model.width: model.width and model.height" },
		{ "output = { backoff-min-ms = 900; backoff-max-ms = 100; };",
		  "output.backoff-min-ms: 900 is more" },
		{ "prompt = { initial = \"snow\"; max-bytes = 3; };", "prompt.initial: longer" },
		{ "output = { sinks = [ \"kms:\", \"card0\" ]; };", "output.sinks: expected" },
		{ "output = { sinks = (1); };", "output.sinks: expected" },
		{ "output = { sinks = [ \"kms:\", \"kms:\" ]; };",
		  "output.sinks: kms: is given twice" },
		{ "output = { sinks = [\"kms:\",\"kms:\",\"kms:\",\"kms:\",\"kms:\",\"kms:\",\"kms:\",\"kms:\",\"kms:\"]; };",
		  "output.sinks: expected" },
		{ "model = { threads = 1; threads = 2; };", " duplicate setting name" },
		{ "model = {\n threads = ;\n};", " syntax error" },
		{ "prompt = { initial = \"sn\xf6w\"; };",
		  "prompt.initial: expected UTF-8, not \"sn?w\"" },
		{ "source = { identity = \"file:/a\\nb\"; };",
		  "source.identity: expected UTF-8 without control characters, not \"file:/a?b\"" },
		{ "output = { sinks = [ \"file:/a\\x1b.mp4\" ]; };",
		  "output.sinks: expected UTF-8 without control" },
		{ "model = { directory = \"/a\\nb\"; };",
		  "model.directory: expected UTF-8 without control" },
		{ "model = { seed = -1L; };", "model.seed: expected a whole number from 0" },
	};
	char path[256];
	struct scratch scratch;

	(void)state;
	scratch_create(&scratch);
	(void)snprintf(path, sizeof(path), "%s", scratch_path(&scratch, "bad.conf"));
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct settings_report report = { 0 };
		struct settings *settings = NULL;
		struct sana_error error = { 0 };

		scratch_write_text(&scratch, "bad.conf", cases[i].text);
		assert_int_equal(settings_load(path, &settings, &report, &error), -22);
		assert_int_equal(report.kept, 1);
		printf("  %s\n", report.text[0] + strlen(path) - strlen("bad.conf"));
		if (!strstr(report.text[0], cases[i].says))
			fail_msg("\"%s\" is not in it", cases[i].says);
		settings_report_finish(&report);
	}
	scratch_remove(&scratch);
}

static void a_file_that_is_not_there(void **state)
{
	struct settings_report report = { 0 };
	struct settings *settings = NULL;
	struct sana_error error = { 0 };

	(void)state;
	assert_int_equal(settings_load("/nonexistent/x.conf", &settings, &report, &error), -22);
	assert_string_equal(report.text[0],
			    "/nonexistent/x.conf:0: cannot be read: No such file or directory");
	settings_report_finish(&report);
}

/* Later files win key by key; names that do not end in .conf are not read. */
static void drop_ins(void **state)
{
	struct settings_report report = { 0 };
	struct sana_error error = { 0 };
	struct settings *settings;
	struct scratch scratch;

	(void)state;
	scratch_create(&scratch);
	scratch_write_text(&scratch, "a.conf",
			   "output = { fps = 10; hold-ms = 500; };\nautostart = false;\n");
	scratch_write_text(&scratch, "a.conf.d/20-last.conf", "output = { fps = 30; };\n");
	scratch_write_text(&scratch, "a.conf.d/10-first.conf",
			   "output = { fps = 20; sinks = []; };\nmodel = { seed = 77L; };\n");
	scratch_write_text(&scratch, "a.conf.d/30-not.conf~", "output = { fps = 99; };\n");
	settings = load(scratch_path(&scratch, "a.conf"));
	assert_int_equal(settings->output.fps, 30);
	assert_int_equal(settings->output.hold_ms, 500);
	assert_int_equal(settings->output.sinks.count, 0);
	assert_int_equal(settings->model.seed, 77);
	assert_false(settings->autostart);
	(void)settings_free(settings);
	/* What cannot be read is not left out in silence. */
	scratch_write_text(&scratch, "b.conf", "autostart = false;\n");
	scratch_write_text(&scratch, "b.conf.d", "no directory\n");
	assert_int_equal(
		settings_load(scratch_path(&scratch, "b.conf"), &settings, &report, &error), -22);
	assert_non_null(strstr(report.text[0], "b.conf.d:0: drop-ins cannot be read"));
	settings_report_finish(&report);
	scratch_remove(&scratch);
}

static void comparison_knows_what_is_live(void **state)
{
	struct settings *a = load(NULL), *b = load(NULL);

	(void)state;
	differences = 0;
	b->output.hold_ms = 700; /* live */
	b->model.threads = 3;	 /* not */
	b->output.sinks.count = 0;
	assert_int_equal(settings_compare(a, b, count, NULL), 1);
	assert_int_equal(differences, 3);
	(void)settings_free(a);
	(void)settings_free(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(shipped_is_the_defaults),
		cmocka_unit_test(twenty_mistakes),
		cmocka_unit_test(quoted_values_are_utf8),
		cmocka_unit_test(mistakes_of_the_whole),
		cmocka_unit_test(a_file_that_is_not_there),
		cmocka_unit_test(drop_ins),
		cmocka_unit_test(comparison_knows_what_is_live),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
