/* The file of measured choices: there and back, of others, damaged in every way, where it cannot be written. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/cache_directory.h"
#include "base/util.h"
#include "kernels/tuning.h"
#include "tests/common/scratch.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct tuning_machine machine = {
	.device = "NVIDIA GeForce RTX 5090",
	.capability = 120,
	.multiprocessors = 170,
	.driver = 13000,
	.library = 130100,
	.kernels = 0x0123456789abcdefu,
};

static void choice_make(int i, struct tuning_choice *ret)
{
	*ret = (struct tuning_choice){ .products = i % (TUNING_PRODUCTS + 1) };
	for (int k = 0; k < TUNING_FIELDS; k++)
		ret->key[k] = 1000 * i + k;
	(void)snprintf(ret->kernel, sizeof(ret->kernel), i % 3 ? "gemm_mma_%dx128" : "-", i);
	for (int k = 0; k < ret->products; k++) {
		ret->product[k].first = k;
		ret->product[k].parts = 1;
		for (int w = 0; w < TUNING_WORDS; w++)
			ret->product[k].algorithm[w] =
				(uint64_t)(i + 1) * 0x9e3779b97f4a7c15u * (uint64_t)(8 * k + w);
	}
}

static struct tuning *tuning_make(int choices)
{
	struct tuning *tuning = calloc(1, sizeof(*tuning));
	struct tuning_choice choice;

	assert_non_null(tuning);
	tuning->machine = machine;
	for (int i = 0; i < choices; i++) {
		choice_make(i, &choice);
		tuning_put(tuning, &choice);
	}
	return tuning;
}

static char *text_make(int choices, size_t *ret_bytes)
{
	struct tuning *tuning = tuning_make(choices);
	char *text = malloc(TUNING_FILE_BYTES);
	const int bytes = tuning_format(tuning, text, TUNING_FILE_BYTES);

	assert_true(bytes > 0);
	free(tuning);
	*ret_bytes = (size_t)bytes;
	return text;
}

static void there_and_back(void **state)
{
	static const int counts[] = { 0, 1, 7, TUNING_CHOICES };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(counts); i++) {
		struct tuning *tuning = tuning_make(counts[i]), *read = calloc(1, sizeof(*read));
		size_t bytes;
		char *text = text_make(counts[i], &bytes);

		assert_int_equal(tuning_parse(text, bytes, &machine, read), 0);
		assert_int_equal(read->choices, counts[i]);
		assert_memory_equal(read, tuning, sizeof(*read));
		print_message("%d choices, %zu bytes\n", counts[i], bytes);
		free(text);
		free(read);
		free(tuning);
	}
}

static void found_and_replaced(void **state)
{
	struct tuning *tuning = tuning_make(TUNING_CHOICES);
	struct tuning_choice choice;

	(void)state;
	choice_make(5, &choice);
	(void)snprintf(choice.kernel, sizeof(choice.kernel), "another");
	tuning_put(tuning, &choice);
	assert_int_equal(tuning->choices, TUNING_CHOICES);
	assert_string_equal(tuning_find(tuning, choice.key)->kernel, "another");
	/* One more than there is room for: the others are forgotten. */
	choice.key[0] = -1;
	assert_null(tuning_find(tuning, choice.key));
	tuning_put(tuning, &choice);
	assert_int_equal(tuning->choices, 1);
	assert_non_null(tuning_find(tuning, choice.key));
	free(tuning);
}

static void of_another_machine(void **state)
{
	struct tuning_machine other[6];
	struct tuning *read = calloc(1, sizeof(*read));
	size_t bytes;
	char *text = text_make(3, &bytes);

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(other); i++)
		other[i] = machine;
	(void)snprintf(other[0].device, sizeof(other[0].device), "NVIDIA GB10");
	other[1].capability = 121;
	other[2].multiprocessors = 48;
	other[3].driver = 13010;
	other[4].library = 0;
	other[5].kernels ^= 1;
	for (size_t i = 0; i < ARRAY_SIZE(other); i++) {
		assert_int_equal(tuning_parse(text, bytes, &other[i], read), -ESTALE);
		assert_int_equal(read->choices, 0);
	}
	text[sizeof("sana-streamd tuning ") - 1] = '2'; /* of a later version */
	assert_int_equal(tuning_parse(text, bytes, &machine, read), -ESTALE);
	free(text);
	free(read);
}

