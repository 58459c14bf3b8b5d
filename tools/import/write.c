/* From places in source files to a safetensors file, in one pass and bounded memory. */
#include "tools/import/write.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "engine/checkpoint/causal.h"

#define ERROR_NAME "import.output"

/*
 * A strided tensor is gathered from memory, so its span is bounded; a checkpoint costs waiting for
 * the disk, so it is rare; writing starts early, so that the disk works while we read and digest.
 */
#define MAX_SPAN_BYTES (UINT64_C(256) << 20)
#define CHECKPOINT_BYTES (UINT64_C(256) << 20)

struct output {
	struct writer *writer;
	const struct out_file *out;
	struct journal_mark *mark; /* of the last complete tensor */
	struct digest digest;	   /* of all that is written */
	size_t index;
	int fd;
	struct sana_error *error;
};

int write_stopped(struct writer *writer, struct sana_error *error)
{
	if (!writer->options->stopped())
		return 0;
	return sana_error_set(error, -EINTR, "import.stopped",
			      "Stopped; what is done stays in %.200s.partial, and the same command "
			      "goes on from there.",
			      writer->options->output);
}

static int write_failed(struct writer *writer, int r, const char *path, struct sana_error *error)
{
	if (r == -ENOSPC || r == -EDQUOT || r == -EFBIG)
		return sana_error_set(error, r, "import.no-space",
				      "No room for %s (%s); what is done stays in %.200s.partial, "
				      "and the same command goes on from there.",
				      path, strerror(-r), writer->options->output);
	return sana_error_set(error, r, ERROR_NAME, "%.200s.partial/%s: cannot write: %s.",
			      writer->options->output, path, strerror(-r));
}

static int write_all(int fd, const void *data, size_t bytes)
{
	ssize_t n;

	for (size_t done = 0; done < bytes; done += (size_t)n) {
		n = write(fd, (const char *)data + done, bytes - done);
		if (n < 0 && errno == EINTR)
			n = 0;
		if (n < 0)
			return -errno;
	}
	return 0;
}

static int output_put(struct output *output, const void *data, size_t bytes)
{
	struct writer *writer = output->writer;
	int r = write_all(output->fd, data, bytes);

	if (r < 0)
		return write_failed(writer, r, output->out->path, output->error);
	if (!writer->options->no_sync)
		(void)sync_file_range(output->fd, (off_t)output->digest.at, (off_t)bytes,
				      SYNC_FILE_RANGE_WRITE);
	digest_add(&output->digest, data, bytes);
	writer->unsaved_bytes += bytes;
	progress_add(&writer->progress, output->out->path, bytes);
	return write_stopped(writer, output->error);
}

static int source_failed(const struct output *output, const struct out_tensor *tensor, int r)
{
	return sana_error_set(output->error, r, "import.source", "%s: cannot read: %s.",
			      file_path_tail(output->out->set->file[tensor->from->file].path),
			      strerror(-r));
}

/* Bytes that lie in the file as they are wanted, or kernels whose taps move. */
static int copy_straight(struct output *output, const struct out_tensor *tensor)
{
	const struct set_tensor *from = tensor->from;
	const struct byte_source *source = &output->out->set->file[from->file].source;
	const size_t each = safetensors_dtype_bytes(from->dtype);
	const size_t unit = tensor->causal ? CAUSAL_KERNEL * each : 1;
	const size_t piece = WRITE_BUFFER_BYTES / unit * unit;
	int r = 0;

	for (uint64_t done = 0; r >= 0 && done < from->bytes;) {
		size_t bytes = (size_t)MIN_OF((uint64_t)piece, from->bytes - done);

		r = byte_source_read(source, from->offset + done, output->writer->buffer, bytes);
		if (r < 0)
			return source_failed(output, tensor, r);
		if (tensor->causal)
			r = causal_convert(from->dtype, output->writer->buffer, bytes / unit);
		if (r < 0)
			return source_failed(output, tensor, r);
		r = output_put(output, output->writer->buffer, bytes);
		done += bytes;
	}
	return r;
}

static int copy_strided(struct output *output, const struct out_tensor *tensor)
{
	const struct torch_tensor *strided = tensor->from->strided;
	const struct byte_source *source = &output->out->set->file[tensor->from->file].source;
	const size_t each = safetensors_dtype_bytes(strided->dtype);
	const uint64_t count = strided->bytes / each;
	_cleanup_(freep) void *span = NULL;
	int r;

	if (strided->span_bytes > MAX_SPAN_BYTES)
		return sana_error_set(output->error, -EFBIG, "import.source",
				      "%s: tensor %.120s is a strided view over more than 256 MiB; "
				      "save it contiguously.",
				      source->where, strided->name);
	span = malloc((size_t)strided->span_bytes);
	r = span ? byte_source_read(source, strided->offset, span, (size_t)strided->span_bytes) :
		   -ENOMEM;
	if (r < 0)
		return source_failed(output, tensor, r);
	for (uint64_t done = 0; r >= 0 && done < count;) {
		size_t part = (size_t)MIN_OF((uint64_t)WRITE_BUFFER_BYTES / each, count - done);

		torch_tensor_gather(strided, span, done, part, output->writer->buffer);
		if (tensor->causal)
			return sana_error_set(output->error, -EINVAL, "import.source",
					      "%s: tensor %.120s is a strided view, whose taps "
					      "cannot be converted; save it contiguously.",
					      source->where, strided->name);
		r = output_put(output, output->writer->buffer, part * each);
		done += part;
	}
	return r;
}

