/* The opcodes of the restricted pickle machine. */
#include "engine/checkpoint/pickle_machine.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>

#include "base/json.h"

#define ERROR_NAME "checkpoint.pickle"

enum { PROTOCOL = 2, MAX_LINE_BYTES = 200, QUOTED_BYTES = 80, FIRST_CAPACITY = 64 };

struct pickle {
	struct pool pool;
	const struct pickle_value *top;
};

static const char *const kind_names[PICKLE_KIND_COUNT] = {
	[PICKLE_NONE] = "None",		 [PICKLE_BOOL] = "a boolean",
	[PICKLE_INTEGER] = "an integer", [PICKLE_FLOAT] = "a float",
	[PICKLE_STRING] = "a string",	 [PICKLE_TUPLE] = "a tuple",
	[PICKLE_LIST] = "a list",	 [PICKLE_DICT] = "a dictionary",
	[PICKLE_SYMBOL] = "a symbol",	 [PICKLE_STORAGE] = "a storage",
	[PICKLE_TENSOR] = "a tensor",
};

const char *pickle_kind_name(enum pickle_kind kind)
{
	return kind_names[kind];
}

int pickle_refuse(struct pickle_machine *machine, const char *format, ...)
{
	char what[SANA_ERROR_TEXT_BYTES];
	va_list arguments;

	va_start(arguments, format);
	(void)vsnprintf(what, sizeof(what), format, arguments);
	va_end(arguments);
	return sana_error_set(machine->error, -EINVAL, ERROR_NAME,
			      "%.200s: byte %zu of the pickle: %s.", machine->where,
			      machine->opcode, what);
}

int pickle_no_memory(struct pickle_machine *machine)
{
	return sana_error_set(machine->error, -ENOMEM, ERROR_NAME,
			      "%.200s: byte %zu of the pickle: it makes more values than a "
			      "checkpoint needs.",
			      machine->where, machine->opcode);
}

/* ------------------------------------------------------------------------------------ values */

struct pickle_value *pickle_make(struct pickle_machine *machine, enum pickle_kind kind)
{
	struct pickle_value *value = pool_take(machine->pool, 1, sizeof(*value));

	if (!value)
		return NULL;
	value->kind = kind;
	if (kind == PICKLE_DICT) {
		value->dict.next = machine->dicts;
		machine->dicts = value;
	}
	return value;
}

static int push(struct pickle_machine *machine, struct pickle_value *value)
{
	if (!value)
		return pickle_no_memory(machine);
	if (machine->count == machine->capacity) {
		size_t capacity = MAX_OF(2 * machine->capacity, (size_t)FIRST_CAPACITY);
		struct pickle_value **stack;

		if (machine->count >= PICKLE_MAX_STACK)
			return pickle_refuse(machine, "more than %d values wait on the stack",
					     PICKLE_MAX_STACK);
		stack = realloc(machine->stack, capacity * sizeof(*stack));
		if (!stack)
			return pickle_no_memory(machine);
		machine->stack = stack;
		machine->capacity = capacity;
	}
	machine->stack[machine->count++] = value;
	return 0;
}

/* The lowest stack count that may be reached by taking values: a mark is not a value. */
static size_t fence(const struct pickle_machine *machine)
{
	return machine->marks ? machine->mark[machine->marks - 1] : 0;
}

static int need(struct pickle_machine *machine, size_t values)
{
	if (machine->count - fence(machine) < values)
		return pickle_refuse(machine, "the stack has fewer values than the opcode takes");
	return 0;
}

static struct pickle_value *pop(struct pickle_machine *machine)
{
	return machine->stack[--machine->count];
}

/* Takes the last mark away; *ret_first is the stack index of the first value above it. */
static int pop_mark(struct pickle_machine *machine, size_t *ret_first)
{
	if (machine->marks == 0)
		return pickle_refuse(machine, "there is no mark for the opcode to go back to");
	*ret_first = machine->mark[--machine->marks];
	return 0;
}

