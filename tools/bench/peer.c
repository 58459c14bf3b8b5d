/* The library's plan for a square product, timed by the events of libcuda, which is opened at run time too. */
#include "tools/bench/peer.h"

#include "base/util.h"
#include "kernels/cublaslt.h"

#include <dlfcn.h>

typedef void *handle;

enum { RUNS = 5 };

#define DRIVER_FUNCTIONS(X)                                   \
	X(cuEventCreate, int, (handle *, unsigned int))       \
	X(cuEventRecord, int, (handle, handle))               \
	X(cuEventSynchronize, int, (handle))                  \
	X(cuEventElapsedTime, int, (float *, handle, handle)) \
	X(cuEventDestroy_v2, int, (handle))

struct peer {
	void *driver;
	struct cublaslt *lt;
	struct cublaslt_plan *plan;
	handle event[2];
#define X(name, type, arguments) type(*name) arguments;
	DRIVER_FUNCTIONS(X)
#undef X
};

static bool driver_find(struct peer *p)
{
	void *symbol;

	p->driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
	if (!p->driver)
		return false;
#define X(name, type, arguments)          \
	symbol = dlsym(p->driver, #name); \
	if (!symbol)                      \
		return false;             \
	memcpy(&p->name, &symbol, sizeof(symbol));
	DRIVER_FUNCTIONS(X)
#undef X
	return p->cuEventCreate(&p->event[0], 0) == 0 && p->cuEventCreate(&p->event[1], 0) == 0;
}

/* Best of some runs of one algorithm, seconds; 0 when it fails. */
static double best_seconds(struct peer *p, int algorithm, const void *x, const void *w, void *y,
			   void *workspace)
{
	float best = 0, ms;

	for (int i = -1; i < RUNS; i++) {
		if (p->cuEventRecord(p->event[0], NULL) != 0 ||
		    cublaslt_plan_run(p->plan, algorithm, x, w, NULL, y, workspace, NULL) < 0 ||
		    p->cuEventRecord(p->event[1], NULL) != 0 ||
		    p->cuEventSynchronize(p->event[1]) != 0 ||
		    p->cuEventElapsedTime(&ms, p->event[0], p->event[1]) != 0)
			return 0;
		if (i >= 0 && (best == 0 || ms < best))
			best = ms;
	}
	return 1e-3 * (double)best;
}

/* libcuda stays mapped: it does not like to be loaded twice. */
static void peer_finish(struct peer *p)
{
	cublaslt_plan_destroy(p->plan);
	cublaslt_close(p->lt);
	for (int i = 0; i < 2; i++)
		if (p->event[i])
			(void)p->cuEventDestroy_v2(p->event[i]);
}

double peer_gemm_flops(int side, const void *x, const void *w, void *y, void *workspace,
		       size_t workspace_bytes, char *note, size_t note_bytes)
{
	const struct cublaslt_product product = {
		.rows = side, .in = side, .out = side, .ldx = side, .ldy = side
	};
	struct peer p = { 0 };
	double best = 0, seconds;
	int algorithms = 0;

	if (cublaslt_open(&p.lt) < 0) {
		(void)snprintf(note, note_bytes, "no libcublasLt.so.13 or .12 here");
		return 0;
	}
	if (driver_find(&p) && cublaslt_plan_create(p.lt, &product, CUBLASLT_ALGORITHMS,
						    workspace_bytes, &p.plan) >= 0)
		algorithms = cublaslt_plan_algorithms(p.plan);
	for (int i = 0; i < algorithms; i++) {
		seconds = best_seconds(&p, i, x, w, y, workspace);
		if (seconds > 0 && (best == 0 || seconds < best))
			best = seconds;
	}
	(void)snprintf(note, note_bytes, "cublasLt %zu, best of %d algorithms%s",
		       cublaslt_version(p.lt), algorithms, best > 0 ? "" : ": none runs");
	peer_finish(&p);
	return best > 0 ? 2.0 * side * (double)side * side / best : 0;
}