/* Marks what is on the disk. */
static int checkpoint(struct output *output)
{
	struct writer *writer = output->writer;
	struct digest digest;
	int r = 0;

	if (!writer->options->no_sync && fdatasync(output->fd) < 0)
		return write_failed(writer, -errno, output->out->path, output->error);
	r = journal_add_result(&writer->journal, output->index, output->mark);
	for (size_t i = 0; r >= 0 && i < writer->thread.count; i++) {
		digest_thread_look(&writer->thread, i, &digest);
		if (digest.at == writer->source[i].digest.at)
			continue;
		writer->source[i].digest = digest;
		r = journal_add_source(&writer->journal, i, &writer->source[i]);
	}
	writer->unsaved_bytes = 0;
	return r < 0 ? write_failed(writer, r, JOURNAL_NAME, output->error) : 0;
}

static int output_tensors(struct output *output)
{
	const struct out_file *out = output->out;
	int r = 0;

	while (r >= 0 && output->mark->tensors < out->count) {
		const struct out_tensor *tensor = &out->tensor[output->mark->tensors];

		r = tensor->from->strided ? copy_strided(output, tensor) :
					    copy_straight(output, tensor);
		/* Stopped in the last piece: the tensor is complete nevertheless. */
		if (r < 0 && output->digest.at != tensor->offset + tensor->from->bytes)
			return r;
		output->mark->tensors++;
		output->mark->digest = output->digest;
		if (r >= 0 && output->writer->unsaved_bytes >= CHECKPOINT_BYTES)
			r = checkpoint(output);
	}
	return r;
}

/* The header, or the end of what an earlier run wrote. */
static int output_begin(struct output *output)
{
	struct journal_mark *mark = output->mark;
	int r;

	if (mark->digest.at < output->out->header_bytes) {
		digest_init(&mark->digest);
		mark->tensors = 0;
	}
	output->digest = mark->digest;
	if (ftruncate(output->fd, (off_t)mark->digest.at) < 0 ||
	    lseek(output->fd, (off_t)mark->digest.at, SEEK_SET) < 0)
		return write_failed(output->writer, -errno, output->out->path, output->error);
	if (mark->digest.at)
		return 0;
	r = output_put(output, output->out->header, output->out->header_bytes);
	if (r >= 0)
		mark->digest = output->digest;
	return r;
}

/* A mark is worth what the file and the plan say to it. */
static bool mark_holds(const struct output *output)
{
	const struct journal_mark *mark = output->mark;
	const struct out_file *out = output->out;
	struct stat status;
	uint64_t end;

	if (mark->tensors > out->count || fstat(output->fd, &status) < 0)
		return false;
	end = mark->tensors == 0 ? out->header_bytes :
				   out->tensor[mark->tensors - 1].offset +
					   out->tensor[mark->tensors - 1].from->bytes;
	return mark->digest.at == end && (uint64_t)status.st_size >= end;
}

/* Opens directory/path, making the one directory that may be in between. */
static int create_in(int directory, const char *path, int flags)
{
	const char *slash = strchr(path, '/');
	char parent[64];
	int fd;

	if (slash) {
		(void)snprintf(parent, sizeof(parent), "%.*s", (int)(slash - path), path);
		if (mkdirat(directory, parent, 0777) < 0 && errno != EEXIST)
			return -errno;
	}
	fd = openat(directory, path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | flags, 0666);
	return fd < 0 ? -errno : fd;
}

int write_result(struct writer *writer, size_t index, const struct out_file *out,
		 struct journal_mark *mark, struct sana_error *error)
{
	struct output output = {
		.writer = writer, .out = out, .mark = mark, .index = index, .error = error
	};
	int r, saved;

	output.fd = create_in(writer->directory, out->path, 0);
	if (output.fd < 0)
		return write_failed(writer, output.fd, out->path, error);
	if (!mark_holds(&output)) {
		digest_init(&mark->digest);
		mark->tensors = 0;
	}
	r = output_begin(&output);
	if (r >= 0)
		r = output_tensors(&output);
	/* Also after a failure: whole tensors that are written need not be written again. */
	if (mark->digest.at) {
		output.error = r < 0 ? NULL : error;
		saved = checkpoint(&output);
		r = r < 0 ? r : saved;
	}
	if (close(output.fd) < 0 && r >= 0)
		r = write_failed(writer, -errno, out->path, error);
	return r;
}

int write_small(struct writer *writer, const char *path, const void *data, size_t bytes,
		struct sana_error *error)
{
	int fd = create_in(writer->directory, path, O_TRUNC), r;

	if (fd < 0)
		return write_failed(writer, fd, path, error);
	r = write_all(fd, data, bytes);
	if (r >= 0 && !writer->options->no_sync && fsync(fd) < 0)
		r = -errno;
	if (close(fd) < 0 && r >= 0)
		r = -errno;
	return r < 0 ? write_failed(writer, r, path, error) : 0;
}
