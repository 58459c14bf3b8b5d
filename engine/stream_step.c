/* The order of stages: which one is next, and what it does to the stream. */
#include "engine/profile.h"
#include "engine/stream.h"

#include <errno.h>

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
	/* The half of host memory that comes next may still be copied from. */
	if (stream->input_frames == 0 && stream_lane_is_full(stream, STREAM_LANE_ENCODE))
		return true;
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
	stream_count(stream, &stream->statistics.frames_dropped, (uint64_t)frames);
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
	/* Copies of its pictures that are still on their way are followed by those of the next ones. */
	stream->input_frames = 0;
	stream->restart = true;
}

void sana_stream_discard(struct sana_stream *stream)
{
	const int frames = MIN_OF(stream->fill.frames, stream->tag_count);

	/* The newest tags; those in front may be of a chunk that is being edited. */
	stream->tag_count -= frames;
	stream->fill.frames = 0;
	stream_count(stream, &stream->statistics.frames_dropped, (uint64_t)frames);
	fill_abandon(stream);
}

/* Frames decoded, or on the way to it, and not pulled yet. */
static void outputs_drop(struct sana_stream *stream)
{
	uint64_t lost = 0;

	for (; stream->outputs > 0; stream->outputs--) {
		struct stream_output *output = &stream->output[stream->output_first];

		for (int i = output->next; i < output->frames; i++) {
			lost += output->real[i];
			/* Nobody was told of the new prompt yet. */
			if (output->real[i] && output->info[i].prompt_changed)
				stream->announce = true;
		}
		stream->output_first = (stream->output_first + 1) % STREAM_AHEAD;
	}
	stream_count(stream, &stream->statistics.frames_dropped, lost);
}

void stream_fail(struct sana_stream *stream)
{
	stream_lanes_reset(stream);
	outputs_drop(stream);
	/* The tags in front of the filling chunk's: those of the chunk being edited. */
	tags_drop(stream, stream->tag_count - MIN_OF(stream->fill.frames, stream->tag_count));
	fill_abandon(stream);
	stream->phase = STREAM_IDLE;
	stream->bad_in_a_row = 0;
	stream_count(stream, &stream->statistics.failures, 1);
}

/* --------------------------------------------------------------------------------- stages */

static size_t latent_count(const struct sana_stream *stream, int latents)
{
	return (size_t)latents * (size_t)stream->latent_height * (size_t)stream->latent_width *
	       (size_t)stream->model->config.stream.latent_channels;
}

static size_t picture_bytes(const struct sana_stream *stream)
{
	return (size_t)stream->height * (size_t)stream->width *
	       (size_t)stream->model->config.vae.pixel_channels;
}

/* After finish: the newest frame again, until the encoder has what it wants. */
static void input_pad(struct sana_stream *stream)
{
	const size_t frame = picture_bytes(stream);

	for (; stream->input_frames < unit_frames(stream); stream->input_frames++)
		if (stream->input_last != stream->input_frames)
			op_copy(stream_op(stream, STREAM_LANE_ENCODE),
				stream->picture + frame * (size_t)stream->input_frames,
				stream->picture + frame * (size_t)stream->input_last, frame);
	stream->input_last = stream->input_frames - 1;
}

static int encode_start(struct sana_stream *stream)
{
	const struct vae_config *vae = &stream->model->config.vae;
	struct op_context *op = stream_op(stream, STREAM_LANE_ENCODE);
	struct stream_chunk *fill = &stream->fill;
	float *to = editor_source(&stream->editor) + latent_count(stream, fill->encoded);
	int made, r;

	OP(op, patchify,
	   { .pixels = stream->picture,
	     .row_bytes = picture_bytes(stream) / (size_t)stream->height,
	     .frame_bytes = picture_bytes(stream),
	     .y = stream->encoder.patches,
	     .frames = stream->input_frames,
	     .height = stream->height,
	     .width = stream->width,
	     .channels = vae->pixel_channels,
	     .patch = vae->patch });
	r = vae_encoder_run(&stream->encoder, op, stream->encoder.patches, stream->input_frames, to,
			    &made);
	if (r < 0)
		return r;
	if (made != 1)
		return -EPROTO;
	stream->input_frames = 0;
	stream->host_half = (stream->host_half + 1) % STREAM_AHEAD;
	fill->encoded++;
	return 0;
}

