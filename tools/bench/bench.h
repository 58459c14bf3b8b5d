/* Inside of sana-bench. */
#pragma once

#include "engine/sana.h"
#include "kernels/kernels.h"

#include <jansson.h>

struct bench {
	struct sana_model_options model;
	struct sana_stream_options stream;
	const char *prompt;		/* NULL: the model's first example */
	const char *estimate;		/* a target's name, or NULL */
	const char *self_test, *verify; /* files of reports, or NULL */
	int chunks, warm_chunks;
	int fps; /* source frames a second; 0: as fast as they are taken */
	bool plan_only, ops, profile, json, state_bf16;
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
 * What this machine does at most, measured in the same run: the ceilings that shares are told of.
 *
 *   gemm    a matrix product of `side`³ through the back end's linear op (CPU F32; GPU BF16)
 *   tensor  products of registers with registers; 0 where the back end has no matrix units
 *   copy    bytes read and written by a large copy in device memory
 */
struct bench_peak {
	int side;
	double gemm_flops, tensor_flops, copy_bytes; /* a second */
	double peer_flops;	   /* the same product through cublasLt; 0 where it cannot be had */
	char peer[96];		   /* which, or why not */
	struct kernel_facts facts; /* of a GPU; zeros on the CPU */
};

int bench_peak_measure(const char *backend, int threads, struct bench_peak *ret,
		       struct sana_error *error);

/*
 * What was measured to choose kernels while the stream opened, to be freed; its sentence and what is amiss
 * with its file go to stderr. Printed: a line, and with `all` a line for each product.
 */
int bench_tuning_take(struct sana_stream *stream, struct sana_tuning **ret);
void bench_tuning_print(const struct sana_tuning *tuning, bool all);
int bench_tuning_json(const struct sana_tuning *tuning, json_t *json);

/* Every op against the CPU, then times, into a report. −EBADMSG: written, but something is wrong. */
int bench_self_test(const struct bench *bench, struct sana_error *error);

/* Writes {"report": body, "sha256": …} under `path`, whole or not at all. */
int bench_report_write(const char *path, json_t *body, struct sana_error *error);

/* Prints what it is when it is intact; else an error that says what is wrong. */
int bench_report_verify(const char *path, struct sana_error *error);

/*
 * The same stream of a small model on two back ends: grey levels between their pictures. −ENOENT: there is no
 * such model.
 */
struct bench_pictures {
	int frames, worst;
	double mean;
};
int bench_pictures_compare(const char *directory, const char *backend, struct bench_pictures *ret,
			   struct sana_error *error);

/* Two more chunks with every op timed, as a table or (json not NULL) lines added to it. */
int bench_profile(const struct bench_peak *peak, const struct sana_profile_line *lines, int count,
		  int chunks, json_t *json);

/* "rtx5090", "gb10". */
bool bench_estimate_knows(const char *name);

/* Ops of some chunks, measured here or counted. */
struct bench_estimate_input {
	const struct bench_peak *here; /* NULL: nothing was measured, lines have counts alone */
	bool portable;		       /* measured with the kernels that the targets run */
	const struct sana_profile_line *lines;
	int count, chunks, frames; /* frames of one chunk */
};

/* A table, or (json not NULL) an object added to it. −ENOTSUP without matrix units here. */
int bench_estimate(const char *name, const struct bench_estimate_input *in, json_t *json);

/* The same of a plan's counts. */
int bench_estimate_plan(const char *name, const struct sana_plan *plan, json_t *json);
