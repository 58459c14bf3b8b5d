/* Inside of sana-bench. */
#pragma once

#include "engine/sana.h"

#include <jansson.h>

struct bench {
	struct sana_model_options model;
	struct sana_stream_options stream;
	const char *prompt; /* NULL: the model's first example */
	int chunks;
	bool plan_only, ops, json, state_bf16;
};

/* Print to stdout. −ENOSPC: printed, but it does not fit. */
int bench_plan(const struct bench *bench, struct sana_error *error);
int bench_run(const struct bench *bench, struct sana_error *error);

/* Prints one JSON object and a newline, drops the reference. */
int bench_print_json(json_t *object);

/*
 * SHA-256 over configurations, weights and tokenizer of a model directory (names and contents, by
 * folder and name), or "2b synthetic:SEED" for a shape.
 */
enum { BENCH_DIGEST_BYTES = 80 };
int bench_model_digest(const struct sana_model_options *model, char ret[BENCH_DIGEST_BYTES],
		       struct sana_error *error);

/*
 * Best rate of five 2048³ F32 matrix products through the back end's linear op, in GFLOP/s: the
 * ceiling that the model's share of peak is measured against, in the same run.
 */
int bench_gemm_peak(const char *backend, int threads, double *ret_gflops, struct sana_error *error);
