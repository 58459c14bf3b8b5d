/* sana-edit: a source through the stream into a sink. */
#include "tools/edit/edit.h"

#include "base/cache_directory.h"
#include "base/file.h"
#include "media/av.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>

enum {
	WAITING_FRAMES = 1024, /* in the stream at once; its chunks are far smaller */
	DEFAULT_FPS = 24,
};

/* A frame that went in and has not come out. */
struct waiting {
	int64_t timestamp_ns, duration_ns;
};

struct run {
	const struct edit_options *options;
	struct edit_report report;
	struct sana_error error;
	char *model_path;
	struct media_source *source;
	struct media_sink *sink;
	struct sana_model *model;
	struct sana_stream *stream;
	struct sana_prompt **prompt; /* [options->prompts] */
	uint64_t *ticket;	     /* of each prompt; 0: not set yet */
	struct edit_frames *frames;
	struct edit_latents *latents;
	int width, height;
	size_t next_prompt; /* all before it were given to the stream */
	int64_t denoised;   /* steps begun */
	bool at_boundary;   /* the next frame begins a chunk */
	struct waiting waiting[WAITING_FRAMES];
	int64_t pushed, written; /* frames */
	int64_t repeated;
	uint8_t *picture, *spare;  /* last one out; for the next one */
	bool has_picture, was_cut; /* was_cut: --duration ended it, or an error did */
	double worst_offset;	   /* from a constant rate, frames */
	int64_t first_ns, start_ns, end_ns;
};

/* Keeps the first failure. */
static enum edit_status fail(struct run *run, enum edit_status status)
{
	if (edit_interrupted(NULL))
		return EDIT_INTERRUPTED;
	if (!run->error.text[0])
		(void)sana_error_set(&run->error, -ENOMEM, "memory", "Out of memory.");
	return status;
}

/* ---------------------------------------------------------------------------------- opening */

/* The picture's size must be known before the model is read, which may take long. */
static enum edit_status size_pick(struct run *run, struct model_config *config)
{
	const struct sana_stream_options *stream = &run->options->stream;
	int r;

	r = edit_model_find(run->options->model.directory, &run->model_path, &run->error);
	if (r == 0)
		r = model_config_load(run->model_path, config, &run->error);
	if (r < 0)
		return fail(run, EDIT_FAILED);
	run->width = stream->width ? stream->width : config->stream.width;
	run->height = stream->height ? stream->height : config->stream.height;
	if (run->width % config->stream.spatial_ratio ||
	    run->height % config->stream.spatial_ratio) {
		(void)sana_error_set(&run->error, -EINVAL, "stream.options",
				     "--size %dx%d: this model wants multiples of %d.", run->width,
				     run->height, config->stream.spatial_ratio);
		return EDIT_USAGE;
	}
	return EDIT_DONE;
}

static enum edit_status source_open(struct run *run)
{
	const struct edit_options *options = run->options;
	const struct media_source_wish wish = {
		.path = options->in,
		.width = run->width,
		.height = run->height,
		.fps_num = options->fps.num,
		.fps_den = options->fps.den,
		.duration_ns = options->duration.frame < 0 ? options->duration.ns : 0,
		.threads = options->model.threads,
		.stopped = edit_interrupted,
		.pipes = true,
	};
	int r;

	r = media_source_open(&wish, &run->source, &run->error);
	if (r < 0)
		return fail(run, EDIT_INPUT);
	if (media_source_info(run->source)->live && options->duration.frame < 0 &&
	    options->duration.ns == 0) {
		(void)sana_error_set(&run->error, -EINVAL, "usage",
				     "%s: a camera has no end: say how long with --duration.",
				     file_path_tail(options->in));
		return EDIT_USAGE;
	}
	return EDIT_DONE;
}

static struct edit_rate output_rate(const struct run *run)
{
	const struct media_source_info *info = media_source_info(run->source);

