/* The demo model's directory with one thing wrong at a time: what the user is told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <jansson.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "engine/sana.h"
#include "engine/weights.h"
#include "tests/common/tensor_file.h"

#define DEMO "models/demo/"
#define VAE_FILE "vae/diffusion_pytorch_model.safetensors"
#define TEXT_FILE "text_encoder/model.safetensors"
#define TOKENIZER "text_encoder/tokenizer.model"

static const char *const files[] = {
	"stream.json",		 "dit/config.json", "vae/config.json", "text_encoder/config.json",
	"dit/model.safetensors", VAE_FILE,	    TEXT_FILE,	       TOKENIZER
};

enum breakage {
	REPLACE, /* `argument` is the file's new text */
	CHANGE,	 /* members of a JSON file are replaced */
	DROP,	 /* a member of a JSON file is taken out */
	DELETE,
	CUT,  /* the file keeps `argument` bytes */
	LINK, /* the file becomes a link to `argument`, which may be itself */
	DIRECTORY,
	FORBID,
	TENSORS,  /* the text encoder's weights with one tensor handled as `argument` says */
	SHARD,	  /* the text encoder's weights become shards with this index */
	ELSEWHERE /* the model is opened at `file` below the directory */
};

struct wrong {
	enum breakage breakage;
	const char *file, *argument;
	const char *name, *names_file, *names_thing; /* expected in the error */
};

