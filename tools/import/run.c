/* Carrying out a plan: the partial directory, the results, the manifest, the final name. */
#include "tools/import/run.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "tools/import/write.h"

#define ERROR_NAME "import.output"

static const char manifest_file[] = "manifest.json";

enum { MAX_RESULTS = 16, SPARE_BYTES = 1 << 20 };

struct run {
	const struct plan *plan;
	const struct run_options *options;
	char partial[PATH_MAX];
	struct writer writer;
	struct journal_mark mark[PART_COUNT]; /* one large result per part */
	struct digest_file *file;	      /* large sources, in the order of parts */
	struct stat *status;		      /* of those, at the beginning */
	struct journal_mark *source;
	size_t files;
	struct result_digest result[MAX_RESULTS];
	size_t results;
	uint64_t resumed_bytes;
};

static int fail(const char *path, int r, const char *what, struct sana_error *error)
{
	return sana_error_set(error, r, ERROR_NAME, "%s: %s: %s.", file_path_tail(path), what,
			      strerror(-r));
}

static int no_memory(struct sana_error *error)
{
	return sana_error_set(error, -ENOMEM, "import.memory", "No memory for the import.");
}

/* ------------------------------------------------------------------------------------ sources */

static int sources_gather(struct run *run, struct sana_error *error)
{
	size_t count = 0;

	for (int kind = 0; kind < PART_COUNT; kind++)
		count += run->plan->part[kind].set ? run->plan->part[kind].set->files : 0;
	run->file = calloc(count + 1, sizeof(*run->file));
	run->status = calloc(count + 1, sizeof(*run->status));
	run->source = calloc(count + 1, sizeof(*run->source));
	if (!run->file || !run->status || !run->source)
		return no_memory(error);
	for (int kind = 0; kind < PART_COUNT; kind++) {
		const struct set *set = run->plan->part[kind].set;

		for (size_t i = 0; set && i < set->files; i++) {
			const struct set_file *from = &set->file[i];
			struct digest_file *to = &run->file[run->files];

			/* safetensors files have their own descriptor as well */
			*to = (struct digest_file){ .path = from->path,
						    .fd = from->source.fd,
						    .size = from->source.size };
			if (fstat(to->fd, &run->status[run->files]) < 0)
				return fail(to->path, -errno, "cannot look at", error);
			digest_init(&to->digest);
			run->source[run->files++].digest = to->digest;
		}
	}
	return 0;
}

/* The same file, untouched since the beginning. */
static int sources_unchanged(const struct run *run, struct sana_error *error)
{
	struct stat now;

	for (size_t i = 0; i < run->files; i++) {
		const struct stat *then = &run->status[i];

		if (fstat(run->file[i].fd, &now) < 0)
			return fail(run->file[i].path, -errno, "cannot look at", error);
		if (now.st_size != then->st_size || now.st_mtim.tv_sec != then->st_mtim.tv_sec ||
		    now.st_mtim.tv_nsec != then->st_mtim.tv_nsec)
			return sana_error_set(error, -ESTALE, "import.source",
					      "%s was changed while it was read; run the import "
					      "again.",
					      file_path_tail(run->file[i].path));
	}
	return 0;
}

/* Everything the results depend on: an unfinished import of anything else is not gone on with. */
static void identity_make(const struct run *run, char to[DIGEST_TEXT_BYTES])
{
	struct digest digest;

	digest_init(&digest);
	digest_add(&digest, "sana-import " SANA_VERSION, sizeof("sana-import " SANA_VERSION));
	for (size_t i = 0; i < run->files; i++) {
		const struct stat *s = &run->status[i];
		const uint64_t numbers[] = { s->st_dev, s->st_ino, (uint64_t)s->st_size,
					     (uint64_t)s->st_mtim.tv_sec,
					     (uint64_t)s->st_mtim.tv_nsec };

		digest_add(&digest, run->file[i].path, strlen(run->file[i].path) + 1);
		digest_add(&digest, numbers, sizeof(numbers));
	}
	for (int kind = 0; kind < PART_COUNT; kind++) {
		const struct part *part = &run->plan->part[kind];

		if (!part->set)
			continue;
		digest_add(&digest, part->out.path, strlen(part->out.path) + 1);
		digest_add(&digest, part->out.header, part->out.header_bytes);
		digest_add(&digest, &part->converted, sizeof(part->converted));
	}
	digest_text(&digest, to);
}

