/* Tests of the CUDA back end as cmocka programs. */
#include "tests/common/cuda_test.h"

#include <stdio.h>
#include <unistd.h>

enum { SKIPPED = 77 };

static void problem(const char *text)
{
	fail_msg("%s", text);
}

static void open_or_skip(struct cuda_test *test, bool portable)
{
	char text[256] = "";

	if (cuda_test_start(test, false, portable, text, sizeof(text)) < 0) {
		printf("skipped: back end \"%s\": %s\n", kernel_backend_cuda.name, text);
		(void)fflush(stdout);
		_exit(SKIPPED);
	}
	test->failed = problem;
}

void cuda_test_open(struct cuda_test *test)
{
	open_or_skip(test, false);
}

void cuda_test_open_portable(struct cuda_test *test)
{
	open_or_skip(test, true);
}
