/*
 * Makes checkpoints for the tests of sana-import: good ones of every layout, wrong ones, large ones.
 *
 *   torch NESTING IN.safetensors OUT.pth       the tensors as torch.save writes them
 *   golden NESTING MANIFEST.json OUT.pth       the generated weights of a golden manifest
 *   shard COUNT PREFIX IN.safetensors DIR      shards and their index; PREFIX "" or "model."
 *   alter IN.safetensors OUT.safetensors CHANGE…   drop:NAME add:NAME flat:NAME f64:NAME f32:NAME
 *   names OUT.pth NAME…                        one value under each name
 *   hostile DIR                                files that must be refused; prints their names
 *   random COUNT MIB OUT.pth                   COUNT tensors of MIB each
 *   expect FILE.safetensors                    holds the values of tests/checkpoint/expected.json
 *   taps BEFORE.safetensors AFTER.safetensors  the decoder's BF16 kernels were made causal
 *   tokenizer COUNT OUT.model                  a SentencePiece file of so many pieces
 *   run SECONDS MIB COMMAND…                   its exit status; 99 when it took more than that
 *   sparse-model DIR                           the published model's three files, without their data
 *   large-dit OUT.pth                          the published DiT's keys, random values
 *   large-text COUNT DIR                       the published text encoder's, in shards
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "engine/checkpoint/safetensors.h"
#include "engine/model_keys.h"
#include "engine/synthetic.h"
#include "tests/common/torch_writer.h"

enum { PATH_BYTES = 4096 };

static void die(const char *what, const char *why)
{
	(void)fprintf(stderr, "checkpoint: %s: %s\n", what, why);
	exit(2);
}

static struct safetensors *open_safetensors(const char *path)
{
	struct sana_error error = { 0 };
	struct safetensors *file = NULL;

	if (safetensors_open(path, &file, &error) < 0)
		die(path, error.text);
	return file;
}

static FILE *create(const char *path)
{
	FILE *file = fopen(path, "wb");

	if (!file)
		die(path, strerror(errno));
	return file;
}

static void put(FILE *file, const void *data, size_t bytes)
{
	if (fwrite(data, 1, bytes, file) != bytes)
		die("write", strerror(errno));
}

static void finish(FILE *file)
{
	if (fclose(file) != 0)
		die("close", strerror(errno));
}

/* ----------------------------------------------------------------------------- good checkpoints */

static int make_torch(char **a)
{
	struct torch_writer *writer = torch_writer_create();
	struct safetensors *file = open_safetensors(a[1]);

	torch_writer_set_nesting(writer, a[0]);
	for (size_t i = 0; i < safetensors_count(file); i++) {
		const struct safetensors_tensor *t = safetensors_at(file, i);

		torch_writer_tensor(writer, t->name, safetensors_dtype_name(t->dtype), t->rank,
				    t->shape, t->data);
	}
	(void)torch_writer_save(writer, a[2]);
	torch_writer_destroy(writer);
	safetensors_close(file);
	return 0;
}

static int make_golden(char **a)
{
	struct torch_writer *writer = torch_writer_create();
	json_t *manifest = json_load_file(a[1], 0, NULL), *weight;
	const char *tag = json_string_value(json_object_get(manifest, "tag")), *name;
	void *values[4096];
	size_t count = 0;

	if (!tag)
		die(a[1], "no manifest");
	torch_writer_set_nesting(writer, a[0]);
	json_object_foreach(json_object_get(manifest, "weights"), name, weight)
	{
		const json_t *list = json_object_get(weight, "shape");
		int64_t shape[8] = { 0 };
		size_t elements = 1, rank = json_array_size(list);
		uint16_t *data;

		if (rank > 8 || count == sizeof(values) / sizeof(values[0]))
			die(name, "too large");
		for (size_t d = 0; d < rank; d++) {
			shape[d] = json_integer_value(json_array_get(list, d));
			elements *= (size_t)shape[d];
		}
		data = malloc(elements * sizeof(*data));
		if (!data)
			die(name, "no memory");
		synthetic_fill_bf16(tag, name, json_number_value(json_object_get(weight, "offset")),
				    json_number_value(json_object_get(weight, "scale")), 0,
				    elements, data);
		torch_writer_tensor(writer, name, "BF16", (int)rank, shape, data);
		values[count++] = data;
	}
	(void)torch_writer_save(writer, a[2]);
	torch_writer_destroy(writer);
	while (count)
		free(values[--count]);
	json_decref(manifest);
	return 0;
}

