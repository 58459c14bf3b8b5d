/*
 * Writes a model directory with generated weights and the tokenizer of a file:
 * small_model DIRECTORY WxH TOKENIZER          a few MFLOP a frame, for machines that are slow at arithmetic
 * small_model DIRECTORY published TOKENIZER    as large as the published one (12 GB; needs 25 GB of memory)
 *
 * The published sizes want a tokenizer of 256000 pieces: `checkpoint tokenizer 256000 FILE` makes one.
 */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/common/small_model.h"

int main(int argc, char **argv)
{
	struct scratch scratch;
	const bool published = argc == 4 && strcmp(argv[2], "published") == 0;
	int width, height;

	if (argc != 4 || (!published && sscanf(argv[2], "%dx%d", &width, &height) != 2) ||
	    snprintf(scratch.path, sizeof(scratch.path), "%s", argv[1]) >=
		    (int)sizeof(scratch.path)) {
		(void)fprintf(stderr, "usage: small_model DIRECTORY WxH|published TOKENIZER\n");
		return 2;
	}
	(void)mkdir(scratch.path, 0755); /* it may be there */
	if (published)
		published_model_write(&scratch, argv[3]);
	else
		small_model_write_whole(&scratch, width, height, argv[3]);
	return 0;
}
