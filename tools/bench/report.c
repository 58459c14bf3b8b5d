/*
 * A report that can be taken from its owner: {"report": {…}, "sha256": "…"}, the digest being of the report as
 * JSON without spaces, keys sorted, numbers with 17 digits. It shows damage and slips, not forgery.
 */
#include "tools/bench/bench.h"

#include "base/util.h"

#include <errno.h>
#include <fcntl.h>
#include <nettle/sha2.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HEX_BYTES = 2 * SHA256_DIGEST_SIZE + 1, MOST_BYTES = 16 << 20 };

static int digest_make(json_t *body, char ret[HEX_BYTES])
{
	char *text = json_dumps(body, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(17));
	uint8_t bytes[SHA256_DIGEST_SIZE];
	struct sha256_ctx sum;

	if (!text)
		return -ENOMEM;
	sha256_init(&sum);
	sha256_update(&sum, strlen(text), (const uint8_t *)text);
	sha256_digest(&sum, sizeof(bytes), bytes);
	free(text);
	for (size_t i = 0; i < sizeof(bytes); i++)
		(void)snprintf(ret + 2 * i, 3, "%02x", bytes[i]);
	return 0;
}

/* All of it to the disk, or −errno. */
static int text_write(int fd, const char *text)
{
	size_t left = strlen(text);

	while (left) {
		const ssize_t n = write(fd, text, left);

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0) {
			text += n;
			left -= (size_t)n;
		}
	}
	return fsync(fd) < 0 ? -errno : 0;
}

/* Beside its place first, so that the name never stands for half a report. */
static int file_replace(const char *path, const char *text)
{
	char temporary[4096];
	int fd, r;

	if (snprintf(temporary, sizeof(temporary), "%s.XXXXXX", path) >= (int)sizeof(temporary))
		return -ENAMETOOLONG;
	fd = mkostemp(temporary, O_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = fchmod(fd, 0644) < 0 ? -errno : text_write(fd, text);
	if (close(fd) < 0 && r >= 0)
		r = -errno;
	if (r >= 0 && rename(temporary, path) < 0)
		r = -errno;
	if (r < 0)
		(void)unlink(temporary);
	return r;
}

int bench_report_write(const char *path, json_t *body, struct sana_error *error)
{
	char digest[HEX_BYTES], *text = NULL;
	json_t *whole = NULL;
	int r = digest_make(body, digest);

	if (r >= 0) {
		whole = json_pack("{s:O, s:s}", "report", body, "sha256", digest);
		text = whole ? json_dumps(whole, JSON_INDENT(1) | JSON_REAL_PRECISION(17)) : NULL;
		r = text ? file_replace(path, text) : -ENOMEM;
	}
	free(text);
	json_decref(whole);
	if (r < 0)
		return sana_error_set(error, r, "report.write",
				      "%s: the report cannot be written: %s. Name a file in a "
				      "folder that you may write to.",
				      path, strerror(-r));
	return 0;
}

/* A report comes from others: nothing of it reaches a terminal but plain characters. */
static const char *plain(const char *text)
{
	for (const char *c = text; c && *c; c++)
		if (*c < ' ' || *c > '~')
			return "(a name that is not plain text)";
	return text;
}

/* NULL with the error set: not there, too large, no report. */
static json_t *report_load(const char *path, struct sana_error *error)
{
	_cleanup_(fclosep) FILE *file = fopen(path, "rbe");
	struct stat status;
	json_error_t where;
	json_t *whole;

	if (!file || fstat(fileno(file), &status) < 0) {
		(void)sana_error_set(error, -errno, "report.open", "%s: cannot open: %s.", path,
				     strerror(errno));
		return NULL;
	}
	if (!S_ISREG(status.st_mode) || status.st_size > MOST_BYTES) {
		(void)sana_error_set(error, -EINVAL, "report.open",
				     "%s: no report: it is no file or larger than %d MiB.", path,
				     MOST_BYTES >> 20);
		return NULL;
	}
	whole = json_loadf(file, JSON_REJECT_DUPLICATES, &where);
	if (!whole)
		(void)sana_error_set(error, -EINVAL, "report.damaged",
				     "%s: damaged: line %d: %.80s.", path, where.line, where.text);
	return whole;
}

int bench_report_verify(const char *path, struct sana_error *error)
{
	json_t *whole = report_load(path, error), *body;
	const char *written, *result, *gpu = NULL;
	char digest[HEX_BYTES];
	int r;

	if (!whole)
		return -EINVAL;
	body = json_object_get(whole, "report");
	written = json_string_value(json_object_get(whole, "sha256"));
	result = json_string_value(json_object_get(body, "result"));
	gpu = json_string_value(json_object_get(json_object_get(body, "gpu"), "name"));
	r = json_is_object(body) && written && result ? digest_make(body, digest) : -EINVAL;
	if (r < 0)
		(void)sana_error_set(error, r, "report.damaged",
				     "%s: no report of sana-bench --self-test.", path);
	else if (strcmp(digest, written) != 0)
		r = sana_error_set(error, -EBADMSG, "report.changed",
				   "%s: not what was written: its SHA-256 is %s, it says %.64s.",
				   path, digest, plain(written));
	else
		(void)printf("%s: intact; %s, %s, SHA-256 %s\n", path, gpu ? plain(gpu) : "no GPU",
			     plain(result), digest);
	json_decref(whole);
	return r;
}