	if (run->options->fps.num)
		return run->options->fps;
	return info->fps_num ? (struct edit_rate){ info->fps_num, info->fps_den } :
			       (struct edit_rate){ DEFAULT_FPS, 1 };
}

static enum edit_status sink_open(struct run *run)
{
	const struct edit_options *options = run->options;
	const struct media_source_info *info = media_source_info(run->source);
	const struct edit_rate rate = output_rate(run);
	const bool constant = options->fps.num != 0;
	const struct media_sink_wish wish = {
		.path = options->out,
		.width = run->width,
		.height = run->height,
		.codec = options->codec,
		.fps_num = rate.num,
		.fps_den = rate.den,
		.time_base_num = constant ? rate.den : info->time_base_num,
		.time_base_den = constant ? rate.num : info->time_base_den,
		.audio_path = info->has_audio && !options->no_audio && strcmp(options->in, "-") ?
				      options->in :
				      NULL,
		.overwrite = options->overwrite,
		.threads = options->model.threads,
	};
	int r;

	r = media_sink_open(&wish, &run->sink, &run->error);
	if (r < 0)
		return fail(run,
			    strcmp(run->error.name, "sink.format") == 0 ? EDIT_USAGE : EDIT_OUTPUT);
	return EDIT_DONE;
}

static void model_progress(void *context, const char *what, double fraction)
{
	edit_report_loading(context, what, fraction);
}

static enum edit_status model_open(struct run *run)
{
	struct sana_model_options options = run->options->model;
	char cache[PATH_MAX];
	int r;

	if (cache_directory(cache, sizeof(cache)) >= 0)
		options.tuning_directory = cache;
	options.directory = run->model_path;
	options.progress = model_progress;
	options.progress_context = &run->report;
	r = sana_model_open(&options, &run->model, &run->error);
	return r < 0 ? fail(run, EDIT_FAILED) : EDIT_DONE;
}

static enum edit_status prompts_make(struct run *run)
{
	const struct edit_options *options = run->options;
	int r;

	run->prompt = calloc(options->prompts, sizeof(struct sana_prompt *));
	run->ticket = calloc(options->prompts, sizeof(*run->ticket));
	if (!run->prompt || !run->ticket)
		return fail(run, EDIT_FAILED);
	for (size_t i = 0; i < options->prompts; i++) {
		r = sana_prompt_create(run->model, options->prompt[i].text, &run->prompt[i],
				       &run->error);
		if (r < 0)
			return fail(run, strncmp(run->error.name, "prompt.", 7) == 0 ? EDIT_USAGE :
										       EDIT_FAILED);
		if (sana_prompt_was_cut(run->prompt[i]))
			edit_report_warning(&run->report,
					    "The model reads only the first part of the prompt "
					    "\"%.200s\".",
					    options->prompt[i].text);
	}
	return EDIT_DONE;
}

static enum edit_status latents_open(struct run *run)
{
	int r;

	if (!run->options->latents_path)
		return EDIT_DONE;
	r = edit_latents_create(run->options->latents_path, run->options->overwrite, run->width,
				run->height, &sana_model_config(run->model)->stream, &run->latents,
				&run->error);
	return r < 0 ? fail(run, EDIT_OUTPUT) : EDIT_DONE;
}

static enum edit_status stream_open(struct run *run)
{
	struct sana_stream_options options = run->options->stream;
	int r;

	options.width = run->width;
	options.height = run->height;
	r = sana_stream_open(run->model, &options, &run->stream, &run->error);
	if (r < 0)
		return fail(run, strcmp(run->error.name, "stream.options") == 0 ? EDIT_USAGE :
										  EDIT_FAILED);
	if (run->latents && sana_stream_set_latent_sink(run->stream, edit_latents_add, run->latents,
							&run->error) < 0)
		return fail(run, EDIT_FAILED);
	r = edit_frames_create(run->source, run->options, run->width, run->height, &run->frames,
			       &run->error);
	run->picture = malloc(3 * (size_t)run->width * (size_t)run->height);
	run->spare = malloc(3 * (size_t)run->width * (size_t)run->height);
	return r < 0 || !run->picture || !run->spare ? fail(run, EDIT_FAILED) : EDIT_DONE;
}