static const struct wrong cases[] = {
	{ DELETE, "stream.json", NULL, "model.config", "stream.json", "No such file" },
	{ DELETE, "dit/config.json", NULL, "model.config", "dit/config.json", "No such file" },
	{ DELETE, TEXT_FILE, NULL, "weights.open", TEXT_FILE, "neither this file nor" },
	{ REPLACE, "stream.json", "", "model.config", "stream.json", "is empty" },
	{ REPLACE, "stream.json", "width = 256\n", "model.config", "stream.json",
	  "not valid JSON" },
	{ REPLACE, "vae/config.json", "[1, 2]", "model.config", "vae/config.json", "JSON object" },
	{ REPLACE, "dit/config.json", "{\"depth\":4,\"depth\":4}", "model.config",
	  "dit/config.json", "duplicate object key near '\"depth\"'" },
	{ CUT, "stream.json", "700", "model.config", "stream.json", "not valid JSON" },
	{ DIRECTORY, "stream.json", NULL, "model.config", "stream.json", "Is a directory" },
	{ LINK, "stream.json", "stream.json", "model.config", "stream.json", "symbolic links" },
	{ LINK, "stream.json", "/dev/zero", "model.config", "stream.json", "regular file" },
	{ FORBID, "stream.json", NULL, "model.config", "stream.json", "Permission denied" },
	{ DROP, "stream.json", "width", "model.config", "stream.json", "\"width\" is missing" },
	{ DROP, "text_encoder/config.json", "head_dim", "model.config", "text_encoder/config.json",
	  "\"head_dim\" is missing" },
	{ CHANGE, "stream.json", "{\"width\":\"256\"}", "model.config", "stream.json",
	  "\"width\" must be an integer" },
	{ CHANGE, "stream.json", "{\"height\":-144}", "model.config", "stream.json", "\"height\"" },
	{ CHANGE, "stream.json", "{\"width\":16777216}", "model.config", "stream.json",
	  "\"width\"" },
	{ CHANGE, "stream.json", "{\"width\":0}", "model.config", "stream.json", "\"width\"" },
	{ CHANGE, "stream.json", "{\"width\":250}", "model.config", "stream.json",
	  "\"width\" is 250, which is no multiple of 16" },
	{ CHANGE, "stream.json", "{\"width\":16}", "model.config", "stream.json",
	  "needs at least 2×2" },
	{ CHANGE, "stream.json", "{\"cfg_scale\":7}", "model.config", "stream.json",
	  "\"cfg_scale\" must be 1.0" },
	{ CHANGE, "stream.json", "{\"sink\":false}", "model.config", "stream.json", "\"sink\"" },
	{ CHANGE, "stream.json", "{\"latent_channels\":32}", "model.config", "stream.json",
	  "\"latent_channels\" in stream.json is 32 but" },
	{ CHANGE, "stream.json", "{\"vae_temporal_ratio\":8}", "model.config", "stream.json",
	  "\"vae_temporal_ratio\" in stream.json is 8 but" },
	{ CHANGE, "stream.json", "{\"max_tokens\":300}", "model.config", "dit/config.json",
	  "\"max_tokens\" in stream.json is 300 but" },
	{ CHANGE, "dit/config.json", "{\"num_heads\":5}", "model.config", "dit/config.json",
	  "\"num_heads\" is 5, which does not divide" },
	{ CHANGE, "dit/config.json", "{\"caption_channels\":2304}", "model.config",
	  "text_encoder/config.json", "\"caption_channels\" in dit/config.json is 2304 but" },
	{ CHANGE, "dit/config.json", "{\"in_channels\":32,\"out_channels\":32}", "model.config",
	  "dit/config.json", "\"in_channels\" in dit/config.json is 32 but" },
	{ CHANGE, "dit/config.json", "{\"additional_inchannels\":32}", "model.config",
	  "dit/config.json", "\"additional_inchannels\" in dit/config.json is 32 but" },
	{ CHANGE, "dit/config.json", "{\"softmax_layer_indices\":[2]}", "weights.mismatch", "dit",
	  "blocks.2.attn.q.weight is [192, 192, 1] instead of [192, 192, 3]" },
	{ CHANGE, "vae/config.json", "{\"decoder_layers_per_block\":[2,2]}", "model.config",
	  "vae/config.json", "\"decoder_layers_per_block\" must be a list of 3" },
	{ CHANGE, "vae/config.json", "{\"decoder_block_out_channels\":[62,124]}", "model.config",
	  "vae/config.json", "\"decoder_block_out_channels\" has 62" },
	{ CHANGE, "vae/config.json", "{\"layers_per_block\":[0,1,0]}", "weights.mismatch", "vae",
	  "encoder.down_blocks.1.resnets.1.conv1.conv.weight is unexpected" },
	{ CHANGE, "text_encoder/config.json", "{\"attn_logit_softcapping\":null}", "model.config",
	  "stream.json", "\"text_softcap\" is true" },
	{ CHANGE, "text_encoder/config.json", "{\"num_hidden_layers\":3}", "weights.mismatch",
	  "text_encoder", "layers.2.self_attn.q_proj.weight is missing" },
	{ TENSORS, "norm.weight", "leave out", "weights.mismatch", "text_encoder",
	  "norm.weight is missing" },
	{ TENSORS, "norm.weight", "rename", "weights.mismatch", "text_encoder",
	  "norm.weight is missing; renamed.weight is unexpected" },
	{ TENSORS, "norm.weight", "add", "weights.mismatch", "text_encoder",
	  "superfluous is unexpected" },
	{ TENSORS, "norm.weight", "reshape", "weights.mismatch", "text_encoder",
	  "norm.weight is [8, 8] instead of [64]" },
	{ TENSORS, "norm.weight", "retype", "weights.mismatch", "text_encoder",
	  "norm.weight is of a type other than" },
	{ TENSORS, "norm.weight", "twice", "checkpoint.safetensors", TEXT_FILE, "duplicate" },
	{ CUT, TEXT_FILE, "5", "checkpoint.safetensors", TEXT_FILE, "shorter than 8 bytes" },
	{ CUT, TEXT_FILE, "1000", "checkpoint.safetensors", TEXT_FILE, "truncated" },
	{ CUT, TEXT_FILE, "200000", "checkpoint.safetensors", TEXT_FILE, "truncated" },
	{ CUT, TEXT_FILE, "0", "checkpoint.safetensors", TEXT_FILE, "shorter than 8 bytes" },
	{ REPLACE, TEXT_FILE, "\x7f\x7f\x7f\x7f\x7f\x7f\x7f\x7f{}", "checkpoint.safetensors",
	  TEXT_FILE, "header length is not between" },
	{ DIRECTORY, TEXT_FILE, NULL, "checkpoint.safetensors", TEXT_FILE, "Is a directory" },
	{ SHARD, NULL, "{\"weight_map\":{\"norm.weight\":\"../../secret.safetensors\"}}",
	  "weights.index", TEXT_FILE ".index.json", "plain *.safetensors" },
	{ SHARD, NULL, "{\"weight_map\":{\"norm.weight\":\"part-3.safetensors\"}}",
	  "checkpoint.safetensors", "text_encoder/part-3.safetensors", "No such file" },
	{ SHARD, NULL, "{\"weight_map\":{\"norm.weight\":\"part-1.safetensors\"}}",
	  "weights.mismatch", "text_encoder", "embed_tokens.weight is missing" },
	{ SHARD, NULL, "{\"weight_map\":{\"nothing\":\"part-1.safetensors\"}}", "weights.index",
	  TEXT_FILE ".index.json", "\"nothing\" is not in the file named" },
	{ SHARD, NULL, "{\"weight_map\":", "weights.index", TEXT_FILE ".index.json",
	  "not valid JSON" },
	{ DELETE, TOKENIZER, NULL, "tokenizer.open", "tokenizer.model", "No such file" },
	{ REPLACE, TOKENIZER, "not a tokenizer", "tokenizer.open", "tokenizer.model", "" },
	{ CUT, TOKENIZER, "4000", "tokenizer.open", "tokenizer.model", "" },
	{ DIRECTORY, TOKENIZER, NULL, "tokenizer.open", "tokenizer.model", "directory" },
	{ ELSEWHERE, "missing", NULL, "model.directory", "missing", "No such file" },
	{ ELSEWHERE, "stream.json", NULL, "model.directory", "stream.json", "is not a directory" },
	{ ELSEWHERE, "dit", NULL, "model.config", "dit/stream.json", "No such file" },
};

