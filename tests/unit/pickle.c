/* The restricted pickle machine: each opcode, each limit, and what must be refused by name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>

#include "engine/checkpoint/pickle.h"

#define P "\x80\x02"
#define V2 "ctorch._utils\n_rebuild_tensor_v2\n"
#define V3 "ctorch._utils\n_rebuild_tensor_v3\n"
#define HOOKS "ccollections\nOrderedDict\n)R"
/* ('storage', FloatStorage, '0', 'cpu', 6) */
#define STORAGE                                            \
	"(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0" \
	"0X\3\0\0\0cpuK\6tQ"
#define BYTES_STORAGE                                                \
	"(X\7\0\0\0storagectorch.storage\nUntypedStorage\nX\1\0\0\0" \
	"1X\3\0\0\0cpuK\6tQ"
#define TENSOR V2 "(" STORAGE "K\0K\2K\3\x86K\3K\1\x86\x89" HOOKS "tR"

static struct pickle *parse(const char *text, size_t bytes, struct sana_error *error)
{
	/* Exactly as long as it is, so that the sanitizers see a read behind it. */
	void *copy = malloc(bytes ? bytes : 1);
	struct pickle *pickle = NULL;
	int r;

	assert_non_null(copy);
	memcpy(copy, text, bytes);
	r = pickle_parse(copy, bytes, "made.pth", &pickle, error);
	free(copy);
	assert_int_equal(r < 0, pickle == NULL);
	return pickle;
}

/* A literal without the NUL at its end. */
#define PARSE(text, error) parse(text, sizeof(text) - 1, error)

static void refuse(const char *text, size_t bytes, const char *words)
{
	struct sana_error error = { 0 };
	struct pickle *pickle = parse(text, bytes, &error);

	if (pickle)
		fail_msg("accepted, although: %s", words);
	assert_string_equal(error.name, "checkpoint.pickle");
	if (!strstr(error.text, words))
		fail_msg("\"%s\" does not say \"%s\"", error.text, words);
}

#define REFUSE(text, words) refuse(text, sizeof(text) - 1, words)

static void values_are_read(void **state)
{
	struct sana_error error = { 0 };
	struct pickle *pickle =
		PARSE(P "}q\0(X\1\0\0\0aK\xffX\1\0\0\0bM\xff\xffX\1\0\0\0cJ\xff\xff\xff\xff"
			"X\1\0\0\0d\x8a\5\0\0\0\0\1X\1\0\0\0e\x8a\0X\1\0\0\0fG\x3f\xf8\0\0\0\0\0\0"
			"X\1\0\0\0gNX\1\0\0\0h\x88X\1\0\0\0i\x89uX\1\0\0\0j)sK\7]K\1as.",
		      &error);
	const struct pickle_value *top;

	(void)state;
	if (!pickle)
		fail_msg("%s", error.text);
	top = pickle_top(pickle);
	assert_int_equal(top->kind, PICKLE_DICT);
	assert_int_equal(top->dict.count, 11);
	assert_int_equal(pickle_get(top, "a")->integer, 255);
	assert_int_equal(pickle_get(top, "b")->integer, 65535);
	assert_int_equal(pickle_get(top, "c")->integer, -1);
	assert_int_equal(pickle_get(top, "d")->integer, INT64_C(1) << 32);
	assert_int_equal(pickle_get(top, "e")->integer, 0);
	assert_true(pickle_get(top, "f")->real == 1.5);
	assert_int_equal(pickle_get(top, "g")->kind, PICKLE_NONE);
	assert_true(pickle_get(top, "h")->truth);
	assert_false(pickle_get(top, "i")->truth);
	assert_int_equal(pickle_get(top, "j")->kind, PICKLE_TUPLE);
	assert_null(pickle_get(top, "k"));
	pickle_close(pickle);
}

static void negative_longs_are_read(void **state)
{
	struct pickle *pickle =
		PARSE(P "(\x8a\1\x80\x8a\2\xff\x7f\x8a\x8\0\0\0\0\0\0\0\x80t.", NULL);
	const struct pickle_value *top;

	(void)state;
	assert_non_null(pickle);
	top = pickle_top(pickle);
	assert_int_equal(top->list.count, 3);
	assert_int_equal(top->list.item[0]->integer, -128);
	assert_int_equal(top->list.item[1]->integer, 32767);
	assert_true(top->list.item[2]->integer == INT64_MIN);
	pickle_close(pickle);
}

