/* SHA-256 by nettle, whose state may be copied and whose fields are public. */
#include "tools/import/digest.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

enum { BUFFER_BYTES = 4 << 20, STATE_WORDS = 8 };

void digest_init(struct digest *digest)
{
	sha256_init(&digest->context);
	digest->at = 0;
}

void digest_add(struct digest *digest, const void *data, size_t bytes)
{
	sha256_update(&digest->context, bytes, data);
	digest->at += bytes;
}

static void hex_put(char *to, const uint8_t *from, size_t bytes)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < bytes; i++) {
		to[2 * i] = digits[from[i] >> 4];
		to[2 * i + 1] = digits[from[i] & 15];
	}
	to[2 * bytes] = '\0';
}

void digest_text(const struct digest *digest, char to[DIGEST_TEXT_BYTES])
{
	struct sha256_ctx copy = digest->context;
	uint8_t sum[SHA256_DIGEST_SIZE];

	sha256_digest(&copy, sizeof(sum), sum);
	hex_put(to, sum, sizeof(sum));
}

void digest_of(const void *data, size_t bytes, char to[DIGEST_TEXT_BYTES])
{
	struct digest digest;

	digest_init(&digest);
	digest_add(&digest, data, bytes);
	digest_text(&digest, to);
}

/* 8 words, then 4 and 8 bytes for the fill of the block and the count of blocks, then the block. */
enum { SAVED_RAW_BYTES = DIGEST_SAVED_BYTES / 2 };
_Static_assert(SAVED_RAW_BYTES == STATE_WORDS * 4 + 4 + 8 + SHA256_BLOCK_SIZE, "state layout");

void digest_save(const struct digest *digest, char to[DIGEST_SAVED_BYTES + 1])
{
	const struct sha256_ctx *c = &digest->context;
	uint8_t raw[SAVED_RAW_BYTES] = { 0 }, *at = raw;
	uint32_t index = (uint32_t)c->index;

	for (int i = 0; i < STATE_WORDS; i++, at += 4)
		memcpy(at, &c->state[i], 4);
	memcpy(at, &index, 4);
	memcpy(at + 4, &c->count, 8);
	/* behind the fill the block holds what was there before */
	memcpy(at + 12, c->block, index);
	hex_put(to, raw, sizeof(raw));
}

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool digest_restore(const char *text, uint64_t at, struct digest *ret)
{
	uint8_t raw[SAVED_RAW_BYTES];
	struct digest digest;
	uint32_t index;

	if (strlen(text) != DIGEST_SAVED_BYTES)
		return false;
	for (size_t i = 0; i < sizeof(raw); i++) {
		int high = hex_value(text[2 * i]), low = hex_value(text[2 * i + 1]);

		if (high < 0 || low < 0)
			return false;
		raw[i] = (uint8_t)(high << 4 | low);
	}
	sha256_init(&digest.context);
	for (int i = 0; i < STATE_WORDS; i++)
		memcpy(&digest.context.state[i], raw + 4 * i, 4);
	memcpy(&index, raw + 4 * STATE_WORDS, 4);
	memcpy(&digest.context.count, raw + 4 * STATE_WORDS + 4, 8);
	memcpy(digest.context.block, raw + 4 * STATE_WORDS + 12, SHA256_BLOCK_SIZE);
	if (index >= SHA256_BLOCK_SIZE || digest.context.count != at / SHA256_BLOCK_SIZE ||
	    index != at % SHA256_BLOCK_SIZE)
		return false;
	digest.context.index = index;
	digest.at = at;
	*ret = digest;
	return true;
}

/* ------------------------------------------------------------------------------------- thread */

static int file_digest(struct digest_thread *digest, struct digest_file *file, void *buffer)
{
	while (file->digest.at < file->size && !atomic_load(&digest->stop)) {
		size_t bytes = (size_t)MIN_OF(file->size - file->digest.at, (uint64_t)BUFFER_BYTES);
		ssize_t n = pread(file->fd, buffer, bytes, (off_t)file->digest.at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -ESTALE; /* shorter than it was */
		(void)pthread_mutex_lock(&digest->lock);
		digest_add(&file->digest, buffer, (size_t)n);
		(void)pthread_mutex_unlock(&digest->lock);
	}
	return 0;
}

static void *digest_run(void *context)
{
	struct digest_thread *digest = context;
	void *buffer = malloc(BUFFER_BYTES);

	digest->status = buffer ? 0 : -ENOMEM;
	for (size_t i = 0; digest->status >= 0 && i < digest->count; i++) {
		digest->failed = i;
		digest->status = file_digest(digest, &digest->file[i], buffer);
	}
	free(buffer);
	atomic_store(&digest->ended, true);
	return NULL;
}

int digest_thread_start(struct digest_thread *digest, struct digest_file *file, size_t count)
{
	int r;

	*digest = (struct digest_thread){ .file = file, .count = count };
	atomic_init(&digest->stop, false);
	atomic_init(&digest->ended, false);
	(void)pthread_mutex_init(&digest->lock, NULL);
	r = pthread_create(&digest->thread, NULL, digest_run, digest);
	if (r) {
		(void)pthread_mutex_destroy(&digest->lock);
		return -r;
	}
	digest->started = true;
	return 0;
}

void digest_thread_look(struct digest_thread *digest, size_t file, struct digest *ret)
{
	(void)pthread_mutex_lock(&digest->lock);
	*ret = digest->file[file].digest;
	(void)pthread_mutex_unlock(&digest->lock);
}

int digest_thread_end(struct digest_thread *digest, bool stop)
{
	if (!digest->started)
		return 0;
	if (stop)
		atomic_store(&digest->stop, true);
	(void)pthread_join(digest->thread, NULL);
	(void)pthread_mutex_destroy(&digest->lock);
	digest->started = false;
	return digest->status;
}
