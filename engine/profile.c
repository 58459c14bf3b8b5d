/* Where the time of a stream's stages goes, op by op. */
#include "engine/profile.h"

#include <time.h>

static int64_t now_ns(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Mark i is begun in slot 2·i and ended in the next one. */
int profile_op_begin(struct op_context *context)
{
	struct op_profile *p = context->profile;
	const struct backend *b = context->backend;
	const int mark = p->ops;

	if (mark == PROFILE_OPS) {
		p->lost++;
		return -1;
	}
	p->ops++;
	p->line_of[mark] = -1;
	if (b->table->timer_mark)
		op_note(context, b->table->timer_mark(b->device, 2 * mark, context->queue));
	p->clock_ns[mark] = now_ns();
	return mark;
}

static int line_find(struct op_profile *p, enum kernel_op op, struct kernel_cost cost,
		     const char *kernels)
{
	struct op_profile_line *line = p->line;

	for (; line < p->line + p->lines; line++)
		if (line->stage == p->stage && line->op == op && line->cost.flops == cost.flops &&
		    line->cost.bytes == cost.bytes &&
		    strncmp(line->kernels, kernels, sizeof(line->kernels) - 1) == 0)
			return (int)(line - p->line);
	if (p->lines == PROFILE_LINES)
		return -1;
	*line = (struct op_profile_line){ .stage = p->stage, .op = op, .cost = cost };
	(void)snprintf(line->kernels, sizeof(line->kernels), "%s", kernels);
	return p->lines++;
}

void profile_op_end(struct op_context *context, int mark, enum kernel_op op,
		    const struct kernel_workspace *params)
{
	struct op_profile *p = context->profile;
	const struct backend *b = context->backend;
	const struct kernel_cost cost = kernel_op_cost(op, params, &p->storage);
	const char *kernels = b->table->kernels_used ? b->table->kernels_used(b->device, op) : "";

	if (mark < 0)
		return;
	p->clock_ns[mark] = now_ns() - p->clock_ns[mark];
	if (b->table->timer_mark)
		op_note(context, b->table->timer_mark(b->device, 2 * mark + 1, context->queue));
	p->line_of[mark] = line_find(p, op, cost, kernels);
	p->lost += p->line_of[mark] < 0;
}

void profile_stage_end(struct op_profile *p, const struct backend *b)
{
	for (int i = 0; i < p->ops; i++) {
		int64_t ns = p->clock_ns[i];

		if (p->line_of[i] < 0)
			continue;
		if (b->table->timer_read &&
		    b->table->timer_read(b->device, 2 * i, 2 * i + 1, &ns) < 0) {
			p->lost++;
			continue;
		}
		p->line[p->line_of[i]].calls++;
		p->line[p->line_of[i]].ns += ns;
	}
	p->ops = 0;
}
