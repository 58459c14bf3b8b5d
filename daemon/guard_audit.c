/* The audit log: JSON lines, turned over at a size. */
#include "daemon/guard_audit.h"

#include "base/util.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <nettle/hmac.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
	KEY_BYTES = 32,
	PATH_BYTES = 4096,
	DIGEST_TEXT = 2 * SHA256_DIGEST_SIZE + 1,
	ARGUMENT_MOST = 256, /* bytes of one that is noted down */
};

struct guard_log {
	char path[PATH_BYTES], old[PATH_BYTES + 2];
	int fd;
	int64_t bytes, max_bytes;
	bool text;
	uint8_t key[KEY_BYTES];
	char model[256]; /* whose digest this is */
	char model_digest[DIGEST_TEXT];
};

static void hex(const uint8_t digest[SHA256_DIGEST_SIZE], char ret[DIGEST_TEXT])
{
	for (int i = 0; i < SHA256_DIGEST_SIZE; i++)
		(void)snprintf(ret + 2 * i, 3, "%02x", digest[i]);
}

/* ------------------------------------------------------------------------------------ the secret */

static int key_make(const char *path, uint8_t key[KEY_BYTES])
{
	const int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	int r = 0;

	if (fd < 0)
		return -errno;
	if (getrandom(key, KEY_BYTES, 0) != KEY_BYTES)
		r = -EIO;
	else if (write(fd, key, KEY_BYTES) != KEY_BYTES || fsync(fd) < 0)
		r = -EIO;
	(void)close(fd);
	if (r < 0)
		(void)unlink(path);
	return r;
}

static int key_read(const char *path, uint8_t key[KEY_BYTES])
{
	const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	struct stat s;
	int r = 0;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &s) < 0 || !S_ISREG(s.st_mode) || (s.st_mode & 077))
		r = -EPERM;
	else if (read(fd, key, KEY_BYTES) != KEY_BYTES)
		r = -EINVAL;
	(void)close(fd);
	return r;
}

static int key_open(const char *path, uint8_t key[KEY_BYTES], struct sana_error *error)
{
	int r = key_read(path, key);

	if (r == -ENOENT)
		r = key_make(path, key);
	if (r == -EPERM)
		return sana_error_set(error, r, "guard.audit",
				      "%s: others may read this key: chmod 600 it.", path);
	return r < 0 ? sana_error_set(error, r, "guard.audit",
				      "%s: the key of the audit log cannot be had: %s.", path,
				      strerror(-r)) :
		       0;
}

/* --------------------------------------------------------------------------------------- the file */

static int file_open(struct guard_log *log)
{
	struct stat s;

	log->fd = open(log->path,
		       O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0640);
	if (log->fd < 0)
		return -errno;
	if (fstat(log->fd, &s) < 0 || !S_ISREG(s.st_mode)) {
		(void)close(log->fd);
		log->fd = -1;
		return -EINVAL;
	}
	log->bytes = s.st_size;
	return 0;
}

int guard_log_open(const struct guard_options *options, struct guard_log **ret,
		   struct sana_error *error)
{
	struct guard_log *log = calloc(1, sizeof(*log));
	char key[PATH_BYTES + 4];
	int r;

	if (!log)
		return sana_error_set(error, -ENOMEM, "memory", "Out of memory.");
	log->fd = -1;
	log->max_bytes = options->audit_max_bytes;
	log->text = options->audit_text;
	(void)snprintf(log->path, sizeof(log->path), "%s", options->audit_log);
	(void)snprintf(log->old, sizeof(log->old), "%s.1", log->path);
	(void)snprintf(key, sizeof(key), "%s%s", *options->key_file ? options->key_file : log->path,
		       *options->key_file ? "" : ".key");
	r = file_open(log);
	if (r < 0)
		(void)sana_error_set(error, r, "guard.audit",
				     "%s: the audit log cannot be written: %s.", log->path,
				     strerror(-r));
	else
		r = key_open(key, log->key, error);
	if (r < 0) {
		(void)guard_log_close(log);
		return r;
	}
	*ret = log;
	return 0;
}

struct guard_log *guard_log_close(struct guard_log *log)
{
	if (!log)
		return NULL;
	if (log->fd >= 0)
		(void)close(log->fd);
	explicit_bzero(log->key, sizeof(log->key));
	free(log);
	return NULL;
}

static int turn_over(struct guard_log *log)
{
	(void)close(log->fd);
	log->fd = -1;
	/* Where it cannot be renamed it grows: better than to end. */
	(void)rename(log->path, log->old);
	return file_open(log);
}

/* ---------------------------------------------------------------------------------------- digests */

static void prompt_digest(const struct guard_log *log, const char *prompt, char ret[DIGEST_TEXT])
{
	struct hmac_sha256_ctx context;
	uint8_t digest[SHA256_DIGEST_SIZE];

	hmac_sha256_set_key(&context, sizeof(log->key), log->key);
	hmac_sha256_update(&context, strlen(prompt), (const uint8_t *)prompt);
	hmac_sha256_digest(&context, sizeof(digest), digest);
	hex(digest, ret);
}

static void text_digest(const char *text, char ret[DIGEST_TEXT])
{
	struct sha256_ctx context;
	uint8_t digest[SHA256_DIGEST_SIZE];

	sha256_init(&context);
	sha256_update(&context, strlen(text), (const uint8_t *)text);
	sha256_digest(&context, sizeof(digest), digest);
	hex(digest, ret);
}

