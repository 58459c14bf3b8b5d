/* The public face of a stream: frames in, frames out, requests from other threads. */
#include "engine/profile.h"
#include "engine/stream.h"

#include <errno.h>

const char *sana_stage_name(enum sana_stage stage)
{
	static const char *const names[SANA_STAGE_COUNT] = {
		[SANA_STAGE_NONE] = "none",	[SANA_STAGE_ENCODE] = "encode",
		[SANA_STAGE_PROMPT] = "prompt", [SANA_STAGE_DENOISE] = "denoise",
		[SANA_STAGE_DECODE] = "decode", [SANA_STAGE_CACHE] = "cache",
	};

	return (unsigned int)stage < SANA_STAGE_COUNT ? names[stage] : "?";
}

int sana_stream_set_prompt(struct sana_stream *stream, struct sana_prompt *prompt,
			   enum sana_prompt_switch mode, uint64_t *ret_ticket,
			   struct sana_error *error)
{
	const struct dit_config *dit = &stream->model->config.dit;
	struct stream_requests *requests = &stream->requests;
	struct sana_prompt *replaced;
	int rows;

	if (mode != SANA_SWITCH_INVALID && (unsigned int)mode >= SANA_SWITCH_COUNT)
		return sana_error_set(error, -EINVAL, "stream.options",
				      "Prompt switch %d is none of keep, recache, restart.",
				      (int)mode);
	(void)sana_prompt_features(prompt, &rows);
	if (rows > dit->max_tokens || prompt_channels(prompt) != dit->caption_channels)
		return sana_error_set(
			error, -EINVAL, "prompt.features",
			"The prompt has %d rows of %d channels, this model reads at most "
			"%d of %d: make the prompt with the stream's own model.",
			rows, prompt_channels(prompt), dit->max_tokens, dit->caption_channels);
	(void)pthread_mutex_lock(&stream->lock);
	replaced = requests->prompt;
	requests->prompt = sana_prompt_ref(prompt);
	requests->mode = mode == SANA_SWITCH_INVALID ? stream->options.prompt_switch : mode;
	requests->ticket = ++requests->last_ticket;
	*ret_ticket = requests->ticket;
	(void)pthread_mutex_unlock(&stream->lock);
	(void)sana_prompt_unref(replaced);
	return 0;
}

void sana_stream_request_reset(struct sana_stream *stream)
{
	(void)pthread_mutex_lock(&stream->lock);
	stream->requests.reset = true;
	(void)pthread_mutex_unlock(&stream->lock);
}

void sana_stream_statistics(struct sana_stream *stream, struct sana_statistics *ret)
{
	(void)pthread_mutex_lock(&stream->lock);
	*ret = stream->statistics;
	(void)pthread_mutex_unlock(&stream->lock);
}

int sana_stream_set_latent_sink(struct sana_stream *stream, sana_latent_sink sink, void *context,
				struct sana_error *error)
{
	const struct stream_config *config = &stream->model->config.stream;
	const size_t count = (size_t)stream->editor.max_frames * (size_t)stream->latent_height *
			     (size_t)stream->latent_width * (size_t)config->latent_channels;

	if (!stream->sink_latents)
		stream->sink_latents = malloc(count * sizeof(float));
	if (!stream->sink_source)
		stream->sink_source = malloc(count * sizeof(float));
	if (!stream->sink_latents || !stream->sink_source)
		return sana_error_set(error, -ENOMEM, "memory", "No memory to copy latents to.");
	stream->latent_sink = sink;
	stream->latent_sink_context = context;
	return 0;
}

/* -------------------------------------------------------------------------------- frames in */

static void tag_push(struct sana_stream *stream, int64_t timestamp_ns)
{
	const int at = (stream->tag_first + stream->tag_count) % stream->tag_capacity;

	stream->tag[at] = (struct stream_tag){ stream->next_frame++, timestamp_ns };
	stream->tag_count++;
}

