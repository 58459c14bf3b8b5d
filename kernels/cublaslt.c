/* cublasLt by dlopen: its functions, a product described in its terms, its algorithms. */
#include "kernels/cublaslt.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef void *handle;

/* Values of cublasLt.h and library_types.h; they are part of the binary interface. */
enum {
	COMPUTE_32F = 68,
	TYPE_32F = 0,
	TYPE_16BF = 14,
	OPERATION_T = 1,
	EPILOGUE_BIAS = 4,
	DESCRIPTION_TRANSA = 3,
	DESCRIPTION_EPILOGUE = 7,
	DESCRIPTION_BIAS_POINTER = 8,
	DESCRIPTION_BIAS_TYPE = 26,
	PREFERENCE_WORKSPACE = 1,
	PREFERENCE_REDUCTION = 3,
	PREFERENCE_ALIGNMENT = 5, /* of A; then B, C, D */
	REDUCTION_COMPUTE_TYPE = 2,
	CONFIG_ID = 0,
	CONFIG_TILE = 1,
	CONFIG_SPLITS = 2,
	ALIGNMENT_BYTES = 16,
};

struct candidate {
	struct cublaslt_algorithm algorithm;
	size_t workspace_bytes;
	int state;
	float waves;
	int reserved[4];
};

#define FUNCTIONS(X)                                                                               \
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
	X(cublasLtMatmulAlgoConfigGetAttribute, int,                                               \
	  (const struct cublaslt_algorithm *, int, void *, size_t, size_t *))                      \
	X(cublasLtMatmulAlgoGetHeuristic, int,                                                     \
	  (handle, handle, handle, handle, handle, handle, handle, int, struct candidate *,        \
	   int *))                                                                                 \
	X(cublasLtMatmul, int,                                                                     \
	  (handle, handle, const void *, const void *, handle, const void *, handle, const void *, \
	   const void *, handle, void *, handle, const struct cublaslt_algorithm *, void *,        \
	   size_t, handle))

struct cublaslt {
	void *library;
	handle lt; /* made with the first plan: it wants a device */
#define X(name, type, arguments) type(*name) arguments;
	FUNCTIONS(X)
#undef X
};

struct cublaslt_plan {
	struct cublaslt *lt;
	handle description, x, w, y;
	bool has_bias;
	pthread_mutex_t lock; /* of the description, which holds the bias's address */
	int candidates;
	struct candidate candidate[CUBLASLT_ALGORITHMS];
};

static void *library_find(void)
{
	static const char *const directories[] = { "", "/usr/local/cuda/lib64/", "/opt/cuda/lib64/",
						   "/usr/lib/cuda/lib64/" };
	static const int versions[] = { 13, 12 };
	char path[96];
	void *library;

	for (size_t v = 0; v < sizeof(versions) / sizeof(versions[0]); v++)
		for (size_t d = 0; d < sizeof(directories) / sizeof(directories[0]); d++) {
			(void)snprintf(path, sizeof(path), "%slibcublasLt.so.%d", directories[d],
				       versions[v]);
			library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
			if (library)
				return library;
		}
	return NULL;
}

