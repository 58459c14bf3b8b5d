/*
 * sana-bench --self-test: is this GPU right, and how fast is it? Needs no files: the CPU back end computes the
 * same ops on the same random values, and a few of its own results are known here, so that a CPU build that
 * computes nonsense is noticed too.
 */
#include "tools/bench/self_test.h"

#include "tools/bench/bench.h"
#include "tools/bench/nvml.h"

#include <errno.h>
#include <math.h>
#include <time.h>

/*
 * What the CPU made of a case: Σ|y| and Σ y·(i mod 5 − 2). Between machines only the order of sums and the last
 * bits of exp and cos differ.
 */
static const struct {
	const char *what;
	double sum, weighted;
} known[] = {
	{ "layer_norm_modulate [37][2240]", 80776.3696, -1395.33886 },
	{ "rms_norm [5][224], residual", 2022.22917, 6.70823163 },
	{ "qk_norm_rope [60][2 x 112], stride 232", 11763.1908, -108.404493 },
	{ "rope_half [7][3 x 16]", 357.234577, 23.0584329 },
	{ "depthwise_glu [2][3][5][2 x 6]", 45.03519, -6.24141028 },
	{ "glu_gelu", 938.345298, 36.7385623 },
	{ "noise", 654.454533, -35.8186558 },
	{ "patchify", 722.901975, 46.3058834 },
	{ "linear 37×53×29 bias", 522.378308, 2.19407119 },
	{ "linear 257×520×776 residual in place", 182336.599, -567.691844 },
	{ "temporal 3×7×64 left gate", 780.482747, -91.7602469 },
	{ "65 queries, 65+129+1 keys, 3 heads of 112", 8363.94239, 187.831461 },
	{ "28 queries, 28+0+0 keys, 4 heads of 16", 1270.97513, -8.28808025 },
	{ "gdn 3 frames of 5x13, 3 heads of 80", 132.060094, -1.36117799 },
	{ "gdn 4 frames of 3x4, 2 heads of 112", 105.219693, -0.280056357 },
	{ "beta [3 x 65][160], 2 heads", 212.091346, -6.24532261 },
	{ "y 2x4x6 3>8 zero next down 222 r0", 36.2673796, -13.1132276 },
	{ "y 3x17x9 72>136 reflect next 000 r1", 49708.187, -242.479597 },
	{ "y 1x88x160 48>128 zero next 000 r0", 1202497.22, 48.0819007 },
	{ "y_norm 3x5x7 11>13 reflect clip 000 r1", 715.185636, 22.3330799 },
	{ "y_norm 2x4x6 3>8 zero next down 222 r0", 30.6762472, -11.4231697 },
};
static const double known_tolerance = 2e-5; /* of the sum */

/* The first thousand numbers of seed 1, exactly: a broken generator would compare nothing with nothing. */
static const uint64_t generator_digest = 0x92a57822ee718cab;

struct self_test {
	const struct bench *bench;
	struct cuda_test test;
	struct bench_peak peak;
	json_t *checks, *times;
	int compared[KERNEL_OP_COUNT], wrong, known_seen;
};

static void complain(struct self_test *s, const char *what, const char *why)
{
	s->wrong++;
	(void)fprintf(stderr, "sana-bench: wrong: %s: %s\n", what, why);
}

static void known_compare(struct self_test *s, const struct cuda_test_result *r)
{
	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		if (strcmp(known[i].what, r->what) != 0)
			continue;
		s->known_seen++;
		if (fabs(r->sum - known[i].sum) > known_tolerance * known[i].sum ||
		    fabs(r->weighted - known[i].weighted) > known_tolerance * known[i].sum)
			complain(s, r->what,
				 "the CPU's own result is not the one known; this build or its "
				 "BLAS is broken");
		return;
	}
}

static void check_take(void *context, const struct cuda_test_result *r)
{
	struct self_test *s = context;

	s->compared[r->op]++;
	if (!r->right)
		complain(s, r->what,
			 s->test.problem[0] ? s->test.problem :
					      "the GPU is not within tolerance of the CPU");
	if (s->test.gpu.table)
		(void)json_array_append_new(
			s->checks,
			json_pack("{s:s, s:s, s:s, s:f, s:f, s:b}", "op", kernel_op_name(r->op),
				  "case", r->what, "kernels", r->kernels, "relative_l2",
				  isfinite(r->relative) ? r->relative : -1.0, "tolerance",
				  r->tolerance, "right", r->right));
	known_compare(s, r);
}