/* ---------------------------------------------------------------------------------- breaking */

static void write_json(const struct scratch *scratch, const char *file, json_t *object)
{
	char *text = json_dumps(object, 0);

	assert_non_null(text);
	scratch_write_text(scratch, file, text);
	free(text);
	json_decref(object);
}

static json_t *read_json(const char *file)
{
	char path[256];
	json_t *object;

	(void)snprintf(path, sizeof(path), DEMO "%s", file);
	object = json_load_file(path, 0, NULL);
	assert_non_null(object);
	return object;
}

static void cut_file(const struct scratch *scratch, const char *file, size_t bytes)
{
	struct file_map map = { 0 };
	char path[256];

	(void)snprintf(path, sizeof(path), DEMO "%s", file);
	assert_int_equal(file_map(path, "x", &map, NULL), 0);
	assert_true(bytes < map.size);
	scratch_write(scratch, file, map.data, bytes);
	file_unmap(&map);
}

/* Copies the text encoder's tensors, `name` changed as `how` says. */
static void rewrite_tensors(const struct scratch *scratch, const char *file, const char *name,
			    const char *how)
{
	static const int64_t square[] = { 8, 8 };
	struct tensor_file *written = tensor_file_create();
	struct weights *weights = NULL;

	assert_int_equal(weights_open(DEMO "text_encoder", "model.safetensors", &weights, NULL), 0);
	for (size_t i = 0; i < weights_count(weights); i++) {
		const struct weight_tensor *t = weights_at(weights, i);
		bool chosen = strcmp(t->name, name) == 0;
		int64_t bytes = 2;

		for (int d = 0; d < t->rank; d++)
			bytes *= t->shape[d];
		assert_int_equal(t->dtype, KERNEL_BF16);
		if (chosen && strcmp(how, "leave out") == 0)
			continue;
		if (chosen && strcmp(how, "rename") == 0)
			tensor_file_add(written, "renamed.weight", "BF16", t->rank, t->shape,
					t->data, (size_t)bytes);
		else if (chosen && strcmp(how, "reshape") == 0)
			tensor_file_add(written, t->name, "BF16", 2, square, t->data,
					(size_t)bytes);
		else
			tensor_file_add(written, t->name,
					chosen && strcmp(how, "retype") == 0 ? "I16" : "BF16",
					t->rank, t->shape, t->data, (size_t)bytes);
		if (chosen && strcmp(how, "twice") == 0)
			tensor_file_add(written, t->name, "BF16", t->rank, t->shape, t->data,
					(size_t)bytes);
	}
	if (strcmp(how, "add") == 0)
		tensor_file_add(written, "superfluous", "F32", 2, square, NULL, 256);
	tensor_file_write(written, scratch, file);
	tensor_file_destroy(written);
	weights_destroy(weights);
}

static void break_model(const struct scratch *scratch, const struct wrong *wrong)
{
	json_t *object, *members;
	char path[256];

	switch (wrong->breakage) {
	case REPLACE:
		scratch_write_text(scratch, wrong->file, wrong->argument);
		return;
	case CHANGE:
		object = read_json(wrong->file);
		members = json_loads(wrong->argument, 0, NULL);
		assert_int_equal(json_object_update(object, members), 0);
		json_decref(members);
		write_json(scratch, wrong->file, object);
		return;
	case DROP:
		object = read_json(wrong->file);
		assert_int_equal(json_object_del(object, wrong->argument), 0);
		write_json(scratch, wrong->file, object);
		return;
	case CUT:
		cut_file(scratch, wrong->file, strtoul(wrong->argument, NULL, 10));
		return;
	case LINK:
		scratch_delete(scratch, wrong->file);
		assert_int_equal(symlink(wrong->argument, scratch_path(scratch, wrong->file)), 0);
		return;
	case DELETE:
		scratch_delete(scratch, wrong->file);
		return;
	case DIRECTORY:
		scratch_delete(scratch, wrong->file);
		(void)snprintf(path, sizeof(path), "%s/x", wrong->file);
		scratch_write_text(scratch, path, "");
		return;
	case FORBID:
		scratch_write_text(scratch, wrong->file, "{}");
		assert_int_equal(chmod(scratch_path(scratch, wrong->file), 0), 0);
		return;
	case TENSORS:
		rewrite_tensors(scratch, TEXT_FILE, wrong->file, wrong->argument);
		return;
	case SHARD:
		scratch_delete(scratch, TEXT_FILE);
		scratch_link(scratch, "text_encoder/part-1.safetensors", DEMO TEXT_FILE);
		scratch_write_text(scratch, TEXT_FILE ".index.json", wrong->argument);
		return;
	case ELSEWHERE:
		return;
	}
}

