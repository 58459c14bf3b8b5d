/* Which op table, and running or planning its ops. */
#include "engine/backend.h"

#include "engine/profile.h"

#include <errno.h>

static const struct kernel_backend *const backends[] = { &kernel_backend_cuda, &kernel_backend_cpu,
							 NULL };

const struct kernel_backend *const *backend_list(void)
{
	return backends;
}

static void names_join(char *to, size_t bytes)
{
	size_t used = 0;

	to[0] = '\0';
	for (const struct kernel_backend *const *b = backends; *b && used < bytes; b++)
		used += (size_t)snprintf(to + used, bytes - used, "%s%s", used ? ", " : "",
					 (*b)->name);
}

static const char *open_error_name(int r)
{
	switch (r) {
	case -ENODEV:
		return "backend.no-device";
	case -EPROTO:
		return "backend.driver";
	case -ENOEXEC:
		return "backend.architecture";
	case -ENOTSUP:
		return "backend.unsupported";
	case -ENOMEM:
		return "memory";
	case -EFAULT:
		return "backend.kernel"; /* of before: the context is still in use somewhere */
	}
	return "backend.open";
}

const char *backend_fault_name(int r)
{
	switch (r) {
	case -EFAULT:
		return "backend.kernel";
	case -ENODEV:
		return "backend.lost";
	case -ENOMEM:
		return "memory";
	}
	return "backend.failed";
}

const char *backend_fault_text(int r)
{
	switch (r) {
	case -EFAULT:
		return "a kernel failed";
	case -ENODEV:
		return "the device was lost";
	case -ENOMEM:
		return "there is no memory left; another program may have taken it";
	case -ENOTSUP:
		return "the back end cannot do this";
	}
	return strerror(-r);
}

int backend_fail(struct sana_error *error, int r)
{
	return sana_error_set(error, r, backend_fault_name(r), "The back end failed: %s.",
			      backend_fault_text(r));
}

static int table_open(const struct kernel_backend *table,
		      const struct kernel_device_options *wanted, bool portable,
		      struct backend *ret, struct sana_error *error)
{
	struct kernel_device_options options = *wanted;
	struct backend opened = { .table = table };
	char text[256] = "";
	int r;

	options.portable = portable;
	r = table->open(&options, text, sizeof(text), &opened.device);
	if (r < 0)
		return sana_error_set(error, r, open_error_name(r),
				      "Back end \"%s\" does not start: %s.", table->name,
				      text[0] ? text : strerror(-r));
	*ret = opened;
	return 0;
}

static int first_open(const struct kernel_device_options *options, struct backend *ret,
		      struct sana_error *error)
{
	char note[BACKEND_NOTE_BYTES] = "";
	struct sana_error why = { 0 };
	int r = -ENOTSUP;

	for (const struct kernel_backend *const *b = backends; *b; b++) {
		r = table_open(*b, options, false, ret, &why);
		if (r >= 0) {
			memcpy(ret->note, note, sizeof(note));
			return r;
		}
		if (!note[0])
			(void)snprintf(note, sizeof(note), "%.300s", why.text);
	}
	if (error)
		*error = why;
	return r;
}

int backend_open(const char *name, const struct kernel_device_options *options, struct backend *ret,
		 struct sana_error *error)
{
	char text[256] = "";

	if (strcmp(name, "auto") == 0)
		return first_open(options, ret, error);
	if (strcmp(name, "cuda-portable") == 0)
		return table_open(&kernel_backend_cuda, options, true, ret, error);
	for (const struct kernel_backend *const *b = backends; *b; b++)
		if (strcmp((*b)->name, name) == 0)
			return table_open(*b, options, false, ret, error);
	names_join(text, sizeof(text));
	return sana_error_set(error, -ENOTSUP, "backend.unknown",
			      "There is no back end \"%.64s\"; this program has: %s.", name, text);
}

void backend_close(struct backend *backend)
{
	if (backend->device)
		backend->table->close(backend->device);
	*backend = (struct backend){ 0 };
}

static void op_fail(struct op_context *context, enum kernel_op op, int r)
{
	if (r >= 0 || context->status < 0)
		return;
	context->status = r;
	context->failed = op;
}

static void ledger_add(struct op_ledger *ledger, enum kernel_op op, struct kernel_cost cost)
{
	struct op_ledger_line *line = ledger->line;

	for (; line < ledger->line + ledger->lines; line++)
		if (line->op == op && line->cost.flops == cost.flops &&
		    line->cost.bytes == cost.bytes) {
			line->calls++;
			return;
		}
	if (ledger->lines == OP_LEDGER_LINES) {
		ledger->overflowed = true;
		return;
	}
	ledger->lines++;
	*line = (struct op_ledger_line){ .op = op, .cost = cost, .calls = 1 };
}

void op_run(struct op_context *context, enum kernel_op op, struct kernel_workspace *params)
{
	const struct backend *b = context->backend;
	kernel_workspace_function wanted = b->table->workspace[op];
	size_t bytes;
	int mark = -1;

	if (context->status < 0)
		return;
	if (context->tuning) {
		*params = context->workspace;
		op_fail(context, op, b->table->tune(b->device, op, params, context->queue));
		return;
	}
	if (context->planning) {
		op_fail(context, op, b->table->run[op] ? 0 : -ENOTSUP);
		bytes = wanted ? wanted(b->device, params) : 0;
		if (bytes == KERNEL_UNSUPPORTED)
			return op_fail(context, op, -ENOTSUP);
		context->workspace.bytes = MAX_OF(context->workspace.bytes, bytes);
		if (context->ledger)
			ledger_add(context->ledger, op,
				   kernel_op_cost(op, params, &context->ledger->storage));
		return;
	}
	*params = context->workspace;
	if (context->profile)
		mark = profile_op_begin(context);
	op_fail(context, op,
		b->table->run[op] ? b->table->run[op](b->device, params, context->queue) :
				    -ENOTSUP);
	if (context->profile)
		profile_op_end(context, mark, op, params);
	if (context->alive)
		context->alive(context->alive_context);
}

void op_copy(struct op_context *context, void *to, const void *from, size_t bytes)
{
	const struct backend *b = context->backend;

	if (context->status >= 0 && !context->planning)
		op_fail(context, KERNEL_OP_COUNT,
			b->table->copy(b->device, to, from, bytes, context->queue));
}

void op_upload(struct op_context *context, void *to, const void *host, size_t bytes)
{
	const struct backend *b = context->backend;

	if (context->status >= 0 && !context->planning)
		op_fail(context, KERNEL_OP_COUNT,
			b->table->upload(b->device, to, host, bytes, context->queue));
}

void op_download(struct op_context *context, void *host, const void *from, size_t bytes)
{
	const struct backend *b = context->backend;

	if (context->status >= 0 && !context->planning)
		op_fail(context, KERNEL_OP_COUNT,
			b->table->download(b->device, host, from, bytes, context->queue));
}

void op_zero(struct op_context *context, void *to, size_t bytes)
{
	const struct backend *b = context->backend;

	if (context->status >= 0 && !context->planning)
		op_fail(context, KERNEL_OP_COUNT,
			b->table->zero(b->device, to, bytes, context->queue));
}

void op_note(struct op_context *context, int r)
{
	op_fail(context, KERNEL_OP_COUNT, r);
}

int op_wait(struct op_context *context)
{
	const struct backend *b = context->backend;

	/* After a failure too: what was enqueued before it may still use the caller's memory. */
	if (!context->planning)
		op_fail(context, KERNEL_OP_COUNT, b->table->queue_wait(b->device, context->queue));
	return context->status;
}
