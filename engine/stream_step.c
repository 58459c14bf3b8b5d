/* The order of stages: which one is next, and what it does to the stream. */
#include "engine/profile.h"
#include "engine/stream.h"

#include <errno.h>
#include <time.h>

static int64_t now_ns(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void count(struct sana_stream *stream, uint64_t *counter, uint64_t by)
{
	(void)pthread_mutex_lock(&stream->lock);
	*counter += by;
	(void)pthread_mutex_unlock(&stream->lock);
}

/* ------------------------------------------------------------------------ the chunk filled */

static int temporal_ratio(const struct sana_stream *stream)
{
	return stream->model->config.stream.temporal_ratio;
}

static int chunk_frames(const struct sana_stream *stream, const struct stream_chunk *chunk)
{
	return stream_frames(stream, chunk->latents, chunk->first);
}

/* Frames the encoder wants at once: one at the start of a history, then one latent's worth. */
static int unit_frames(const struct sana_stream *stream)
{
	return stream->fill.first && stream->fill.encoded == 0 ? 1 : temporal_ratio(stream);
}

static bool fill_is_encoded(const struct sana_stream *stream)
{
	return stream->fill.latents > 0 && stream->fill.encoded == stream->fill.latents;
}

bool stream_fill_is_full(const struct sana_stream *stream)
{
	if (stream->fill.latents == 0)
		return false;
	return fill_is_encoded(stream) || stream->input_frames >= unit_frames(stream);
}

static void prompt_replace(struct sana_prompt **to, struct sana_prompt *prompt)
{
	(void)sana_prompt_unref(*to);
	*to = prompt;
}

/* Takes the pending request when it may act on the chunk: restarts only at a chunk's first frame. */
static void request_take(struct sana_stream *stream, struct stream_chunk *chunk, bool at_start)
{
	struct stream_requests *requests = &stream->requests;
	bool restart;

	(void)pthread_mutex_lock(&stream->lock);
	restart = requests->prompt && requests->mode == SANA_SWITCH_RESTART;
	if (at_start && (restart || requests->reset)) {
		chunk->first = true;
		requests->reset = false;
	}
	if (requests->prompt && (chunk->first || (!at_start && !restart))) {
		prompt_replace(&chunk->prompt, requests->prompt);
		chunk->ticket = requests->ticket;
		chunk->mode = requests->mode;
		requests->prompt = NULL;
	}
	(void)pthread_mutex_unlock(&stream->lock);
}

void stream_fill_begin(struct sana_stream *stream)
{
	struct stream_chunk *fill = &stream->fill;
	const bool start = stream->next_chunk == 0 || stream->restart;

	if (fill->latents)
		return;
	*fill = (struct stream_chunk){ .index = stream->next_chunk++, .first = start };
	stream->restart = false;
	request_take(stream, fill, true);
	fill->latents = fill->first ? stream->options.first_chunk_latents :
				      stream->model->config.stream.chunk_latents;
	if (fill->first)
		vae_encoder_reset(&stream->encoder);
}

static void tags_drop(struct sana_stream *stream, int frames)
{
	frames = MIN_OF(frames, stream->tag_count);
	stream->tag_first = (stream->tag_first + frames) % stream->tag_capacity;
	stream->tag_count -= frames;
	count(stream, &stream->statistics.frames_dropped, (uint64_t)frames);
}

/* Forgets the chunk being filled; its frames are lost and a new history starts. */
static void fill_abandon(struct sana_stream *stream)
{
	struct stream_requests *requests = &stream->requests;
	struct stream_chunk *fill = &stream->fill;

	(void)pthread_mutex_lock(&stream->lock);
	if (fill->prompt && !requests->prompt) {
		requests->prompt = TAKE_PTR(fill->prompt);
		requests->ticket = fill->ticket;
		requests->mode = fill->mode;
	}
	(void)pthread_mutex_unlock(&stream->lock);
	prompt_replace(&fill->prompt, NULL);
	tags_drop(stream, fill->frames);
	*fill = (struct stream_chunk){ 0 };
	stream->input_frames = 0;
	stream->restart = true;
}

void sana_stream_discard(struct sana_stream *stream)
{
	const int frames = MIN_OF(stream->fill.frames, stream->tag_count);

	/* The newest tags; those in front may be of a chunk that is being edited. */
	stream->tag_count -= frames;
	stream->fill.frames = 0;
	count(stream, &stream->statistics.frames_dropped, (uint64_t)frames);
	fill_abandon(stream);
}

/* Frames decoded and not pulled yet. */
static void output_drop(struct sana_stream *stream)
{
	struct stream_output *output = &stream->output;
	uint64_t lost = 0;

	for (int i = output->next; i < output->frames; i++) {
		lost += output->real[i];
		/* Nobody was told of the new prompt yet. */
		if (output->real[i] && output->info[i].prompt_changed)
			stream->announce = true;
	}
	output->next = output->frames = 0;
	count(stream, &stream->statistics.frames_dropped, lost);
}

void stream_fail(struct sana_stream *stream)
{
	output_drop(stream);
	/* The tags in front of the filling chunk's: those of the chunk being edited. */
	tags_drop(stream, stream->tag_count - MIN_OF(stream->fill.frames, stream->tag_count));
	fill_abandon(stream);
	stream->phase = STREAM_IDLE;
	stream->bad_in_a_row = 0;
	(void)op_wait(&stream->op);
	stream->op.status = 0;
	count(stream, &stream->statistics.failures, 1);
}

/* --------------------------------------------------------------------------------- stages */

static size_t latent_count(const struct sana_stream *stream, int latents)
{
	return (size_t)latents * (size_t)stream->latent_height * (size_t)stream->latent_width *
	       (size_t)stream->model->config.stream.latent_channels;
}

/* After finish: the newest frame again, until the encoder has what it wants. */
static void input_pad(struct sana_stream *stream)
{
	const struct vae_config *vae = &stream->model->config.vae;
	const size_t frame = (size_t)stream->height * (size_t)stream->width *
			     (size_t)vae->pixel_channels *
			     activation_bytes(&stream->model->backend);
	const uintptr_t base = (uintptr_t)stream->input;

	for (; stream->input_frames < unit_frames(stream); stream->input_frames++)
		if (stream->input_last != stream->input_frames)
			op_copy(&stream->op, (void *)(base + frame * (size_t)stream->input_frames),
				(const void *)(base + frame * (size_t)stream->input_last), frame);
	stream->input_last = stream->input_frames - 1;
}

static int stage_encode(struct sana_stream *stream)
{
	struct stream_chunk *fill = &stream->fill;
	float *to = editor_source(&stream->editor) + latent_count(stream, fill->encoded);
	int made, r;

	r = vae_encoder_run(&stream->encoder, &stream->op, stream->input, stream->input_frames, to,
			    &made);
	if (r < 0)
		return r;
	if (made != 1)
		return -EPROTO;
	stream->input_frames = 0;
	fill->encoded++;
	return op_wait(&stream->op);
}

static void history_clear(struct sana_stream *stream)
{
	if (stream->editor.cache.chunks)
		count(stream, &stream->statistics.resets, 1);
	editor_reset(&stream->editor);
	vae_decoder_reset(&stream->decoder);
	stream->latent = stream->options.first_latent;
	stream->noise_used = 0;
}

static int recache(struct sana_stream *stream)
{
	struct editor *editor = &stream->editor;
	const int64_t chunks = editor->cache.chunks;
	const int r = editor_recache(editor, &stream->op);

	if (r > 0)
		count(stream, &stream->statistics.recaches, 1);
	else if (r == 0 && editor->cache.chunks < chunks)
		count(stream, &stream->statistics.states_discarded, 1);
	return r;
}

/* The prompt of the chunk about to begin; a restart also clears what is carried. */
static int stage_prompt(struct sana_stream *stream)
{
	struct stream_chunk *fill = &stream->fill;
	const float *rows;
	int count_rows, r = 0;

	fill->prompt_applied = true;
	if (fill->first)
		history_clear(stream);
	if (fill->prompt) {
		prompt_replace(&stream->caption, TAKE_PTR(fill->prompt));
		stream->ticket = fill->ticket;
		stream->announce = true;
		count(stream, &stream->statistics.prompts, 1);
	}
	/* Also for the old prompt: a restart may follow a failure that spoiled its keys and values. */
	rows = sana_prompt_features(stream->caption, &count_rows);
	editor_set_caption(&stream->editor, &stream->op, rows, count_rows);
	if (fill->mode == SANA_SWITCH_RECACHE && !fill->first)
		r = recache(stream);
	return r < 0 ? r : op_wait(&stream->op);
}

/* Slice [first, first + frames) of the caller's [C][T_all][h][w] noise, channels last. */
static const float *noise_slice(struct sana_stream *stream, int frames)
{
	const size_t area = (size_t)stream->latent_height * (size_t)stream->latent_width;
	const size_t channels = (size_t)stream->model->config.stream.latent_channels;
	const size_t all = (size_t)stream->options.noise_latents;
	const float *from = stream->options.noise;

	for (size_t t = 0; t < (size_t)frames; t++)
		for (size_t p = 0; p < area; p++)
			for (size_t c = 0; c < channels; c++)
				stream->noise[(t * area + p) * channels + c] =
					from[(c * all + stream->noise_used + t) * area + p];
	return stream->noise;
}

static int chunk_begin(struct sana_stream *stream, struct sana_error *error)
{
	const int frames = stream->fill.latents;
	const float *noise = NULL;
	int r;

	if (stream->options.noise) {
		if (stream->noise_used + (uint64_t)frames > (uint64_t)stream->options.noise_latents)
			return sana_error_set(error, -ENODATA, "stream.noise",
					      "The noise given ends after %d latents.",
					      stream->options.noise_latents);
		noise = noise_slice(stream, frames);
	}
	r = editor_begin(&stream->editor, &stream->op, frames, stream->latent, noise);
	if (r < 0)
		return r;
	stream->noise_used += (uint64_t)frames;
	stream->latent += (uint64_t)frames;
	stream->run = stream->fill;
	stream->fill = (struct stream_chunk){ 0 };
	stream->phase = STREAM_DENOISE;
	stream->step = 0;
	stream->decoded = 0;
	return 0;
}

/* A bad chunk: dropped before it is shown. Where nothing is carried yet, filling starts again too. */
static void run_drop(struct sana_stream *stream)
{
	const int frames = MIN_OF(chunk_frames(stream, &stream->run), stream->run.frames);

	editor_drop(&stream->editor);
	tags_drop(stream, frames);
	count(stream, &stream->statistics.chunks_dropped, 1);
	stream->phase = STREAM_IDLE;
	stream->bad_in_a_row++;
	if (stream->run.first || stream->bad_in_a_row >= stream->options.health_reset_after) {
		fill_abandon(stream);
		stream->bad_in_a_row = 0;
	}
}

static int latents_give(struct sana_stream *stream)
{
	const size_t elements = latent_count(stream, stream->run.latents);
	struct editor *editor = &stream->editor;
	int r;

	if (!stream->latent_sink)
		return 0;
	op_download(&stream->op, stream->sink_latents, editor_latent(editor),
		    elements * sizeof(float));
	op_download(&stream->op, stream->sink_source, editor->source[editor->slot],
		    elements * sizeof(float));
	r = op_wait(&stream->op);
	if (r >= 0)
		stream->latent_sink(stream->latent_sink_context, stream->run.index,
				    stream->run.latents, stream->sink_latents, stream->sink_source);
	return r;
}

static int stage_denoise(struct sana_stream *stream, struct sana_error *error)
{
	int r;

	if (stream->phase == STREAM_IDLE) {
		r = chunk_begin(stream, error);
		if (r < 0)
			return r;
	}
	r = editor_denoise(&stream->editor, &stream->op, stream->step);
	if (r >= 0)
		r = op_wait(&stream->op);
	if (r < 0 || ++stream->step < stream->model->config.stream.steps)
		return r;
	r = editor_latent_is_sane(&stream->editor, &stream->op);
	if (r == 0)
		run_drop(stream);
	if (r <= 0)
		return r;
	stream->phase = STREAM_DECODE;
	return latents_give(stream);
}

/* Gives each decoded frame the tag of the source frame it was made from. */
static void output_tag(struct sana_stream *stream, int frames, int first_in_chunk)
{
	struct stream_output *output = &stream->output;

	output->next = 0;
	output->frames = frames;
	for (int i = 0; i < frames; i++) {
		const struct stream_tag *tag = &stream->tag[stream->tag_first];
		const bool real = first_in_chunk + i < stream->run.frames && stream->tag_count > 0;

		output->real[i] = real;
		if (!real)
			continue;
		output->info[i] = (struct sana_frame_info){
			.frame = tag->frame,
			.timestamp_ns = tag->timestamp_ns,
			.chunk = stream->run.index,
			.index_in_chunk = first_in_chunk + i,
			.ticket = stream->ticket,
			.prompt_changed = stream->announce,
		};
		stream->announce = false;
		stream->tag_first = (stream->tag_first + 1) % stream->tag_capacity;
		stream->tag_count--;
	}
}

static int stage_decode(struct sana_stream *stream)
{
	const struct vae_config *vae = &stream->model->config.vae;
	const int latents = MIN_OF(stream->decode_latents, stream->run.latents - stream->decoded);
	const float *from = editor_latent(&stream->editor) + latent_count(stream, stream->decoded);
	const size_t row = (size_t)stream->width * (size_t)vae->pixel_channels;
	const int before =
		stream->decoded ? stream_frames(stream, stream->decoded, stream->run.first) : 0;
	int made, r;

	r = vae_decoder_run(&stream->decoder, &stream->op, from, latents, stream->output_patches,
			    &made);
	if (r < 0)
		return r;
	OP(&stream->op, unpatchify,
	   { .x = stream->output_patches,
	     .pixels = stream->output_rgb,
	     .rounding = stream->options.truncate ? KERNEL_ROUND_TRUNCATE : KERNEL_ROUND_NEAREST,
	     .row_bytes = row,
	     .frame_bytes = row * (size_t)stream->height,
	     .frames = made,
	     .height = stream->height,
	     .width = stream->width,
	     .channels = vae->pixel_channels,
	     .patch = vae->patch });
	if (stream->host_output)
		op_download(&stream->op, stream->host_output, stream->output_rgb,
			    row * (size_t)stream->height * (size_t)made);
	r = op_wait(&stream->op);
	if (r < 0)
		return r;
	stream->decoded += latents;
	output_tag(stream, made, before);
	if (stream->decoded == stream->run.latents) {
		stream->phase = STREAM_CACHE;
		count(stream, &stream->statistics.chunks, 1);
	}
	return 0;
}

static bool is_last_chunk(const struct sana_stream *stream)
{
	return stream->finished && stream->fill.frames == 0;
}

static int stage_cache(struct sana_stream *stream)
{
	int r;

	stream->phase = STREAM_IDLE;
	r = editor_save(&stream->editor, &stream->op);
	if (r < 0)
		return r;
	if (r > 0) {
		stream->bad_in_a_row = 0;
		return 0;
	}
	count(stream, &stream->statistics.states_discarded, 1);
	if (++stream->bad_in_a_row >= stream->options.health_reset_after) {
		stream->bad_in_a_row = 0;
		fill_abandon(stream);
	}
	return 0;
}

/* ------------------------------------------------------------------------------- the order */

static bool output_is_empty(struct sana_stream *stream)
{
	struct stream_output *output = &stream->output;

	while (output->next < output->frames && !output->real[output->next])
		output->next++;
	return output->next == output->frames;
}

/* What shows a frame soonest comes first; the cache pass and encoding ahead come after it. */
static enum sana_stage stage_next(struct sana_stream *stream)
{
	struct stream_chunk *fill = &stream->fill;
	const bool has_work = fill->frames > 0;

	if (stream->phase == STREAM_DECODE && output_is_empty(stream))
		return SANA_STAGE_DECODE;
	if (stream->phase == STREAM_DENOISE)
		return SANA_STAGE_DENOISE;
	if (stream->phase == STREAM_CACHE && is_last_chunk(stream))
		stream->phase = STREAM_IDLE;
	if (stream->phase == STREAM_CACHE)
		return SANA_STAGE_CACHE;
	if (stream->phase == STREAM_IDLE && fill_is_encoded(stream)) {
		if (!fill->prompt_applied)
			request_take(stream, fill, false);
		if (!fill->prompt_applied && (fill->prompt || fill->first))
			return SANA_STAGE_PROMPT;
		return SANA_STAGE_DENOISE;
	}
	if (!has_work || fill_is_encoded(stream))
		return SANA_STAGE_NONE;
	if (stream->finished)
		input_pad(stream);
	return stream->input_frames >= unit_frames(stream) ? SANA_STAGE_ENCODE : SANA_STAGE_NONE;
}

static int stage_run(struct sana_stream *stream, enum sana_stage stage, struct sana_error *error)
{
	switch (stage) {
	case SANA_STAGE_ENCODE:
		return stage_encode(stream);
	case SANA_STAGE_PROMPT:
		return stage_prompt(stream);
	case SANA_STAGE_DENOISE:
		return stage_denoise(stream, error);
	case SANA_STAGE_DECODE:
		return stage_decode(stream);
	case SANA_STAGE_CACHE:
		return stage_cache(stream);
	case SANA_STAGE_NONE:
	case SANA_STAGE_COUNT:
		break;
	}
	return 0;
}

/* Copies and waits fail without an op, a stage that refuses its sizes without either. */
static void failure_describe(const struct sana_stream *stream, enum sana_stage stage, int r,
			     struct sana_error *ret)
{
	const struct op_context *op = &stream->op;
	const bool in_op = op->status < 0 && op->failed < KERNEL_OP_COUNT;

	(void)sana_error_set(ret, r, backend_fault_name(r), "Stage %s failed%s%s: %s; %s.",
			     sana_stage_name(stage), in_op ? " in op " : "",
			     in_op ? kernel_op_name(op->failed) : "", backend_fault_text(r),
			     r == -EFAULT || r == -ENODEV ?
				     "the model must be closed and opened again" :
				     "the stream starts afresh");
}

int sana_stream_step(struct sana_stream *stream, enum sana_stage *ret_stage,
		     struct sana_error *error)
{
	const int64_t start = now_ns();
	const enum sana_stage stage = stage_next(stream);
	struct sana_statistics *statistics = &stream->statistics;
	struct sana_error failure = { 0 };
	int r;

	if (stage == SANA_STAGE_NONE && stream->op.status >= 0) {
		*ret_stage = stage;
		return 0;
	}
	if (stream->profile)
		stream->profile->stage = stage;
	r = stream->op.status < 0 ? stream->op.status : stage_run(stream, stage, &failure);
	if (stream->profile)
		profile_stage_end(stream->profile, &stream->model->backend);
	(void)pthread_mutex_lock(&stream->lock);
	statistics->stage_ns[stage] += now_ns() - start;
	statistics->stage_count[stage]++;
	statistics->latent = stream->latent;
	statistics->rebases = stream->editor.rebases;
	(void)pthread_mutex_unlock(&stream->lock);
	if (r < 0) {
		if (!failure.code)
			failure_describe(stream, stage, r, &failure);
		stream_fail(stream);
		if (error)
			*error = failure;
		return r;
	}
	*ret_stage = stage;
	return 1;
}