/* A safetensors file from parts of another, or from generated values where `data` is NULL. */
struct piece {
	char name[256];
	const char *dtype;
	int rank;
	int64_t shape[8];
	uint64_t bytes;
	const void *data;
};

/* Quick and without a pattern that a disk could compress: splitmix64. */
static void random_fill(void *context, int storage, uint64_t offset, void *to, size_t bytes)
{
	uint64_t *seed = context;

	(void)storage;
	(void)offset;
	for (size_t i = 0; i < bytes; i += 8) {
		uint64_t z = (*seed += UINT64_C(0x9E3779B97F4A7C15));

		z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
		z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
		z ^= z >> 31;
		memcpy((char *)to + i, &z, bytes - i < 8 ? bytes - i : 8);
	}
}

static void put_random(FILE *file, uint64_t bytes, uint64_t *seed)
{
	static char buffer[1 << 20];

	while (bytes) {
		size_t part = bytes < sizeof(buffer) ? (size_t)bytes : sizeof(buffer);

		random_fill(seed, 0, 0, buffer, part);
		put(file, buffer, part);
		bytes -= part;
	}
}

static void write_pieces(const char *path, const struct piece *piece, size_t count, bool sparse)
{
	json_t *header = json_object();
	uint64_t at = 0, seed = count;
	FILE *file = create(path);
	size_t length, whole;
	char *text;

	for (size_t i = 0; i < count; i++) {
		json_t *shape = json_array();

		for (int d = 0; d < piece[i].rank; d++)
			(void)json_array_append_new(shape, json_integer(piece[i].shape[d]));
		(void)json_object_set_new(header, piece[i].name,
					  json_pack("{s:s, s:o, s:[I, I]}", "dtype", piece[i].dtype,
						    "shape", shape, "data_offsets", (json_int_t)at,
						    (json_int_t)(at + piece[i].bytes)));
		at += piece[i].bytes;
	}
	text = json_dumps(header, JSON_COMPACT);
	length = strlen(text);
	whole = (length + 7) / 8 * 8;
	for (int i = 0; i < 8; i++)
		(void)fputc((int)(whole >> 8 * i & 255), file);
	put(file, text, length);
	(void)fprintf(file, "%*s", (int)(whole - length), "");
	for (size_t i = 0; i < count && !sparse; i++) {
		if (piece[i].data)
			put(file, piece[i].data, (size_t)piece[i].bytes);
		else
			put_random(file, piece[i].bytes, &seed);
	}
	if (sparse && (fflush(file) != 0 || ftruncate(fileno(file), (off_t)(8 + whole + at)) < 0))
		die(path, strerror(errno));
	finish(file);
	free(text);
	json_decref(header);
}

/* Splits into COUNT files of about the same size and writes the index. */
static void write_shards(const char *directory, int shards, const struct piece *piece, size_t count)
{
	json_t *map = json_object(), *index;
	uint64_t total = 0, limit, bytes;
	char name[64], path[PATH_BYTES];
	size_t first = 0, end;

	for (size_t i = 0; i < count; i++)
		total += piece[i].bytes;
	limit = total / (uint64_t)shards + 1;
	for (int s = 1; s <= shards; s++) {
		(void)snprintf(name, sizeof(name), "model-%05d-of-%05d.safetensors", s, shards);
		for (bytes = 0, end = first; end < count; end++) {
			if (s < shards && bytes + piece[end].bytes > limit && end > first)
				break;
			bytes += piece[end].bytes;
			(void)json_object_set_new(map, piece[end].name, json_string(name));
		}
		(void)snprintf(path, sizeof(path), "%s/%s", directory, name);
		write_pieces(path, piece + first, end - first, false);
		first = end;
	}
	index = json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)total,
			  "weight_map", map);
	(void)snprintf(path, sizeof(path), "%s/model.safetensors.index.json", directory);
	if (json_dump_file(index, path, JSON_INDENT(2)) < 0)
		die(path, "cannot write");
	json_decref(index);
}

