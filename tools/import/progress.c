/* Progress on standard error: share, rate and the time that is left. */
#include "tools/import/progress.h"

#include <time.h>
#include <unistd.h>

static const int64_t second_ns = 1000000000;

/* Between two looks: short enough to see it move, long enough not to fill a log. */
enum { TERMINAL_MS = 200, LOG_MS = 10000 };

int64_t progress_now_ns(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * second_ns + now.tv_nsec;
}

void progress_start(struct progress *progress, uint64_t total, uint64_t skipped, bool quiet)
{
	*progress = (struct progress){ .quiet = quiet,
				       .terminal = isatty(STDERR_FILENO),
				       .total = total,
				       .done = skipped,
				       .skipped = skipped,
				       .started_ns = progress_now_ns() };
	progress->shown_ns = progress->started_ns;
}

double progress_seconds(const struct progress *progress)
{
	return (double)(progress_now_ns() - progress->started_ns) / (double)second_ns;
}

static void show(const struct progress *progress, const char *what)
{
	double seconds = progress_seconds(progress), rate, left;

	rate = seconds > 0 ? (double)(progress->done - progress->skipped) / seconds : 0;
	left = rate > 0 ? (double)(progress->total - progress->done) / rate : 0;
	(void)fprintf(stderr, "%s%3.0f %%  %.2f of %.2f GB  %.0f MB/s  %.0f s left  %s%s",
		      progress->terminal ? "\r\033[K" : "sana-import: ",
		      100.0 * (double)progress->done / (double)MAX_OF(progress->total, 1),
		      (double)progress->done / 1e9, (double)progress->total / 1e9, rate / 1e6, left,
		      what, progress->terminal ? "" : "\n");
	(void)fflush(stderr);
}

void progress_add(struct progress *progress, const char *what, uint64_t bytes)
{
	int64_t now = progress_now_ns();
	int64_t wait = (int64_t)(progress->terminal ? TERMINAL_MS : LOG_MS) * 1000000;

	progress->done += bytes;
	if (progress->quiet || now - progress->shown_ns < wait)
		return;
	progress->shown_ns = now;
	show(progress, what);
}

void progress_end(struct progress *progress)
{
	if (!progress->quiet && progress->terminal)
		(void)fputs("\r\033[K", stderr);
}