/* `child` becomes part of `parent`; from then on it does not change, so there are no cycles. */
static int hold(struct pickle_machine *machine, struct pickle_value *parent,
		struct pickle_value *child)
{
	child->sealed = true;
	if (parent->sealed)
		return pickle_refuse(machine, "something is put into %s that is in use already",
				     pickle_kind_name(parent->kind));
	parent->depth = MAX_OF(parent->depth, child->depth + 1);
	if (parent->depth > PICKLE_MAX_DEPTH)
		return pickle_refuse(machine, "values are nested more than %d deep",
				     PICKLE_MAX_DEPTH);
	return 0;
}

/* A copy with room for more; the old one stays in the pool, at most as large as the new one. */
static void *grown(struct pickle_machine *machine, const void *old, size_t count, size_t each,
		   size_t *capacity)
{
	size_t more = MAX_OF(2 * *capacity, (size_t)8);
	void *memory = pool_take(machine->pool, more, each);

	if (!memory)
		return NULL;
	if (count)
		memcpy(memory, old, count * each);
	*capacity = more;
	return memory;
}

static int tuple_push(struct pickle_machine *machine, size_t first)
{
	struct pickle_value *tuple = pickle_make(machine, PICKLE_TUPLE);
	size_t count = machine->count - first;
	int r;

	if (!tuple)
		return pickle_no_memory(machine);
	tuple->list.item = pool_take(machine->pool, count, sizeof(*tuple->list.item));
	if (!tuple->list.item)
		return pickle_no_memory(machine);
	for (size_t i = 0; i < count; i++) {
		r = hold(machine, tuple, machine->stack[first + i]);
		if (r < 0)
			return r;
		tuple->list.item[i] = machine->stack[first + i];
	}
	tuple->list.count = count;
	machine->count = first;
	return push(machine, tuple);
}

static int list_append(struct pickle_machine *machine, struct pickle_value *list,
		       struct pickle_value *value)
{
	int r = hold(machine, list, value);

	if (r < 0)
		return r;
	if (list->list.count == list->list.capacity) {
		list->list.item = grown(machine, list->list.item, list->list.count,
					sizeof(*list->list.item), &list->list.capacity);
		if (!list->list.item)
			return pickle_no_memory(machine);
	}
	list->list.item[list->list.count++] = value;
	return 0;
}

static int dict_put(struct pickle_machine *machine, struct pickle_value *dict,
		    struct pickle_value *key, struct pickle_value *value)
{
	int r;

	if (key->kind != PICKLE_STRING && key->kind != PICKLE_INTEGER)
		return pickle_refuse(machine, "%s is used as a key", pickle_kind_name(key->kind));
	r = hold(machine, dict, key);
	if (r >= 0)
		r = hold(machine, dict, value);
	if (r < 0)
		return r;
	if (dict->dict.count == dict->dict.capacity) {
		dict->dict.pair = grown(machine, dict->dict.pair, dict->dict.count,
					sizeof(*dict->dict.pair), &dict->dict.capacity);
		if (!dict->dict.pair)
			return pickle_no_memory(machine);
	}
	dict->dict.pair[dict->dict.count++] = (struct pickle_pair){ key, value };
	return 0;
}

/* ----------------------------------------------------------------------------------- operands */

static int take(struct pickle_machine *machine, size_t bytes, const uint8_t **ret)
{
	if ((size_t)(machine->end - machine->at) < bytes)
		return pickle_refuse(machine, "the pickle ends in the middle of an opcode");
	*ret = machine->at;
	machine->at += bytes;
	return 0;
}

/* An unsigned little endian number of 1, 2 or 4 bytes. */
static int take_number(struct pickle_machine *machine, size_t bytes, uint32_t *ret)
{
	const uint8_t *from = machine->at;
	int r = take(machine, bytes, &from);

	if (r < 0)
		return r;
	*ret = 0;
	for (size_t i = bytes; i-- > 0;)
		*ret = *ret << 8 | from[i];
	return 0;
}