static int push_check(const struct sana_stream *stream, const struct sana_picture *picture,
		      int64_t timestamp_ns, struct sana_error *error)
{
	const size_t row = (size_t)stream->width * (size_t)stream->model->config.vae.pixel_channels;

	if (stream->finished)
		return sana_error_set(error, -ESHUTDOWN, "stream.finished",
				      "The stream was finished; open a new one for more frames.");
	if (!picture->rgb)
		return sana_error_set(error, -EINVAL, "stream.picture",
				      "The frame has no pixels: its address is NULL.");
	if (picture->width != stream->width || picture->height != stream->height)
		return sana_error_set(
			error, -EINVAL, "stream.picture",
			"The frame is %dx%d, the stream is %dx%d: scale or crop it first.",
			picture->width, picture->height, stream->width, stream->height);
	if (picture->row_bytes < row)
		return sana_error_set(error, -EINVAL, "stream.picture",
				      "A row of the frame has %zu bytes and needs %zu.",
				      picture->row_bytes, row);
	if (stream->has_timestamp && timestamp_ns <= stream->last_timestamp_ns)
		return sana_error_set(
			error, -EINVAL, "stream.order",
			"Time stamp %lld ns does not follow %lld ns: give frames in order.",
			(long long)timestamp_ns, (long long)stream->last_timestamp_ns);
	return 0;
}

/* `rows` rows of `row` bytes, whatever lies between them. */
static void rows_copy(uint8_t *to, size_t to_row, const uint8_t *from, size_t from_row, size_t row,
		      int rows)
{
	for (int y = 0; y < rows; y++)
		memcpy(to + to_row * (size_t)y, from + from_row * (size_t)y, row);
}

/* To its place in `stream->picture`; by way of host memory of the back end's nothing is waited for. */
static int picture_upload(struct sana_stream *stream, const struct sana_picture *picture)
{
	const size_t row = (size_t)stream->width * (size_t)stream->model->config.vae.pixel_channels;
	const size_t frame = row * (size_t)stream->height;
	const int ratio = stream->model->config.stream.temporal_ratio;
	struct op_context *op = stream_op(stream, STREAM_LANE_ENCODE);
	uint8_t *to = stream->picture + frame * (size_t)stream->input_frames, *slot;

	if (stream->host_picture) {
		slot = stream->host_picture +
		       frame * (size_t)(stream->host_half * ratio + stream->input_frames);
		rows_copy(slot, row, picture->rgb, picture->row_bytes, row, stream->height);
		op_upload(op, to, slot, frame);
		return op->status;
	}
	for (int y = 0; y < stream->height; y++)
		op_upload(op, to + row * (size_t)y, picture->rgb + picture->row_bytes * (size_t)y,
			  row);
	return op_wait(op);
}

int sana_stream_push(struct sana_stream *stream, const struct sana_picture *picture,
		     int64_t timestamp_ns, struct sana_error *error)
{
	bool has_prompt;
	int r;

	r = push_check(stream, picture, timestamp_ns, error);
	if (r < 0)
		return r;
	(void)pthread_mutex_lock(&stream->lock);
	has_prompt = stream->requests.prompt || stream->caption || stream->fill.prompt;
	(void)pthread_mutex_unlock(&stream->lock);
	if (!has_prompt)
		return sana_error_set(error, -EINVAL, "stream.prompt",
				      "Set a prompt before the first frame.");
	if (stream_fill_is_full(stream))
		return 0;
	stream_fill_begin(stream);
	r = picture_upload(stream, picture);
	if (r < 0) {
		stream_fail(stream);
		return backend_fail(error, r);
	}
	stream->input_last = stream->input_frames++;
	stream->fill.frames++;
	stream->has_timestamp = true;
	stream->last_timestamp_ns = timestamp_ns;
	tag_push(stream, timestamp_ns);
	(void)pthread_mutex_lock(&stream->lock);
	stream->statistics.frames_in++;
	(void)pthread_mutex_unlock(&stream->lock);
	return 1;
}

int sana_stream_finish(struct sana_stream *stream, struct sana_error *error)
{
	(void)error;
	stream->finished = true;
	return 0;
}

