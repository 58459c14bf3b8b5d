/*
 * How the engine calls ops: one function that either runs them or, while planning, only records
 * how much workspace they need.
 */
#pragma once

#include "base/error.h"
#include "kernels/cost.h"
#include "kernels/kernels.h"

enum { BACKEND_NOTE_BYTES = 320 };

struct backend {
	const struct kernel_backend *table;
	struct kernel_device *device;
	char note[BACKEND_NOTE_BYTES]; /* why "auto" did not take a better one; "" */
};

/*
 * By name ("cpu", "cuda", or "cuda-portable": its kernels for every chip alone); "auto": the first
 * of the list that opens, and `note` says why not an earlier one. An unknown name lists those there
 * are. `portable` of the options is the name's alone. Errors: "backend.unknown",
 * "backend.no-device" (no driver, no GPU), "backend.driver" (too old), "backend.architecture" (no
 * code for this GPU), "backend.unsupported" (not built in), "memory", "backend.kernel" (one failed
 * here and not all that used the GPU is closed yet), "backend.open".
 */
int backend_open(const char *name, const struct kernel_device_options *options, struct backend *ret,
		 struct sana_error *error);

/* The error name for what a running back end answered: "backend.kernel", "backend.lost", …. */
const char *backend_fault_name(int r);

/* The same for people: "a kernel failed", …; else the C library's words. */
const char *backend_fault_text(int r);

/* Sets the error of that name and returns r. */
int backend_fail(struct sana_error *error, int r);

void backend_close(struct backend *backend);

/* NULL-terminated list of the back ends compiled in, best first. */
const struct kernel_backend *const *backend_list(void);

/* The distinct calls of a stage: same op, same cost. Too many of them: the rest is left out. */
enum { OP_LEDGER_LINES = 160 };

struct op_ledger_line {
	enum kernel_op op;
	struct kernel_cost cost; /* of one call */
	int calls;
};

struct op_ledger {
	struct kernel_storage storage;
	int lines;
	bool overflowed;
	struct op_ledger_line line[OP_LEDGER_LINES];
};

/*
 * One stage's view of a back end: a queue and a workspace, or planning mode in which `run` executes
 * nothing and raises workspace.bytes to the most any op wanted. The first failure sticks in
 * `status`, later calls but op_wait do nothing; check it once at the end of a pass. An op that the
 * back end does not have fails while planning already.
 */
struct op_profile;

struct op_context {
	const struct backend *backend;
	struct op_profile *profile; /* engine/profile.h: times every op that runs; NULL: do not */
	/* Planning: notes down what each op of a running stream costs; NULL: do not. */
	struct op_ledger *ledger;
	struct kernel_queue *queue;
	struct kernel_workspace workspace;
	bool planning;
	bool tuning; /* with planning: ops are measured instead (kernel_backend.tune) */
	void (*alive)(void *context); /* called after each op that ran; NULL: nobody asks */
	void *alive_context;
	int status;
	enum kernel_op failed; /* the op that set status */
};

void op_run(struct op_context *context, enum kernel_op op, struct kernel_workspace *params);

/* op(context, linear, &parameters): typed by name, so that a block cannot go to another op. */
#define OP(context, name, ...)                                               \
	do {                                                                 \
		struct kernel_##name params_##name = __VA_ARGS__;            \
		op_run(context, KERNEL_OP_##name, &params_##name.workspace); \
	} while (0)

/* Copies between device buffers on the context's queue; nothing while planning. */
void op_copy(struct op_context *context, void *to, const void *from, size_t bytes);
void op_upload(struct op_context *context, void *to, const void *host, size_t bytes);
void op_download(struct op_context *context, void *host, const void *from, size_t bytes);
void op_zero(struct op_context *context, void *to, size_t bytes);

/* A call of the table by hand: its failure sticks like an op's. Nothing for r ≥ 0. */
void op_note(struct op_context *context, int r);

/* Until all that was enqueued is done, whatever failed before. Returns the status. */
int op_wait(struct op_context *context);

static inline size_t activation_bytes(const struct backend *backend)
{
	return kernel_dtype_bytes(backend->table->activation);
}
