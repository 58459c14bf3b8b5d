/* cublasLt and a few functions of libcuda, opened at run time and declared by hand. */
#include "tools/bench/peer.h"

#include "base/util.h"

#include <dlfcn.h>

typedef void *handle;

/* Values of cublasLt.h and library_types.h; they are part of its binary interface. */
enum {
	COMPUTE_32F = 68,
	TYPE_32F = 0,
	TYPE_16BF = 14,
	DESC_TRANSA = 3,
	PREFERENCE_WORKSPACE = 1,
	OPERATION_T = 1,
	CANDIDATES = 16,
	RUNS = 5,
};

struct algorithm {
	uint64_t data[8];
};

struct candidate {
	struct algorithm algorithm;
	size_t workspace_bytes;
	int state;
	float waves;
	int reserved[4];
};

#define LT_FUNCTIONS(X)                                                                            \
	X(cublasLtCreate, int, (handle *))                                                         \
	X(cublasLtDestroy, int, (handle))                                                          \
	X(cublasLtGetVersion, size_t, (void))                                                      \
	X(cublasLtMatmulDescCreate, int, (handle *, int, int))                                     \
	X(cublasLtMatmulDescDestroy, int, (handle))                                                \
	X(cublasLtMatmulDescSetAttribute, int, (handle, int, const void *, size_t))                \
	X(cublasLtMatrixLayoutCreate, int, (handle *, int, uint64_t, uint64_t, int64_t))           \
	X(cublasLtMatrixLayoutDestroy, int, (handle))                                              \
	X(cublasLtMatmulPreferenceCreate, int, (handle *))                                         \
	X(cublasLtMatmulPreferenceDestroy, int, (handle))                                          \
	X(cublasLtMatmulPreferenceSetAttribute, int, (handle, int, const void *, size_t))          \
	X(cublasLtMatmulAlgoGetHeuristic, int,                                                     \
	  (handle, handle, handle, handle, handle, handle, handle, int, struct candidate *,        \
	   int *))                                                                                 \
	X(cublasLtMatmul, int,                                                                     \
	  (handle, handle, const void *, const void *, handle, const void *, handle, const void *, \
	   const void *, handle, void *, handle, const struct algorithm *, void *, size_t,         \
	   handle))

#define DRIVER_FUNCTIONS(X)                                   \
	X(cuEventCreate, int, (handle *, unsigned int))       \
	X(cuEventRecord, int, (handle, handle))               \
	X(cuEventSynchronize, int, (handle))                  \
	X(cuEventElapsedTime, int, (float *, handle, handle)) \
	X(cuEventDestroy_v2, int, (handle))

struct peer {
	void *library, *driver;
	handle lt, description, layout, preference, event[2];
	struct candidate candidate[CANDIDATES];
	int side, candidates;
#define X(name, type, arguments) type(*name) arguments;
	LT_FUNCTIONS(X) DRIVER_FUNCTIONS(X)
#undef X
};