/* Printable ASCII up to a newline, which is taken too. */
static int take_line(struct pickle_machine *machine, char to[MAX_LINE_BYTES])
{
	size_t length = 0;

	while (machine->at < machine->end && *machine->at != '\n') {
		if (*machine->at < 0x20 || *machine->at > 0x7e || length + 1 == MAX_LINE_BYTES)
			return pickle_refuse(machine, "a symbol's name is not short, plain text");
		to[length++] = (char)*machine->at++;
	}
	if (machine->at == machine->end)
		return pickle_refuse(machine, "the pickle ends in the middle of an opcode");
	machine->at++;
	to[length] = '\0';
	return 0;
}

/* ------------------------------------------------------------------------------------ opcodes */

static int run_proto(struct pickle_machine *machine)
{
	uint32_t version = 0;
	int r = take_number(machine, 1, &version);

	if (r < 0)
		return r;
	if (machine->started)
		return pickle_refuse(machine, "PROTO is not at the beginning");
	if (version != PROTOCOL)
		return pickle_refuse(machine,
				     "pickle protocol %u; checkpoints are written with protocol 2",
				     (unsigned int)version);
	machine->started = true;
	return 0;
}

static int run_empty_dict(struct pickle_machine *machine)
{
	return push(machine, pickle_make(machine, PICKLE_DICT));
}

static int run_empty_list(struct pickle_machine *machine)
{
	return push(machine, pickle_make(machine, PICKLE_LIST));
}

static int run_empty_tuple(struct pickle_machine *machine)
{
	return push(machine, pickle_make(machine, PICKLE_TUPLE));
}

static int run_mark(struct pickle_machine *machine)
{
	if (machine->marks == PICKLE_MAX_MARKS)
		return pickle_refuse(machine, "more than %d marks", PICKLE_MAX_MARKS);
	machine->mark[machine->marks++] = machine->count;
	return 0;
}

static int run_string(struct pickle_machine *machine)
{
	_cleanup_(json_decrefp) json_t *checked = NULL;
	struct pickle_value *value;
	const uint8_t *from = machine->at;
	uint32_t bytes = 0;
	char *text;
	int r;

	r = take_number(machine, 4, &bytes);
	if (r < 0)
		return r;
	if (bytes > PICKLE_MAX_STRING_BYTES)
		return pickle_refuse(machine, "a string of %u bytes", (unsigned int)bytes);
	r = take(machine, bytes, &from);
	if (r < 0)
		return r;
	/* The JSON library knows what UTF-8 is. */
	checked = json_stringn((const char *)from, bytes);
	if (!checked || memchr(from, '\0', bytes))
		return pickle_refuse(machine, "a string is not UTF-8 text");
	value = pickle_make(machine, PICKLE_STRING);
	text = pool_take(machine->pool, 1, (size_t)bytes + 1);
	if (!value || !text)
		return pickle_no_memory(machine);
	memcpy(text, from, bytes);
	value->string.text = text;
	value->string.bytes = bytes;
	return push(machine, value);
}

static int push_integer(struct pickle_machine *machine, int64_t number)
{
	struct pickle_value *value = pickle_make(machine, PICKLE_INTEGER);

	if (value)
		value->integer = number;
	return push(machine, value);
}

static int run_int1(struct pickle_machine *machine)
{
	uint32_t number = 0;
	int r = take_number(machine, 1, &number);

	return r < 0 ? r : push_integer(machine, number);
}

static int run_int2(struct pickle_machine *machine)
{
	uint32_t number = 0;
	int r = take_number(machine, 2, &number);

	return r < 0 ? r : push_integer(machine, number);
}

static int run_int4(struct pickle_machine *machine)
{
	uint32_t number = 0;
	int r = take_number(machine, 4, &number);

	return r < 0 ? r : push_integer(machine, (int32_t)number);
}

