/* Reading at offsets, from a file or from memory. */
#include "engine/checkpoint/bytes.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"

int byte_source_open(const char *path, const char *name, struct byte_source *ret,
		     struct sana_error *error)
{
	struct stat status;
	int fd, r = 0;

	/* O_NONBLOCK: opening a pipe nobody writes to must not wait. */
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return sana_error_set(error, -errno, name, "%s: cannot open: %s.",
				      file_path_tail(path), strerror(errno));
	if (fstat(fd, &status) < 0)
		r = sana_error_set(error, -errno, name, "%s: cannot look at: %s.",
				   file_path_tail(path), strerror(errno));
	else if (!S_ISREG(status.st_mode))
		r = sana_error_set(error, S_ISDIR(status.st_mode) ? -EISDIR : -EINVAL, name,
				   "%s: this is not a regular file.", file_path_tail(path));
	if (r < 0) {
		(void)close(fd);
		return r;
	}
	*ret = (struct byte_source){ .fd = fd,
				     .size = (uint64_t)status.st_size,
				     .where = file_path_tail(path) };
	return 0;
}

void byte_source_from_memory(const void *data, size_t bytes, const char *where,
			     struct byte_source *ret)
{
	*ret = (struct byte_source){ .fd = -1, .data = data, .size = bytes, .where = where };
}

void byte_source_close(struct byte_source *source)
{
	/* 0 is what a zeroed struct holds; standard input is nothing of ours to close. */
	if (source->fd > 0)
		(void)close(source->fd);
	*source = (struct byte_source){ .fd = -1 };
}

int byte_source_read(const struct byte_source *source, uint64_t offset, void *to, size_t bytes)
{
	size_t done = 0;

	if (offset > source->size || bytes > source->size - offset)
		return -EIO;
	if (source->fd < 0) {
		if (bytes)
			memcpy(to, source->data + offset, bytes);
		return 0;
	}
	while (done < bytes) {
		ssize_t n =
			pread(source->fd, (char *)to + done, bytes - done, (off_t)(offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		done += (size_t)n;
	}
	return 0;
}