static void tensors_are_made(void **state)
{
	struct sana_error error = { 0 };
	struct pickle *pickle =
		PARSE(P "}X\1\0\0\0w" TENSOR "s}X\x9\0\0\0_metadata" HOOKS "sb.", &error);
	const struct pickle_tensor *tensor;

	(void)state;
	if (!pickle)
		fail_msg("%s", error.text);
	tensor = pickle_get(pickle_top(pickle), "w")->tensor;
	assert_int_equal(tensor->dtype, SAFETENSORS_F32);
	assert_int_equal(tensor->rank, 2);
	assert_int_equal(tensor->shape[1], 3);
	assert_int_equal(tensor->stride[0], 3);
	assert_int_equal(tensor->count, 6);
	assert_int_equal(tensor->span, 6);
	assert_string_equal(tensor->storage->key, "0");
	assert_int_equal(tensor->storage->numel, 6);
	pickle_close(pickle);

	/* a byte storage of 6, seen as 3 × uint16 */
	pickle = PARSE(P V3 "(" BYTES_STORAGE "K\0K\3\x85K\1\x85\x89" HOOKS "ctorch\nuint16\ntR.",
		       &error);
	if (!pickle)
		fail_msg("%s", error.text);
	assert_int_equal(pickle_top(pickle)->tensor->dtype, SAFETENSORS_U16);
	pickle_close(pickle);
	/* with metadata as a seventh part */
	pickle = PARSE(P V2 "(" STORAGE "K\5))\x89" HOOKS "}tR.", &error);
	if (!pickle)
		fail_msg("%s", error.text);
	assert_int_equal(pickle_top(pickle)->tensor->count, 1);
	pickle_close(pickle);
}

static void code_is_refused_by_name(void **state)
{
	(void)state;
	REFUSE(P "cposix\nsystem\nX\4\0\0\0true\x85R.", "posix.system");
	REFUSE(P "cbuiltins\neval\n.", "builtins.eval");
	REFUSE(P "ctorch._utils\n_rebuild_tensor\n.", "torch._utils._rebuild_tensor,");
	REFUSE(P "cnumpy.core.multiarray\n_reconstruct\n.", "numpy.core.multiarray._reconstruct");
	REFUSE(P "c_codecs\nencode\n.", "byte 2 of the pickle");
	REFUSE(P "X\5\0\0\0posixX\6\0\0\0system\x93.", "STACK_GLOBAL");
	REFUSE(P "(iposix\nsystem\n.", "INST");
	REFUSE(P "(K\1o.", "OBJ");
	REFUSE(P ")\x81.", "NEWOBJ");
	REFUSE(P "Pid\n.", "PERSID");
	REFUSE(P "\x82\1.", "EXT1");
	REFUSE(P "\x96.", "BYTEARRAY8");
	REFUSE(P "S'a'\n.", "STRING");
	REFUSE(P "\xff.", "0xff is no opcode");
	REFUSE(P "\0.", "0x00 is no opcode");
}

static void wrong_programs_are_refused(void **state)
{
	(void)state;
	REFUSE("", "without STOP");
	REFUSE("}.", "PROTO");
	REFUSE("\x80\3}.", "protocol 3");
	REFUSE(P P "}.", "PROTO is not at the beginning");
	REFUSE(P, "without STOP");
	REFUSE(P ".", "STOP");
	REFUSE(P "NN.", "STOP");
	REFUSE(P "(N.", "STOP");
	REFUSE(P "N.N", "1 bytes follow");
	REFUSE(P "K", "middle of an opcode");
	REFUSE(P "X\xff\xff\xff\xff", "a string of 4294967295 bytes");
	REFUSE(P "X\5\0\0\0abc.", "middle of an opcode");
	REFUSE(P "X\1\0\0\0\xff.", "UTF-8");
	REFUSE(P "X\2\0\0\0a\0.", "UTF-8");
	REFUSE(P "\x8a\x9\0\0\0\0\0\0\0\0\0.", "integer of 9 bytes");
	REFUSE(P "ctorch\nFloatStorage", "middle of an opcode");
	REFUSE(P "cto\x01rch\nFloatStorage\n.", "plain text");
	REFUSE(P "q\0N.", "fewer values");
	REFUSE(P "h\0.", "memo number 0 is read before");
	REFUSE(P "Nr\0\0\x10\0.", "memo number 1048576");
	REFUSE(P "t.", "no mark");
	REFUSE(P "K\1(\x85.", "fewer values");
	REFUSE(P "NK\1Ns.", "not a dictionary");
	REFUSE(P "}(K\1u.", "no value");
	REFUSE(P "}(]Nu.", "a list is used as a key");
	REFUSE(P "}NNs.", "None is used as a key");
	REFUSE(P "}Na.", "not a list");
	REFUSE(P "}(K\1NK\1Nu.", "\"1\" is there twice");
	REFUSE(P "}(X\1\0\0\0aNX\1\0\0\0aNu.", "\"a\" is there twice");
	REFUSE(P "}}b.", "BUILD");
	REFUSE(P "]}X\x9\0\0\0_metadataNsb.", "BUILD");
	REFUSE(P "}}X\x9\0\0\0_metadataNsX\1\0\0\0aNsb.", "BUILD");
	REFUSE(P "NQ.", "persistent id");
	REFUSE(P "NNR.", "REDUCE of None with None");
	REFUSE(P "ctorch\nFloatStorage\n)R.", "FloatStorage is called");
	REFUSE(P "ctorch\nuint16\n)R.", "uint16 is called");
	REFUSE(P "ccollections\nOrderedDict\nN\x85R.", "OrderedDict with arguments");
}

