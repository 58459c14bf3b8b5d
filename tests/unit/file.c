/* Mapping and reading files: contents, limits, and things that are no files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "tests/common/scratch.h"

static void contents_are_read_and_mapped(void **state)
{
	struct scratch scratch;
	struct file_map map = { 0 };
	struct sana_error error;
	char *text = NULL;
	size_t size = 0;

	(void)state;
	scratch_create(&scratch);
	scratch_write(&scratch, "a", "one\0two", 7);
	assert_int_equal(file_map(scratch_path(&scratch, "a"), "x", &map, &error), 0);
	assert_int_equal(map.size, 7);
	assert_memory_equal(map.data, "one\0two", 7);
	file_unmap(&map);
	assert_null(map.data);
	file_unmap(&map);
	assert_int_equal(file_read(scratch_path(&scratch, "a"), 7, "x", &text, &size, &error), 0);
	assert_int_equal(size, 7);
	assert_memory_equal(text, "one\0two", 8);
	free(text);
	scratch_remove(&scratch);
}

static void empty_files_are_files(void **state)
{
	struct scratch scratch;
	struct file_map map = { 0 };
	struct sana_error error;
	char *text = NULL;
	size_t size = 9;

	(void)state;
	scratch_create(&scratch);
	scratch_write_text(&scratch, "a", "");
	assert_int_equal(file_map(scratch_path(&scratch, "a"), "x", &map, &error), 0);
	assert_int_equal(map.size, 0);
	assert_non_null(map.data);
	file_unmap(&map);
	assert_int_equal(file_read(scratch_path(&scratch, "a"), 7, "x", &text, &size, &error), 0);
	assert_int_equal(size, 0);
	assert_string_equal(text, "");
	free(text);
	scratch_remove(&scratch);
}

static void refuse(const char *path, int code, const char *why)
{
	struct file_map map = { 0 };
	struct sana_error error = { 0 };
	char *text = NULL;
	size_t size = 0;

	assert_int_equal(file_map(path, "some.name", &map, &error), code);
	print_message("%s\n", error.text);
	assert_string_equal(error.name, "some.name");
	assert_non_null(strstr(error.text, path));
	assert_non_null(strstr(error.text, why));
	assert_null(map.data);
	sana_error_clear(&error);
	assert_int_equal(file_read(path, 100, "some.name", &text, &size, &error), code);
	assert_non_null(strstr(error.text, why));
	assert_null(text);
}

static void other_things_are_refused(void **state)
{
	struct scratch scratch;

	(void)state;
	scratch_create(&scratch);
	assert_int_equal(mkfifo(scratch_path(&scratch, "pipe"), 0600), 0);
	assert_int_equal(symlink("loop", scratch_path(&scratch, "loop")), 0);
	refuse(scratch_path(&scratch, "missing"), -ENOENT, "No such file");
	refuse(scratch.path, -EISDIR, "Is a directory");
	refuse(scratch_path(&scratch, "pipe"), -EINVAL, "not a regular file");
	refuse(scratch_path(&scratch, "loop"), -ELOOP, "symbolic links");
	refuse("/dev/null", -EINVAL, "not a regular file");
	scratch_remove(&scratch);
}

static void limits_hold(void **state)
{
	struct scratch scratch;
	struct sana_error error;
	char *text = NULL;
	size_t size = 0;

	(void)state;
	scratch_create(&scratch);
	scratch_write_text(&scratch, "a", "12345");
	assert_int_equal(file_read(scratch_path(&scratch, "a"), 4, "x", &text, &size, &error),
			 -EFBIG);
	assert_non_null(strstr(error.text, "5 bytes are more than the 4"));
	assert_null(text);
	scratch_remove(&scratch);
}

static void long_paths_keep_their_end(void **state)
{
	char path[400];

	(void)state;
	assert_string_equal(file_path_tail("a/b"), "a/b");
	assert_string_equal(file_path_tail(""), "");
	memset(path, 'x', sizeof(path));
	(void)snprintf(path + 380, 20, "/file.json");
	assert_int_equal(strlen(file_path_tail(path)), 199);
	assert_string_equal(file_path_tail(path) + 189, "/file.json");
	memcpy(path + 390 - 200, "ü", 2); /* its second byte would be the first one kept */
	assert_int_equal(strlen(file_path_tail(path)), 198);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(contents_are_read_and_mapped),
		cmocka_unit_test(empty_files_are_files),
		cmocka_unit_test(other_things_are_refused),
		cmocka_unit_test(limits_hold),
		cmocka_unit_test(long_paths_keep_their_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