/* Frames that will come, as far as the source knows. */
static int64_t frames_expected(const struct run *run)
{
	const struct media_source_info *info = media_source_info(run->source);
	const struct edit_time *limit = &run->options->duration;
	const struct edit_rate rate = output_rate(run);
	double expected = (double)info->frames;
	double span = (double)info->duration_ns / (double)EDIT_SECOND_NS;

	if (limit->frame < 0 && limit->ns > 0)
		span = info->duration_ns ? MIN_OF(span, (double)limit->ns / 1e9) :
					   (double)limit->ns / 1e9;
	if (span > 0.0 && (info->timed || info->live) &&
	    (run->options->fps.num || !info->frames || limit->ns > 0))
		expected = span * rate.num / rate.den;
	if (limit->frame >= 0 && (expected <= 0.0 || (double)limit->frame < expected))
		expected = (double)limit->frame;
	return (int64_t)(expected + 0.5);
}

static void tell_start(struct run *run)
{
	const struct media_source_info *source = media_source_info(run->source);
	const struct media_sink_info *sink = media_sink_info(run->sink);

	run->report.expected = frames_expected(run);
	edit_report_start(&run->report, run->options, source, sink, run->model_path,
			  sana_model_backend(run->model), run->width, run->height);
	if (strcmp(sana_model_decoder_origin(run->model), "converted") == 0)
		edit_report_warning(&run->report,
				    "The model's VAE decoder was converted from one that is "
				    "not causal: expect blurred motion (see docs/models.md).");
	/* The line above names the back end; why it is not the GPU matters to who asked for one. */
	if (run->options->backend_said && sana_model_backend_note(run->model)[0])
		edit_report_warning(&run->report, "%s", sana_model_backend_note(run->model));
	if (sink->note[0])
		edit_report_warning(&run->report, "%s", sink->note);
}

static enum edit_status open_all(struct run *run)
{
	struct model_config *config = calloc(1, sizeof(*config));
	enum edit_status status = EDIT_FAILED;

	if (config)
		status = size_pick(run, config);
	if (config)
		model_config_finish(config);
	free(config);
	/* What is quick to fail comes first. */
	if (status == EDIT_DONE)
		status = source_open(run);
	if (status == EDIT_DONE)
		status = sink_open(run);
	if (status == EDIT_DONE)
		status = model_open(run);
	if (status == EDIT_DONE)
		status = prompts_make(run);
	if (status == EDIT_DONE)
		status = latents_open(run);
	if (status == EDIT_DONE)
		status = stream_open(run);
	if (status == EDIT_DONE)
		tell_start(run);
	return status;
}

/* --------------------------------------------------------------------------------- frames out */

static int frame_write(struct run *run, int64_t number)
{
	const struct waiting *w = &run->waiting[number % WAITING_FRAMES];
	const struct edit_rate rate = output_rate(run);
	double offset;
	int r;

	if (run->written == 0)
		run->first_ns = w->timestamp_ns;
	offset = (double)(w->timestamp_ns - run->first_ns) * rate.num / rate.den / 1e9 -
		 (double)number;
	run->worst_offset = MAX_OF(run->worst_offset, offset < 0 ? -offset : offset);
	r = media_sink_write(run->sink, run->picture, 3 * (size_t)run->width, w->timestamp_ns,
			     w->duration_ns, &run->error);
	run->written += r >= 0;
	return r;
}

/* Frames of a chunk the stream dropped are shown again as the last one before them. */
static int frames_repeat(struct run *run, int64_t until)
{
	int r = 0;

	while (run->has_picture && run->written < until && r >= 0) {
		r = frame_write(run, run->written);
		run->repeated += r >= 0;
	}
	return r;
}