/* A dictionary or list put into itself, or changed once something holds it. */
static void cycles_are_refused(void **state)
{
	(void)state;
	REFUSE(P "}q\0K\1h\0s.", "in use already");
	REFUSE(P "]q\0h\0a.", "in use already");
	REFUSE(P "]q\0\x85q\1K\0h\0K\1a0.", "in use already");
	REFUSE(P "]q\0(h\0\x85"
		 "e.",
	       "in use already");
}

static void wrong_storages_are_refused(void **state)
{
	(void)state;
	REFUSE(P "(X\7\0\0\0storaggctorch\nFloatStorage\nX\1\0\0\0"
		 "0X\3\0\0\0cpuK\6tQ.",
	       "not a storage's");
	REFUSE(P "(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0"
		 "0X\3\0\0\0cpuK\6NtQ.",
	       "not a storage's");
	REFUSE(P "(X\7\0\0\0storageNX\1\0\0\0"
		 "0X\3\0\0\0cpuK\6tQ.",
	       "type of storage");
	REFUSE(P "(X\7\0\0\0storagectorch\nuint16\nX\1\0\0\0"
		 "0X\3\0\0\0cpuK\6tQ.",
	       "type of storage");
	REFUSE(P "(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0aX\3\0\0\0cpuK\6tQ.",
	       "not a number");
	REFUSE(P "(X\7\0\0\0storagectorch\nFloatStorage\nX\4\0\0\0../1X\3\0\0\0cpuK\6tQ.",
	       "not a number");
	REFUSE(P "(X\7\0\0\0storagectorch\nFloatStorage\nX\0\0\0\0X\3\0\0\0cpuK\6tQ.",
	       "not a number");
	REFUSE(P "(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0"
		 "0X\3\0\0\0cpuJ\xff\xff\xff\xfftQ.",
	       "size is not");
	REFUSE(P "(" STORAGE "(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0"
		 "0X\3\0\0\0cpuK\7tQt.",
	       "two types or two sizes");
	REFUSE(P "(" STORAGE "(X\7\0\0\0storagectorch\nIntStorage\nX\1\0\0\0"
		 "0X\3\0\0\0cpuK\6tQt.",
	       "two types or two sizes");
}

#define WRONG(dimensions, words) REFUSE(P V2 "(" STORAGE dimensions "\x89" HOOKS "tR.", words)

