/*
 * Can a pass be captured once and launched again? A recording back end keeps the parameter blocks of
 * one chunk's ops and runs them in place of those of a later chunk of the same kind. The result has
 * to be that of the later chunk: whatever changes from chunk to chunk is in device memory.
 */
#include "tests/common/editor_rig.h"

enum { MAX_OPS = 4096, MAX_PARAMS = 512, CHUNKS = 8 };

enum mode { RUN, RECORD, REPLAY };

struct record {
	enum kernel_op op;
	struct kernel_rope rope; /* what a block's pointer to one led to */
	_Alignas(16) unsigned char params[MAX_PARAMS];
};

/* The table has no place for a context, so the recorder is one for the program. */
static struct {
	enum mode mode;
	int count, next;
	struct record record[MAX_OPS];
} recorder;

static void rope_keep(struct record *r)
{
	if (r->op == KERNEL_OP_gdn) {
		struct kernel_gdn *params = (void *)r->params;

		r->rope = *params->rope;
		params->rope = &r->rope;
	} else if (r->op == KERNEL_OP_qk_norm_rope) {
		struct kernel_qk_norm_rope *params = (void *)r->params;

		if (!params->rope)
			return;
		r->rope = *params->rope;
		params->rope = &r->rope;
	}
}

static int op_take(enum kernel_op op, struct kernel_device *device, const void *params,
		   struct kernel_queue *queue)
{
	struct record *r;

	if (recorder.mode == REPLAY) {
		assert_true(recorder.next < recorder.count);
		r = &recorder.record[recorder.next++];
		assert_int_equal(r->op, op);
		params = r->params;
	} else if (recorder.mode == RECORD) {
		assert_true(recorder.count < MAX_OPS);
		assert_true(kernel_op_params_bytes(op) <= MAX_PARAMS);
		r = &recorder.record[recorder.count++];
		r->op = op;
		memcpy(r->params, params, kernel_op_params_bytes(op));
		rope_keep(r);
	}
	return kernel_backend_cpu.run[op](device, params, queue);
}

#define X(name)                                                                  \
	static int take_##name(struct kernel_device *device, const void *params, \
			       struct kernel_queue *queue)                       \
	{                                                                        \
		return op_take(KERNEL_OP_##name, device, params, queue);         \
	}
KERNEL_OPS(X)
#undef X

static struct kernel_backend recording_backend(void)
{
	struct kernel_backend table = kernel_backend_cpu;

#define X(name) table.run[KERNEL_OP_##name] = take_##name;
	KERNEL_OPS(X)
#undef X
	return table;
}

/* Chunks 0 … end − 1; `record` is recorded, `replay` runs from the record. */
static void stream_run(const struct kernel_backend *table, int record, int replay, int end,
		       float *output)
{
	struct editor_rig *rig = calloc(1, sizeof(*rig));

	assert_non_null(rig);
	editor_rig_open(rig, 48, 5, 1 << 20);
	editor_rig_caption(rig, 0);
	rig->backend.table = table;
	recorder.count = recorder.next = 0;
	for (int i = 0; i < end; i++) {
		recorder.mode = i == record ? RECORD : i == replay ? REPLAY : RUN;
		editor_rig_run(rig, i, i + 1, output);
	}
	recorder.mode = RUN;
	rig->backend.table = &kernel_backend_cpu;
	editor_rig_close(rig);
	free(rig);
}

static bool same(const float *a, const float *b, int chunk)
{
	const size_t latent = RIG_TOKENS * RIG_CHANNELS;
	const size_t first = chunk ? (size_t)(5 + (chunk - 1) * RIG_CHUNK) * latent : 0;

	return memcmp(a + first, b + first, RIG_CHUNK * latent * sizeof(float)) == 0;
}

static void test_replay(void **state)
{
	const struct kernel_backend table = recording_backend();
	static float plain[64 * RIG_TOKENS * RIG_CHANNELS], replayed[ARRAY_SIZE(plain)];

	(void)state;
	stream_run(&kernel_backend_cpu, -1, -1, CHUNKS, plain);
	/* Both sets of carried state have a kind of their own; from chunk 2 on the window is full. */
	for (int record = 2; record <= 3; record++) {
		memset(replayed, 0xff, sizeof(replayed));
		stream_run(&table, record, record + 2, CHUNKS, replayed);
		assert_int_equal(recorder.next, recorder.count);
		for (int chunk = 0; chunk < CHUNKS; chunk++)
			assert_true(same(plain, replayed, chunk));
		print_message(
			"chunk %d replayed from the %d ops of chunk %d: equal to the last bit\n",
			record + 2, recorder.count, record);
	}
}

/* The other set's chunk is of another kind: its replay must not give the right values. */
static void test_other_kind(void **state)
{
	const struct kernel_backend table = recording_backend();
	static float plain[64 * RIG_TOKENS * RIG_CHANNELS], replayed[ARRAY_SIZE(plain)];

	(void)state;
	stream_run(&kernel_backend_cpu, -1, -1, 5, plain);
	stream_run(&table, 3, 4, 5, replayed);
	assert_false(same(plain, replayed, 4));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_replay),
		cmocka_unit_test(test_other_kind),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
