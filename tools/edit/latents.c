/* sana-edit: latents of a whole run as a safetensors file. */
#include "tools/edit/edit.h"

#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ALIGN = 8 };

struct edit_latents {
	char *path, *partial;
	FILE *spool[2]; /* edited and source latents, [T][h][w][C] as they come */
	int64_t *chunk; /* latents of each chunk */
	size_t chunks, capacity;
	size_t count;	       /* latents in all */
	size_t channels, area; /* area: h·w */
	int width, height;     /* of a latent */
	bool overwrite;
	int status; /* first failure */
};

void edit_latents_destroy(struct edit_latents *latents)
{
	if (!latents)
		return;
	for (int i = 0; i < 2; i++)
		fclosep(&latents->spool[i]);
	if (latents->partial)
		(void)unlink(latents->partial);
	free(latents->partial);
	free(latents->path);
	free(latents->chunk);
	free(latents);
}

/* A file without a name in the directory of `path`: as large as memory need not be. */
static FILE *spool_open(const char *path)
{
	_cleanup_(freep) char *name = NULL;
	FILE *file;
	int fd;

	if (asprintf(&name, "%s.XXXXXX", path) < 0)
		return NULL;
	fd = mkostemp(name, O_CLOEXEC);
	if (fd < 0)
		return NULL;
	(void)unlink(name);
	file = fdopen(fd, "w+b");
	if (!file)
		(void)close(fd);
	return file;
}

int edit_latents_create(const char *path, bool overwrite, int width, int height,
			const struct stream_config *config, struct edit_latents **ret,
			struct sana_error *error)
{
	struct edit_latents *latents;
	int r = 0;

	if (!overwrite && access(path, F_OK) == 0)
		return sana_error_set(error, -EEXIST, "latents.open",
				      "%s: the file exists and is left as it is.",
				      file_path_tail(path));
	latents = calloc(1, sizeof(*latents));
	if (!latents)
		return -ENOMEM;
	latents->overwrite = overwrite;
	latents->channels = (size_t)config->latent_channels;
	latents->width = width / config->spatial_ratio;
	latents->height = height / config->spatial_ratio;
	latents->area = (size_t)latents->width * (size_t)latents->height;
	latents->path = strdup(path);
	if (!latents->path || asprintf(&latents->partial, "%s.partial", path) < 0)
		r = -ENOMEM;
	for (int i = 0; i < 2 && r == 0; i++) {
		latents->spool[i] = spool_open(path);
		r = latents->spool[i] ? 0 : -errno;
	}
	if (r < 0) {
		edit_latents_destroy(latents);
		return sana_error_set(error, r, "latents.open", "%s: cannot write: %s.",
				      file_path_tail(path), strerror(-r));
	}
	*ret = latents;
	return 0;
}

static int chunk_note(struct edit_latents *l, int frames)
{
	int64_t *grown;

	if (l->chunks == l->capacity) {
		l->capacity = l->capacity ? 2 * l->capacity : 64;
		grown = realloc(l->chunk, l->capacity * sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		l->chunk = grown;
	}
	l->chunk[l->chunks++] = frames;
	l->count += (size_t)frames;
	return 0;
}

void edit_latents_add(void *context, uint64_t chunk, int frames, const float *latents,
		      const float *source)
{
	struct edit_latents *l = context;
	const size_t values = (size_t)frames * l->area * l->channels;

	(void)chunk;
	if (l->status < 0)
		return;
	if (fwrite(latents, sizeof(float), values, l->spool[0]) != values ||
	    fwrite(source, sizeof(float), values, l->spool[1]) != values)
		l->status = -errno;
	else
		l->status = chunk_note(l, frames);
}

/* The JSON header, padded with blanks so that the data is aligned. */
static int header_write(const struct edit_latents *l, FILE *to)
{
	const size_t bytes = l->count * l->area * l->channels * sizeof(float);
	char text[1024];
	uint64_t length;
	int n;

	n = snprintf(text, sizeof(text) - ALIGN,
		     "{\"latents\":{\"dtype\":\"F32\",\"shape\":[%zu,%zu,%d,%d],"
		     "\"data_offsets\":[0,%zu]},"
		     "\"source_latents\":{\"dtype\":\"F32\",\"shape\":[%zu,%zu,%d,%d],"
		     "\"data_offsets\":[%zu,%zu]},"
		     "\"chunk_latents\":{\"dtype\":\"I64\",\"shape\":[%zu],"
		     "\"data_offsets\":[%zu,%zu]}}",
		     l->channels, l->count, l->height, l->width, bytes, l->channels, l->count,
		     l->height, l->width, bytes, 2 * bytes, l->chunks, 2 * bytes,
		     2 * bytes + l->chunks * sizeof(int64_t));
	while (n % ALIGN)
		text[n++] = ' ';
	length = (uint64_t)n;
	return fwrite(&length, sizeof(length), 1, to) == 1 && fwrite(text, length, 1, to) == 1 ?
		       0 :
		       -errno;
}

/* One channel of [T][h·w][C] to a row of [T][h·w], latent by latent through `row`. */
static int channel_write(const struct edit_latents *l, const float *from, size_t channel,
			 float *row, FILE *to)
{
	for (size_t t = 0; t < l->count; t++) {
		for (size_t p = 0; p < l->area; p++)
			row[p] = from[(t * l->area + p) * l->channels + channel];
		if (fwrite(row, sizeof(*row), l->area, to) != l->area)
			return -errno;
	}
	return 0;
}

static int tensor_write(const struct edit_latents *l, FILE *spool, FILE *to)
{
	const size_t bytes = l->count * l->area * l->channels * sizeof(float);
	float *row;
	void *from;
	int r = 0;

	if (fflush(spool) == EOF)
		return -errno;
	from = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, fileno(spool), 0);
	if (from == MAP_FAILED)
		return -errno;
	row = malloc(l->area * sizeof(*row));
	if (!row)
		r = -ENOMEM;
	for (size_t c = 0; c < l->channels && r == 0; c++)
		r = channel_write(l, from, c, row, to);
	free(row);
	(void)munmap(from, bytes);
	return r;
}

static int file_write(const struct edit_latents *l)
{
	FILE *to = fopen(l->partial, "wbe");
	int r;

	if (!to)
		return -errno;
	r = header_write(l, to);
	for (int i = 0; i < 2 && r == 0; i++)
		r = tensor_write(l, l->spool[i], to);
	if (r == 0 && fwrite(l->chunk, sizeof(*l->chunk), l->chunks, to) != l->chunks)
		r = -errno;
	if (fclose(to) == EOF && r == 0)
		r = -errno;
	if (r == 0 && rename(l->partial, l->path) < 0)
		r = -errno;
	return r;
}

int edit_latents_write(struct edit_latents *latents, struct sana_error *error)
{
	int r = latents->status;

	if (r == 0 && latents->count == 0)
		return 0;
	if (r == 0)
		r = file_write(latents);
	if (r < 0)
		return sana_error_set(error, r, "latents.write", "%s: cannot write: %s.",
				      file_path_tail(latents->path), strerror(-r));
	return 0;
}
