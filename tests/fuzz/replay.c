/*
 * Feeds files to a fuzz target without a fuzzer, so that the corpora are tests on any compiler.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay_file(const char *path)
{
	uint8_t *data = NULL;
	long size;
	FILE *file;
	int result = -1;

	file = fopen(path, "rb");
	if (!file) {
		perror(path);
		return -1;
	}
	if (fseek(file, 0, SEEK_END) < 0 || (size = ftell(file)) < 0 ||
	    fseek(file, 0, SEEK_SET) < 0) {
		perror(path);
		goto close_file;
	}

	/* Exactly the file's size, so that the sanitizers see a read one byte behind it. */
	data = malloc(size ? (size_t)size : 1);
	if (!data || fread(data, 1, (size_t)size, file) != (size_t)size) {
		fprintf(stderr, "%s: cannot read\n", path);
		goto close_file;
	}
	(void)LLVMFuzzerTestOneInput(data, (size_t)size);
	result = 0;

close_file:
	free(data);
	(void)fclose(file);
	return result;
}

int main(int argc, char **argv)
{
	if (argc < 2) {
		puts("no corpus");
		return 77;
	}
	for (int i = 1; i < argc; i++) {
		printf("%s\n", argv[i]);
		(void)fflush(stdout);
		if (replay_file(argv[i]) < 0)
			return 1;
	}
	printf("%d inputs\n", argc - 1);
	return 0;
}