/* No part of a file is a file, and no single byte may be another one. */
static void damaged(void **state)
{
	struct tuning *read = calloc(1, sizeof(*read));
	size_t bytes, tried = 0;
	char *text = text_make(6, &bytes);

	(void)state;
	for (size_t length = 0; length < bytes; length++) {
		char *part = malloc(length ? length : 1);

		/* Exactly as long, so that the sanitizers see a read behind it. */
		memcpy(part, text, length);
		assert_true(tuning_parse(part, length, &machine, read) < 0);
		free(part);
	}
	for (size_t i = 0; i < bytes; i++)
		for (int bit = 0; bit < 8; bit++) {
			text[i] ^= (char)(1 << bit);
			assert_true(tuning_parse(text, bytes, &machine, read) < 0);
			text[i] ^= (char)(1 << bit);
			tried++;
		}
	assert_int_equal(read->choices, 0);
	assert_int_equal(tuning_parse(text, bytes, &machine, read), 0);
	print_message("%zu beginnings and %zu single bits refused\n", bytes, tried);
	free(text);
	free(read);
}

/* With the right check sum: what only the parser can refuse. */
static void odd_but_summed(void **state)
{
	static const struct {
		const char *what, *from, *to;
	} odd[] = {
		{ "a kernel's name of other letters", "gemm_mma_1x128", "gemm/mma/1x128" },
		{ "a leading zero", "multiprocessors 170", "multiprocessors 0170" },
		{ "a sign", "multiprocessors 170", "multiprocessors -170" },
		{ "a number too large", "multiprocessors 170", "multiprocessors 99999999999" },
		{ "more choices than there are", "choices 2", "choices 3" },
		{ "fewer choices than there are", "choices 2", "choices 1" },
		{ "more choices than fit", "choices 2", "choices 129" },
		{ "more products than fit", "gemm_mma_1x128 1", "gemm_mma_1x128 5" },
		{ "a part that is not there", "gemm_mma_1x128 1 0 1", "gemm_mma_1x128 1 4 1" },
		{ "parts past the last", "gemm_mma_1x128 1 0 1", "gemm_mma_1x128 1 3 2" },
		{ "no parts", "gemm_mma_1x128 1 0 1", "gemm_mma_1x128 1 0 0" },
		{ "an empty name", "NVIDIA GeForce RTX 5090", "" },
		{ "a tab in a name", "NVIDIA GeForce", "NVIDIA\tGeForce" },
		{ "two spaces", "choice 0", "choice  0" },
	};
	size_t bytes;
	char *text = text_make(2, &bytes), changed[8192];
	struct tuning *read = calloc(1, sizeof(*read));
	char *sum = memmem(text, bytes, "sum ", 4);

	(void)state;
	assert_non_null(sum);
	*sum = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(odd); i++) {
		const char *at = strstr(text, odd[i].from);
		uint64_t value = 0xcbf29ce484222325u;
		int n;

		assert_non_null(at);
		n = snprintf(changed, sizeof(changed), "%.*s%s%s", (int)(at - text), text,
			     odd[i].to, at + strlen(odd[i].from));
		for (int k = 0; k < n; k++)
			value = (value ^ (unsigned char)changed[k]) * 0x100000001b3u;
		n += snprintf(changed + n, sizeof(changed) - (size_t)n, "sum %016llx\n",
			      (unsigned long long)value);
		assert_true(n < (int)sizeof(changed));
		assert_int_equal(tuning_parse(changed, (size_t)n, &machine, read), -EBADMSG);
		print_message("refused: %s\n", odd[i].what);
	}
	free(text);
	free(read);
}

static void not_formatted(void **state)
{
	struct tuning *tuning = tuning_make(2);
	char text[4096];

	(void)state;
	assert_int_equal(tuning_format(tuning, text, 100), -ENOSPC);
	tuning->machine.device[3] = '\n';
	assert_int_equal(tuning_format(tuning, text, sizeof(text)), -EINVAL);
	tuning->machine = machine;
	tuning->choice[1].kernel[0] = ' ';
	assert_int_equal(tuning_format(tuning, text, sizeof(text)), -EINVAL);
	free(tuning);
}

