/* Prompts: text → tokens → caption rows, independent of any stream. */
#include "engine/model.h"

#include <errno.h>
#include <math.h>

struct sana_prompt {
	atomic_int references;
	char *text;
	float *features; /* [rows][caption channels] */
	int32_t *ids;
	int rows, channels, id_count;
	bool cut;
};

static struct sana_prompt *prompt_free(struct sana_prompt *prompt)
{
	if (prompt) {
		free(prompt->text);
		free(prompt->features);
		free(prompt->ids);
		free(prompt);
	}
	return NULL;
}

static void prompt_freep(struct sana_prompt **prompt)
{
	(void)prompt_free(*prompt);
}

static struct sana_prompt *prompt_alloc(const char *text, int rows, int channels, int ids)
{
	struct sana_prompt *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	atomic_init(&p->references, 1);
	p->rows = rows;
	p->channels = channels;
	p->id_count = ids;
	p->text = strdup(text);
	p->features = malloc(sizeof(float) * (size_t)rows * (size_t)channels);
	p->ids = malloc(sizeof(*p->ids) * (size_t)MAX_OF(ids, 1));
	if (!p->text || !p->features || !p->ids)
		return prompt_free(p);
	return p;
}

/* Runs the stack and copies the caption's rows: row 0, then those from first_row on. */
static int features_compute(struct sana_model *model, const struct prompt_tokens *tokens,
			    struct sana_prompt *prompt)
{
	struct op_context *op = &model->text_op;
	const int channels = model->config.text.hidden_size;
	const size_t row_bytes = (size_t)channels * sizeof(float);
	const float *rows = model->networks.features;
	const void *hidden;
	int r;

	op->status = 0;
	r = text_encoder_run(&model->networks.encoder, op, tokens->ids, NULL, tokens->count,
			     &hidden);
	if (r < 0)
		return r;
	OP(op, rope_shift,
	   { /* to F32 */
	     .x = hidden,
	     .y = model->networks.features,
	     .y_is_float = true,
	     .rows = (size_t)tokens->count,
	     .heads = 1,
	     .head_dim = channels });
	op_download(op, prompt->features, rows, row_bytes);
	if (prompt->rows > 1)
		op_download(op, prompt->features + channels,
			    rows + (size_t)tokens->first_row * (size_t)channels,
			    (size_t)(prompt->rows - 1) * row_bytes);
	return op_wait(op);
}

int sana_prompt_create(struct sana_model *model, const char *text, struct sana_prompt **ret,
		       struct sana_error *error)
{
	_cleanup_(freep) struct prompt_tokens *tokens = malloc(sizeof(*tokens));
	_cleanup_(prompt_freep) struct sana_prompt *prompt = NULL;
	int r;

	if (!tokens)
		return sana_error_set(error, -ENOMEM, "memory", "No memory for a prompt.");
	if (!model->with_text)
		return sana_error_set(error, -ENOTSUP, "prompt.unsupported",
				      "This model was opened without its text encoder.");
	r = prompt_tokenise(&model->rule, text, tokens, error);
	if (r < 0)
		return r;
	prompt = prompt_alloc(text, tokens->caption_rows, model->config.text.hidden_size,
			      tokens->count);
	if (!prompt)
		return sana_error_set(error, -ENOMEM, "memory", "No memory for a prompt.");
	memcpy(prompt->ids, tokens->ids, sizeof(*prompt->ids) * (size_t)tokens->count);
	prompt->cut = tokens->cut;
	(void)pthread_mutex_lock(&model->text_lock);
	r = features_compute(model, tokens, prompt);
	(void)pthread_mutex_unlock(&model->text_lock);
	if (r < 0)
		return sana_error_set(error, r, backend_fault_name(r),
				      "The text encoder failed: %s.", backend_fault_text(r));
	*ret = TAKE_PTR(prompt);
	return 0;
}

int sana_prompt_from_features(struct sana_model *model, const float *features, int rows,
			      struct sana_prompt **ret, struct sana_error *error)
{
	const int channels = model->config.dit.caption_channels,
		  most = model->config.dit.max_tokens;
	const size_t count = (size_t)MAX_OF(rows, 0) * (size_t)channels;
	struct sana_prompt *prompt;

	if (rows < 1 || rows > most)
		return sana_error_set(error, -EINVAL, "prompt.features",
				      "A caption has 1 to %d rows, not %d.", most, rows);
	for (size_t i = 0; i < count; i++)
		if (!isfinite(features[i]))
			return sana_error_set(error, -EINVAL, "prompt.features",
					      "Caption row %zu holds a value that is not finite.",
					      i / (size_t)channels);
	prompt = prompt_alloc("", rows, channels, 0);
	if (!prompt)
		return sana_error_set(error, -ENOMEM, "memory", "No memory for a prompt.");
	memcpy(prompt->features, features, count * sizeof(*features));
	*ret = prompt;
	return 0;
}

struct sana_prompt *sana_prompt_ref(struct sana_prompt *prompt)
{
	atomic_fetch_add(&prompt->references, 1);
	return prompt;
}

struct sana_prompt *sana_prompt_unref(struct sana_prompt *prompt)
{
	if (prompt && atomic_fetch_sub(&prompt->references, 1) == 1)
		(void)prompt_free(prompt);
	return NULL;
}

const char *sana_prompt_text(const struct sana_prompt *prompt)
{
	return prompt->text;
}

bool sana_prompt_was_cut(const struct sana_prompt *prompt)
{
	return prompt->cut;
}

const float *sana_prompt_features(const struct sana_prompt *prompt, int *ret_rows)
{
	*ret_rows = prompt->rows;
	return prompt->features;
}

int prompt_channels(const struct sana_prompt *prompt)
{
	return prompt->channels;
}

const int32_t *sana_prompt_ids(const struct sana_prompt *prompt, int *ret_count)
{
	*ret_count = prompt->id_count;
	return prompt->ids;
}
