/*
 * Writes a model of a few MFLOP a frame for machines that are slow at arithmetic:
 * small_model DIRECTORY WxH TOKENIZER
 *
 * The sizes are tests/common/small_model's, the weights generated, the tokenizer another model's file.
 */
#include <stdio.h>
#include <sys/stat.h>

#include "tests/common/small_model.h"

int main(int argc, char **argv)
{
	struct scratch scratch;
	int width, height;

	if (argc != 4 || sscanf(argv[2], "%dx%d", &width, &height) != 2 ||
	    snprintf(scratch.path, sizeof(scratch.path), "%s", argv[1]) >=
		    (int)sizeof(scratch.path)) {
		(void)fprintf(stderr, "usage: small_model DIRECTORY WxH TOKENIZER\n");
		return 2;
	}
	(void)mkdir(scratch.path, 0755); /* it may be there */
	small_model_write_whole(&scratch, width, height, argv[3]);
	return 0;
}