/* Two's complement of 0 to 8 bytes. */
static int run_long1(struct pickle_machine *machine)
{
	const uint8_t *from = machine->at;
	uint64_t number;
	uint32_t bytes = 0;
	int r;

	r = take_number(machine, 1, &bytes);
	if (r < 0)
		return r;
	if (bytes > 8)
		return pickle_refuse(machine, "an integer of %u bytes", (unsigned int)bytes);
	r = take(machine, bytes, &from);
	if (r < 0)
		return r;
	number = bytes && from[bytes - 1] & 0x80 ? UINT64_MAX : 0;
	for (size_t i = bytes; i-- > 0;)
		number = number << 8 | from[i];
	return push_integer(machine, (int64_t)number);
}

/* Big endian, unlike everything else. */
static int run_float(struct pickle_machine *machine)
{
	struct pickle_value *value;
	const uint8_t *from = machine->at;
	uint64_t bits = 0;
	int r;

	r = take(machine, 8, &from);
	if (r < 0)
		return r;
	for (int i = 0; i < 8; i++)
		bits = bits << 8 | from[i];
	value = pickle_make(machine, PICKLE_FLOAT);
	if (value)
		memcpy(&value->real, &bits, sizeof(bits));
	return push(machine, value);
}

static int run_none(struct pickle_machine *machine)
{
	return push(machine, pickle_make(machine, PICKLE_NONE));
}

static int push_bool(struct pickle_machine *machine, bool truth)
{
	struct pickle_value *value = pickle_make(machine, PICKLE_BOOL);

	if (value)
		value->truth = truth;
	return push(machine, value);
}

static int run_true(struct pickle_machine *machine)
{
	return push_bool(machine, true);
}

static int run_false(struct pickle_machine *machine)
{
	return push_bool(machine, false);
}

static int memo_put(struct pickle_machine *machine, size_t bytes)
{
	struct pickle_value **memo;
	uint32_t index = 0;
	size_t capacity;
	int r;

	r = take_number(machine, bytes, &index);
	if (r >= 0)
		r = need(machine, 1);
	if (r < 0)
		return r;
	if (index >= PICKLE_MAX_MEMO)
		return pickle_refuse(machine, "memo number %u", (unsigned int)index);
	if (index >= machine->memo_capacity) {
		capacity = MAX_OF(2 * machine->memo_capacity, (size_t)index + FIRST_CAPACITY);
		capacity = MIN_OF(capacity, (size_t)PICKLE_MAX_MEMO);
		memo = realloc(machine->memo, capacity * sizeof(*memo));
		if (!memo)
			return pickle_no_memory(machine);
		for (size_t i = machine->memo_capacity; i < capacity; i++)
			memo[i] = NULL;
		machine->memo = memo;
		machine->memo_capacity = capacity;
	}
	machine->memo[index] = machine->stack[machine->count - 1];
	return 0;
}

static int run_put1(struct pickle_machine *machine)
{
	return memo_put(machine, 1);
}

static int run_put4(struct pickle_machine *machine)
{
	return memo_put(machine, 4);
}

static int memo_get(struct pickle_machine *machine, size_t bytes)
{
	uint32_t index = 0;
	int r = take_number(machine, bytes, &index);

	if (r < 0)
		return r;
	if (index >= machine->memo_capacity || !machine->memo[index])
		return pickle_refuse(machine, "memo number %u is read before it is written",
				     (unsigned int)index);
	return push(machine, machine->memo[index]);
}

static int run_get1(struct pickle_machine *machine)
{
	return memo_get(machine, 1);
}

static int run_get4(struct pickle_machine *machine)
{
	return memo_get(machine, 4);
}

static int run_global(struct pickle_machine *machine)
{
	char module[MAX_LINE_BYTES], name[MAX_LINE_BYTES];
	struct pickle_value *value;
	int r;

	r = take_line(machine, module);
	if (r >= 0)
		r = take_line(machine, name);
	if (r < 0)
		return r;
	value = pickle_make(machine, PICKLE_SYMBOL);
	if (!value)
		return pickle_no_memory(machine);
	r = pickle_symbol_find(machine, module, name, &value->symbol);
	return r < 0 ? r : push(machine, value);
}

static int tuple_of(struct pickle_machine *machine, size_t count)
{
	int r = need(machine, count);

	return r < 0 ? r : tuple_push(machine, machine->count - count);
}