/* A file's bytes, or its name and length where it is large. */
static void file_add(struct sha256_ctx *context, const char *directory, const char *name)
{
	enum { WHOLE = 1 << 20 };
	char path[2 * PATH_BYTES], *bytes;
	struct stat s;
	FILE *file;
	size_t got = 0;

	(void)snprintf(path, sizeof(path), "%s/%s", directory, name);
	file = fopen(path, "re");
	if (!file)
		return;
	if (fstat(fileno(file), &s) < 0)
		s.st_size = 0;
	bytes = malloc(WHOLE);
	if (bytes && s.st_size <= WHOLE)
		got = fread(bytes, 1, WHOLE, file);
	sha256_update(context, strlen(name), (const uint8_t *)name);
	sha256_update(context, sizeof(s.st_size), (const uint8_t *)&s.st_size);
	sha256_update(context, got, (const uint8_t *)(bytes ? bytes : ""));
	free(bytes);
	(void)fclose(file);
}

/*
 * SHA-256 over the model's manifest, which names the digest of every file, and its configuration; weights
 * count with their lengths.
 */
static const char *model_digest(struct guard_log *log, const char *model)
{
	static const char *const files[] = {
		"manifest.json",
		"stream.json",
		"dit/config.json",
		"vae/config.json",
		"text_encoder/config.json",
		"text_encoder/tokenizer.model",
		"dit/model.safetensors",
		"vae/diffusion_pytorch_model.safetensors",
		"text_encoder/model.safetensors",
	};
	struct sha256_ctx context;
	uint8_t digest[SHA256_DIGEST_SIZE];

	if (!*model)
		return "";
	if (strncmp(model, log->model, sizeof(log->model) - 1) == 0)
		return log->model_digest;
	sha256_init(&context);
	for (size_t i = 0; i < ARRAY_SIZE(files); i++)
		file_add(&context, model, files[i]);
	sha256_digest(&context, sizeof(digest), digest);
	hex(digest, log->model_digest);
	(void)snprintf(log->model, sizeof(log->model), "%s", model);
	return log->model_digest;
}

/* ------------------------------------------------------------------------------------------ lines */

static void time_text(char *ret, size_t bytes)
{
	struct timespec now;
	struct tm parts;
	size_t used;

	(void)clock_gettime(CLOCK_REALTIME, &now);
	(void)gmtime_r(&now.tv_sec, &parts);
	used = strftime(ret, bytes, "%Y-%m-%dT%H:%M:%S", &parts);
	(void)snprintf(ret + used, bytes - used, ".%03ldZ", now.tv_nsec / 1000000);
}

/* Text from outside may be long, and no UTF-8, which JSON cannot hold. */
static json_t *text_json(const char *text, size_t most)
{
	size_t bytes = strnlen(text, most);
	json_t *value;

	/* Not in the middle of a character. */
	while (bytes > 0 && bytes == most && ((unsigned char)text[bytes] & 0xc0) == 0x80)
		bytes--, most--;
	value = json_stringn(text, bytes);

	return value ? value : json_string("(not UTF-8)");
}

static json_t *record_json(struct guard_log *log, const struct guard_record *record)
{
	char when[64], policy[DIGEST_TEXT], prompt[DIGEST_TEXT];
	json_t *line;

	time_text(when, sizeof(when));
	text_digest(record->policy, policy);
	line = json_pack("{s:s, s:s, s:I, s:I, s:s, s:s, s:s, s:s, s:s}", "time", when, "sender",
			 record->sender, "uid", (json_int_t)record->uid, "pid",
			 (json_int_t)record->pid, "method", record->method, "decision",
			 record->decision, "reason", record->reason, "model",
			 model_digest(log, record->model), "policy", policy);
	if (line && record->ticket)
		(void)json_object_set_new(line, "ticket", json_integer((json_int_t)record->ticket));
	if (line && *record->argument)
		(void)json_object_set_new(line, "argument",
					  text_json(record->argument, ARGUMENT_MOST));
	if (line && record->prompt) {
		prompt_digest(log, record->prompt, prompt);
		(void)json_object_set_new(line, "prompt_digest", json_string(prompt));
		(void)json_object_set_new(line, "prompt_bytes",
					  json_integer((json_int_t)strlen(record->prompt)));
		if (log->text)
			(void)json_object_set_new(line, "prompt",
						  text_json(record->prompt, PATH_BYTES));
	}
	return line;
}

/* A whole line or nothing of it: half a one would spoil the next. */
static int line_write(struct guard_log *log, const char *text, size_t bytes)
{
	const ssize_t n = write(log->fd, text, bytes);

	if (n == (ssize_t)bytes)
		return 0;
	if (n < 0)
		return -errno;
	if (ftruncate(log->fd, (off_t)log->bytes) < 0)
		log->bytes += n;
	return -ENOSPC;
}

int guard_log_write(struct guard_log *log, const struct guard_record *record)
{
	json_t *line = record_json(log, record);
	char *text = line ? json_dumps(line, JSON_COMPACT) : NULL;
	size_t bytes;
	int r = 0;

	json_decref(line);
	if (!text)
		return -ENOMEM;
	bytes = strlen(text);
	text[bytes++] = '\n'; /* in place of the NUL: one write, one line */
	if (log->fd < 0)
		r = file_open(log);
	if (r >= 0 && log->bytes > 0 && log->bytes + (int64_t)bytes > log->max_bytes)
		r = turn_over(log);
	if (r >= 0)
		r = line_write(log, text, bytes);
	if (r >= 0)
		log->bytes += (int64_t)bytes;
	free(text);
	return r;
}
