/*
 * SHA-256 of files while they are read for something else, and of files that somebody else reads.
 * A digest can stop in the middle, be written down and go on later.
 */
#pragma once

#include <nettle/sha2.h>
#include <pthread.h>
#include <stdatomic.h>

#include "base/error.h"

enum { DIGEST_TEXT_BYTES = 2 * SHA256_DIGEST_SIZE + 1, DIGEST_SAVED_BYTES = 216 };

struct digest {
	struct sha256_ctx context;
	uint64_t at; /* bytes so far */
};

void digest_init(struct digest *digest);
void digest_add(struct digest *digest, const void *data, size_t bytes);
/* Hexadecimal; the digest may go on afterwards. */
void digest_text(const struct digest *digest, char to[DIGEST_TEXT_BYTES]);
/* All at once. */
void digest_of(const void *data, size_t bytes, char to[DIGEST_TEXT_BYTES]);

/* The state as hexadecimal text, and back; false when the text is not such a state. */
void digest_save(const struct digest *digest, char to[DIGEST_SAVED_BYTES + 1]);
bool digest_restore(const char *text, uint64_t at, struct digest *ret);

/* A file to be digested by the thread. */
struct digest_file {
	const char *path;
	int fd;
	uint64_t size;
	struct digest digest; /* where to go on; guarded by the lock while the thread runs */
};

/* One thread that reads files one after the other. */
struct digest_thread {
	struct digest_file *file;
	size_t count;
	pthread_mutex_t lock;
	pthread_t thread;
	atomic_bool stop, ended;
	bool started;
	int status;    /* of the thread; read after it has ended */
	size_t failed; /* the file it failed at */
};

int digest_thread_start(struct digest_thread *digest, struct digest_file *file, size_t count);
/* A consistent copy of one file's state. */
void digest_thread_look(struct digest_thread *digest, size_t file, struct digest *ret);
/* Waits for it to finish all files, or to stop soon when `stop`. Returns its status. */
int digest_thread_end(struct digest_thread *digest, bool stop);
