/* The four files of a model directory together: reading, cross-checks, the embedded 2 B model. */
#include "engine/config_reader.h"

#include <errno.h>
#include <limits.h>
#include <sys/stat.h>

#include "base/file.h"

static const char *const file_names[] = { "stream.json", "dit/config.json", "vae/config.json",
					  "text_encoder/config.json" };

enum config_file { FILE_STREAM, FILE_DIT, FILE_VAE, FILE_TEXT, FILE_COUNT };

void model_config_finish(struct model_config *config)
{
	stream_config_finish(&config->stream);
	*config = (struct model_config){ 0 };
}

static int config_parse(enum config_file file, const char *text, size_t length, const char *where,
			struct model_config *config, struct sana_error *error)
{
	switch (file) {
	case FILE_STREAM:
		return stream_config_parse(text, length, where, &config->stream, error);
	case FILE_DIT:
		return dit_config_parse(text, length, where, &config->dit, error);
	case FILE_VAE:
		return vae_config_parse(text, length, where, &config->vae, error);
	case FILE_TEXT:
		return text_config_parse(text, length, where, &config->text, error);
	case FILE_COUNT:
		break;
	}
	return -EINVAL;
}

/* One pair of fields in two files that must agree. */
static int check_equal(int a, const char *a_name, int b, const char *b_name,
		       struct sana_error *error)
{
	if (a == b)
		return 0;
	return sana_error_set(error, -EINVAL, CONFIG_ERROR,
			      "%s is %d but %s is %d; the files do not belong together.", a_name, a,
			      b_name, b);
}

static int check_picture(const struct model_config *config, struct sana_error *error)
{
	const struct stream_config *stream = &config->stream;
	int rows = stream->height / stream->spatial_ratio;
	int columns = stream->width / stream->spatial_ratio;

	/* The latent grid is the smallest picture a convolution sees. */
	if ((config->vae.encoder_reflect || config->vae.decoder_reflect) &&
	    (rows < 2 || columns < 2))
		return sana_error_set(
			error, -EINVAL, CONFIG_ERROR,
			"stream.json: a picture of %d×%d is a latent of %d×%d, but "
			"reflecting padding needs at least 2×2; enlarge \"width\" and "
			"\"height\".",
			stream->width, stream->height, columns, rows);
	return 0;
}

int model_config_check(const struct model_config *config, struct sana_error *error)
{
	const struct stream_config *stream = &config->stream;
	const struct dit_config *dit = &config->dit;
	const struct vae_config *vae = &config->vae;
	const struct {
		int a;
		const char *a_name;
		int b;
		const char *b_name;
	} pairs[] = {
		{ stream->latent_channels, "\"latent_channels\" in stream.json",
		  vae->latent_channels, "\"latent_channels\" in vae/config.json" },
		{ dit->in_channels, "\"in_channels\" in dit/config.json", vae->latent_channels,
		  "\"latent_channels\" in vae/config.json" },
		{ dit->source_channels, "\"additional_inchannels\" in dit/config.json",
		  vae->latent_channels, "\"latent_channels\" in vae/config.json" },
		{ stream->spatial_ratio, "\"vae_spatial_ratio\" in stream.json", vae->spatial_ratio,
		  "the spatial compression in vae/config.json" },
		{ stream->temporal_ratio, "\"vae_temporal_ratio\" in stream.json",
		  vae->temporal_ratio, "the temporal compression in vae/config.json" },
		{ dit->caption_channels, "\"caption_channels\" in dit/config.json",
		  config->text.hidden_size, "\"hidden_size\" in text_encoder/config.json" },
		{ stream->max_tokens, "\"max_tokens\" in stream.json", dit->max_tokens,
		  "\"model_max_length\" in dit/config.json" },
	};
	int r;

	for (size_t i = 0; i < ARRAY_SIZE(pairs); i++) {
		r = check_equal(pairs[i].a, pairs[i].a_name, pairs[i].b, pairs[i].b_name, error);
		if (r < 0)
			return r;
	}
	if (stream->text_softcap && config->text.attn_logit_softcapping == 0)
		return sana_error_set(
			error, -EINVAL, CONFIG_ERROR,
			"stream.json: \"text_softcap\" is true, but "
			"text_encoder/config.json has no \"attn_logit_softcapping\".");
	return check_picture(config, error);
}