static int run_tuple1(struct pickle_machine *machine)
{
	return tuple_of(machine, 1);
}

static int run_tuple2(struct pickle_machine *machine)
{
	return tuple_of(machine, 2);
}

static int run_tuple3(struct pickle_machine *machine)
{
	return tuple_of(machine, 3);
}

static int run_tuple(struct pickle_machine *machine)
{
	size_t first = 0;
	int r = pop_mark(machine, &first);

	return r < 0 ? r : tuple_push(machine, first);
}

static int run_persid(struct pickle_machine *machine)
{
	struct pickle_value *storage = NULL;
	int r = need(machine, 1);

	if (r < 0)
		return r;
	r = pickle_storage_make(machine, pop(machine), &storage);
	return r < 0 ? r : push(machine, storage);
}

static int run_reduce(struct pickle_machine *machine)
{
	struct pickle_value *arguments, *callable, *result = NULL;
	int r = need(machine, 2);

	if (r < 0)
		return r;
	arguments = pop(machine);
	callable = pop(machine);
	r = pickle_reduce(machine, callable, arguments, &result);
	return r < 0 ? r : push(machine, result);
}

/* The container below `values` values, which must be of that kind. */
static int container(struct pickle_machine *machine, size_t first, enum pickle_kind kind,
		     struct pickle_value **ret)
{
	if (first <= fence(machine) || machine->stack[first - 1]->kind != kind)
		return pickle_refuse(machine, "there is not %s to put values into",
				     pickle_kind_name(kind));
	*ret = machine->stack[first - 1];
	return 0;
}

/* Stores the pairs from stack index `first` on in the dictionary below them. */
static int store_pairs(struct pickle_machine *machine, size_t first)
{
	struct pickle_value *dict = NULL;
	int r = container(machine, first, PICKLE_DICT, &dict);

	if (r < 0)
		return r;
	if ((machine->count - first) % 2)
		return pickle_refuse(machine, "a key has no value");
	for (size_t i = first; i < machine->count; i += 2) {
		r = dict_put(machine, dict, machine->stack[i], machine->stack[i + 1]);
		if (r < 0)
			return r;
	}
	machine->count = first;
	return 0;
}

static int run_setitem(struct pickle_machine *machine)
{
	int r = need(machine, 3);

	return r < 0 ? r : store_pairs(machine, machine->count - 2);
}

static int run_setitems(struct pickle_machine *machine)
{
	size_t first = 0;
	int r = pop_mark(machine, &first);

	return r < 0 ? r : store_pairs(machine, first);
}

static int store_items(struct pickle_machine *machine, size_t first)
{
	struct pickle_value *list = NULL;
	int r = container(machine, first, PICKLE_LIST, &list);

	for (size_t i = first; r >= 0 && i < machine->count; i++)
		r = list_append(machine, list, machine->stack[i]);
	if (r >= 0)
		machine->count = first;
	return r;
}

static int run_append(struct pickle_machine *machine)
{
	int r = need(machine, 2);

	return r < 0 ? r : store_items(machine, machine->count - 1);
}

static int run_appends(struct pickle_machine *machine)
{
	size_t first = 0;
	int r = pop_mark(machine, &first);

	return r < 0 ? r : store_items(machine, first);
}

/* State dicts carry their module versions as an attribute; nothing else has a state here. */
static int run_build(struct pickle_machine *machine)
{
	const struct pickle_value *state;
	int r = need(machine, 2);

	if (r < 0)
		return r;
	state = pop(machine);
	if (machine->stack[machine->count - 1]->kind != PICKLE_DICT || state->kind != PICKLE_DICT ||
	    state->dict.count != 1 || !pickle_get(state, "_metadata"))
		return pickle_refuse(machine, "BUILD of anything but a state dict's \"_metadata\"");
	return 0;
}

static int run_stop(struct pickle_machine *machine)
{
	if (machine->count != 1 || machine->marks)
		return pickle_refuse(machine, "STOP with more or less than one value");
	if (machine->at != machine->end)
		return pickle_refuse(machine, "%zu bytes follow STOP",
				     (size_t)(machine->end - machine->at));
	machine->stopped = true;
	return 0;
}