/* ------------------------------------------------------------------------------------- places */

/* 0 when there is nothing, or an empty directory, where the result shall appear. */
static int output_is_free(const char *path, struct sana_error *error)
{
	const struct dirent *entry;
	struct stat status;
	DIR *directory;

	if (lstat(path, &status) < 0)
		return errno == ENOENT ? 0 : fail(path, -errno, "cannot look at", error);
	directory = opendir(path);
	while (directory && (entry = readdir(directory)))
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			break;
	if (directory && !entry) {
		(void)closedir(directory);
		return 0;
	}
	if (directory)
		(void)closedir(directory);
	return sana_error_set(error, -EEXIST, ERROR_NAME,
			      "%s is there already; name another output or remove it.",
			      file_path_tail(path));
}

/* Only what an import makes may be in a partial directory: nothing else is given the final name. */
static int partial_is_ours(const char *path, struct sana_error *error)
{
	static const char *const ours[] = { ".",
					    "..",
					    JOURNAL_NAME,
					    "dit",
					    "vae",
					    "text_encoder",
					    "stream.json",
					    "manifest.json",
					    "model.safetensors" };
	DIR *directory = opendir(path);
	const struct dirent *entry;
	size_t i = 0;

	if (!directory)
		return fail(path, -errno, "cannot look into it", error);
	while ((entry = readdir(directory))) {
		for (i = 0; i < ARRAY_SIZE(ours); i++)
			if (strcmp(ours[i], entry->d_name) == 0)
				break;
		if (i == ARRAY_SIZE(ours))
			break;
	}
	(void)closedir(directory);
	if (!entry)
		return 0;
	return sana_error_set(error, -EEXIST, ERROR_NAME,
			      "%s has files that no import made; remove it or name another output.",
			      file_path_tail(path));
}

/* What an import of something else left: results of other names would slip into this one. */
static void partial_clear(int directory)
{
	static const char *const files[] = {
		"dit/model.safetensors",
		"dit/config.json",
		"vae/diffusion_pytorch_model.safetensors",
		"vae/config.json",
		"text_encoder/model.safetensors",
		"text_encoder/config.json",
		"text_encoder/tokenizer.model",
		"stream.json",
		"manifest.json",
		"model.safetensors",
	};

	for (size_t i = 0; i < ARRAY_SIZE(files); i++)
		(void)unlinkat(directory, files[i], 0);
	for (int kind = 0; kind < PART_COUNT; kind++)
		(void)unlinkat(directory, part_name((enum part_kind)kind), AT_REMOVEDIR);
}