static void history_clear(struct sana_stream *stream)
{
	if (stream->editor.cache.chunks)
		stream_count(stream, &stream->statistics.resets, 1);
	editor_reset(&stream->editor);
	vae_decoder_reset(&stream->decoder);
	stream->latent = stream->options.first_latent;
	stream->noise_used = 0;
}

static int recache(struct sana_stream *stream)
{
	struct editor *editor = &stream->editor;
	const int64_t chunks = editor->cache.chunks;
	const int r = editor_recache(editor, stream_op(stream, STREAM_LANE_EDIT));

	if (r > 0)
		stream_count(stream, &stream->statistics.recaches, 1);
	else if (r == 0 && editor->cache.chunks < chunks)
		stream_count(stream, &stream->statistics.states_discarded, 1);
	return r;
}

/* The prompt of the chunk about to begin; a restart also clears what is carried. */
static int prompt_start(struct sana_stream *stream)
{
	struct op_context *op = stream_op(stream, STREAM_LANE_EDIT);
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
		stream_count(stream, &stream->statistics.prompts, 1);
	}
	/* Also for the old prompt: a restart may follow a failure that spoiled its keys and values. */
	rows = sana_prompt_features(stream->caption, &count_rows);
	editor_set_caption(&stream->editor, op, rows, count_rows);
	if (fill->mode == SANA_SWITCH_RECACHE && !fill->first)
		r = recache(stream);
	/* The rows are the prompt's, which another may replace. */
	return r < 0 ? r : op_wait(op);
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
	/* Its source; and the latents of the chunk before the last, whose memory it takes. */
	stream_lane_after(stream, STREAM_LANE_EDIT, STREAM_LANE_ENCODE);
	stream_lane_after(stream, STREAM_LANE_EDIT, STREAM_LANE_DECODE);
	r = editor_begin(&stream->editor, stream_op(stream, STREAM_LANE_EDIT), frames,
			 stream->latent, noise);
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
	stream_count(stream, &stream->statistics.chunks_dropped, 1);
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
	struct op_context *op = stream_op(stream, STREAM_LANE_EDIT);
	struct editor *editor = &stream->editor;
	int r;

	if (!stream->latent_sink)
		return 0;
	op_download(op, stream->sink_latents, editor_latent(editor), elements * sizeof(float));
	op_download(op, stream->sink_source, editor->source[editor->slot],
		    elements * sizeof(float));
	r = op_wait(op);
	if (r >= 0)
		stream->latent_sink(stream->latent_sink_context, stream->run.index,
				    stream->run.latents, stream->sink_latents, stream->sink_source);
	return r;
}

static int denoise_start(struct sana_stream *stream, struct sana_error *error)
{
	struct op_context *op = stream_op(stream, STREAM_LANE_EDIT);
	int r = 0;

	if (stream->phase == STREAM_IDLE)
		r = chunk_begin(stream, error);
	if (r >= 0)
		r = editor_denoise(&stream->editor, op, stream->step);
	if (r < 0 || ++stream->step < stream->model->config.stream.steps)
		return r;
	editor_check(&stream->editor, op);
	stream->phase = STREAM_CHECK;
	return op->status;
}

/* The last step is done: is it fit to be shown? */
static int denoise_end(struct sana_stream *stream)
{
	if (stream->phase != STREAM_CHECK || stream->lane[STREAM_LANE_EDIT].count > 0)
		return 0;
	if (!editor_is_sane(&stream->editor)) {
		run_drop(stream);
		return 0;
	}
	stream->phase = STREAM_DECODE;
	return latents_give(stream);
}