static void prompt_announce(struct run *run, const struct sana_frame_info *info)
{
	for (size_t i = 0; i < run->next_prompt; i++)
		if (run->ticket[i] == info->ticket)
			edit_report_prompt(&run->report, &run->options->prompt[i], info);
}

static enum edit_status frames_pull(struct run *run)
{
	struct sana_picture picture = { .row_bytes = 3 * (size_t)run->width,
					.width = run->width,
					.height = run->height };
	struct sana_frame_info info;
	int r;

	for (;;) {
		picture.rgb = run->spare;
		r = sana_stream_pull(run->stream, &picture, &info, &run->error);
		if (r < 0)
			return fail(run, EDIT_FAILED);
		if (r == 0)
			return EDIT_DONE;
		/* Before this one becomes the last one; only the very first gap is filled with it. */
		r = frames_repeat(run, (int64_t)info.frame);
		run->spare = run->picture;
		run->picture = picture.rgb;
		run->has_picture = true;
		if (info.prompt_changed)
			prompt_announce(run, &info);
		if (r >= 0)
			r = frames_repeat(run, (int64_t)info.frame);
		if (r >= 0)
			r = frame_write(run, (int64_t)info.frame);
		if (r < 0)
			return fail(run, EDIT_OUTPUT);
		edit_report_progress(&run->report, run->written);
	}
}

/* One stage, and what can be pulled then. *ret_more: there may be another one. */
static enum edit_status stage_run(struct run *run, bool *ret_more)
{
	const int steps = sana_model_config(run->model)->stream.steps;
	enum sana_stage stage;
	int r;

	if (edit_interrupted(NULL))
		return EDIT_INTERRUPTED;
	r = sana_stream_step(run->stream, &stage, &run->error);
	if (r < 0)
		return fail(run, EDIT_FAILED);
	*ret_more = r > 0;
	/* With its first step a chunk goes from filling to editing: the next frame begins another one. */
	if (r > 0 && stage == SANA_STAGE_DENOISE && run->denoised++ % steps == 0)
		run->at_boundary = true;
	return frames_pull(run);
}

static enum edit_status stages_run(struct run *run)
{
	enum edit_status status = EDIT_DONE;
	bool more = true;

	while (status == EDIT_DONE && more)
		status = stage_run(run, &more);
	return status;
}

/* ---------------------------------------------------------------------------------- frames in */

/*
 * Gives the stream the newest prompt whose time has come. Only in front of a chunk's first frame: so
 * no frame before its time is edited with it, whatever the switch does to the chunk being filled.
 */
static enum edit_status prompt_set(struct run *run, int64_t timestamp_ns)
{
	const struct edit_options *options = run->options;
	size_t due = run->next_prompt;
	int r;

	while (due < options->prompts &&
	       edit_time_is_reached(&options->prompt[due].at, run->pushed, timestamp_ns))
		due++;
	if (!run->at_boundary || due == run->next_prompt)
		return EDIT_DONE;
	r = sana_stream_set_prompt(run->stream, run->prompt[due - 1], SANA_SWITCH_INVALID,
				   &run->ticket[due - 1], &run->error);
	run->next_prompt = due;
	return r < 0 ? fail(run, EDIT_FAILED) : EDIT_DONE;
}

/* A stage only where there is no room: a GPU works on while pictures are read, pushed and written. */
static enum edit_status frame_push(struct run *run, const struct edit_frame *frame)
{
	const struct sana_picture picture = { (uint8_t *)frame->rgb, 3 * (size_t)run->width,
					      run->width, run->height };
	enum edit_status status;
	bool more;
	int r;

