/* sana-bench: a stream on moving pictures, timed stage by stage. */
#include "base/util.h"
#include "tools/bench/bench.h"
#include "tools/bench/nvml.h"

#include <errno.h>
#include <sys/resource.h>
#include <time.h>

/* Chunks whose ops are timed one by one, after the timed chunks. */
enum { PROFILE_CHUNKS = 2 };

/* Source pictures drawn before anything is timed, shown in turn. */
enum { PICTURES = 16 };

/* Times of one stage, seconds. */
struct samples {
	double *value;
	size_t count, capacity;
};

struct run {
	const struct bench *bench;
	struct sana_model *model;
	struct sana_prompt *prompt;
	struct sana_stream *stream;
	uint8_t *in, *out; /* [PICTURES][height][width][3], one picture */
	int width, height;
	struct samples stage[SANA_STAGE_COUNT];
	struct samples chunk[SANA_STAGE_COUNT]; /* encode and decode, summed between cache passes */
	double chunk_seconds[SANA_STAGE_COUNT];
	double start, end;     /* of the timed part */
	double serial_seconds; /* the same number of chunks stage by stage; 0: nothing overlaps here */
	uint64_t serial_frames;
	double model_seconds, stream_seconds, prompt_seconds, first_seconds; /* of the start */
	uint64_t frames_in, frames_out;
	double due;			 /* when the next frame comes, with --fps */
	bool timing, sampling;		 /* frames are counted; stages are timed */
	struct nvml *nvml;		 /* NULL: there is none */
	struct nvml_state before;	 /* the timed part */
	struct sana_tuning *tuning;	 /* taken when the stream is open */
	double joules;			 /* of the timed part; −1: not known */
	double watts_sum, watts_samples; /* where the GPU does not count its energy */
};