/* The floor of the op by this run's ceilings. */
static double floor_ms(const struct bench_peak *peak, const struct cuda_test_result *r)
{
	const double arithmetic = MAX_OF(peak->gemm_flops, peak->tensor_flops);

	return 1e3 * MAX_OF(r->flops / arithmetic, r->bytes / peak->copy_bytes);
}

static void time_take(void *context, const struct cuda_test_result *r)
{
	struct self_test *s = context;
	const double floor = floor_ms(&s->peak, r);

	if (!r->right) {
		complain(s, r->what, s->test.problem);
		return;
	}
	(void)fprintf(stderr, "  %-44s %8.3f ms %8.1f TFLOP/s %5.0f%% of the floor's rate  %s\n",
		      r->what, r->ms, 1e-9 * r->flops / r->ms, 100 * floor / r->ms, r->kernels);
	(void)json_array_append_new(s->times,
				    json_pack("{s:s, s:s, s:s, s:f, s:f, s:f, s:f}", "op",
					      kernel_op_name(r->op), "case", r->what, "kernels",
					      r->kernels, "ms", r->ms, "flops", r->flops, "bytes",
					      r->bytes, "floor_ms", floor));
}

static void generator_check(struct self_test *s)
{
	uint64_t digest = 0xcbf29ce484222325;
	struct cuda_tensor t;

	cuda_test_reset(&s->test, 1);
	t = cuda_test_random(&s->test, 1000, -1, 1, true);
	for (size_t i = 0; i < t.count * sizeof(float); i++)
		digest = (digest ^ ((unsigned char *)t.cpu)[i]) * 0x100000001b3;
	if (digest != generator_digest)
		complain(s, "random numbers", "not those of this seed; this build is broken");
}

/* A new op without a case must not pass unseen. */
static void coverage_check(struct self_test *s)
{
	for (int op = 0; op < KERNEL_OP_COUNT; op++)
		if (!s->compared[op])
			complain(s, kernel_op_name((enum kernel_op)op), "no case checked it");
	if (s->known_seen < (int)ARRAY_SIZE(known))
		complain(s, "known results", "not all were computed");
}

/* −1 as null: not known. */
static json_t *figure(double value)
{
	return value < 0 ? json_null() : json_real(value);
}

static json_t *gpu_json(const struct bench_peak *peak, const struct nvml *nvml,
			const struct nvml_state *before, const struct nvml_state *after,
			double seconds)
{
	const struct kernel_facts *f = &peak->facts;
	const double joules =
		before->joules < 0 || after->joules < 0 ? -1 : after->joules - before->joules;

	return json_pack(
		"{s:s, s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:o, s:o, s:o, s:o, s:o, s:o, s:o}",
		"name", f->name, "driver", nvml_driver(nvml), "cuda", f->driver_version,
		"capability", f->capability, "multiprocessors", f->multiprocessors, "clock_khz",
		f->clock_khz, "l2_bytes", f->l2_bytes, "shared_bytes", f->shared_bytes, "sm_mhz",
		figure(after->sm_mhz), "memory_mhz", figure(after->memory_mhz), "celsius_before",
		figure(before->celsius), "celsius_after", figure(after->celsius),
		"power_limit_watts", figure(after->power_limit_watts), "joules", figure(joules),
		"mean_watts", figure(joules < 0 || seconds <= 0 ? -1 : joules / seconds));
}

