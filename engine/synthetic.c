/* Generated tensors: a counter-based rule, so that any element can be made on its own. */
#include "engine/synthetic.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <sys/mman.h>

#include "kernels/kernels.h"

/* Below this many values starting the threads costs more than it saves. */
enum { PARALLEL_FROM = 1 << 16 };

#define GOLDEN_STEP UINT64_C(0x9E3779B97F4A7C15)

struct sequence {
	uint64_t start; /* hash of the name, advanced to the first element wanted */
	double offset, scale;
};

static uint64_t hash_text(uint64_t hash, const char *text)
{
	for (; *text; text++)
		hash = (hash ^ (unsigned char)*text) * UINT64_C(0x100000001b3);
	return hash;
}

static inline uint64_t mix(uint64_t z)
{
	z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
	return z ^ (z >> 31);
}

static struct sequence sequence_begin(const char *tag, const char *name, double offset,
				      double scale, size_t first)
{
	uint64_t hash = hash_text(UINT64_C(0xcbf29ce484222325), tag);

	hash = hash_text(hash_text(hash, "/"), name);
	return (struct sequence){ hash + (uint64_t)first * GOLDEN_STEP, offset, scale };
}

static inline float sequence_value(const struct sequence *s, uint64_t i)
{
	/* 24 bits fit an int32_t: the signed conversion is one instruction. 2u − 1 is exact. */
	int32_t bits = (int32_t)(mix(s->start + (i + 1) * GOLDEN_STEP) >> 40);

	return (float)(s->offset + s->scale * ((double)bits * 0x1p-23 - 1.0));
}