static bool functions_find(struct peer *p)
{
	static const char *const names[] = { "libcublasLt.so.13",
					     "/usr/local/cuda/lib64/libcublasLt.so.13",
					     "libcublasLt.so.12",
					     "/usr/local/cuda/lib64/libcublasLt.so.12" };
	void *symbol;

	for (size_t i = 0; i < ARRAY_SIZE(names) && !p->library; i++)
		p->library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
	p->driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
	if (!p->library || !p->driver)
		return false;
#define X(name, type, arguments)           \
	symbol = dlsym(p->library, #name); \
	if (!symbol)                       \
		return false;              \
	memcpy(&p->name, &symbol, sizeof(symbol));
	LT_FUNCTIONS(X)
#undef X
#define X(name, type, arguments)          \
	symbol = dlsym(p->driver, #name); \
	if (!symbol)                      \
		return false;             \
	memcpy(&p->name, &symbol, sizeof(symbol));
	DRIVER_FUNCTIONS(X)
#undef X
	return true;
}

/* Row-major X·Wᵀ is column-major (W of side columns)ᵀ·X: one layout serves all three. */
static bool plan_make(struct peer *p, uint64_t workspace_bytes)
{
	const int transposed = OPERATION_T;
	const uint64_t side = (uint64_t)p->side;

	return p->cublasLtCreate(&p->lt) == 0 &&
	       p->cublasLtMatmulDescCreate(&p->description, COMPUTE_32F, TYPE_32F) == 0 &&
	       p->cublasLtMatmulDescSetAttribute(p->description, DESC_TRANSA, &transposed,
						 sizeof(transposed)) == 0 &&
	       p->cublasLtMatrixLayoutCreate(&p->layout, TYPE_16BF, side, side, p->side) == 0 &&
	       p->cublasLtMatmulPreferenceCreate(&p->preference) == 0 &&
	       p->cublasLtMatmulPreferenceSetAttribute(p->preference, PREFERENCE_WORKSPACE,
						       &workspace_bytes,
						       sizeof(workspace_bytes)) == 0 &&
	       p->cublasLtMatmulAlgoGetHeuristic(p->lt, p->description, p->layout, p->layout,
						 p->layout, p->layout, p->preference, CANDIDATES,
						 p->candidate, &p->candidates) == 0 &&
	       p->candidates > 0 && p->cuEventCreate(&p->event[0], 0) == 0 &&
	       p->cuEventCreate(&p->event[1], 0) == 0;
}

/* Best of some runs of one algorithm, seconds; 0 when it fails. */
static double best_seconds(struct peer *p, const struct candidate *c, const void *x, const void *w,
			   void *y, void *workspace)
{
	const float one = 1, zero = 0;
	float best = 0, ms;

	for (int i = -1; i < RUNS; i++) {
		if (p->cuEventRecord(p->event[0], NULL) != 0 ||
		    p->cublasLtMatmul(p->lt, p->description, &one, w, p->layout, x, p->layout,
				      &zero, y, p->layout, y, p->layout, &c->algorithm, workspace,
				      c->workspace_bytes, NULL) != 0 ||
		    p->cuEventRecord(p->event[1], NULL) != 0 ||
		    p->cuEventSynchronize(p->event[1]) != 0 ||
		    p->cuEventElapsedTime(&ms, p->event[0], p->event[1]) != 0)
			return 0;
		if (i >= 0 && (best == 0 || ms < best))
			best = ms;
	}
	return 1e-3 * (double)best;
}

/* The libraries stay mapped: libcuda, and what uses it, do not like to be loaded twice. */
static void peer_finish(struct peer *p)
{
	if (p->preference)
		(void)p->cublasLtMatmulPreferenceDestroy(p->preference);
	if (p->layout)
		(void)p->cublasLtMatrixLayoutDestroy(p->layout);
	if (p->description)
		(void)p->cublasLtMatmulDescDestroy(p->description);
	if (p->lt)
		(void)p->cublasLtDestroy(p->lt);
	for (int i = 0; i < 2; i++)
		if (p->event[i])
			(void)p->cuEventDestroy_v2(p->event[i]);
}

double peer_gemm_flops(int side, const void *x, const void *w, void *y, void *workspace,
		       size_t workspace_bytes, char *note, size_t note_bytes)
{
	struct peer p = { .side = side };
	double best = 0, seconds;

	if (!functions_find(&p)) {
		(void)snprintf(note, note_bytes, "no libcublasLt.so.13 or .12 here");
		return 0;
	}
	if (plan_make(&p, workspace_bytes))
		for (int i = 0; i < p.candidates; i++) {
			seconds = best_seconds(&p, &p.candidate[i], x, w, y, workspace);
			if (seconds > 0 && (best == 0 || seconds < best))
				best = seconds;
		}
	(void)snprintf(note, note_bytes, "cublasLt %zu, best of %d algorithms%s",
		       p.cublasLtGetVersion(), p.candidates, best > 0 ? "" : ": none runs");
	peer_finish(&p);
	return best > 0 ? 2.0 * side * (double)side * side / best : 0;
}