static double now(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int samples_add(struct samples *s, double value)
{
	double *grown;

	if (s->count == s->capacity) {
		s->capacity = s->capacity ? 2 * s->capacity : 256;
		grown = realloc(s->value, s->capacity * sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		s->value = grown;
	}
	s->value[s->count++] = value;
	return 0;
}

static int compare_doubles(const void *a, const void *b)
{
	const double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* Quantile q of the samples in milliseconds, 0 without any. Sorts them. */
static double quantile_ms(struct samples *s, double q)
{
	if (!s->count)
		return 0;
	qsort(s->value, s->count, sizeof(*s->value), compare_doubles);
	return 1e3 * s->value[(size_t)(q * (double)(s->count - 1) + 0.5)];
}

static double sum_seconds(const struct samples *s)
{
	double sum = 0;

	for (size_t i = 0; i < s->count; i++)
		sum += s->value[i];
	return sum;
}

/* Smooth moving pictures, so that nothing is constant. */
static void pictures_draw(struct run *run)
{
	uint8_t *p = run->in;

	for (int t = 0; t < PICTURES; t++)
		for (int y = 0; y < run->height; y++)
			for (int x = 0; x < run->width; x++, p += 3) {
				p[0] = (uint8_t)((x + 2 * t) & 255);
				p[1] = (uint8_t)((y + t) & 255);
				p[2] = (uint8_t)((x + y - 3 * t) & 255);
			}
}

static struct sana_picture picture_next(const struct run *run)
{
	const size_t row = 3 * (size_t)run->width;

	return (struct sana_picture){
		run->in + row * (size_t)run->height * (run->frames_in % PICTURES),
		row,
		run->width,
		run->height,
	};
}

static int frames_drain(struct run *run, struct sana_error *error)
{
	struct sana_picture picture = { run->out, 3 * (size_t)run->width, run->width, run->height };
	struct sana_frame_info info;
	int r;

	while ((r = sana_stream_pull(run->stream, &picture, &info, error)) > 0) {
		run->frames_out += run->timing;
		if (run->first_seconds == 0)
			run->first_seconds = now() - run->start;
	}
	return r;
}

/* A stage's time by itself and, for encode and decode, summed over a chunk. */
static int stage_count(struct run *run, enum sana_stage stage, double seconds)
{
	static const enum sana_stage summed[] = { SANA_STAGE_ENCODE, SANA_STAGE_DECODE };
	int r = samples_add(&run->stage[stage], seconds);

	run->chunk_seconds[stage] += seconds;
	for (size_t i = 0; stage == SANA_STAGE_CACHE && i < ARRAY_SIZE(summed) && r >= 0; i++) {
		r = samples_add(&run->chunk[summed[i]], run->chunk_seconds[summed[i]]);
		run->chunk_seconds[summed[i]] = 0;
	}
	return r;
}

/* One stage, and what can be pulled then. 0: none could run. */
static int stage_run(struct run *run, struct sana_error *error)
{
	const double before = now();
	enum sana_stage stage;
	int drained, r = sana_stream_step(run->stream, &stage, error);

	if (r < 0)
		return r;
	if (r > 0 && run->sampling && stage_count(run, stage, now() - before) < 0)
		return -ENOMEM;
	drained = frames_drain(run, error);
	return drained < 0 ? drained : r;
}

/* All that can run, to its end. */
static int stages_settle(struct run *run, struct sana_error *error)
{
	int r;

	do
		r = stage_run(run, error);
	while (r > 0);
	return r;
}

/* Only where there is no counter of energy: asking takes time. */
static void power_sample(struct run *run)
{
	double watts;

	if (!run->timing || !run->nvml || run->before.joules >= 0)
		return;
	watts = nvml_state(run->nvml).watts;
	run->watts_sum += watts > 0 ? watts : 0;
	run->watts_samples += watts > 0;
}

/* Energy of the timed part by the counter, else by the mean of the samples. */
static double joules_take(const struct run *run)
{
	const double after = nvml_state(run->nvml).joules;

	if (run->before.joules >= 0 && after >= run->before.joules)
		return after - run->before.joules;
	if (run->watts_samples > 0)
		return run->watts_sum / run->watts_samples * (run->end - run->start);
	return -1;
}

/* With --fps: does what there is to do until the next frame is due. Those that are late come at once. */
static int frame_await(struct run *run, struct sana_error *error)
{
	double wait;
	int r;

	if (!run->bench->fps)
		return 0;
	r = stages_settle(run, error);
	if (r < 0)
		return r;
	wait = run->due - now();
	if (wait > 0)
		(void)nanosleep(&(struct timespec){ (time_t)wait,
						    (long)(1e9 * (wait - (double)(time_t)wait)) },
				NULL);
	run->due += 1.0 / run->bench->fps;
	return 0;
}

/* Feeds frames, a stage whenever there is no room for more, until that many chunks in all were edited. */
static int chunks_run(struct run *run, int64_t chunks, struct sana_error *error)
{
	struct sana_statistics statistics;
	struct sana_picture picture;
	int r;

	/* Nothing came between two runs. */
	run->due = now();
	for (;;) {
		sana_stream_statistics(run->stream, &statistics);
		if (statistics.chunks_dropped || statistics.failures)
			return sana_error_set(
				error, -EIO, "bench.dropped",
				"A chunk was dropped: the model gives values that are not "
				"finite; its times would mean nothing.");
		if ((int64_t)statistics.stage_count[SANA_STAGE_CACHE] >= chunks)
			return stages_settle(run, error);
		power_sample(run);
		r = frame_await(run, error);
		if (r < 0)
			return r;
		picture = picture_next(run);
		r = sana_stream_push(run->stream, &picture, (int64_t)run->frames_in + 1, error);
		if (r < 0)
			return r;
		run->frames_in += (uint64_t)r;
		if (r == 0)
			r = stage_run(run, error);
		if (r < 0)
			return r;
	}
}

static int prompt_make(struct run *run, struct sana_error *error)
{
	const struct model_config *config = sana_model_config(run->model);
	const char *text = run->bench->prompt;
	_cleanup_(freep) float *rows = NULL;
	const size_t count = (size_t)config->dit.max_tokens * (size_t)config->dit.caption_channels;

	if (!text && config->stream.prompts)
		text = config->stream.prompt[0].prompt;
	if (!run->bench->model.shape)
		return sana_prompt_create(run->model, text ? text : "keep it as it is",
					  &run->prompt, error);
	/* A shape has no text encoder: a full caption of made-up rows costs the same. */
	rows = malloc(count * sizeof(*rows));
	if (!rows)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++)
		rows[i] = (float)((i * 2654435761u) % 65536) / 32768.0f - 1.0f;
	return sana_prompt_from_features(run->model, rows, config->dit.max_tokens, &run->prompt,
					 error);
}

static int run_open(struct run *run, struct sana_error *error)
{
	const struct model_config *config;
	uint64_t ticket;
	double before;
	int r;

	run->start = now();
	r = sana_model_open(&run->bench->model, &run->model, error);
	if (r < 0)
		return r;
	run->model_seconds = now() - run->start;
	if (sana_model_backend_note(run->model)[0])
		(void)fprintf(stderr, "sana-bench: %s Running on the CPU.\n",
			      sana_model_backend_note(run->model));
	config = sana_model_config(run->model);
	run->width = run->bench->stream.width ? run->bench->stream.width : config->stream.width;
	run->height = run->bench->stream.height ? run->bench->stream.height : config->stream.height;
	run->in = malloc(PICTURES * (size_t)run->width * (size_t)run->height * 3);
	run->out = malloc((size_t)run->width * (size_t)run->height * 3);
	if (!run->in || !run->out)
		return -ENOMEM;
	pictures_draw(run);
	before = now();
	r = sana_stream_open(run->model, &run->bench->stream, &run->stream, error);
	run->stream_seconds = now() - before;
	if (r >= 0)
		r = bench_tuning_take(run->stream, &run->tuning);
	before = now();
	if (r >= 0)
		r = prompt_make(run, error);
	run->prompt_seconds = now() - before;
	if (r >= 0)
		r = sana_stream_set_prompt(run->stream, run->prompt, SANA_SWITCH_INVALID, &ticket,
					   error);
	return r;
}

static size_t peak_memory(void)
{
	struct rusage usage;

	return getrusage(RUSAGE_SELF, &usage) == 0 ? (size_t)usage.ru_maxrss * 1024 : 0;
}

struct figures {
	double seconds, fps, fps_serial, fps_dit, share_of_peak, flops;
	struct bench_peak peak;
	struct sana_profile_line ops[SANA_PROFILE_LINES];
	int op_lines;
	double encode[2], pass[2], decode[2], cache[2]; /* median, p99 in milliseconds */
	struct sana_plan plan;
	char digest[BENCH_DIGEST_BYTES];
};

static void pair(struct samples *s, double to[2])
{
	to[0] = quantile_ms(s, 0.5);
	to[1] = quantile_ms(s, 0.99);
}

static int figures_make(struct run *run, struct figures *f, struct sana_error *error)
{
	struct samples *stage = run->stage;
	const double frames = (double)run->frames_out;
	const double dit =
		sum_seconds(&stage[SANA_STAGE_DENOISE]) + sum_seconds(&stage[SANA_STAGE_CACHE]);
	const double sampled = run->serial_seconds > 0 ? (double)run->serial_frames : frames;
	int r;

	r = sana_plan(&run->bench->model, &run->bench->stream, true, &f->plan, error);
	if (r < 0)
		return r;
	f->seconds = run->end - run->start;
	f->fps = frames / f->seconds;
	f->fps_serial = run->serial_seconds > 0 ? sampled / run->serial_seconds : f->fps;
	f->fps_dit = dit > 0 ? sampled / dit : 0;
	/* By frames: overlapping stages may end one chunk more or less within the time. */
	f->flops = frames / f->plan.chunk_frames *
		   (f->plan.passes * f->plan.dit_pass_flops + f->plan.encode_flops +
		    f->plan.decode_flops);
	f->share_of_peak = f->flops / f->seconds / f->peak.gemm_flops;
	r = bench_model_digest(&run->bench->model, f->digest, error);
	if (r < 0)
		return r;
	pair(&run->chunk[SANA_STAGE_ENCODE], f->encode);
	pair(&stage[SANA_STAGE_DENOISE], f->pass);
	pair(&run->chunk[SANA_STAGE_DECODE], f->decode);
	pair(&stage[SANA_STAGE_CACHE], f->cache);
	return 0;
}

static int estimate_make(const struct run *run, const struct figures *f, json_t *json)
{
	const struct bench_estimate_input in = {
		.here = &f->peak,
		.portable = strcmp(run->bench->model.backend, "cuda-portable") == 0 ||
			    f->peak.facts.capability != 90,
		.lines = f->ops,
		.count = f->op_lines,
		.chunks = PROFILE_CHUNKS,
		.frames = f->plan.chunk_frames,
	};

	return bench_estimate(run->bench->estimate, &in, json);
}

static int figures_json(const struct run *run, const struct figures *f)
{
	json_t *object = json_pack(
		"{s:s, s:s, s:s, s:s, s:i, s:i, s:i, s:I, s:f, s:f, s:f, s:f, s:[ff], s:[ff], s:[ff], s:[ff], s:I, s:I, "
		"s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:s, s:o, s:o}",
		"model", f->plan.name, "model_digest", f->digest, "decoder_origin",
		sana_model_decoder_origin(run->model), "backend", f->plan.backend, "width",
		run->width, "height", run->height, "chunks", run->bench->chunks, "frames",
		(json_int_t)run->frames_out, "seconds", f->seconds, "fps_end_to_end", f->fps,
		"fps_stage_by_stage", f->fps_serial, "fps_dit", f->fps_dit, "ms_encode_chunk",
		f->encode[0], f->encode[1], "ms_dit_pass", f->pass[0], f->pass[1],
		"ms_decode_chunk", f->decode[0], f->decode[1], "ms_cache_pass", f->cache[0],
		f->cache[1], "peak_memory_bytes", (json_int_t)peak_memory(), "stream_bytes",
		(json_int_t)f->plan.stream_bytes, "gemm_peak_gflops", f->peak.gemm_flops / 1e9,
		"tensor_peak_gflops", f->peak.tensor_flops / 1e9, "copy_gbytes_per_second",
		f->peak.copy_bytes / 1e9, "gflop_per_second", f->flops / f->seconds / 1e9,
		"flops_share_of_peak", f->share_of_peak, "seconds_model_open", run->model_seconds,
		"seconds_stream_open", run->stream_seconds, "seconds_prompt", run->prompt_seconds,
		"seconds_first_frame", run->first_seconds, "peer_gemm_gflops",
		f->peak.peer_flops / 1e9, "peer", f->peak.peer, "joules_per_frame",
		run->joules < 0 ? json_null() : json_real(run->joules / (double)run->frames_out),
		"mean_watts", run->joules < 0 ? json_null() : json_real(run->joules / f->seconds));

	if (object)
		(void)bench_tuning_json(run->tuning, object);
	if (object && run->bench->profile)
		(void)bench_profile(&f->peak, f->ops, f->op_lines, PROFILE_CHUNKS, object);
	if (object && run->bench->estimate)
		(void)estimate_make(run, f, object);
	return bench_print_json(object);
}

static void peaks_print(const struct figures *f)
{
	(void)printf("  matrix product %d^3, best  %10.1f GFLOP/s\n", f->peak.side,
		     f->peak.gemm_flops / 1e9);
	if (f->peak.tensor_flops > 0)
		(void)printf("  matrix units alone           %10.1f GFLOP/s\n",
			     f->peak.tensor_flops / 1e9);
	if (f->peak.peer[0])
		(void)printf("  the same by the library      %10.1f GFLOP/s  (%s)\n",
			     f->peak.peer_flops / 1e9, f->peak.peer);
	(void)printf("  copy                         %10.1f GB/s\n", f->peak.copy_bytes / 1e9);
}

static void energy_print(const struct run *run, const struct figures *f)
{
	if (run->joules < 0)
		(void)printf("  energy                        not known\n");
	else
		(void)printf(
			"  energy of the GPU            %10.2f J a frame, %.0f W on average (%s)\n",
			run->joules / (double)run->frames_out, run->joules / f->seconds,
			run->before.joules >= 0 ? "its counter" : "sampled");
}

static int figures_print(const struct run *run, const struct figures *f)
{
	(void)printf("%s at %dx%d, back end %s, %d chunks after %d of warm-up\n\n", f->plan.name,
		     run->width, run->height, f->plan.backend, run->bench->chunks,
		     run->bench->warm_chunks);
	(void)printf("  frames a second, end to end  %10.2f  (%llu frames in %.2f s)\n", f->fps,
		     (unsigned long long)run->frames_out, f->seconds);
	if (run->serial_seconds > 0)
		(void)printf(
			"  the same stage by stage      %10.2f  (nothing overlaps, and so are the times below)\n",
			f->fps_serial);
	(void)printf("  frames a second, DiT alone   %10.2f\n", f->fps_dit);
	(void)printf("  milliseconds, median and p99\n"
		     "    encode a chunk             %10.2f %10.2f\n"
		     "    DiT pass                   %10.2f %10.2f\n"
		     "    cache pass                 %10.2f %10.2f\n"
		     "    decode a chunk             %10.2f %10.2f\n",
		     f->encode[0], f->encode[1], f->pass[0], f->pass[1], f->cache[0], f->cache[1],
		     f->decode[0], f->decode[1]);
	(void)printf(
		"  start, seconds               %10.2f  to the first frame; model %.2f, stream "
		"%.2f, prompt %.3f\n",
		run->first_seconds, run->model_seconds, run->stream_seconds, run->prompt_seconds);
	bench_tuning_print(run->tuning, run->bench->profile);
	(void)printf("  memory of the back end       %10.1f MiB, model %.1f, stream %.1f\n",
		     (double)(f->plan.model_bytes + f->plan.stream_bytes) / 1048576,
		     (double)f->plan.model_bytes / 1048576, (double)f->plan.stream_bytes / 1048576);
	(void)printf("  peak memory                  %10.1f MiB\n",
		     (double)peak_memory() / 1048576);
	energy_print(run, f);
	peaks_print(f);
	(void)printf("  model                        %10.1f GFLOP/s, %.3f of the product's\n",
		     f->flops / f->seconds / 1e9, f->share_of_peak);
	(void)printf("  closed formulas, GFLOP a chunk: encode %.2f, DiT %d x %.2f, decode %.2f\n",
		     f->plan.encode_flops / 1e9, f->plan.passes, f->plan.dit_pass_flops / 1e9,
		     f->plan.decode_flops / 1e9);
	(void)printf("  model digest                 %s\n", f->digest);
	if (run->bench->profile)
		(void)bench_profile(&f->peak, f->ops, f->op_lines, PROFILE_CHUNKS, NULL);
	if (run->bench->estimate && estimate_make(run, f, NULL) == -ENOTSUP)
		(void)fprintf(stderr,
			      "sana-bench: an estimate needs a GPU to measure on, or --plan.\n");
	return fflush(stdout) == EOF ? -EIO : 0;
}

/* Stages one by one, where they overlapped before: their times. */
static int serial_run(struct run *run, int64_t chunks, struct sana_error *error)
{
	const double before = now();
	const uint64_t frames = run->frames_out;
	int r;

	(void)sana_stream_set_overlap(run->stream, false);
	run->timing = run->sampling = true;
	r = chunks_run(run, chunks, error);
	run->timing = run->sampling = false;
	run->serial_seconds = now() - before;
	run->serial_frames = run->frames_out - frames;
	run->frames_out = frames;
	return r;
}

static int profile_run(struct run *run, struct figures *f, int done, struct sana_error *error)
{
	int r;

	r = sana_stream_profile_start(run->stream, error);
	if (r >= 0)
		r = chunks_run(run, done + PROFILE_CHUNKS, error);
	f->op_lines = sana_stream_profile(run->stream, f->ops, SANA_PROFILE_LINES);
	return r;
}

static int measure(struct run *run, struct sana_error *error)
{
	_cleanup_(freep) struct figures *figures = calloc(1, sizeof(*figures));
	const struct bench *bench = run->bench;
	bool overlaps;
	int done, r;

	if (!figures)
		return -ENOMEM;
	r = run_open(run, error);
	if (r >= 0)
		r = chunks_run(run, bench->warm_chunks, error);
	if (r >= 0)
		r = bench_peak_measure(sana_model_backend(run->model), bench->model.threads,
				       &figures->peak, error);
	if (r >= 0 && figures->peak.facts.name[0])
		run->nvml = nvml_open(figures->peak.facts.pci);
	overlaps = r >= 0 && sana_stream_set_overlap(run->stream, true);
	done = bench->warm_chunks + bench->chunks;
	run->before = nvml_state(run->nvml);
	run->timing = true;
	run->sampling = !overlaps;
	run->start = now();
	if (r >= 0)
		r = chunks_run(run, done, error);
	run->end = now();
	run->timing = run->sampling = false;
	run->joules = joules_take(run);
	if (r >= 0 && overlaps)
		r = serial_run(run, done += bench->chunks, error);
	if (r >= 0 && bench->profile)
		r = profile_run(run, figures, done, error);
	if (r >= 0)
		r = figures_make(run, figures, error);
	if (r < 0)
		return r;
	return bench->json ? figures_json(run, figures) : figures_print(run, figures);
}

int bench_run(const struct bench *bench, struct sana_error *error)
{
	struct run run = { .bench = bench };
	int r;

	r = measure(&run, error);
	(void)sana_stream_close(run.stream);
	(void)sana_prompt_unref(run.prompt);
	(void)sana_model_unref(run.model);
	nvml_close(run.nvml);
	for (int i = 0; i < SANA_STAGE_COUNT; i++) {
		free(run.stage[i].value);
		free(run.chunk[i].value);
	}
	free(run.tuning);
	free(run.in);
	free(run.out);
	return r;
}
