/* Which ops a chunk takes, and what each must do at least. */
#include "engine/stream.h"

#include <errno.h>

static size_t weight_bytes(const struct backend *backend)
{
	/* The CPU widens matrices to F32; a back end of 16-bit activations keeps them as they are. */
	return kernel_dtype_bytes(backend->table->activation);
}

static void encode_plan(struct sana_stream *stream, struct op_context *op)
{
	const struct stream_config *config = &stream->model->config.stream;
	const struct vae_config *vae = &stream->model->config.vae;
	int produced;

	for (int latent = 0; latent < config->chunk_latents; latent++) {
		OP(op, patchify,
		   { .pixels = stream->picture,
		     .y = stream->encoder.patches,
		     .frames = config->temporal_ratio,
		     .height = stream->height,
		     .width = stream->width,
		     .channels = vae->pixel_channels,
		     .patch = vae->patch });
		(void)vae_encoder_run(&stream->encoder, op, stream->encoder.patches,
				      config->temporal_ratio, stream->editor.source[0], &produced);
	}
}

static void decode_plan(struct sana_stream *stream, struct op_context *op)
{
	const struct stream_config *config = &stream->model->config.stream;
	const struct vae_config *vae = &stream->model->config.vae;
	int left = config->chunk_latents, latents, produced;

	for (; left > 0; left -= latents) {
		latents = MIN_OF(left, stream->decode_latents);
		(void)vae_decoder_run(&stream->decoder, op, stream->editor.latent[0], latents, NULL,
				      &produced);
		OP(op, unpatchify,
		   { .x = stream->decoder.patches,
		     .pixels = stream->output_rgb,
		     .frames = latents * config->temporal_ratio,
		     .height = stream->height,
		     .width = stream->width,
		     .channels = vae->pixel_channels,
		     .patch = vae->patch });
	}
}

static void stage_plan(struct sana_stream *stream, struct op_context *op, enum sana_stage stage)
{
	switch (stage) {
	case SANA_STAGE_ENCODE:
		encode_plan(stream, op);
		break;
	case SANA_STAGE_DENOISE:
		editor_plan_pass(&stream->editor, op, false);
		break;
	case SANA_STAGE_CACHE:
		editor_plan_pass(&stream->editor, op, true);
		break;
	case SANA_STAGE_DECODE:
		decode_plan(stream, op);
		break;
	case SANA_STAGE_NONE:
	case SANA_STAGE_PROMPT:
	case SANA_STAGE_COUNT:
		break;
	}
}

static int lines_append(struct sana_plan *plan, enum sana_stage stage,
			const struct op_ledger *ledger)
{
	if (ledger->overflowed || plan->op_lines + ledger->lines > SANA_OP_LINES)
		return -EOVERFLOW;
	for (int i = 0; i < ledger->lines; i++) {
		struct sana_op_line *line = &plan->op[plan->op_lines++];

		line->stage = stage;
		(void)snprintf(line->op, sizeof(line->op), "%s",
			       kernel_op_name(ledger->line[i].op));
		line->calls = ledger->line[i].calls;
		line->flops = ledger->line[i].cost.flops;
		line->bytes = ledger->line[i].cost.bytes;
	}
	return 0;
}

int plan_ops_fill(struct sana_stream *stream, struct sana_plan *plan)
{
	const struct backend *backend = &stream->model->backend;
	_cleanup_(freep) struct op_ledger *ledger = calloc(1, sizeof(*ledger));
	struct arena arena;
	int r = 0;

	if (!ledger)
		return -ENOMEM;
	/* At an address nobody reads: what is there differs from what is left out, as when it runs. */
	arena_place(&arena, (void *)(uintptr_t)KERNEL_ALIGNMENT, SIZE_MAX / 2);
	stream_layout(stream, &arena);
	plan->op_lines = 0;
	for (int stage = 0; stage < SANA_STAGE_COUNT && r >= 0; stage++) {
		struct op_context op = { .backend = backend, .planning = true, .ledger = ledger };

		*ledger = (struct op_ledger){ .storage = { activation_bytes(backend),
							   weight_bytes(backend) } };
		stage_plan(stream, &op, (enum sana_stage)stage);
		r = op.status < 0 ? op.status : lines_append(plan, (enum sana_stage)stage, ledger);
	}
	return r;
}
