/* sana-edit: words on stderr, a progress line on a terminal, or JSON lines. */
#include "tools/edit/edit.h"

#include <jansson.h>
#include <stdarg.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static const int64_t TERMINAL_PAUSE_NS = 200000000;
static const int64_t JSON_PAUSE_NS = 1000000000;

int64_t edit_now_ns(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * EDIT_SECOND_NS + t.tv_nsec;
}

void edit_report_init(struct edit_report *report, const struct edit_options *options)
{
	*report = (struct edit_report){
		.json = options->json,
		.quiet = options->quiet,
		.terminal = !options->quiet && !options->json && isatty(STDERR_FILENO),
		.events = strcmp(options->out, "-") == 0 ? stderr : stdout,
	};
}

static double seconds(int64_t ns)
{
	return (double)ns / (double)EDIT_SECOND_NS;
}

/* Drops the reference. */
static void event_write(const struct edit_report *report, json_t *event)
{
	char *text = event ? json_dumps(event, JSON_COMPACT) : NULL;

	if (text)
		(void)fprintf(report->events, "%s\n", text);
	(void)fflush(report->events);
	free(text);
	json_decref(event);
}

/* Takes the progress line off the terminal, so that words stand alone. */
static void line_clear(struct edit_report *report)
{
	if (report->line_shown)
		(void)fputs("\r\033[K", stderr);
	report->line_shown = false;
}

void edit_report_start(struct edit_report *report, const struct edit_options *options,
		       const struct media_source_info *source, const struct media_sink_info *sink,
		       const char *model, const char *backend, int width, int height)
{
	report->start_ns = report->shown_ns = edit_now_ns();
	if (report->json) {
		event_write(report,
			    json_pack("{s:s, s:s, s:s, s:s, s:s, s:i, s:i, s:i, s:i, s:I, s:f, "
				      "s:s, s:s, s:b, s:s, s:s, s:I}",
				      "event", "start", "in", options->in, "out", options->out,
				      "partial", sink->partial_path, "source", source->description,
				      "source_width", source->width, "source_height",
				      source->height, "width", width, "height", height,
				      "frames_expected", (json_int_t)report->expected,
				      "source_seconds", seconds(source->duration_ns), "codec",
				      sink->codec, "container", sink->container, "audio",
				      sink->audio, "model", model, "backend", backend, "seed",
				      (json_int_t)options->stream.seed));
		return;
	}
	if (report->quiet)
		return;
	line_clear(report);
	(void)fprintf(stderr, "Model: %s, back end %s.\n", model, backend);
	(void)fprintf(stderr, "In:    %s (%s%s)\n", options->in, source->description,
		      source->has_audio ? ", with sound" : "");
	(void)fprintf(stderr, "Out:   %s (%s, %dx%d%s)\n", options->out, sink->codec, width, height,
		      sink->audio ? ", sound copied" : "");
}

void edit_report_loading(struct edit_report *report, const char *what, double fraction)
{
	if (!report->terminal)
		return;
	(void)fprintf(stderr, "\r\033[KLoading %s … %.0f %%", what, 100.0 * fraction);
	report->line_shown = true;
}

static double eta_seconds(const struct edit_report *report, int64_t frames, double fps)
{
	return report->expected > frames && fps > 0.0 ? (double)(report->expected - frames) / fps :
							0.0;
}

void edit_report_progress(struct edit_report *report, int64_t frames)
{
	const int64_t now = edit_now_ns();
	const int64_t pause = report->json ? JSON_PAUSE_NS : TERMINAL_PAUSE_NS;
	const double fps = (double)frames / seconds(MAX_OF(1, now - report->start_ns));
	const int left = (int)eta_seconds(report, frames, fps);

	if (!(report->json || report->terminal) || now - report->shown_ns < pause)
		return;
	report->shown_ns = now;
	if (report->json) {
		event_write(report, json_pack("{s:s, s:I, s:I, s:f, s:f}", "event", "progress",
					      "frames", (json_int_t)frames, "frames_expected",
					      (json_int_t)report->expected, "fps", fps, "eta_s",
					      eta_seconds(report, frames, fps)));
		return;
	}
	if (report->expected > 0)
		(void)fprintf(stderr,
			      "\r\033[K%lld of %lld frames, %.1f frames a second, %d:%02d left",
			      (long long)frames, (long long)MAX_OF(report->expected, frames), fps,
			      left / 60, left % 60);
	else
		(void)fprintf(stderr, "\r\033[K%lld frames, %.1f frames a second",
			      (long long)frames, fps);
	report->line_shown = true;
}

void edit_report_prompt(struct edit_report *report, const struct edit_prompt *prompt,
			const struct sana_frame_info *info)
{
	if (report->json) {
		event_write(report,
			    json_pack("{s:s, s:s, s:I, s:f, s:I}", "event", "prompt_applied",
				      "prompt", prompt->text, "frame", (json_int_t)info->frame,
				      "time_s", seconds(info->timestamp_ns), "chunk",
				      (json_int_t)info->chunk));
		return;
	}
	if (report->quiet)
		return;
	line_clear(report);
	(void)fprintf(stderr, "From frame %llu (%.3f s, chunk %llu): %s\n",
		      (unsigned long long)info->frame, seconds(info->timestamp_ns),
		      (unsigned long long)info->chunk, prompt->text);
}

void edit_report_warning(struct edit_report *report, const char *format, ...)
{
	char text[SANA_ERROR_TEXT_BYTES];
	va_list arguments;

	va_start(arguments, format);
	(void)vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	if (report->json) {
		event_write(report, json_pack("{s:s, s:s}", "event", "warning", "text", text));
		return;
	}
	line_clear(report);
	(void)fprintf(stderr, "sana-edit: warning: %s\n", text);
}

void edit_report_error(struct edit_report *report, enum edit_status status,
		       const struct sana_error *error)
{
	if (report->json)
		event_write(report,
			    json_pack("{s:s, s:s, s:s, s:i}", "event", "error", "name", error->name,
				      "text", error->text, "status", (int)status));
	line_clear(report);
	(void)fprintf(stderr, "sana-edit: %s\n", error->text);
}

static int64_t peak_memory_bytes(void)
{
	struct rusage usage;

	return getrusage(RUSAGE_SELF, &usage) == 0 ? (int64_t)usage.ru_maxrss * 1024 : 0;
}

void edit_report_done(struct edit_report *report, const struct edit_result *result)
{
	const double wall = seconds(result->wall_ns);
	const double fps = wall > 0.0 ? (double)result->frames / wall : 0.0;

	if (report->json) {
		event_write(report,
			    json_pack("{s:s, s:i, s:s?, s:I, s:I, s:I, s:I, s:f, s:f, s:I}",
				      "event", "done", "status", (int)result->status, "out",
				      result->path, "frames", (json_int_t)result->frames,
				      "frames_repeated", (json_int_t)result->repeated, "chunks",
				      (json_int_t)result->chunks, "chunks_dropped",
				      (json_int_t)result->chunks_dropped, "seconds", wall, "fps",
				      fps, "peak_memory_bytes", (json_int_t)peak_memory_bytes()));
		return;
	}
	if (report->quiet)
		return;
	line_clear(report);
	if (result->path)
		(void)fprintf(stderr,
			      "%s: %lld frames, %.1f frames a second, %.0f MiB of memory.\n",
			      strcmp(result->path, "-") == 0 ? "Standard output" : result->path,
			      (long long)result->frames, fps,
			      (double)peak_memory_bytes() / 1048576.0);
}