static void kept_in_files(void **state)
{
	struct tuning *tuning = tuning_make(9), *read = calloc(1, sizeof(*read));
	struct scratch scratch;
	struct stat status;
	char path[256];
	size_t bytes;
	char *text;

	(void)state;
	scratch_create(&scratch);
	(void)snprintf(path, sizeof(path), "%s", scratch_path(&scratch, "a/b/choices"));
	assert_int_equal(tuning_load(path, &machine, read), -ENOENT);
	assert_int_equal(tuning_save(path, tuning), 0);
	assert_int_equal(tuning_load(path, &machine, read), 0);
	assert_memory_equal(read, tuning, sizeof(*read));
	assert_int_equal(stat(path, &status), 0);
	assert_int_equal(status.st_mode & 0777, 0600);
	/* Replaced whole; nothing is left beside it. */
	tuning->choices = 4;
	assert_int_equal(tuning_save(path, tuning), 0);
	assert_int_equal(tuning_load(path, &machine, read), 0);
	assert_int_equal(read->choices, 4);
	scratch_delete(&scratch, "a/b/choices");
	assert_int_equal(rmdir(scratch_path(&scratch, "a/b")), 0);

	/* A directory, a pipe, a link, a file that is too long. */
	assert_int_equal(mkdir(path, 0700), -1);
	assert_int_equal(tuning_load(scratch.path, &machine, read), -EINVAL);
	assert_int_equal(mkfifo(scratch_path(&scratch, "pipe"), 0600), 0);
	assert_int_equal(tuning_load(scratch_path(&scratch, "pipe"), &machine, read), -EINVAL);
	assert_int_equal(symlink("pipe", scratch_path(&scratch, "link")), 0);
	assert_int_equal(tuning_load(scratch_path(&scratch, "link"), &machine, read), -ELOOP);
	text = calloc(1, TUNING_FILE_BYTES + 1);
	scratch_write(&scratch, "long", text, TUNING_FILE_BYTES + 1);
	free(text);
	assert_int_equal(tuning_load(scratch_path(&scratch, "long"), &machine, read), -EFBIG);
	text = text_make(2, &bytes);
	scratch_write(&scratch, "file", text, bytes);
	free(text);
	assert_int_equal(tuning_save(scratch_path(&scratch, "file/choices"), tuning), -ENOTDIR);
	scratch_remove(&scratch);
	free(read);
	free(tuning);
}

static void directories_of_the_environment(void **state)
{
	static const struct {
		const char *own, *shared, *home, *expected; /* NULL: −ENOENT */
	} of[] = {
		{ "/var/cache/sana-streamd", "/x", "/home/a", "/var/cache/sana-streamd" },
		{ "/var/cache/one:/var/cache/two", NULL, NULL, "/var/cache/one" },
		{ NULL, "/x", "/home/a", "/x/sana-streamd" },
		{ NULL, "relative", "/home/a", "/home/a/.cache/sana-streamd" },
		{ "", "", "/home/a", "/home/a/.cache/sana-streamd" },
		{ NULL, NULL, "", NULL },
		{ NULL, NULL, NULL, NULL },
	};
	static const char *const names[] = { "CACHE_DIRECTORY", "XDG_CACHE_HOME", "HOME" };
	char path[64], small[8];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(of); i++) {
		const char *const values[] = { of[i].own, of[i].shared, of[i].home };

		for (size_t k = 0; k < ARRAY_SIZE(names); k++)
			(void)(values[k] ? setenv(names[k], values[k], 1) : unsetenv(names[k]));
		if (!of[i].expected) {
			assert_int_equal(cache_directory(path, sizeof(path)), -ENOENT);
			continue;
		}
		assert_int_equal(cache_directory(path, sizeof(path)), 0);
		assert_string_equal(path, of[i].expected);
		assert_int_equal(cache_directory(small, sizeof(small)), -ENAMETOOLONG);
		print_message("%s\n", path);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(there_and_back),
		cmocka_unit_test(found_and_replaced),
		cmocka_unit_test(of_another_machine),
		cmocka_unit_test(damaged),
		cmocka_unit_test(odd_but_summed),
		cmocka_unit_test(not_formatted),
		cmocka_unit_test(kept_in_files),
		cmocka_unit_test(directories_of_the_environment),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
