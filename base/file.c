/* Opening, mapping and reading regular files. */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_TAIL_BYTES = 199 };

const char *file_path_tail(const char *path)
{
	size_t length = strlen(path);
	const char *tail = path + (length > PATH_TAIL_BYTES ? length - PATH_TAIL_BYTES : 0);

	while (((unsigned char)*tail & 0xc0) == 0x80) /* not into a UTF-8 character */
		tail++;
	return tail;
}

static void closep(int *fd)
{
	if (*fd >= 0)
		(void)close(*fd);
}

static int file_fail(struct sana_error *error, int r, const char *name, const char *path,
		     const char *what)
{
	return sana_error_set(error, r, name, "%s: %s: %s.", file_path_tail(path), what,
			      strerror(-r));
}

static int file_open(const char *path, const char *name, int *ret_fd, size_t *ret_size,
		     struct sana_error *error)
{
	/* O_NONBLOCK: opening a pipe nobody writes to must not wait. */
	_cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat status;

	if (fd < 0)
		return file_fail(error, -errno, name, path, "cannot open");
	if (fstat(fd, &status) < 0)
		return file_fail(error, -errno, name, path, "cannot look at");
	if (S_ISDIR(status.st_mode))
		return file_fail(error, -EISDIR, name, path, "cannot read");
	if (!S_ISREG(status.st_mode))
		return sana_error_set(error, -EINVAL, name, "%s: this is not a regular file.",
				      file_path_tail(path));
	*ret_size = (size_t)status.st_size;
	*ret_fd = fd;
	fd = -1;
	return 0;
}

int file_map(const char *path, const char *name, struct file_map *ret, struct sana_error *error)
{
	_cleanup_(closep) int fd = -1;
	void *data;
	size_t size = 0;
	int r;

	r = file_open(path, name, &fd, &size, error);
	if (r < 0)
		return r;
	if (size == 0) {
		*ret = (struct file_map){ .data = "" };
		return 0;
	}
	data = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (data == MAP_FAILED)
		return file_fail(error, -errno, name, path, "cannot map");
	*ret = (struct file_map){ .data = data, .size = size };
	return 0;
}

void file_unmap(struct file_map *map)
{
	if (map->size)
		(void)munmap((void *)map->data, map->size);
	*map = (struct file_map){ 0 };
}

static int file_read_all(int fd, char *to, size_t size, size_t *ret_read)
{
	size_t have = 0;

	while (have < size) {
		ssize_t n = read(fd, to + have, size - have);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		have += (size_t)n;
	}
	*ret_read = have;
	return 0;
}

int file_read(const char *path, size_t limit_bytes, const char *name, char **ret_text,
	      size_t *ret_size, struct sana_error *error)
{
	_cleanup_(closep) int fd = -1;
	_cleanup_(freep) char *text = NULL;
	size_t size = 0, have = 0;
	int r;

	r = file_open(path, name, &fd, &size, error);
	if (r < 0)
		return r;
	if (size > limit_bytes)
		return sana_error_set(
			error, -EFBIG, name,
			"%.300s: %zu bytes are more than the %zu that make sense here.", path, size,
			limit_bytes);
	text = malloc(size + 1);
	if (!text)
		return file_fail(error, -ENOMEM, name, path, "cannot read");
	r = file_read_all(fd, text, size, &have);
	if (r < 0)
		return file_fail(error, r, name, path, "cannot read");
	text[have] = '\0';
	*ret_text = TAKE_PTR(text);
	*ret_size = have;
	return 0;
}