static int check_directory(const char *directory, struct sana_error *error)
{
	struct stat status;

	if (stat(directory, &status) < 0)
		return sana_error_set(error, -errno, "model.directory",
				      "Cannot open the model directory %s: %s.",
				      file_path_tail(directory), strerror(errno));
	if (!S_ISDIR(status.st_mode))
		return sana_error_set(error, -ENOTDIR, "model.directory",
				      "%s is not a directory; a model is a directory with a "
				      "stream.json.",
				      file_path_tail(directory));
	return 0;
}

static int config_load(const char *directory, enum config_file file, struct model_config *config,
		       struct sana_error *error)
{
	_cleanup_(freep) char *text = NULL;
	char path[PATH_MAX];
	size_t length;
	int r;

	r = snprintf(path, sizeof(path), "%s/%s", directory, file_names[file]);
	if (r < 0 || (size_t)r >= sizeof(path))
		return sana_error_set(error, -ENAMETOOLONG, "model.directory",
				      "%.200s… is too long for a path.", directory);
	r = file_read(path, CONFIG_MAX_FILE_BYTES, CONFIG_ERROR, &text, &length, error);
	if (r < 0)
		return r;
	return config_parse(file, text, length, file_path_tail(path), config, error);
}

int model_config_load(const char *directory, struct model_config *ret, struct sana_error *error)
{
	_cleanup_(model_config_finish) struct model_config config = { 0 };
	int r;

	r = check_directory(directory, error);
	if (r < 0)
		return r;
	for (int file = 0; file < FILE_COUNT; file++) {
		r = config_load(directory, (enum config_file)file, &config, error);
		if (r < 0)
			return r;
	}
	r = model_config_check(&config, error);
	if (r < 0) {
		(void)sana_error_prefix(error, "%s", file_path_tail(directory));
		return r;
	}
	*ret = config;
	config = (struct model_config){ 0 };
	return 0;
}

/* From engine/shapes.S: the start and the end of each file. */
#define EMBEDDED(file) extern const char model_shape_##file[], model_shape_##file##_end[];
EMBEDDED(2b_stream)
EMBEDDED(2b_dit)
EMBEDDED(2b_vae)
EMBEDDED(2b_text)
EMBEDDED(demo_stream)
EMBEDDED(demo_dit)
EMBEDDED(demo_vae)
EMBEDDED(demo_text)
#undef EMBEDDED

#define EMBEDDED(file)                                       \
	{                                                    \
		model_shape_##file, model_shape_##file##_end \
	}
static const struct shape {
	const char *name;
	struct {
		const char *start, *end;
	} file[FILE_COUNT];
} shapes[] = {
	{ "2b",
	  { [FILE_STREAM] = EMBEDDED(2b_stream),
	    [FILE_DIT] = EMBEDDED(2b_dit),
	    [FILE_VAE] = EMBEDDED(2b_vae),
	    [FILE_TEXT] = EMBEDDED(2b_text) } },
	{ "demo",
	  { [FILE_STREAM] = EMBEDDED(demo_stream),
	    [FILE_DIT] = EMBEDDED(demo_dit),
	    [FILE_VAE] = EMBEDDED(demo_vae),
	    [FILE_TEXT] = EMBEDDED(demo_text) } },
};
#undef EMBEDDED

static const struct shape *shape_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(shapes); i++)
		if (strcmp(name, shapes[i].name) == 0)
			return &shapes[i];
	return NULL;
}

static size_t shape_length(const struct shape *shape, int file)
{
	return (size_t)(shape->file[file].end - shape->file[file].start);
}

const char *model_config_builtin_text(const char *name, const char *file, size_t *ret_length)
{
	const struct shape *shape = shape_find(name);

	for (int i = 0; shape && i < FILE_COUNT; i++) {
		if (strcmp(file_names[i], file) != 0)
			continue;
		*ret_length = shape_length(shape, i);
		return shape->file[i].start;
	}
	return NULL;
}

int model_config_builtin(const char *name, struct model_config *ret, struct sana_error *error)
{
	_cleanup_(model_config_finish) struct model_config config = { 0 };
	const struct shape *shape = shape_find(name);
	int r;

	if (!shape)
		return sana_error_set(error, -ENOENT, CONFIG_ERROR,
				      "There is no built-in shape \"%.64s\"; there are: 2b, demo.",
				      name);
	for (int file = 0; file < FILE_COUNT; file++) {
		r = config_parse((enum config_file)file, shape->file[file].start,
				 shape_length(shape, file), file_names[file], &config, error);
		if (r < 0)
			return r;
	}
	r = model_config_check(&config, error);
	if (r < 0)
		return r;
	*ret = config;
	config = (struct model_config){ 0 };
	return 0;
}