int cublaslt_open(struct cublaslt **ret)
{
	struct cublaslt *lt = calloc(1, sizeof(*lt));
	void *symbol;

	if (!lt)
		return -ENOMEM;
	lt->library = library_find();
	if (!lt->library) {
		cublaslt_close(lt);
		return -ENOENT;
	}
#define X(name, type, arguments)            \
	symbol = dlsym(lt->library, #name); \
	if (!symbol) {                      \
		cublaslt_close(lt);         \
		return -EPROTO;             \
	}                                   \
	memcpy(&lt->name, &symbol, sizeof(symbol));
	FUNCTIONS(X)
#undef X
	*ret = lt;
	return 0;
}

void cublaslt_close(struct cublaslt *lt)
{
	if (!lt)
		return;
	if (lt->lt)
		(void)lt->cublasLtDestroy(lt->lt);
	if (lt->library)
		(void)dlclose(lt->library);
	free(lt);
}

size_t cublaslt_version(const struct cublaslt *lt)
{
	return lt->cublasLtGetVersion();
}

/* Its matrices are column-major: y of `out` rows is (W of `in` rows)ᵀ·x. */
static bool describe(struct cublaslt_plan *plan, const struct cublaslt_product *p)
{
	struct cublaslt *lt = plan->lt;
	const int transposed = OPERATION_T, float_type = TYPE_32F;
	const uint32_t epilogue = EPILOGUE_BIAS;
	const uint64_t rows = (uint64_t)p->rows, in = (uint64_t)p->in, out = (uint64_t)p->out;
	bool done;

	done = lt->cublasLtMatmulDescCreate(&plan->description, COMPUTE_32F, TYPE_32F) == 0 &&
	       lt->cublasLtMatmulDescSetAttribute(plan->description, DESCRIPTION_TRANSA,
						  &transposed, sizeof(transposed)) == 0 &&
	       lt->cublasLtMatrixLayoutCreate(&plan->w, TYPE_16BF, in, out, p->in) == 0 &&
	       lt->cublasLtMatrixLayoutCreate(&plan->x, TYPE_16BF, in, rows, p->ldx) == 0 &&
	       lt->cublasLtMatrixLayoutCreate(&plan->y, TYPE_16BF, out, rows, p->ldy) == 0;
	if (!done || !p->bias)
		return done;
	return lt->cublasLtMatmulDescSetAttribute(plan->description, DESCRIPTION_EPILOGUE,
						  &epilogue, sizeof(epilogue)) == 0 &&
	       lt->cublasLtMatmulDescSetAttribute(plan->description, DESCRIPTION_BIAS_TYPE,
						  &float_type, sizeof(float_type)) == 0 &&
	       lt->cublasLtMatmulDescSetAttribute(plan->description, DESCRIPTION_BIAS_POINTER,
						  &p->bias, sizeof(p->bias)) == 0;
}

/* A sum split along K is added up in F32, by a step of its own: in a fixed order. */
static bool prefer(struct cublaslt *lt, handle preference, size_t workspace_bytes)
{
	const uint64_t most = workspace_bytes;
	const uint32_t reduction = REDUCTION_COMPUTE_TYPE, alignment = ALIGNMENT_BYTES;
	bool done = lt->cublasLtMatmulPreferenceSetAttribute(preference, PREFERENCE_WORKSPACE,
							     &most, sizeof(most)) == 0 &&
		    lt->cublasLtMatmulPreferenceSetAttribute(preference, PREFERENCE_REDUCTION,
							     &reduction, sizeof(reduction)) == 0;

	for (int i = 0; i < 4; i++)
		done = done &&
		       lt->cublasLtMatmulPreferenceSetAttribute(preference,
								PREFERENCE_ALIGNMENT + i,
								&alignment, sizeof(alignment)) == 0;
	return done;
}

static int candidates_ask(struct cublaslt_plan *plan, int most, size_t workspace_bytes)
{
	struct cublaslt *lt = plan->lt;
	handle preference = NULL;
	int offered = 0, r = -EIO;

	if (lt->cublasLtMatmulPreferenceCreate(&preference) == 0 &&
	    prefer(lt, preference, workspace_bytes))
		r = lt->cublasLtMatmulAlgoGetHeuristic(lt->lt, plan->description, plan->w, plan->x,
						       plan->y, plan->y, preference, most,
						       plan->candidate, &offered) == 0 ?
			    0 :
			    -ENOTSUP;
	if (preference)
		(void)lt->cublasLtMatmulPreferenceDestroy(preference);
	if (r < 0)
		return r;
	for (int i = 0; i < offered && i < most; i++)
		if (plan->candidate[i].state == 0 &&
		    plan->candidate[i].workspace_bytes <= workspace_bytes)
			plan->candidate[plan->candidates++] = plan->candidate[i];
	return plan->candidates ? 0 : -ENOTSUP;
}

int cublaslt_plan_create(struct cublaslt *lt, const struct cublaslt_product *product, int most,
			 size_t workspace_bytes, struct cublaslt_plan **ret)
{
	struct cublaslt_plan *plan = calloc(1, sizeof(*plan));
	int r = -EIO;

	if (!plan)
		return -ENOMEM;
	plan->lt = lt;
	plan->has_bias = product->bias;
	(void)pthread_mutex_init(&plan->lock, NULL);
	if ((lt->lt || lt->cublasLtCreate(&lt->lt) == 0) && describe(plan, product))
		r = candidates_ask(plan, most < CUBLASLT_ALGORITHMS ? most : CUBLASLT_ALGORITHMS,
				   workspace_bytes);
	if (r < 0) {
		cublaslt_plan_destroy(plan);
		return r;
	}
	*ret = plan;
	return 0;
}

void cublaslt_plan_destroy(struct cublaslt_plan *plan)
{
	if (!plan)
		return;
	if (plan->y)
		(void)plan->lt->cublasLtMatrixLayoutDestroy(plan->y);
	if (plan->x)
		(void)plan->lt->cublasLtMatrixLayoutDestroy(plan->x);
	if (plan->w)
		(void)plan->lt->cublasLtMatrixLayoutDestroy(plan->w);
	if (plan->description)
		(void)plan->lt->cublasLtMatmulDescDestroy(plan->description);
	(void)pthread_mutex_destroy(&plan->lock);
	free(plan);
}

int cublaslt_plan_algorithms(const struct cublaslt_plan *plan)
{
	return plan->candidates;
}

const struct cublaslt_algorithm *cublaslt_plan_algorithm(const struct cublaslt_plan *plan, int i)
{
	return &plan->candidate[i].algorithm;
}

static int config_get(const struct cublaslt_plan *plan, int i, int which)
{
	int value = -1;
	size_t written;

	(void)plan->lt->cublasLtMatmulAlgoConfigGetAttribute(&plan->candidate[i].algorithm, which,
							     &value, sizeof(value), &written);
	return value;
}

void cublaslt_plan_name(const struct cublaslt_plan *plan, int i, char ret[CUBLASLT_NAME_BYTES])
{
	(void)snprintf(ret, CUBLASLT_NAME_BYTES, "cublasLt algorithm %d tile %d splits %d",
		       config_get(plan, i, CONFIG_ID), config_get(plan, i, CONFIG_TILE),
		       config_get(plan, i, CONFIG_SPLITS));
}

int cublaslt_plan_run(struct cublaslt_plan *plan, int algorithm, const void *x, const void *w,
		      const float *bias, void *y, void *workspace, void *stream)
{
	const struct candidate *c = &plan->candidate[algorithm];
	const float one = 1, zero = 0;
	int status = 0;

	if (plan->has_bias) {
		(void)pthread_mutex_lock(&plan->lock);
		status = plan->lt->cublasLtMatmulDescSetAttribute(
			plan->description, DESCRIPTION_BIAS_POINTER, &bias, sizeof(bias));
	}
	if (status == 0)
		status = plan->lt->cublasLtMatmul(plan->lt->lt, plan->description, &one, w, plan->w,
						  x, plan->x, &zero, y, plan->y, y, plan->y,
						  &c->algorithm, workspace, c->workspace_bytes,
						  stream);
	if (plan->has_bias)
		(void)pthread_mutex_unlock(&plan->lock);
	return status == 0 ? 0 : -EIO;
}