static size_t pieces_of(const struct safetensors *file, const char *prefix, struct piece **ret)
{
	size_t count = safetensors_count(file);
	struct piece *piece = calloc(count + 8, sizeof(*piece));

	if (!piece)
		die("pieces", "no memory");
	for (size_t i = 0; i < count; i++) {
		const struct safetensors_tensor *t = safetensors_at(file, i);

		(void)snprintf(piece[i].name, sizeof(piece[i].name), "%s%s", prefix, t->name);
		piece[i].dtype = safetensors_dtype_name(t->dtype);
		piece[i].rank = t->rank;
		memcpy(piece[i].shape, t->shape, sizeof(piece[i].shape));
		piece[i].bytes = t->bytes;
		piece[i].data = t->data;
	}
	*ret = piece;
	return count;
}

static int make_shards(char **a)
{
	struct safetensors *file = open_safetensors(a[2]);
	struct piece *piece;
	size_t count = pieces_of(file, a[1], &piece);

	write_shards(a[3], atoi(a[0]), piece, count);
	free(piece);
	safetensors_close(file);
	return 0;
}

static void change(struct piece *piece, size_t *count, const char *what)
{
	const char *name = strchr(what, ':') + 1;
	size_t i = 0;

	if (strncmp(what, "add:", 4) == 0) {
		piece[*count] = (struct piece){ .dtype = "F32", .bytes = 4 };
		(void)snprintf(piece[*count].name, sizeof(piece[*count].name), "%s", name);
		++*count;
		return;
	}
	while (i < *count && strcmp(piece[i].name, name) != 0)
		i++;
	if (i == *count)
		die(what, "no such tensor");
	if (strncmp(what, "drop:", 5) == 0) {
		memmove(&piece[i], &piece[i + 1], (--*count - i) * sizeof(*piece));
	} else if (strncmp(what, "flat:", 5) == 0) {
		for (int d = 1; d < piece[i].rank; d++)
			piece[i].shape[0] *= piece[i].shape[d];
		piece[i].rank = 1;
	} else if (strncmp(what, "f64:", 4) == 0) {
		piece[i].dtype = "F64";
		piece[i].data = NULL;
		piece[i].bytes *= 4;
	} else {
		die(what, "no such change");
	}
}

static int make_altered(char **a)
{
	struct safetensors *file = open_safetensors(a[0]);
	struct piece *piece;
	size_t count = pieces_of(file, "", &piece);

	for (int i = 2; a[i]; i++)
		change(piece, &count, a[i]);
	write_pieces(a[1], piece, count, false);
	free(piece);
	safetensors_close(file);
	return 0;
}

static int make_names(char **a)
{
	struct torch_writer *writer = torch_writer_create();
	const int64_t shape[] = { 1 };
	const float one = 1;

	for (int i = 1; a[i]; i++)
		torch_writer_tensor(writer, a[i], "F32", 1, shape, &one);
	(void)torch_writer_save(writer, a[0]);
	torch_writer_destroy(writer);
	return 0;
}

/* -------------------------------------------------------------------------------------- hostile */

static void save(const char *directory, const char *name, const void *data, size_t bytes)
{
	char path[PATH_BYTES];
	FILE *file;

	(void)snprintf(path, sizeof(path), "%s/%s", directory, name);
	file = create(path);
	put(file, data, bytes);
	finish(file);
	(void)printf("%s\n", name);
}

/* A sound zip around a pickle, with one storage "0" of 64 bytes. */
static void save_pickle(const char *directory, const char *name, const void *pickle, size_t bytes)
{
	static const char zeros[64];
	const struct zip_part parts[] = { { "archive/data.pkl", pickle, bytes },
					  { "archive/data/0", zeros, sizeof(zeros) },
					  { "archive/version", "3\n", 2 } };
	size_t size;
	void *data = torch_writer_zip(parts, sizeof(parts) / sizeof(parts[0]), &size);

	save(directory, name, data, size);
	free(data);
}

#define SAVE_PICKLE(directory, name, text) save_pickle(directory, name, text, sizeof(text) - 1)