bool sana_stream_is_drained(const struct sana_stream *stream)
{
	if (!stream->finished || stream->phase != STREAM_IDLE || stream->fill.frames > 0)
		return false;
	for (int i = 0; i < stream->outputs; i++) {
		const struct stream_output *output =
			&stream->output[(stream->output_first + i) % STREAM_AHEAD];

		if (output->next < output->frames)
			return false;
	}
	return true;
}

/* ------------------------------------------------------------------------------- frames out */

/* The next frame, from where decoding has left it. */
static int pixels_download(struct sana_stream *stream, const struct stream_output *output,
			   const struct sana_picture *picture)
{
	const size_t row = (size_t)stream->width * (size_t)stream->model->config.vae.pixel_channels;
	const size_t at = row * (size_t)stream->height * (size_t)output->next;
	struct op_context *op = stream_op(stream, STREAM_LANE_DECODE);

	if (output->host) {
		rows_copy(picture->rgb, picture->row_bytes, output->host + at, row, row,
			  stream->height);
		return 0;
	}
	for (int y = 0; y < stream->height; y++)
		op_download(op, picture->rgb + picture->row_bytes * (size_t)y,
			    stream->output_rgb + at + row * (size_t)y, row);
	return op_wait(op);
}

int sana_stream_pull(struct sana_stream *stream, struct sana_picture *picture,
		     struct sana_frame_info *ret_info, struct sana_error *error)
{
	struct stream_output *output = stream_output_next(stream);
	const size_t row = (size_t)stream->width * (size_t)stream->model->config.vae.pixel_channels;
	int r;

	if (!output)
		return 0;
	if (picture->width != stream->width || picture->height != stream->height || !picture->rgb ||
	    picture->row_bytes < row)
		return sana_error_set(error, -EINVAL, "stream.picture",
				      "Edited frames are %dx%d with rows of %zu bytes.",
				      stream->width, stream->height, row);
	r = pixels_download(stream, output, picture);
	if (r < 0) {
		stream_fail(stream);
		return backend_fail(error, r);
	}
	*ret_info = output->info[output->next++];
	(void)pthread_mutex_lock(&stream->lock);
	stream->statistics.frames_out++;
	(void)pthread_mutex_unlock(&stream->lock);
	return 1;
}

/* ------------------------------------------------------------------------------- where time goes */

bool sana_stream_set_overlap(struct sana_stream *stream, bool overlap)
{
	stream->overlap = overlap && stream->can_overlap;
	return stream->can_overlap;
}

int sana_stream_profile_start(struct sana_stream *stream, struct sana_error *error)
{
	const size_t bytes = activation_bytes(&stream->model->backend);

	if (!stream->profile)
		stream->profile = malloc(sizeof(*stream->profile));
	if (!stream->profile)
		return sana_error_set(error, -ENOMEM, "memory", "No memory for a profile.");
	*stream->profile = (struct op_profile){ .storage = { bytes, bytes } };
	for (int i = 0; i < STREAM_LANES; i++)
		stream->lane[i].op.profile = stream->profile;
	return 0;
}

int sana_stream_profile(struct sana_stream *stream, struct sana_profile_line *ret, int capacity)
{
	const struct op_profile *p = stream->profile;

	for (int i = 0; i < STREAM_LANES; i++)
		stream->lane[i].op.profile = NULL;
	for (int i = 0; p && i < MIN_OF(p->lines, capacity); i++) {
		const struct op_profile_line *line = &p->line[i];

		ret[i] = (struct sana_profile_line){
			.stage = (enum sana_stage)line->stage,
			.calls = line->calls,
			.flops = line->cost.flops,
			.bytes = line->cost.bytes,
			.ns = line->ns,
		};
		(void)snprintf(ret[i].op, sizeof(ret[i].op), "%s", kernel_op_name(line->op));
		(void)snprintf(ret[i].kernels, sizeof(ret[i].kernels), "%s", line->kernels);
	}
	return p ? p->lines : 0;
}