/* All opcodes have a name, so that a refused one can be named; few are run. */
static const struct {
	const char *name;
	int (*run)(struct pickle_machine *machine);
} opcodes[256] = {
	['('] = { "MARK", run_mark },
	[')'] = { "EMPTY_TUPLE", run_empty_tuple },
	['.'] = { "STOP", run_stop },
	['0'] = { "POP", NULL },
	['1'] = { "POP_MARK", NULL },
	['2'] = { "DUP", NULL },
	['B'] = { "BINBYTES", NULL },
	['C'] = { "SHORT_BINBYTES", NULL },
	['F'] = { "FLOAT", NULL },
	['G'] = { "BINFLOAT", run_float },
	['I'] = { "INT", NULL },
	['J'] = { "BININT", run_int4 },
	['K'] = { "BININT1", run_int1 },
	['L'] = { "LONG", NULL },
	['M'] = { "BININT2", run_int2 },
	['N'] = { "NONE", run_none },
	['P'] = { "PERSID", NULL },
	['Q'] = { "BINPERSID", run_persid },
	['R'] = { "REDUCE", run_reduce },
	['S'] = { "STRING", NULL },
	['T'] = { "BINSTRING", NULL },
	['U'] = { "SHORT_BINSTRING", NULL },
	['V'] = { "UNICODE", NULL },
	['X'] = { "BINUNICODE", run_string },
	[']'] = { "EMPTY_LIST", run_empty_list },
	['a'] = { "APPEND", run_append },
	['b'] = { "BUILD", run_build },
	['c'] = { "GLOBAL", run_global },
	['d'] = { "DICT", NULL },
	['e'] = { "APPENDS", run_appends },
	['g'] = { "GET", NULL },
	['h'] = { "BINGET", run_get1 },
	['i'] = { "INST", NULL },
	['j'] = { "LONG_BINGET", run_get4 },
	['l'] = { "LIST", NULL },
	['o'] = { "OBJ", NULL },
	['p'] = { "PUT", NULL },
	['q'] = { "BINPUT", run_put1 },
	['r'] = { "LONG_BINPUT", run_put4 },
	['s'] = { "SETITEM", run_setitem },
	['t'] = { "TUPLE", run_tuple },
	['u'] = { "SETITEMS", run_setitems },
	['}'] = { "EMPTY_DICT", run_empty_dict },
	[0x80] = { "PROTO", run_proto },
	[0x81] = { "NEWOBJ", NULL },
	[0x82] = { "EXT1", NULL },
	[0x83] = { "EXT2", NULL },
	[0x84] = { "EXT4", NULL },
	[0x85] = { "TUPLE1", run_tuple1 },
	[0x86] = { "TUPLE2", run_tuple2 },
	[0x87] = { "TUPLE3", run_tuple3 },
	[0x88] = { "NEWTRUE", run_true },
	[0x89] = { "NEWFALSE", run_false },
	[0x8a] = { "LONG1", run_long1 },
	[0x8b] = { "LONG4", NULL },
	[0x8c] = { "SHORT_BINUNICODE", NULL },
	[0x8d] = { "BINUNICODE8", NULL },
	[0x8e] = { "BINBYTES8", NULL },
	[0x8f] = { "EMPTY_SET", NULL },
	[0x90] = { "ADDITEMS", NULL },
	[0x91] = { "FROZENSET", NULL },
	[0x92] = { "NEWOBJ_EX", NULL },
	[0x93] = { "STACK_GLOBAL", NULL },
	[0x94] = { "MEMOIZE", NULL },
	[0x95] = { "FRAME", NULL },
	[0x96] = { "BYTEARRAY8", NULL },
	[0x97] = { "NEXT_BUFFER", NULL },
	[0x98] = { "READONLY_BUFFER", NULL },
};