	for (;;) {
		status = prompt_set(run, frame->timestamp_ns);
		if (status != EDIT_DONE)
			return status;
		r = sana_stream_push(run->stream, &picture, frame->timestamp_ns, &run->error);
		if (r < 0)
			return fail(run, EDIT_FAILED);
		if (r > 0)
			break;
		status = stage_run(run, &more);
		if (status != EDIT_DONE)
			return status;
	}
	run->at_boundary = false;
	assert(run->pushed - run->written < WAITING_FRAMES);
	run->waiting[run->pushed++ % WAITING_FRAMES] =
		(struct waiting){ frame->timestamp_ns, frame->duration_ns };
	return EDIT_DONE;
}

static bool limit_is_reached(const struct run *run, const struct edit_frame *frame)
{
	const struct edit_time *limit = &run->options->duration;

	return (limit->frame >= 0 || limit->ns > 0) &&
	       edit_time_is_reached(limit, run->pushed, frame->timestamp_ns);
}

/* EDIT_DONE also when the source was cut off: what it held is edited, `ret_input` says the rest. */
static enum edit_status frames_push(struct run *run, enum edit_status *ret_input)
{
	struct edit_frame frame;
	enum edit_status status;
	int r;

	*ret_input = EDIT_DONE;
	for (;;) {
		r = edit_frames_next(run->frames, &frame, &run->error);
		if (r < 0) {
			*ret_input = fail(run, EDIT_INPUT);
			return *ret_input == EDIT_INTERRUPTED ? EDIT_INTERRUPTED : EDIT_DONE;
		}
		if (r > 0 && limit_is_reached(run, &frame))
			run->was_cut = true;
		if (r == 0 || run->was_cut)
			return EDIT_DONE;
		status = frame_push(run, &frame);
		if (status != EDIT_DONE)
			return status;
	}
}

static enum edit_status stream_drain(struct run *run)
{
	enum edit_status status;

	if (sana_stream_finish(run->stream, &run->error) < 0)
		return fail(run, EDIT_FAILED);
	status = stages_run(run);
	if (status != EDIT_DONE)
		return status;
	if (frames_repeat(run, run->pushed) < 0)
		return fail(run, EDIT_OUTPUT);
	if (run->written < run->pushed) {
		(void)sana_error_set(&run->error, -EIO, "stream.dropped",
				     "The model gave no usable picture: all chunks were dropped.");
		return EDIT_FAILED;
	}
	return EDIT_DONE;
}

static enum edit_status edit_all(struct run *run)
{
	enum edit_status status, input;
	struct sana_error input_error;

	run->at_boundary = true;
	run->start_ns = edit_now_ns();
	status = frames_push(run, &input);
	input_error = run->error;
	if (status == EDIT_DONE)
		status = stream_drain(run);
	run->end_ns = edit_now_ns();
	if (status != EDIT_DONE || input == EDIT_DONE)
		return status;
	run->error = input_error;
	return input;
}

/* ------------------------------------------------------------------------------------- ending */

static void tell_warnings(struct run *run, const struct sana_statistics *statistics)
{
	const struct media_source_info *source = media_source_info(run->source);
	const struct media_sink_info *sink = media_sink_info(run->sink);
	struct edit_report *report = &run->report;

	if (source->damaged)
		edit_report_warning(report, "%s: %lld damaged places were left out.",
				    file_path_tail(run->options->in), (long long)source->damaged);
	if (source->restamped)
		edit_report_warning(report,
				    "%s: %lld frames had no usable time stamp and follow the "
				    "frame rate.",
				    file_path_tail(run->options->in), (long long)source->restamped);
	if (run->repeated)
		edit_report_warning(report,
				    "%lld frames of %llu dropped chunks repeat the frame before "
				    "them.",
				    (long long)run->repeated,
				    (unsigned long long)statistics->chunks_dropped);
	if (sink->constant_rate && run->worst_offset > 0.75 && strcmp(sink->container, "pictures"))
		edit_report_warning(report,
				    "%s: this format keeps no time stamps, and those of the source "
				    "are uneven: use --fps N.",
				    file_path_tail(run->options->out));
	for (size_t i = run->next_prompt; i < run->options->prompts; i++)
		edit_report_warning(report, "The source ended before the prompt \"%.200s\" began.",
				    run->options->prompt[i].text);
}