/* Gives each decoded frame the tag of the source frame it was made from. */
static void output_tag(struct sana_stream *stream, struct stream_output *output, int frames,
		       int first_in_chunk)
{
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

static int decode_start(struct sana_stream *stream)
{
	const struct vae_config *vae = &stream->model->config.vae;
	const int latents = MIN_OF(stream->decode_latents, stream->run.latents - stream->decoded);
	const float *from = editor_latent(&stream->editor) + latent_count(stream, stream->decoded);
	struct op_context *op = stream_op(stream, STREAM_LANE_DECODE);
	struct stream_output *output =
		&stream->output[(stream->output_first + stream->outputs) % STREAM_AHEAD];
	const int before =
		stream->decoded ? stream_frames(stream, stream->decoded, stream->run.first) : 0;
	int made, r;

	/* The latents were waited for: denoise_end. */
	r = vae_decoder_run(&stream->decoder, op, from, latents, NULL, &made);
	if (r < 0)
		return r;
	OP(op, unpatchify,
	   { .x = stream->decoder.patches,
	     .pixels = stream->output_rgb,
	     .rounding = stream->options.truncate ? KERNEL_ROUND_TRUNCATE : KERNEL_ROUND_NEAREST,
	     .row_bytes = picture_bytes(stream) / (size_t)stream->height,
	     .frame_bytes = picture_bytes(stream),
	     .frames = made,
	     .height = stream->height,
	     .width = stream->width,
	     .channels = vae->pixel_channels,
	     .patch = vae->patch });
	if (output->host)
		op_download(op, output->host, stream->output_rgb,
			    picture_bytes(stream) * (size_t)made);
	if (op->status < 0)
		return op->status;
	stream->outputs++;
	stream->decoded += latents;
	output_tag(stream, output, made, before);
	output->running = true;
	output->ends_chunk = stream->decoded == stream->run.latents;
	if (output->ends_chunk)
		stream->phase = STREAM_CACHE;
	return 0;
}

/* Of the outputs on their way the oldest is there. */
static void decode_end(struct sana_stream *stream)
{
	for (int i = 0; i < stream->outputs; i++) {
		struct stream_output *output =
			&stream->output[(stream->output_first + i) % STREAM_AHEAD];

		if (!output->running)
			continue;
		output->running = false;
		if (output->ends_chunk)
			stream_count(stream, &stream->statistics.chunks, 1);
		return;
	}
}

static bool is_last_chunk(const struct sana_stream *stream)
{
	return stream->finished && stream->fill.frames == 0;
}

static int cache_start(struct sana_stream *stream)
{
	struct op_context *op = stream_op(stream, STREAM_LANE_EDIT);

	editor_save_begin(&stream->editor, op);
	stream->phase = STREAM_SAVE;
	return op->status;
}

static int cache_end(struct sana_stream *stream)
{
	const int r = editor_save_end(&stream->editor, stream_op(stream, STREAM_LANE_EDIT));

	stream->phase = STREAM_IDLE;
	if (r < 0)
		return r;
	if (r > 0) {
		stream->bad_in_a_row = 0;
		return 0;
	}
	stream_count(stream, &stream->statistics.states_discarded, 1);
	if (++stream->bad_in_a_row >= stream->options.health_reset_after) {
		stream->bad_in_a_row = 0;
		fill_abandon(stream);
	}
	return 0;
}

/* ----------------------------------------------------------------------------------- outputs */

struct stream_output *stream_output_next(struct sana_stream *stream)
{
	while (stream->outputs > 0) {
		struct stream_output *output = &stream->output[stream->output_first];

		if (output->running)
			return NULL;
		while (output->next < output->frames && !output->real[output->next])
			output->next++;
		if (output->next < output->frames)
			return output;
		stream->output_first = (stream->output_first + 1) % STREAM_AHEAD;
		stream->outputs--;
	}
	return NULL;
}

static bool has_room_to_decode(struct sana_stream *stream)
{
	(void)stream_output_next(stream);
	return stream->outputs < (stream->can_overlap ? STREAM_AHEAD : 1);
}

/* --------------------------------------------------------------------------------- the order */

/*
 * What shows a frame soonest comes first; the cache pass and encoding ahead come after it, also
 * where they could run at the same time: a long kernel of theirs would hold up what is waited for.
 */
static enum sana_stage stage_next(struct sana_stream *stream)
{
	struct stream_chunk *fill = &stream->fill;
	const bool has_work = fill->frames > 0;

	if (stream->phase == STREAM_DECODE && has_room_to_decode(stream))
		return SANA_STAGE_DECODE;
	if (stream->phase == STREAM_DENOISE)
		return SANA_STAGE_DENOISE;
	if (stream->phase == STREAM_CHECK)
		return SANA_STAGE_NONE;
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

static enum stream_lane_name lane_of(enum sana_stage stage)
{
	switch (stage) {
	case SANA_STAGE_ENCODE:
		return STREAM_LANE_ENCODE;
	case SANA_STAGE_DECODE:
		return STREAM_LANE_DECODE;
	case SANA_STAGE_PROMPT:
	case SANA_STAGE_DENOISE:
	case SANA_STAGE_CACHE:
	case SANA_STAGE_NONE:
	case SANA_STAGE_COUNT:
		break;
	}
	return STREAM_LANE_EDIT;
}

/* Encoding and decoding share their scratch. */
static void scratch_take(struct sana_stream *stream, enum stream_lane_name lane)
{
	if (lane == STREAM_LANE_ENCODE)
		stream_lane_after(stream, lane, STREAM_LANE_DECODE);
	else if (lane == STREAM_LANE_DECODE)
		stream_lane_after(stream, lane, STREAM_LANE_ENCODE);
}

static int stage_start(struct sana_stream *stream, enum sana_stage stage, struct sana_error *error)
{
	switch (stage) {
	case SANA_STAGE_ENCODE:
		return encode_start(stream);
	case SANA_STAGE_PROMPT:
		return prompt_start(stream);
	case SANA_STAGE_DENOISE:
		return denoise_start(stream, error);
	case SANA_STAGE_DECODE:
		return decode_start(stream);
	case SANA_STAGE_CACHE:
		return cache_start(stream);
	case SANA_STAGE_NONE:
	case SANA_STAGE_COUNT:
		break;
	}
	return 0;
}

/* What follows from a stage that is done. */
static int stage_end(struct sana_stream *stream, enum sana_stage stage)
{
	switch (stage) {
	case SANA_STAGE_DENOISE:
		return denoise_end(stream);
	case SANA_STAGE_DECODE:
		decode_end(stream);
		return 0;
	case SANA_STAGE_CACHE:
		return cache_end(stream);
	case SANA_STAGE_NONE:
	case SANA_STAGE_ENCODE:
	case SANA_STAGE_PROMPT:
	case SANA_STAGE_COUNT:
		break;
	}
	return 0;
}

/*
 * Ends a lane's oldest stage. 1: it is ended; 0: there was none, or, with wait false, it runs; < 0:
 * it failed, and *ret_stage is its name.
 */
static int lane_end_one(struct sana_stream *stream, enum stream_lane_name lane, bool wait,
			enum sana_stage *ret_stage)
{
	enum sana_stage stage = SANA_STAGE_NONE;
	int ended = 0;
	const int r = stream_work_take(stream, lane, wait, &stage);

	if (r > 0)
		ended = stage_end(stream, stage);
	if (r < 0 || ended < 0)
		*ret_stage = stage;
	return ended < 0 ? ended : r;
}

/* Ends what is done; nothing is waited for. 1: something was. */
static int lanes_look(struct sana_stream *stream, enum sana_stage *ret_stage)
{
	int ended = 0, r = 0;

	for (int lane = STREAM_LANES - 1; lane >= 0 && r >= 0; lane--)
		do {
			r = lane_end_one(stream, (enum stream_lane_name)lane, false, ret_stage);
			ended |= r > 0;
		} while (r > 0);
	return r < 0 ? r : ended;
}

/* Waits for one stage, first of all one that shows frames. 0: none runs. */
static int lanes_end_one(struct sana_stream *stream, enum sana_stage *ret_stage)
{
	int r = 0;

	for (int lane = STREAM_LANES - 1; lane >= 0 && r == 0; lane--)
		r = lane_end_one(stream, (enum stream_lane_name)lane, true, ret_stage);
	return r;
}

static int stage_run(struct sana_stream *stream, enum sana_stage stage, struct sana_error *error)
{
	const enum stream_lane_name lane = lane_of(stage);
	int r;

	if (stream->profile)
		stream->profile->stage = stage;
	scratch_take(stream, lane);
	stream_work_begin(stream, lane, stage);
	r = stage_start(stream, stage, error);
	stream_work_end(stream, lane);
	while (r >= 0 && !stream_overlaps(stream) && stream->lane[lane].count > 0)
		r = lane_end_one(stream, lane, true, &stage);
	if (stream->profile)
		profile_stage_end(stream->profile, &stream->model->backend);
	return r < 0 ? r : stream_status(stream, NULL);
}

/* Copies and waits fail without an op, a stage that refuses its sizes without either. */
static void failure_describe(struct sana_stream *stream, enum sana_stage stage, int r,
			     struct sana_error *ret)
{
	struct op_context *op = NULL;
	const bool in_op = stream_status(stream, &op) < 0 && op->failed < KERNEL_OP_COUNT;

	if (op)
		r = op->status;
	(void)sana_error_set(ret, r, backend_fault_name(r), "Stage %s failed%s%s: %s; %s.",
			     sana_stage_name(stage), in_op ? " in op " : "",
			     in_op ? kernel_op_name(op->failed) : "", backend_fault_text(r),
			     r == -EFAULT || r == -ENODEV ? "nothing works on this model any more" :
							    "the stream starts afresh");
}

/* Overlap may have been switched off while stages were on their way. 1: they were. */
static int lanes_settle(struct sana_stream *stream, enum sana_stage *ret_stage)
{
	int ended = 0, r;

	do {
		r = lanes_end_one(stream, ret_stage);
		ended |= r > 0;
	} while (r > 0);
	return r < 0 ? r : ended;
}

/* 1: *ret_stage was begun, or, SANA_STAGE_NONE, one begun before has ended; 0: neither. */
static int turn(struct sana_stream *stream, enum sana_stage *ret_stage, struct sana_error *error)
{
	enum sana_stage stage;
	int ended = stream_status(stream, NULL), r;

	if (ended >= 0)
		ended = stream_overlaps(stream) ? lanes_look(stream, ret_stage) :
						  lanes_settle(stream, ret_stage);
	if (ended < 0)
		return ended;
	stage = stage_next(stream);
	/* Enough is on its way: what is decoded first may be pulled before more is begun. */
	if (stage == SANA_STAGE_NONE || stream_lane_is_full(stream, lane_of(stage)))
		return ended ? ended : lanes_end_one(stream, ret_stage);
	*ret_stage = stage;
	r = stage_run(stream, stage, error);
	return r < 0 ? r : 1;
}

int sana_stream_step(struct sana_stream *stream, enum sana_stage *ret_stage,
		     struct sana_error *error)
{
	struct sana_error failure = { 0 };
	enum sana_stage stage = SANA_STAGE_NONE;
	const int r = turn(stream, &stage, &failure);

	(void)pthread_mutex_lock(&stream->lock);
	stream->statistics.latent = stream->latent;
	stream->statistics.rebases = stream->editor.rebases;
	(void)pthread_mutex_unlock(&stream->lock);
	if (r < 0) {
		if (!failure.code)
			failure_describe(stream, stage, r, &failure);
		stream_fail(stream);
		if (error)
			*error = failure;
		return failure.code;
	}
	*ret_stage = stage;
	return r;
}