static int run_next(struct pickle_machine *machine)
{
	uint8_t opcode;

	machine->opcode = (size_t)(machine->at - machine->begin);
	if (machine->at == machine->end)
		return pickle_refuse(machine, "the pickle ends without STOP");
	opcode = *machine->at++;
	if (!opcodes[opcode].name)
		return pickle_refuse(machine, "0x%02x is no opcode", opcode);
	if (!opcodes[opcode].run)
		return pickle_refuse(machine, "opcode %s, which no tensor needs",
				     opcodes[opcode].name);
	if (!machine->started && opcode != 0x80)
		return pickle_refuse(machine, "it does not begin with PROTO");
	return opcodes[opcode].run(machine);
}

/* --------------------------------------------------------------------------------- whole pickle */

static int compare_keys(const void *a, const void *b)
{
	const struct pickle_value *left = ((const struct pickle_pair *)a)->key;
	const struct pickle_value *right = ((const struct pickle_pair *)b)->key;

	if (left->kind != right->kind)
		return left->kind < right->kind ? -1 : 1;
	if (left->kind == PICKLE_STRING)
		return strcmp(left->string.text, right->string.text);
	return left->integer < right->integer ? -1 : left->integer > right->integer;
}

/* No key twice, in any dictionary. The order of the file is not kept; nothing needs it. */
static int dicts_check(struct pickle_machine *machine)
{
	char quoted[QUOTED_BYTES];

	for (struct pickle_value *dict = machine->dicts; dict; dict = dict->dict.next) {
		struct pickle_pair *pair = dict->dict.pair;
		size_t count = dict->dict.count;

		if (count)
			qsort(pair, count, sizeof(*pair), compare_keys);
		for (size_t i = 1; i < count; i++) {
			if (compare_keys(&pair[i - 1], &pair[i]) != 0)
				continue;
			if (pair[i].key->kind == PICKLE_STRING)
				json_plain_text(quoted, sizeof(quoted), pair[i].key->string.text);
			else
				(void)snprintf(quoted, sizeof(quoted), "%" PRId64,
					       pair[i].key->integer);
			return pickle_refuse(machine, "the key \"%s\" is there twice", quoted);
		}
	}
	return 0;
}

static int machine_run(struct pickle_machine *machine)
{
	int r = 0;

	while (r >= 0 && !machine->stopped)
		r = run_next(machine);
	if (r >= 0)
		r = dicts_check(machine);
	return r < 0 ? r : pickle_storages_check(machine);
}

int pickle_parse(const void *bytes, size_t length, const char *where, struct pickle **ret,
		 struct sana_error *error)
{
	_cleanup_(pickle_closep) struct pickle *pickle = NULL;
	struct pickle_machine machine = { .begin = bytes,
					  .at = bytes,
					  .end = (const uint8_t *)bytes + length,
					  .where = where,
					  .error = error };
	int r;

	if (length > PICKLE_MAX_BYTES)
		return pickle_refuse(&machine, "it is larger than 16 MiB");
	pickle = calloc(1, sizeof(*pickle));
	if (!pickle)
		return pickle_no_memory(&machine);
	pickle->pool.limit_bytes = PICKLE_MAX_MEMORY;
	machine.pool = &pickle->pool;
	r = machine_run(&machine);
	if (r >= 0)
		pickle->top = machine.stack[0];
	free(machine.stack);
	free(machine.memo);
	free(machine.storage);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(pickle);
	return 0;
}

void pickle_close(struct pickle *pickle)
{
	if (!pickle)
		return;
	pool_finish(&pickle->pool);
	free(pickle);
}

const struct pickle_value *pickle_top(const struct pickle *pickle)
{
	return pickle->top;
}

/* Linear: also asked while the machine runs, when nothing is sorted, and of few keys. */
const struct pickle_value *pickle_get(const struct pickle_value *dict, const char *key)
{
	if (dict->kind != PICKLE_DICT)
		return NULL;
	for (size_t i = 0; i < dict->dict.count; i++)
		if (dict->dict.pair[i].key->kind == PICKLE_STRING &&
		    strcmp(dict->dict.pair[i].key->string.text, key) == 0)
			return dict->dict.pair[i].value;
	return NULL;
}
