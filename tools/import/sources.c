/* Walking the places that were named on the command line. */
#include "tools/import/sources.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "tools/import/set.h"

#define ERROR_NAME "import.source"

enum { MAX_DEPTH = 8, MAX_ENTRIES = 100000 };

struct walk {
	struct sources *sources;
	size_t entries; /* looked at */
	struct sana_error *error;
};

static void closedirp(DIR **directory)
{
	if (*directory)
		(void)closedir(*directory);
}

static int walk_add(struct walk *walk, const char *path, enum source_kind kind, bool named)
{
	struct sources *sources = walk->sources;
	struct source *more;

	more = realloc(sources->source, (sources->count + 1) * sizeof(*more));
	if (!more)
		return sana_error_set(walk->error, -ENOMEM, ERROR_NAME, "No memory for sources.");
	sources->source = more;
	more = &sources->source[sources->count];
	*more = (struct source){ .path = strdup(path), .kind = kind, .named = named };
	if (!more->path)
		return sana_error_set(walk->error, -ENOMEM, ERROR_NAME, "No memory for sources.");
	sources->count++;
	return 0;
}

static bool ends_with(const char *name, const char *tail)
{
	size_t length = strlen(name);

	return length >= strlen(tail) && strcmp(name + length - strlen(tail), tail) == 0;
}

/* A shard is part of what its index names: "model-00001-of-00002.safetensors". */
static bool is_shard_with_index(const char *path)
{
	const char *slash = strrchr(path, '/');
	const char *of = strstr(slash ? slash : path, "-of-"), *number = of;
	char index[PATH_MAX];
	int n;

	if (!of || !ends_with(path, ".safetensors"))
		return false;
	while (number > path && number[-1] >= '0' && number[-1] <= '9')
		number--;
	if (number == of || number == path || number[-1] != '-')
		return false;
	n = snprintf(index, sizeof(index), "%.*s.safetensors.index.json", (int)(number - 1 - path),
		     path);
	return n > 0 && (size_t)n < sizeof(index) && access(index, F_OK) == 0;
}

/* What a file in a directory is by its name, which decides whether it is looked at. */
static int walk_file(struct walk *walk, const char *path, const char *name)
{
	static const char *const weights[] = { ".pth", ".pt",	       ".ckpt",
					       ".bin", ".safetensors", ".safetensors.index.json" };

	if (strcmp(name, "stream.json") == 0)
		return walk_add(walk, path, SOURCE_STREAM, false);
	if (strcmp(name, "tokenizer.model") == 0)
		return walk_add(walk, path, SOURCE_TOKENIZER, false);
	for (size_t i = 0; i < ARRAY_SIZE(weights); i++)
		if (ends_with(name, weights[i]) && !is_shard_with_index(path))
			return walk_add(walk, path, SOURCE_WEIGHTS, false);
	return 0;
}

static int walk_directory(struct walk *walk, const char *directory, int depth);

static int walk_entry(struct walk *walk, const char *directory, const struct dirent *entry,
		      int depth)
{
	struct stat status, link;
	char path[PATH_MAX];
	int n;

	if (++walk->entries > MAX_ENTRIES)
		return sana_error_set(walk->error, -E2BIG, ERROR_NAME,
				      "%s: more than %d files; name the model's own directory.",
				      file_path_tail(directory), MAX_ENTRIES);
	n = snprintf(path, sizeof(path), "%s/%s", directory, entry->d_name);
	/* What vanishes meanwhile, or cannot be named, is not a source. */
	if (n < 0 || (size_t)n >= sizeof(path) || lstat(path, &link) < 0 || stat(path, &status) < 0)
		return 0;
	if (S_ISREG(status.st_mode))
		return walk_file(walk, path, entry->d_name);
	if (S_ISDIR(link.st_mode) && depth < MAX_DEPTH)
		return walk_directory(walk, path, depth + 1);
	return 0;
}

static int walk_directory(struct walk *walk, const char *directory, int depth)
{
	_cleanup_(closedirp) DIR *open = opendir(directory);
	const struct dirent *entry;
	int r = 0;

	if (!open)
		return sana_error_set(walk->error, -errno, ERROR_NAME,
				      "%s: cannot look into it: %s.", file_path_tail(directory),
				      strerror(errno));
	while (r >= 0 && (entry = readdir(open)))
		if (entry->d_name[0] != '.')
			r = walk_entry(walk, directory, entry, depth);
	return r;
}

/* A file on the command line: its name only tells the few that are not weights. */
static int walk_named(struct walk *walk, const char *path)
{
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;

	if (strcmp(name, "stream.json") == 0)
		return walk_add(walk, path, SOURCE_STREAM, true);
	if (ends_with(name, ".model"))
		return walk_add(walk, path, SOURCE_TOKENIZER, true);
	/* Configurations are read where the weights are, shards through their index. */
	if ((ends_with(name, ".json") && !set_is_index(path)) || is_shard_with_index(path))
		return 0;
	return walk_add(walk, path, SOURCE_WEIGHTS, true);
}

static int compare_sources(const void *a, const void *b)
{
	return strcmp(((const struct source *)a)->path, ((const struct source *)b)->path);
}

int sources_find(char *const *places, int count, struct sources *ret, struct sana_error *error)
{
	struct walk walk = { .sources = ret, .error = error };
	struct stat status;
	char path[PATH_MAX];
	size_t length;
	int r = 0;

	*ret = (struct sources){ 0 };
	for (int i = 0; r >= 0 && i < count; i++) {
		if (stat(places[i], &status) < 0) {
			r = sana_error_set(error, -errno, ERROR_NAME, "%s: %s.",
					   file_path_tail(places[i]), strerror(errno));
			break;
		}
		length = strlen(places[i]);
		if (length >= sizeof(path)) {
			r = sana_error_set(error, -ENAMETOOLONG, ERROR_NAME,
					   "%.200s… is too long for a path.", places[i]);
			break;
		}
		memcpy(path, places[i], length + 1);
		while (length > 1 && path[length - 1] == '/')
			path[--length] = '\0';
		if (S_ISDIR(status.st_mode))
			r = walk_directory(&walk, path, 1);
		else
			r = walk_named(&walk, path);
	}
	if (r < 0)
		sources_finish(ret);
	else if (ret->count)
		qsort(ret->source, ret->count, sizeof(*ret->source), compare_sources);
	return r;
}

void sources_finish(struct sources *sources)
{
	for (size_t i = 0; i < sources->count; i++)
		free(sources->source[i].path);
	free(sources->source);
	*sources = (struct sources){ 0 };
}
