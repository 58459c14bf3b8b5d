/* Which op table, and running or planning its ops. */
#include "engine/backend.h"

#include <errno.h>

static const struct kernel_backend *const backends[] = { &kernel_backend_cpu, &kernel_backend_cuda,
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

int backend_open(const char *name, int threads, struct backend *ret, struct sana_error *error)
{
	const struct kernel_device_options options = { .threads = threads };
	char text[256] = "";
	int r;

	for (const struct kernel_backend *const *b = backends; *b; b++) {
		struct backend opened = { .table = *b };

		if (strcmp((*b)->name, name) != 0)
			continue;
		r = (*b)->open(&options, text, sizeof(text), &opened.device);
		if (r < 0)
			return sana_error_set(error, r, "backend.open",
					      "Back end \"%s\" does not start: %s.", name,
					      text[0] ? text : strerror(-r));
		*ret = opened;
		return 0;
	}
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

	if (context->status < 0)
		return;
	if (context->planning) {
		op_fail(context, op, b->table->run[op] ? 0 : -ENOTSUP);
		bytes = wanted ? wanted(b->device, params) : 0;
		context->workspace.bytes = MAX_OF(context->workspace.bytes, bytes);
		if (context->ledger)
			ledger_add(context->ledger, op,
				   kernel_op_cost(op, params, &context->ledger->storage));
		return;
	}
	*params = context->workspace;
	op_fail(context, op,
		b->table->run[op] ? b->table->run[op](b->device, params, context->queue) :
				    -ENOTSUP);
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

int op_wait(struct op_context *context)
{
	const struct backend *b = context->backend;

	/* After a failure too: what was enqueued before it may still use the caller's memory. */
	if (!context->planning)
		op_fail(context, KERNEL_OP_COUNT, b->table->queue_wait(b->device, context->queue));
	return context->status;
}
