/*
 * Choices that were measured on one machine, and the file they are kept in between processes.
 *
 * The file is text, a line a choice, behind what it was measured on and before a check sum. It belongs to
 * one device, driver, version of the matrix library and set of kernels: anything else there makes it
 * stale, and one odd byte makes it none. It is never trusted further than that: whoever uses a choice
 * checks that it can be used.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

enum {
	TUNING_FIELDS = 20,
	TUNING_CHOICES = 128,
	TUNING_PRODUCTS = 4,
	TUNING_WORDS = 8,
	TUNING_NAME_BYTES = 48,
	TUNING_FILE_BYTES = 128 << 10, /* a longer file is not read */
};

/* What the choices hold for. */
struct tuning_machine {
	char device[96];
	int capability, multiprocessors, driver;
	uint64_t library; /* version of the matrix library; 0: there is none */
	uint64_t kernels; /* digest of our own */
};

/* Some parts of an op, neighbours, made by an algorithm of the library's. */
struct tuning_product {
	int first, parts;
	uint64_t algorithm[TUNING_WORDS];
};

struct tuning_choice {
	int key[TUNING_FIELDS];		/* the op's sizes; their meaning is the user's */
	char kernel[TUNING_NAME_BYTES]; /* for what no product makes; "-": nothing is left */
	int products;
	struct tuning_product product[TUNING_PRODUCTS];
};

struct tuning {
	struct tuning_machine machine;
	int choices;
	struct tuning_choice choice[TUNING_CHOICES];
};

const struct tuning_choice *tuning_find(const struct tuning *tuning, const int key[TUNING_FIELDS]);

/* Replaces one of the same key. When it is full, all others are forgotten first. */
void tuning_put(struct tuning *tuning, const struct tuning_choice *choice);

/*
 * ret is filled on success alone. −EBADMSG: this is no such file, or a damaged one; −ESTALE: of another
 * machine than `machine`, or of another version of the format.
 */
int tuning_parse(const char *text, size_t bytes, const struct tuning_machine *machine,
		 struct tuning *ret);

/* Bytes written, without a NUL; −ENOSPC. Names must be as parsing takes them, else −EINVAL. */
int tuning_format(const struct tuning *tuning, char *to, size_t bytes);

/* As tuning_parse; −ENOENT, −EFBIG, −EINVAL (no regular file) and what reading says. */
int tuning_load(const char *path, const struct tuning_machine *machine, struct tuning *ret);

/* Whole or not at all; makes the directories of `path`, for this user alone. */
int tuning_save(const char *path, const struct tuning *tuning);