/* ----------------------------------------------------------------------------------- opening */

/* The way a program does it: everything is checked before the stream can be opened. */
static int open_model(const char *directory, struct sana_error *error)
{
	const struct sana_model_options options = { .directory = directory, .threads = 1 };
	struct sana_model *model;
	int r = sana_model_open(&options, &model, error);

	if (r >= 0)
		(void)sana_model_unref(model);
	return r;
}

static void copy_model(struct scratch *scratch)
{
	char target[256];

	scratch_create(scratch);
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		(void)snprintf(target, sizeof(target), DEMO "%s", files[i]);
		scratch_link(scratch, files[i], target);
	}
}

static void the_copy_is_right(void **state)
{
	struct sana_error error = { 0 };
	struct scratch scratch;

	(void)state;
	copy_model(&scratch);
	assert_int_equal(open_model(scratch.path, &error), 0);
	rewrite_tensors(&scratch, TEXT_FILE, "none", "keep");
	assert_int_equal(open_model(scratch.path, &error), 0);
	scratch_remove(&scratch);
}

static void check_case(const struct wrong *wrong)
{
	struct sana_error error = { 0 };
	struct scratch scratch;

	if (wrong->breakage == FORBID && geteuid() == 0) {
		print_message("left out: root may read everything\n");
		return;
	}
	copy_model(&scratch);
	break_model(&scratch, wrong);
	assert_true(open_model(wrong->breakage == ELSEWHERE ? scratch_path(&scratch, wrong->file) :
							      scratch.path,
			       &error) < 0);
	print_message("%s: %s\n", error.name, error.text);
	assert_true(error.code < 0);
	assert_string_equal(error.name, wrong->name);
	assert_non_null(strstr(error.text, wrong->names_file));
	assert_non_null(strstr(error.text, wrong->names_thing));
	assert_null(strpbrk(error.text, "\n\r"));
	assert_int_equal(error.text[strlen(error.text) - 1], '.');
	scratch_remove(&scratch);
}

static void every_fault_is_named(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		check_case(&cases[i]);
	print_message("%zu wrong directories\n", ARRAY_SIZE(cases));
}

static void the_manifest_names_the_decoder(void **state)
{
	static const char manifest[] = "{\"decoder_origin\": \"converted\", \"sources\": []}";
	struct sana_model_options options = { .threads = 1 };
	struct sana_error error = { 0 };
	struct sana_model *model;
	struct scratch scratch;

	(void)state;
	copy_model(&scratch);
	options.directory = scratch.path;
	assert_int_equal(sana_model_open(&options, &model, &error), 0);
	assert_string_equal(sana_model_decoder_origin(model), "");
	(void)sana_model_unref(model);
	scratch_write(&scratch, "manifest.json", manifest, sizeof(manifest) - 1);
	assert_int_equal(sana_model_open(&options, &model, &error), 0);
	assert_string_equal(sana_model_decoder_origin(model), "converted");
	(void)sana_model_unref(model);
	scratch_write(&scratch, "manifest.json", manifest, 10);
	assert_true(sana_model_open(&options, &model, &error) < 0);
	assert_string_equal(error.name, "model.manifest");
	scratch_remove(&scratch);
}

static void long_paths_are_refused(void **state)
{
	struct sana_error error = { 0 };
	struct weights *weights = NULL;
	struct model_config config;
	char path[8192];

	(void)state;
	memset(path, 'x', sizeof(path) - 1);
	path[sizeof(path) - 1] = '\0';
	assert_int_equal(model_config_load(path, &config, &error), -ENAMETOOLONG);
	assert_string_equal(error.name, "model.directory");
	assert_int_equal(weights_open(path, "a.safetensors", &weights, &error), -ENAMETOOLONG);
	assert_string_equal(error.name, "weights.open");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_copy_is_right),
		cmocka_unit_test(every_fault_is_named),
		cmocka_unit_test(the_manifest_names_the_decoder),
		cmocka_unit_test(long_paths_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