#define STORAGE                                            \
	"(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0" \
	"0X\3\0\0\0cpuK\x10tQ"
#define HOOKS "ccollections\nOrderedDict\n)R"

static void *sound_file(size_t *ret_bytes)
{
	static const float values[16];
	struct torch_writer *writer = torch_writer_create();
	const int64_t shape[] = { 4, 4 };
	void *data;

	torch_writer_tensor(writer, "a", "F32", 2, shape, values);
	data = torch_writer_bytes(writer, ret_bytes);
	torch_writer_destroy(writer);
	return data;
}

static uint8_t *find_last(uint8_t *data, size_t bytes, const char *what, size_t length)
{
	for (size_t i = bytes - length + 1; i-- > 0;)
		if (memcmp(data + i, what, length) == 0)
			return data + i;
	die("record", "not found");
	return NULL;
}

/* A pickle of millions of values: 16 MiB of "append None to the list". */
static void save_bomb(const char *directory)
{
	const size_t bytes = 16 << 20;
	char *text = malloc(bytes);

	if (!text)
		die("bomb", "no memory");
	memcpy(text, "\x80\2]", 3);
	for (size_t i = 3; i < bytes; i++)
		text[i] = i % 2 ? 'N' : 'a';
	save_pickle(directory, "values-without-end.pth", text, bytes);
	free(text);
}

/* Claims as many entries as a directory of 64-bit fields can name. */
static void save_zips(const char *directory)
{
	size_t bytes;
	uint8_t *data = sound_file(&bytes), *at;

	at = find_last(data, bytes, "PK\6\6", 4);
	memset(at + 24, 0x7f, 16);
	memset(find_last(data, bytes, "PK\5\6", 4) + 8, 0xff, 4);
	save(directory, "entries-without-end.pth", data, bytes);
	free(data);
	/* every directory record leads to the same data */
	data = sound_file(&bytes);
	at = find_last(data, bytes, "archive/data/0", 14) - 46;
	memcpy(find_last(data, bytes, "archive/version", 15) - 4, at + 42, 4);
	save(directory, "entries-in-one-place.pth", data, bytes);
	free(data);
	/* the local header is one name, the directory another */
	data = sound_file(&bytes);
	memcpy(find_last(data, bytes, "archive/data.pkl", 16), "archive/data.pkL", 16);
	save(directory, "two-names.pth", data, bytes);
	free(data);
}

static int make_hostile(char **a)
{
	const char *to = a[0];

	SAVE_PICKLE(to, "global-by-stack.pth",
		    "\x80\2X\2\0\0\0osX\6\0\0\0system\x93X\2\0\0\0id\x85R.");
	SAVE_PICKLE(to, "build-of-a-class.pth",
		    "\x80\2ctorch\nFloatStorage\n}X\5\0\0\0stateK\1sb.");
	SAVE_PICKLE(to, "cycle.pth", "\x80\2}q\0X\1\0\0\0ah\0s.");
	SAVE_PICKLE(to, "strides-that-wrap.pth",
		    "\x80\2}X\1\0\0\0actorch._utils\n_rebuild_tensor_v2\n(" STORAGE
		    "K\0K\3K\3\x86\x8a\x8\0\0\0\0\0\0\0\x40\x8a\x8\0\0\0\0\0\0\0\x40\x86\x89" HOOKS
		    "tRs.");
	SAVE_PICKLE(to, "offset-that-wraps.pth",
		    "\x80\2}X\1\0\0\0actorch._utils\n_rebuild_tensor_v2\n(" STORAGE
		    "\x8a\x8\xfe\xff\xff\xff\xff\xff\xff\x7fK\4\x85K\1\x85\x89" HOOKS "tRs.");
	/* 2^31 − 1 values out of one, by a stride of 0 */
	SAVE_PICKLE(to, "one-value-without-end.pth",
		    "\x80\2}X\1\0\0\0actorch._utils\n_rebuild_tensor_v2\n(" STORAGE
		    "K\0J\xff\xff\xff\x7f\x85K\0\x85\x89" HOOKS "tRs.");
	SAVE_PICKLE(to, "key-that-is-a-path.pth",
		    "\x80\2}X\1\0\0\0actorch._utils\n_rebuild_tensor_v2\n((X\7\0\0\0storagectorch\n"
		    "FloatStorage\nX\xc\0\0\0../data.pkl/X\3\0\0\0cpuK\x10tQK\0)"
		    ")\x89" HOOKS "tRs.");
	SAVE_PICKLE(to, "memo-without-end.pth", "\x80\2Nr\xff\xff\xff\x7f.");
	SAVE_PICKLE(to, "name-with-escapes.pth",
		    "\x80\2}X\5\0\0\0\x1b[2Jactorch._utils\n_rebuild_tensor_v2\n(" STORAGE
		    "K\0K\4\x85K\1\x85\x89" HOOKS "tRs.");
	save_bomb(to);
	save_zips(to);
	return 0;
}