static int partial_open(struct run *run, struct sana_error *error)
{
	char identity[DIGEST_TEXT_BYTES];
	int n, r;

	n = snprintf(run->partial, sizeof(run->partial), "%s.partial", run->options->output);
	if (n < 0 || (size_t)n >= sizeof(run->partial))
		return fail(run->options->output, -ENAMETOOLONG, "cannot make it", error);
	r = output_is_free(run->options->output, error);
	if (r < 0)
		return r;
	if (mkdir(run->partial, 0777) < 0 && errno != EEXIST)
		return fail(run->partial, -errno, "cannot make it", error);
	r = partial_is_ours(run->partial, error);
	if (r < 0)
		return r;
	run->writer.directory = open(run->partial, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (run->writer.directory < 0)
		return fail(run->partial, -errno, "cannot open", error);
	identity_make(run, identity);
	r = journal_open(run->partial, identity, run->mark, PART_COUNT, run->source, run->files,
			 &run->writer.journal, error);
	if (r >= 0 && !run->writer.journal.resumed)
		partial_clear(run->writer.directory);
	return r;
}

static int room_check(const struct run *run, struct sana_error *error)
{
	uint64_t needed = plan_bytes(run->plan) + SPARE_BYTES, room;
	struct statvfs status;

	if (fstatvfs(run->writer.directory, &status) < 0)
		return fail(run->partial, -errno, "cannot look at the disk", error);
	room = (uint64_t)status.f_bavail * status.f_frsize;
	needed -= MIN_OF(needed, run->resumed_bytes);
	if (needed <= room)
		return 0;
	return sana_error_set(error, -ENOSPC, "import.no-space",
			      "%s: %.2f GB are needed and %.2f GB are free there.",
			      file_path_tail(run->partial), (double)needed / 1e9,
			      (double)room / 1e9);
}

/* ------------------------------------------------------------------------------------ results */

static void result_add(struct run *run, const char *path, uint64_t bytes, enum part_kind kind,
		       const struct digest *digest)
{
	struct result_digest *result = &run->result[run->results++];

	*result = (struct result_digest){ .path = path, .bytes = bytes, .kind = kind };
	digest_text(digest, result->sha256);
}

static int small_write(struct run *run, const struct small_file *file, enum part_kind kind,
		       struct sana_error *error)
{
	struct digest digest;
	int r;

	if (!file->data)
		return 0;
	r = write_small(&run->writer, file->path, file->data, file->bytes, error);
	if (r < 0)
		return r;
	digest_init(&digest);
	digest_add(&digest, file->data, file->bytes);
	result_add(run, file->path, file->bytes, kind, &digest);
	return 0;
}

static int results_write(struct run *run, struct sana_error *error)
{
	int r = 0;

	for (int kind = 0; r >= 0 && kind < PART_COUNT; kind++) {
		const struct part *part = &run->plan->part[kind];

		if (!part->set)
			continue;
		r = write_result(&run->writer, (size_t)kind, &part->out, &run->mark[kind], error);
		if (r < 0)
			break;
		result_add(run, part->out.path, part->out.bytes, part->kind,
			   &run->mark[kind].digest);
		r = small_write(run, &part->config, part->kind, error);
		if (r >= 0)
			r = small_write(run, &part->tokenizer, part->kind, error);
	}
	return r < 0 ? r : small_write(run, &run->plan->stream, PART_COUNT, error);
}

/* The thread digests on after the last byte is written; signals still count. */
static int sources_wait(struct run *run, struct sana_error *error)
{
	struct digest_thread *thread = &run->writer.thread;
	int r;

	for (size_t i = 0; i < run->files; i++) {
		struct digest digest = { 0 };

		while (digest_thread_look(thread, i, &digest), digest.at < run->file[i].size) {
			const struct timespec pause = { .tv_nsec = 20000000 };

			r = write_stopped(&run->writer, error);
			if (r < 0)
				return r;
			(void)nanosleep(&pause, NULL);
			if (atomic_load(&thread->ended))
				break;
		}
	}
	r = digest_thread_end(thread, false);
	if (r < 0)
		return fail(run->file[thread->failed].path, r, "cannot read", error);
	return sources_unchanged(run, error);
}

static size_t small_source(const struct small_file *file, enum part_kind kind,
			   struct source_digest *to)
{
	if (!file->source)
		return 0;
	*to = (struct source_digest){ .path = file->source, .bytes = file->bytes, .kind = kind };
	digest_of(file->data, file->bytes, to->sha256);
	return 1;
}

static int manifest_write(struct run *run, char **ret, struct sana_error *error)
{
	const struct plan *plan = run->plan;
	_cleanup_(freep) struct source_digest *source = NULL;
	_cleanup_(freep) char *text = NULL;
	size_t count = 0, file = 0;
	int r;

	source = calloc(run->files + 2 * PART_COUNT + 1, sizeof(*source));
	if (!source)
		return no_memory(error);
	for (int kind = 0; kind < PART_COUNT; kind++) {
		const struct part *part = &plan->part[kind];

		for (size_t i = 0; part->set && i < part->set->files; i++, file++, count++) {
			source[count] = (struct source_digest){ .path = run->file[file].path,
								.bytes = run->file[file].size,
								.kind = part->kind };
			digest_text(&run->file[file].digest, source[count].sha256);
		}
		count += small_source(&part->config, part->kind, &source[count]);
		count += small_source(&part->tokenizer, part->kind, &source[count]);
	}
	count += small_source(&plan->stream, PART_COUNT, &source[count]);
	text = manifest_make(plan, source, count, run->result, run->results);
	if (!text)
		return no_memory(error);
	r = write_small(&run->writer, manifest_file, text, strlen(text), error);
	if (r >= 0)
		*ret = TAKE_PTR(text);
	return r;
}

static int sync_directory(int parent, const char *path, struct sana_error *error)
{
	int fd = openat(parent, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;

	if (fd < 0 && errno == ENOENT)
		return 0;
	if (fd < 0 || fsync(fd) < 0)
		r = fail(path, -errno, "cannot write", error);
	if (fd >= 0)
		(void)close(fd);
	return r;
}

/* Everything is there: the journal goes, the name comes. */
static int finish(struct run *run, struct sana_error *error)
{
	const char *output = run->options->output;
	char parent[PATH_MAX];
	const char *slash;
	int r = 0;

	if (unlinkat(run->writer.directory, JOURNAL_NAME, 0) < 0)
		return fail(run->partial, -errno, "cannot remove its journal", error);
	for (int kind = 0; r >= 0 && kind < PART_COUNT && !run->options->no_sync; kind++)
		r = sync_directory(run->writer.directory, part_name((enum part_kind)kind), error);
	if (r >= 0 && !run->options->no_sync && fsync(run->writer.directory) < 0)
		r = fail(run->partial, -errno, "cannot write", error);
	if (r < 0)
		return r;
	if (rename(run->partial, output) < 0)
		return fail(output, -errno, "cannot give it its name", error);
	if (run->options->no_sync)
		return 0;
	slash = strrchr(output, '/');
	(void)snprintf(parent, sizeof(parent), "%.*s", slash ? (int)MAX_OF(slash - output, 1) : 1,
		       slash ? output : ".");
	return sync_directory(AT_FDCWD, parent, error);
}

static int sources_start(struct run *run, struct sana_error *error)
{
	int r;

	for (size_t i = 0; i < run->files; i++)
		if (run->source[i].digest.at <= run->file[i].size)
			run->file[i].digest = run->source[i].digest;
	r = digest_thread_start(&run->writer.thread, run->file, run->files);
	return r < 0 ? sana_error_set(error, r, "import.memory", "No thread: %s.", strerror(-r)) :
		       0;
}

static int run_all(struct run *run, struct run_result *ret, struct sana_error *error)
{
	_cleanup_(freep) char *manifest = NULL;
	int r;

	for (int kind = 0; kind < PART_COUNT; kind++)
		digest_init(&run->mark[kind].digest);
	r = sources_gather(run, error);
	if (r >= 0)
		r = partial_open(run, error);
	if (r < 0)
		return r;
	for (int kind = 0; kind < PART_COUNT; kind++)
		run->resumed_bytes += run->mark[kind].digest.at;
	r = room_check(run, error);
	if (r >= 0)
		r = sources_start(run, error);
	if (r < 0)
		return r;
	run->writer.source = run->source;
	progress_start(&run->writer.progress, plan_bytes(run->plan), run->resumed_bytes,
		       run->options->quiet);
	if (run->resumed_bytes && !run->options->quiet)
		(void)fprintf(stderr, "sana-import: going on in %s, %.2f GB are done.\n",
			      run->partial, (double)run->resumed_bytes / 1e9);
	r = results_write(run, error);
	progress_end(&run->writer.progress);
	if (r >= 0)
		r = sources_wait(run, error);
	if (r >= 0)
		r = manifest_write(run, &manifest, error);
	if (r >= 0)
		r = finish(run, error);
	if (r < 0)
		return r;
	*ret = (struct run_result){ .manifest = TAKE_PTR(manifest),
				    .seconds = progress_seconds(&run->writer.progress),
				    .bytes = plan_bytes(run->plan),
				    .resumed_bytes = run->resumed_bytes };
	return 0;
}

int run_plan(const struct plan *plan, const struct run_options *options, struct run_result *ret,
	     struct sana_error *error)
{
	_cleanup_(freep) struct run *run = calloc(1, sizeof(*run));
	int r = -ENOMEM;

	if (!run)
		return no_memory(error);
	run->plan = plan;
	run->options = options;
	run->writer.plan = plan;
	run->writer.options = options;
	run->writer.directory = -1;
	run->writer.journal.fd = -1;
	run->writer.buffer = malloc(WRITE_BUFFER_BYTES);
	r = run->writer.buffer ? run_all(run, ret, error) : no_memory(error);
	(void)digest_thread_end(&run->writer.thread, true);
	journal_close(&run->writer.journal);
	if (run->writer.directory >= 0)
		(void)close(run->writer.directory);
	free(run->writer.buffer);
	free(run->file);
	free(run->status);
	free(run->source);
	return r;
}