/* weight_float_to_bf16 without its care for NaN, which the rule cannot make. */
static inline uint16_t round_to_bf16(float value)
{
	uint32_t bits;

	memcpy(&bits, &value, sizeof(bits));
	return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

void synthetic_fill(const char *tag, const char *name, double offset, double scale, size_t first,
		    size_t count, float *to)
{
	const struct sequence s = sequence_begin(tag, name, offset, scale, first);

#pragma omp parallel for schedule(static) if (count >= PARALLEL_FROM)
	for (size_t i = 0; i < count; i++)
		to[i] = sequence_value(&s, i);
}

void synthetic_fill_bf16(const char *tag, const char *name, double offset, double scale,
			 size_t first, size_t count, uint16_t *to)
{
	const struct sequence s = sequence_begin(tag, name, offset, scale, first);

#pragma omp parallel for schedule(static) if (count >= PARALLEL_FROM)
	for (size_t i = 0; i < count; i++)
		to[i] = round_to_bf16(sequence_value(&s, i));
}

/* One row of the scale table: the first whose ending fits counts. */
struct scale_rule {
	const char *ending;
	double offset, scale;
	bool per_root_fan; /* scale is divided by √fan, fan = product of all dimensions but the first */
};

static const struct scale_rule dit_rules[] = {
	{ "t_conv.weight", 0, 0.5, true },
	{ "norm.weight", 1, 0.25, false },
	{ "scale_shift_table", 0, 0.4, false },
	{ "A_log", 0.3, 0.5, false },
	{ "dt_bias", -2, 0.5, false },
	{ ".bias", 0, 0.2, false },
	{ "y_embedding", 0, 0.5, false },
	{ "pos_embed", 0, 0.5, false }, /* unused like y_embedding */
	{ "", 0, 1.6, true },
};

static const struct scale_rule vae_rules[] = {
	{ "latents_mean", 0, 0, false },
	{ "latents_std", 1, 0, false },
	{ ".bias", 0, 0.1, false },
	{ "", 0, 1.7, true },
};

static const struct scale_rule text_rules[] = {
	{ "norm.weight", 0, 0.3, false },
	{ "embed_tokens.weight", 0, 1, false },
	{ "", 0, 1.6, true },
};

static bool ends_with(const char *text, const char *ending)
{
	size_t length = strlen(text), tail = strlen(ending);

	return length >= tail && strcmp(text + length - tail, ending) == 0;
}

void synthetic_scale(const char *network, const struct model_key *key, double *ret_offset,
		     double *ret_scale)
{
	const struct scale_rule *rule = dit_rules;
	double fan = 1;

	if (strcmp(network, "vae") == 0)
		rule = vae_rules;
	else if (strcmp(network, "text") == 0)
		rule = text_rules;
	else
		assert(strcmp(network, "dit") == 0);
	while (!ends_with(key->name, rule->ending))
		rule++;
	for (int d = 1; d < key->rank; d++)
		fan *= (double)key->shape[d];
	*ret_offset = rule->offset;
	*ret_scale = rule->per_root_fan ? rule->scale / sqrt(fan) : rule->scale;
}

/* Two walks over the keys: the first adds up `used`, the second fills `memory`. */
struct synthetic_job {
	const char *network;
	char tag[32];
	struct weights *weights;
	char *memory; /* NULL while measuring */
	size_t used;
};

static bool key_is_float(const struct model_key *key)
{
	return strcmp(key->name, "latents_mean") == 0 || strcmp(key->name, "latents_std") == 0;
}

static int synthetic_key(void *context, const struct model_key *key)
{
	struct synthetic_job *job = context;
	bool wide = key_is_float(key);
	struct weight_tensor tensor = { .name = (char *)key->name,
					.dtype = wide ? KERNEL_F32 : KERNEL_BF16,
					.rank = key->rank };
	size_t count = 1, bytes, start = job->used;
	double offset, scale;

	for (int d = 0; d < key->rank; d++) {
		tensor.shape[d] = key->shape[d];
		if (size_mul_overflows(count, (size_t)key->shape[d], &count))
			return -EOVERFLOW;
	}
	if (size_mul_overflows(count, kernel_dtype_bytes(tensor.dtype), &bytes) ||
	    bytes > SIZE_MAX / 2 ||
	    size_add_overflows(start, align_up(bytes, KERNEL_ALIGNMENT), &job->used))
		return -EOVERFLOW;
	if (!job->memory)
		return 0;
	tensor.data = job->memory + start;
	synthetic_scale(job->network, key, &offset, &scale);
	if (wide)
		synthetic_fill(job->tag, key->name, offset, scale, 0, count,
			       (float *)(job->memory + start));
	else
		synthetic_fill_bf16(job->tag, key->name, offset, scale, 0, count,
				    (uint16_t *)(job->memory + start));
	return weights_add(job->weights, &tensor, false);
}

static int synthetic_failed(struct sana_error *error, const struct synthetic_job *job, int r)
{
	return sana_error_set(
		error, r, "weights.synthetic",
		"Generated weights for \"%s\" need %zu bytes, which are not there: %s.",
		job->network, job->used, strerror(-r));
}

static void release_mapping(void *memory, size_t bytes)
{
	(void)munmap(memory, bytes);
}

int synthetic_weights(const char *network, uint64_t seed, weights_key_walk walk, const void *config,
		      struct weights **ret, struct sana_error *error)
{
	_cleanup_(weights_destroyp) struct weights *weights = NULL;
	struct synthetic_job job = { .network = network };
	size_t bytes;
	void *memory;
	int r;

	(void)snprintf(job.tag, sizeof(job.tag), "synthetic-%" PRIu64, seed);
	r = walk(config, synthetic_key, &job);
	if (r < 0)
		return synthetic_failed(error, &job, r);
	r = weights_create(&weights);
	if (r < 0)
		return synthetic_failed(error, &job, r);
	bytes = MAX_OF(job.used, (size_t)1);
	memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		return synthetic_failed(error, &job, -errno);
	r = weights_own(weights, release_mapping, memory, bytes);
	if (r < 0) {
		release_mapping(memory, bytes);
		return synthetic_failed(error, &job, r);
	}
	job.weights = weights;
	job.memory = memory;
	job.used = 0;
	r = walk(config, synthetic_key, &job);
	if (r < 0)
		return synthetic_failed(error, &job, r);
	*ret = TAKE_PTR(weights);
	return 0;
}