static double now(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int times_run(struct self_test *s, json_t *body, struct sana_error *error)
{
	struct nvml_state before, after;
	struct nvml *nvml;
	double start;
	int r = bench_peak_measure("cuda", 0, &s->peak, error);

	if (r < 0)
		return r;
	(void)fprintf(stderr, "Times at the published shapes, on %s:\n", s->peak.facts.name);
	nvml = nvml_open(s->peak.facts.pci);
	before = nvml_state(nvml);
	start = now();
	s->test.result = time_take;
	self_test_times(&s->test);
	after = nvml_state(nvml);
	r = json_object_set_new(body, "gpu",
				gpu_json(&s->peak, nvml, &before, &after, now() - start)) < 0 ||
			    json_object_set_new(
				    body, "ceilings",
				    json_pack("{s:f, s:f, s:f, s:s, s:f}", "gemm_gflops",
					      1e-9 * s->peak.gemm_flops, "tensor_gflops",
					      1e-9 * s->peak.tensor_flops, "peer_gflops",
					      1e-9 * s->peak.peer_flops, "peer", s->peak.peer,
					      "copy_gbytes_per_second",
					      1e-9 * s->peak.copy_bytes)) < 0 ?
		    -ENOMEM :
		    0;
	nvml_close(nvml);
	return r;
}

/* The demo model where it is: as given, as installed, in the tree. */
static void stream_run(struct self_test *s, json_t *body)
{
	const char *const places[] = { s->bench->model.directory,
				       "/usr/share/sana-streamd/models/demo",
				       "/usr/local/share/sana-streamd/models/demo", "models/demo" };
	struct bench_pictures p = { 0 };
	struct sana_error error = { 0 };
	int r = -ENOENT;

	for (size_t i = 0; i < ARRAY_SIZE(places) && r == -ENOENT; i++)
		if (places[i])
			r = bench_pictures_compare(places[i], s->bench->model.backend, &p, &error);
	if (r == -ENOENT) {
		(void)fprintf(stderr, "The demo model is not there: no stream was run (--model "
				      "DIR says where it is).\n");
		(void)json_object_set_new(body, "stream", json_null());
		return;
	}
	if (r < 0)
		complain(s, "stream of the demo model", error.text[0] ? error.text : strerror(-r));
	else if (p.worst > 2)
		complain(s, "stream of the demo model", "pictures differ by more than 2 levels");
	(void)fprintf(stderr, "Stream of the demo model: %d frames, worst difference %d levels.\n",
		      p.frames, p.worst);
	(void)json_object_set_new(body, "stream",
				  json_pack("{s:i, s:i, s:f, s:b}", "frames", p.frames,
					    "worst_levels", p.worst, "mean_levels", p.mean, "right",
					    r >= 0 && p.worst <= 2));
}

static json_t *body_make(struct self_test *s)
{
	char when[32] = "";
	const time_t t = time(NULL);
	struct tm utc;

	if (gmtime_r(&t, &utc))
		(void)strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", &utc);
	return json_pack("{s:s, s:i, s:s, s:s, s:s, s:O, s:O}", "format", "sana-bench self-test",
			 "format_version", 1, "version", sana_version(), "when", when, "backend",
			 s->bench->model.backend, "checks", s->checks, "times", s->times);
}

static int self_test_run(struct self_test *s, json_t *body, struct sana_error *error)
{
	int r = 0;

	s->test.result = check_take;
	s->test.context = s;
	generator_check(s);
	(void)fprintf(stderr, "Checking every op%s…\n",
		      s->test.gpu.table ? " of the GPU against the CPU" :
					  " of the CPU that has known results");
	self_test_ops(&s->test);
	coverage_check(s);
	(void)fprintf(stderr, "%zu comparisons with the GPU, %d known results, %d wrong.\n",
		      json_array_size(s->checks), s->known_seen, s->wrong);
	(void)json_object_set_new(body, "known_results", json_integer(s->known_seen));
	if (s->test.gpu.table) {
		r = times_run(s, body, error);
		stream_run(s, body);
	}
	if (r >= 0 &&
	    json_object_set_new(body, "result", json_string(s->wrong ? "wrong" : "right")) < 0)
		r = -ENOMEM;
	return r;
}

int bench_self_test(const struct bench *bench, struct sana_error *error)
{
	struct bench chosen = *bench;
	struct self_test s = { .bench = &chosen };
	const bool cpu = strcmp(bench->model.backend, "cpu") == 0;
	char text[256] = "";
	json_t *body = NULL;
	int r;

	if (strcmp(bench->model.backend, "auto") == 0)
		chosen.model.backend = "cuda";
	if (!cpu && strncmp(chosen.model.backend, "cuda", 4) != 0)
		return sana_error_set(
			error, -EINVAL, "backend.unknown",
			"A self-test is of cuda, cuda-portable or cpu, not \"%.32s\".",
			bench->model.backend);
	r = cuda_test_start(&s.test, cpu, strcmp(chosen.model.backend, "cuda-portable") == 0, text,
			    sizeof(text));
	if (r < 0)
		return sana_error_set(error, r, "backend.open",
				      "No GPU to test: %s. With --backend cpu the CPU alone is "
				      "compared with known results.",
				      text);
	s.checks = json_array();
	s.times = json_array();
	body = body_make(&s);
	r = body ? self_test_run(&s, body, error) : -ENOMEM;
	if (r >= 0)
		r = bench_report_write(bench->self_test, body, error);
	json_decref(body);
	json_decref(s.checks);
	json_decref(s.times);
	cuda_test_close(&s.test);
	if (r >= 0 && s.wrong)
		return sana_error_set(error, -EBADMSG, "self-test.wrong",
				      "%d things are wrong; %s names them.", s.wrong,
				      bench->self_test);
	if (r >= 0)
		(void)fprintf(stderr, "All right; the report is %s.\n", bench->self_test);
	return r;
}