static void wrong_tensors_are_refused(void **state)
{
	(void)state;
	WRONG("K\0K\7\x85K\1\x85", "element 6 of storage 0, which has 6");
	WRONG("K\1K\6\x85K\1\x85", "beyond its storage");
	WRONG("K\0K\2K\3\x86K\4K\1\x86", "element 6");
	WRONG("K\6))", "beyond its storage");
	WRONG("K\7K\0\x85K\1\x85", "beyond its storage");
	WRONG("K\0K\2K\3\x86K\1\x85", "two tuples");
	WRONG("K\0]]", "two tuples");
	WRONG("K\0(K\1K\1K\1K\1K\1K\1K\1K\1K\1tq\0h\0", "two tuples");
	WRONG("K\0J\xff\xff\xff\xff\x85K\1\x85", "impossible size");
	WRONG("K\0\x8a\5\0\0\0\x80\0\x85K\1\x85", "impossible size"); /* 2^31 */
	WRONG("K\0K\2\x85J\xff\xff\xff\xff\x85", "impossible size");
	WRONG("J\xff\xff\xff\xffK\2\x85K\1\x85", "impossible offset");
	/* (2^31 − 1)³ elements; 4 · 2^62 bytes; strides that wrap around 2^64 */
	WRONG("K\0J\xff\xff\xff\x7fJ\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x87K\0K\0K\0\x87",
	      "overflows");
	WRONG("K\0J\0\0\0\x40J\0\0\0\x40K\4\x87K\0K\0K\0\x87", "overflows");
	WRONG("K\0K\5K\5\x86\x8a\x8\xff\xff\xff\xff\xff\xff\xff\x7f\x8a\x8\xff\xff\xff\xff\xff\xff"
	      "\xff\x7f\x86",
	      "overflow");
	WRONG("\x8a\x8\xff\xff\xff\xff\xff\xff\xff\x7fK\2\x85K\1\x85", "beyond its storage");
	REFUSE(P V2 "(" STORAGE "K\0))\x89tR.", "5 parts");
	REFUSE(P V2 "(" STORAGE "K\0))\x89" HOOKS "NNtR.", "8 parts");
	REFUSE(P V2 "(" STORAGE "K\0))K\0" HOOKS "tR.", "gradient flag");
	REFUSE(P V2 "(" STORAGE "K\0))\x89}K\1NstR.", "hooks");
	REFUSE(P V2 "(NK\0))\x89" HOOKS "tR.", "without a storage");
	REFUSE(P V2 "(" BYTES_STORAGE "K\0))\x89" HOOKS "tR.", "without a storage");
	REFUSE(P V3 "(" STORAGE "K\0))\x89" HOOKS "ctorch\nuint16\ntR.", "without a storage");
	REFUSE(P V3 "(" BYTES_STORAGE "K\0))\x89" HOOKS "NtR.", "without a storage");
	REFUSE(P V3 "(" BYTES_STORAGE "K\0K\4\x85K\1\x85\x89" HOOKS "ctorch\nuint16\ntR.",
	       "beyond its storage");
	REFUSE(P "ctorch._utils\n_rebuild_parameter\nN\x88}\x87R.", "a parameter");
	REFUSE(P "ctorch._utils\n_rebuild_parameter\n" TENSOR "\x88}K\1Ns\x87R.", "a parameter");
}

static void limits_hold(void **state)
{
	const size_t large = PICKLE_MAX_BYTES + 1;
	size_t at = 2;
	char *text = malloc(large);

	(void)state;
	assert_non_null(text);
	memset(text, ')', large);
	memcpy(text, P, 2);
	refuse(text, large, "larger than 16 MiB");
	refuse(text, large - 1, "wait on the stack");
	/* marks */
	memset(text + 2, '(', 1000);
	refuse(text, 1000, "marks");
	/* nesting by tuples that need no mark: depth 64 passes, 65 does not */
	text[2] = 'N';
	memset(text + 3, '\x85', 100);
	text[3 + PICKLE_MAX_DEPTH] = '.';
	{
		struct pickle *pickle = parse(text, 4 + PICKLE_MAX_DEPTH, NULL);

		assert_non_null(pickle);
		assert_int_equal(pickle_top(pickle)->depth, PICKLE_MAX_DEPTH);
		pickle_close(pickle);
	}
	text[3 + PICKLE_MAX_DEPTH] = '\x85';
	refuse(text, 100, "nested more than 64 deep");
	/* values that are made and dropped: ")}" and one SETITEM after the other of new lists */
	memcpy(text + 2, "]", 1);
	at = 3;
	while (at + 2 <= PICKLE_MAX_BYTES) {
		memcpy(text + at, "Na", 2);
		at += 2;
	}
	refuse(text, at, "more values than a checkpoint needs");
	free(text);
}

/* Shared tuples that would be 2^64 values if they were copied. */
static void sharing_costs_nothing(void **state)
{
	char text[512] = P "N\x85q\0";
	size_t at = 6;
	struct pickle *pickle;

	(void)state;
	for (int i = 1; i < PICKLE_MAX_DEPTH; i++) {
		const char more[] = { 'h', (char)(i - 1), '\x86', 'q', (char)i };

		memcpy(text + at, more, sizeof(more));
		at += sizeof(more);
	}
	text[at++] = '.';
	pickle = parse(text, at, NULL);
	assert_non_null(pickle);
	assert_int_equal(pickle_top(pickle)->depth, PICKLE_MAX_DEPTH);
	pickle_close(pickle);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(values_are_read),
		cmocka_unit_test(negative_longs_are_read),
		cmocka_unit_test(tensors_are_made),
		cmocka_unit_test(code_is_refused_by_name),
		cmocka_unit_test(wrong_programs_are_refused),
		cmocka_unit_test(cycles_are_refused),
		cmocka_unit_test(wrong_storages_are_refused),
		cmocka_unit_test(wrong_tensors_are_refused),
		cmocka_unit_test(limits_hold),
		cmocka_unit_test(sharing_costs_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
