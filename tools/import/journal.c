/* Reading and writing the journal, whose lines are checked as if a stranger had written them. */
#include "tools/import/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/file.h"

#define ERROR_NAME "import.output"

enum { MAX_JOURNAL_BYTES = 64 << 20, LINE_BYTES = DIGEST_SAVED_BYTES + 100 };

static const char first_line[] = "sana-import 1 ";

struct marks {
	struct journal_mark *result, *source;
	size_t results, sources;
};

/* "r INDEX TENSORS BYTES STATE", or s for a source. Wrong lines are passed over: they only cost time. */
static void line_read(const char *line, struct marks *marks)
{
	char kind, state[DIGEST_SAVED_BYTES + 1];
	uint64_t index, tensors, at;
	struct digest digest;
	struct journal_mark *list;

	if (sscanf(line, "%c %" SCNu64 " %" SCNu64 " %" SCNu64 " %216[0-9a-f]", &kind, &index,
		   &tensors, &at, state) != 5 ||
	    (kind != 'r' && kind != 's') || !digest_restore(state, at, &digest))
		return;
	list = kind == 'r' ? marks->result : marks->source;
	if (index < (kind == 'r' ? marks->results : marks->sources))
		list[index] = (struct journal_mark){ .tensors = tensors, .digest = digest };
}

/* Returns whether the text is of this import. */
static bool text_read(char *text, const char *identity, struct marks *marks)
{
	size_t length = strlen(first_line);
	char *line = text, *end = strchr(text, '\n');

	if (!end || strncmp(text, first_line, length) != 0)
		return false;
	*end = '\0';
	if (strcmp(text + length, identity) != 0)
		return false;
	/* A last line without its end was cut off while it was written. */
	while ((line = end + 1, end = strchr(line, '\n'))) {
		*end = '\0';
		line_read(line, marks);
	}
	return true;
}

static int fail(const char *path, int r, const char *what, struct sana_error *error)
{
	return sana_error_set(error, r, ERROR_NAME, "%s: %s: %s.", file_path_tail(path), what,
			      strerror(-r));
}

static int write_all(int fd, const char *text)
{
	size_t bytes = strlen(text);
	ssize_t n;

	for (size_t done = 0; done < bytes; done += (size_t)n) {
		n = write(fd, text + done, bytes - done);
		if (n < 0 && errno == EINTR)
			n = 0;
		if (n < 0)
			return -errno;
	}
	return 0;
}

static int journal_begin(int fd, const char *path, const char *identity, struct sana_error *error)
{
	char line[LINE_BYTES];
	int r;

	(void)snprintf(line, sizeof(line), "%s%s\n", first_line, identity);
	if (ftruncate(fd, 0) < 0 || lseek(fd, 0, SEEK_SET) < 0)
		return fail(path, -errno, "cannot start over", error);
	r = write_all(fd, line);
	return r < 0 ? fail(path, r, "cannot write", error) : 0;
}

int journal_open(const char *directory, const char *identity, struct journal_mark *results,
		 size_t result_count, struct journal_mark *sources, size_t source_count,
		 struct journal *ret, struct sana_error *error)
{
	struct marks marks = { results, sources, result_count, source_count };
	_cleanup_(freep) char *text = NULL;
	char path[PATH_MAX];
	size_t bytes;
	int fd, r;

	r = snprintf(path, sizeof(path), "%s/" JOURNAL_NAME, directory);
	if (r < 0 || (size_t)r >= sizeof(path))
		return fail(directory, -ENAMETOOLONG, "cannot open", error);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
	if (fd < 0)
		return fail(path, -errno, "cannot open", error);
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		(void)close(fd);
		return sana_error_set(error, -EBUSY, ERROR_NAME,
				      "%s: another import writes there at the moment.",
				      file_path_tail(directory));
	}
	*ret = (struct journal){ .fd = fd };
	r = file_read(path, MAX_JOURNAL_BYTES, ERROR_NAME, &text, &bytes, error);
	if (r >= 0 && text_read(text, identity, &marks)) {
		ret->resumed = true;
		r = lseek(fd, 0, SEEK_END) < 0 ? fail(path, -errno, "cannot go on", error) : 0;
	} else if (r >= 0) {
		r = journal_begin(fd, path, identity, error);
	}
	if (r < 0)
		journal_close(ret);
	return r;
}

void journal_close(struct journal *journal)
{
	if (journal->fd >= 0)
		(void)close(journal->fd);
	journal->fd = -1;
}

static int journal_add(struct journal *journal, char kind, size_t index,
		       const struct journal_mark *mark)
{
	char state[DIGEST_SAVED_BYTES + 1], line[LINE_BYTES];

	digest_save(&mark->digest, state);
	/* The newline in front ends a line that was cut off. */
	(void)snprintf(line, sizeof(line), "\n%c %zu %zu %" PRIu64 " %s\n", kind, index,
		       mark->tensors, mark->digest.at, state);
	return write_all(journal->fd, line);
}

int journal_add_result(struct journal *journal, size_t index, const struct journal_mark *mark)
{
	return journal_add(journal, 'r', index, mark);
}

int journal_add_source(struct journal *journal, size_t index, const struct journal_mark *mark)
{
	return journal_add(journal, 's', index, mark);
}