/* ------------------------------------------------------------------------------------ judgement */

static double half_value(uint16_t half)
{
	double value = half & 0x7c00 ? ldexp((half & 0x3ff) + 1024, (half >> 10 & 31) - 25) :
				       ldexp(half & 0x3ff, -24);

	return half & 0x8000 ? -value : value;
}

static double value_at(const struct safetensors_tensor *t, size_t i)
{
	const char *at = (const char *)t->data + i * safetensors_dtype_bytes(t->dtype);
	int64_t whole = 0;
	uint16_t half;
	uint32_t bits;
	float single = 0;

	switch ((int)t->dtype) {
	case SAFETENSORS_F32:
		memcpy(&single, at, sizeof(single));
		return single;
	case SAFETENSORS_BF16:
		memcpy(&half, at, sizeof(half));
		bits = (uint32_t)half << 16;
		memcpy(&single, &bits, sizeof(single));
		return single;
	case SAFETENSORS_F16:
		memcpy(&half, at, sizeof(half));
		return half_value(half);
	case SAFETENSORS_I64:
		memcpy(&whole, at, sizeof(whole));
		return (double)whole;
	}
	die(t->name, "unexpected type");
	return 0;
}

/* Bit for bit, names and shapes and nothing more. */
static int expect(char **a)
{
	json_t *expected = json_load_file("tests/checkpoint/expected.json", 0, NULL);
	struct safetensors *file = open_safetensors(a[0]);

	if (json_object_size(expected) != safetensors_count(file))
		die(a[0], "another number of tensors");
	for (size_t i = 0; i < safetensors_count(file); i++) {
		const struct safetensors_tensor *t = safetensors_at(file, i);
		const json_t *entry = json_object_get(expected, t->name);
		const json_t *values = json_object_get(entry, "values");
		const json_t *shape = json_object_get(entry, "shape");

		if (json_array_size(shape) != (size_t)t->rank ||
		    json_array_size(values) * safetensors_dtype_bytes(t->dtype) != t->bytes)
			die(t->name, "another shape");
		for (int d = 0; d < t->rank; d++)
			if (json_integer_value(json_array_get(shape, (size_t)d)) != t->shape[d])
				die(t->name, "another shape");
		for (size_t v = 0; v < json_array_size(values); v++) {
			double wanted = json_number_value(json_array_get(values, v));
			double got = value_at(t, v);

			if (memcmp(&got, &wanted, sizeof(got)) != 0)
				die(t->name, "another value");
		}
	}
	safetensors_close(file);
	json_decref(expected);
	return 0;
}

static float bf16_at(const struct safetensors_tensor *t, size_t i)
{
	uint16_t half;
	uint32_t bits;
	float value;

	memcpy(&half, (const char *)t->data + 2 * i, sizeof(half));
	bits = (uint32_t)half << 16;
	memcpy(&value, &bits, sizeof(value));
	return value;
}

/* k0 = 0, k1 = w0, k2 = w1 + w2 but for one rounding to BF16, of relative size 2^−8 at most. */
static bool kernel_is_causal(const struct safetensors_tensor *was,
			     const struct safetensors_tensor *is, size_t at)
{
	for (size_t i = at; i < at + 9; i++) {
		float sum = bf16_at(was, i + 9) + bf16_at(was, i + 18);

		if (bf16_at(is, i) != 0 || bf16_at(is, i + 9) != bf16_at(was, i) ||
		    fabsf(bf16_at(is, i + 18) - sum) > fabsf(sum) / 256)
			return false;
	}
	return true;
}

