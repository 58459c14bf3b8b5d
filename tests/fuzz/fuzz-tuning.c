/*
 * The file of measured choices: any bytes. They are either refused, or the one way to write what they say.
 * A text without its check sum gets the right one, so that what lies behind it is reached.
 */
#include "base/util.h"
#include "kernels/tuning.h"

static const struct tuning_machine machine = {
	.device = "NVIDIA H200",
	.capability = 90,
	.multiprocessors = 132,
	.driver = 13000,
	.library = 130100,
	.kernels = 0x0123456789abcdefu,
};

static void check(bool fine)
{
	if (!fine)
		abort();
}

static void whole_check(const char *text, size_t bytes)
{
	struct tuning *read = calloc(1, sizeof(*read));
	char *again = malloc(TUNING_FILE_BYTES);

	check(read && again);
	if (tuning_parse(text, bytes, &machine, read) == 0) {
		check(read->choices >= 0 && read->choices <= TUNING_CHOICES);
		check(tuning_format(read, again, TUNING_FILE_BYTES) == (int)bytes);
		check(memcmp(again, text, bytes) == 0);
	} else {
		check(read->choices == 0);
	}
	free(again);
	free(read);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	enum { SUM_BYTES = 4 + 16 + 1 };
	uint64_t sum = 0xcbf29ce484222325u;
	char *text;

	if (size > TUNING_FILE_BYTES - SUM_BYTES)
		return 0;
	whole_check((const char *)data, size);
	text = malloc(size + SUM_BYTES + 1);
	check(text != NULL);
	memcpy(text, data, size);
	for (size_t i = 0; i < size; i++)
		sum = (sum ^ data[i]) * 0x100000001b3u;
	(void)snprintf(text + size, SUM_BYTES + 1, "sum %016llx\n", (unsigned long long)sum);
	whole_check(text, size + SUM_BYTES);
	free(text);
	return 0;
}
