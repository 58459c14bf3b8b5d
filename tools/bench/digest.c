/* One digest for a model directory, so that figures of the same model can be told from others. */
#include "base/util.h"
#include "tools/bench/bench.h"

#include <dirent.h>
#include <errno.h>
#include <nettle/sha2.h>

enum { BUFFER_BYTES = 1 << 20 };

static bool ends_with(const char *name, const char *end)
{
	const size_t n = strlen(name), m = strlen(end);

	return n >= m && strcmp(name + n - m, end) == 0;
}

/* Configurations, weights, their index and the tokenizer; no manifest, no notes. */
static int belongs(const struct dirent *entry)
{
	return ends_with(entry->d_name, ".safetensors") ||
	       ends_with(entry->d_name, ".index.json") ||
	       strcmp(entry->d_name, "config.json") == 0 ||
	       strcmp(entry->d_name, "stream.json") == 0 || ends_with(entry->d_name, ".model");
}

static int file_add(struct sha256_ctx *sum, const char *path, uint8_t *buffer,
		    struct sana_error *error)
{
	_cleanup_(fclosep) FILE *file = fopen(path, "rbe");
	size_t n;

	if (!file)
		return sana_error_set(error, -errno, "file.open", "%s: cannot open: %s.", path,
				      strerror(errno));
	while ((n = fread(buffer, 1, BUFFER_BYTES, file)) > 0)
		sha256_update(sum, n, buffer);
	if (ferror(file))
		return sana_error_set(error, -EIO, "file.open", "%s: cannot read.", path);
	return 0;
}

/* Files of one folder in the order of their names: name with its NUL, then contents. */
static int folder_add(struct sha256_ctx *sum, const char *directory, const char *folder,
		      uint8_t *buffer, struct sana_error *error)
{
	struct dirent **entries;
	char path[4096];
	int r = 0, n;

	(void)snprintf(path, sizeof(path), "%s/%s", directory, folder);
	n = scandir(path, &entries, belongs, alphasort);
	if (n < 0)
		return sana_error_set(error, -errno, "file.open", "%s: cannot list: %s.", path,
				      strerror(errno));
	for (int i = 0; i < n; i++) {
		if (r >= 0) {
			(void)snprintf(path, sizeof(path), "%s/%s/%s", directory, folder,
				       entries[i]->d_name);
			sha256_update(sum, strlen(entries[i]->d_name) + 1,
				      (const uint8_t *)entries[i]->d_name);
			r = file_add(sum, path, buffer, error);
		}
		free(entries[i]);
	}
	free(entries);
	return r;
}

int bench_model_digest(const struct sana_model_options *model, char ret[BENCH_DIGEST_BYTES],
		       struct sana_error *error)
{
	static const char *const folders[] = { ".", "dit", "vae", "text_encoder" };
	_cleanup_(freep) uint8_t *buffer = malloc(BUFFER_BYTES);
	uint8_t bytes[SHA256_DIGEST_SIZE];
	struct sha256_ctx sum;
	int r = 0;

	if (model->shape) {
		(void)snprintf(ret, BENCH_DIGEST_BYTES, "%.32s synthetic:%llu", model->shape,
			       (unsigned long long)model->synthetic_seed);
		return 0;
	}
	if (!buffer)
		return -ENOMEM;
	sha256_init(&sum);
	for (size_t i = 0; i < ARRAY_SIZE(folders) && r >= 0; i++)
		r = folder_add(&sum, model->directory, folders[i], buffer, error);
	if (r < 0)
		return r;
	sha256_digest(&sum, sizeof(bytes), bytes);
	for (size_t i = 0; i < sizeof(bytes); i++)
		(void)snprintf(ret + 2 * i, 3, "%02x", bytes[i]);
	return 0;
}