static int taps(char **a)
{
	struct safetensors *before = open_safetensors(a[0]), *after = open_safetensors(a[1]);
	size_t kernels = 0;

	for (size_t i = 0; i < safetensors_count(before); i++) {
		const struct safetensors_tensor *was = safetensors_at(before, i), *is = NULL;
		bool kernel = strncmp(was->name, "decoder.", 8) == 0 && was->rank == 5;

		for (size_t j = 0; j < safetensors_count(after) && !is; j++)
			if (strcmp(safetensors_at(after, j)->name, was->name) == 0)
				is = safetensors_at(after, j);
		if (!is || is->dtype != was->dtype || is->bytes != was->bytes)
			die(was->name, "missing or of another type");
		if (!kernel && memcmp(was->data, is->data, (size_t)was->bytes) != 0)
			die(was->name, "changed");
		for (size_t k = 0; kernel && k < was->bytes / 2; k += 27, kernels++)
			if (!kernel_is_causal(was, is, k))
				die(was->name, "not the taps of the rule");
	}
	(void)fprintf(stderr, "%zu kernels\n", kernels);
	safetensors_close(before);
	safetensors_close(after);
	return kernels ? 0 : 2;
}

static int run(char **a)
{
	const double seconds = atof(a[0]), mebibytes = atof(a[1]);
	struct timespec before, after;
	struct rusage usage;
	double took, peak;
	pid_t child;
	int status;

	(void)clock_gettime(CLOCK_MONOTONIC, &before);
	child = fork();
	if (child == 0) {
		(void)execv(a[2], a + 2);
		_exit(127);
	}
	if (child < 0 || wait4(child, &status, 0, &usage) < 0)
		die(a[2], strerror(errno));
	(void)clock_gettime(CLOCK_MONOTONIC, &after);
	took = (double)(after.tv_sec - before.tv_sec) +
	       (double)(after.tv_nsec - before.tv_nsec) / 1e9;
	peak = (double)usage.ru_maxrss / 1024;
	(void)fprintf(stderr, "took %.2f s and %.1f MiB\n", took, peak);
	if ((seconds > 0 && took > seconds) || (mebibytes > 0 && peak > mebibytes))
		return 99;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* ---------------------------------------------------------------------------------------- large */

static int make_random(char **a)
{
	struct torch_writer *writer = torch_writer_create();
	const int64_t shape[] = { (int64_t)atoi(a[1]) << 18 };
	uint64_t seed = 2;
	char name[32];

	for (int i = 0; i < atoi(a[0]); i++) {
		(void)snprintf(name, sizeof(name), "tensor.%d", i);
		torch_writer_tensor(writer, name, "F32", 1, shape, NULL);
	}
	torch_writer_set_fill(writer, random_fill, &seed);
	(void)torch_writer_save(writer, a[2]);
	torch_writer_destroy(writer);
	return 0;
}

struct large {
	struct torch_writer *writer;
	const char *prefix;
	struct piece *piece;
	size_t count;
};

static int large_key(void *context, const struct model_key *key)
{
	struct large *large = context;
	struct piece *piece;

	if (large->writer) {
		torch_writer_tensor(large->writer, key->name, "BF16", key->rank, key->shape, NULL);
		return 0;
	}
	piece = realloc(large->piece, (large->count + 1) * sizeof(*piece));
	if (!piece)
		return -ENOMEM;
	large->piece = piece;
	piece += large->count++;
	*piece = (struct piece){ .dtype = "BF16", .rank = key->rank, .bytes = 2 };
	(void)snprintf(piece->name, sizeof(piece->name), "%s%s", large->prefix, key->name);
	for (int d = 0; d < key->rank; d++) {
		piece->shape[d] = key->shape[d];
		piece->bytes *= (uint64_t)key->shape[d];
	}
	return 0;
}

static int make_large_dit(char **a)
{
	struct large large = { .writer = torch_writer_create() };
	struct model_config config = { 0 };
	uint64_t seed = 1;

	if (model_config_builtin("2b", &config, NULL) < 0 ||
	    dit_keys_visit(&config.dit, large_key, &large) < 0)
		die("2b", "no configuration");
	torch_writer_set_nesting(large.writer, "state_dict");
	torch_writer_set_fill(large.writer, random_fill, &seed);
	(void)torch_writer_save(large.writer, a[0]);
	torch_writer_destroy(large.writer);
	model_config_finish(&config);
	return 0;
}

/* One piece: text, score, type (1 normal, 2 unknown, 3 control), as protobuf fields. */
static void put_piece(FILE *file, const char *text, float score, int type)
{
	const uint8_t length = (uint8_t)strlen(text);

	(void)fputc(0x0a, file);
	(void)fputc(length + 9, file);
	(void)fputc(0x0a, file);
	(void)fputc(length, file);
	put(file, text, length);
	(void)fputc(0x15, file);
	put(file, &score, sizeof(score));
	(void)fputc(0x18, file);
	(void)fputc(type, file);
}

static int make_tokenizer(char **a)
{
	/* byte pairs; neither a space in front nor spaces taken away */
	static const char settings[] = "\x12\2\x18\2\x1a\4\x18\0\x20\0";
	FILE *file = create(a[1]);
	char text[32];

	put_piece(file, "<unk>", 0, 2);
	put_piece(file, "<s>", 0, 3);
	for (int i = 2; i < atoi(a[0]); i++) {
		(void)snprintf(text, sizeof(text), "piece%d", i);
		put_piece(file, text, (float)-i, 1);
	}
	put(file, settings, sizeof(settings) - 1);
	finish(file);
	return 0;
}

static int make_large_text(char **a)
{
	struct model_config config = { 0 };
	struct large large = { .prefix = "model." };

	if (model_config_builtin("2b", &config, NULL) < 0 ||
	    text_keys_visit(&config.text, large_key, &large) < 0)
		die("2b", "no configuration");
	write_shards(a[1], atoi(a[0]), large.piece, large.count);
	free(large.piece);
	model_config_finish(&config);
	return 0;
}

static void write_sparse(const char *directory, const char *name, struct large *large)
{
	char path[PATH_BYTES];

	(void)snprintf(path, sizeof(path), "%s/%s", directory, name);
	write_pieces(path, large->piece, large->count, true);
	free(large->piece);
	*large = (struct large){ .prefix = "" };
}

static int make_sparse_model(char **a)
{
	struct model_config config = { 0 };
	struct large large = { .prefix = "" };

	if (model_config_builtin("2b", &config, NULL) < 0 ||
	    dit_keys_visit(&config.dit, large_key, &large) < 0)
		die("2b", "no configuration");
	write_sparse(a[0], "dit/model.safetensors", &large);
	(void)vae_keys_visit(&config.vae, true, large_key, &large);
	write_sparse(a[0], "vae/diffusion_pytorch_model.safetensors", &large);
	(void)text_keys_visit(&config.text, large_key, &large);
	write_sparse(a[0], "text_encoder/model.safetensors", &large);
	model_config_finish(&config);
	return 0;
}

int main(int count, char **arguments)
{
	static const struct {
		const char *name;
		int arguments; /* at least */
		int (*make)(char **arguments);
	} commands[] = {
		{ "torch", 3, make_torch },
		{ "golden", 3, make_golden },
		{ "shard", 4, make_shards },
		{ "alter", 2, make_altered },
		{ "names", 2, make_names },
		{ "hostile", 1, make_hostile },
		{ "random", 3, make_random },
		{ "tokenizer", 2, make_tokenizer },

		{ "expect", 1, expect },
		{ "run", 3, run },
		{ "taps", 2, taps },
		{ "sparse-model", 1, make_sparse_model },
		{ "large-dit", 1, make_large_dit },
		{ "large-text", 2, make_large_text },
	};

	for (size_t i = 0; count > 1 && i < sizeof(commands) / sizeof(commands[0]); i++)
		if (strcmp(commands[i].name, arguments[1]) == 0 &&
		    count >= 2 + commands[i].arguments)
			return commands[i].make(arguments + 2);
	die("usage", "see the head of tests/helpers/checkpoint.c");
	return 2;
}