/* What was edited stays usable, whatever ended the run but the output itself. */
static enum edit_status sink_finish(struct run *run, enum edit_status status, const char **ret_path)
{
	const struct edit_options *options = run->options;
	const char *partial = media_sink_info(run->sink)->partial_path;
	enum media_finish how = run->was_cut ? MEDIA_FINISH_CUT : MEDIA_FINISH_COMPLETE;
	struct sana_error error = { 0 };

	*ret_path = NULL;
	if (status == EDIT_OUTPUT || run->written == 0)
		return status;
	if (status != EDIT_DONE)
		how = options->keep_partial ? MEDIA_FINISH_CUT : MEDIA_FINISH_PARTIAL;
	if (media_sink_finish(run->sink, how, &error) < 0) {
		if (status == EDIT_DONE || !run->error.text[0])
			run->error = error;
		return status == EDIT_DONE ? EDIT_OUTPUT : status;
	}
	*ret_path = how == MEDIA_FINISH_PARTIAL && partial[0] ? partial : options->out;
	return status;
}

static enum edit_status latents_finish(struct run *run, enum edit_status status)
{
	if (!run->latents || (status != EDIT_DONE && status != EDIT_INPUT))
		return status;
	if (edit_latents_write(run->latents, &run->error) < 0)
		return fail(run, EDIT_OUTPUT);
	return status;
}

static void tell_end(struct run *run, enum edit_status status, const char *path)
{
	struct sana_statistics statistics = { 0 };
	struct edit_result result = {
		.status = status,
		.path = path,
		.frames = run->written,
		.repeated = run->repeated,
		.wall_ns = run->end_ns - run->start_ns,
	};

	if (run->stream) {
		sana_stream_statistics(run->stream, &statistics);
		tell_warnings(run, &statistics);
	}
	result.chunks = statistics.chunks;
	result.chunks_dropped = statistics.chunks_dropped;
	if (status == EDIT_INTERRUPTED)
		(void)sana_error_set(
			&run->error, -EINTR, "interrupted",
			path ? "Interrupted: what was edited is in %s." :
			       "Interrupted before the first edited frame: nothing was "
			       "written.",
			path ? file_path_tail(path) : "");
	if (status != EDIT_DONE)
		edit_report_error(&run->report, status, &run->error);
	if (status != EDIT_DONE && status != EDIT_INTERRUPTED && path)
		edit_report_warning(&run->report, "What was edited is in %s.",
				    file_path_tail(path));
	edit_report_done(&run->report, &result);
}

static void run_close(struct run *run)
{
	edit_frames_destroy(run->frames);
	(void)sana_stream_close(run->stream);
	for (size_t i = 0; run->prompt && i < run->options->prompts; i++)
		(void)sana_prompt_unref(run->prompt[i]);
	free(run->prompt);
	free(run->ticket);
	(void)sana_model_unref(run->model);
	edit_latents_destroy(run->latents);
	(void)media_sink_close(run->sink);
	(void)media_source_close(run->source);
	free(run->picture);
	free(run->spare);
	free(run->model_path);
	free(run);
}

enum edit_status edit_run(const struct edit_options *options)
{
	struct run *run = calloc(1, sizeof(*run));
	const char *path = NULL; /* the sink's or the options' */
	enum edit_status status;

	if (!run)
		return EDIT_FAILED;
	run->options = options;
	media_av_quiet();
	edit_interrupt_catch();
	edit_report_init(&run->report, options);
	status = open_all(run);
	if (status == EDIT_DONE) {
		status = edit_all(run);
		status = sink_finish(run, status, &path);
		status = latents_finish(run, status);
	}
	tell_end(run, status, path);
	run_close(run);
	return status;
}
