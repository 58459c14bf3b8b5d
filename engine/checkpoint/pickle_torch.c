/* The symbols of a tensor state dict and what they make: storages, tensors, dictionaries. */
#include "engine/checkpoint/pickle_machine.h"

#include <errno.h>
#include <inttypes.h>

enum symbol_kind {
	SYMBOL_ORDERED_DICT,
	SYMBOL_TENSOR_V2,
	SYMBOL_TENSOR_V3,
	SYMBOL_PARAMETER,
	SYMBOL_STORAGE, /* typed; `dtype` is its element */
	SYMBOL_UNTYPED_STORAGE,
	SYMBOL_DTYPE,
};

struct pickle_symbol {
	const char *module, *name;
	enum symbol_kind kind;
	enum safetensors_dtype dtype;
};

static const struct pickle_symbol symbols[] = {
	{ "collections", "OrderedDict", SYMBOL_ORDERED_DICT, SAFETENSORS_DTYPE_INVALID },
	{ "torch._utils", "_rebuild_tensor_v2", SYMBOL_TENSOR_V2, SAFETENSORS_DTYPE_INVALID },
	{ "torch._utils", "_rebuild_tensor_v3", SYMBOL_TENSOR_V3, SAFETENSORS_DTYPE_INVALID },
	{ "torch._utils", "_rebuild_parameter", SYMBOL_PARAMETER, SAFETENSORS_DTYPE_INVALID },
	{ "torch", "FloatStorage", SYMBOL_STORAGE, SAFETENSORS_F32 },
	{ "torch", "HalfStorage", SYMBOL_STORAGE, SAFETENSORS_F16 },
	{ "torch", "BFloat16Storage", SYMBOL_STORAGE, SAFETENSORS_BF16 },
	{ "torch", "DoubleStorage", SYMBOL_STORAGE, SAFETENSORS_F64 },
	{ "torch", "LongStorage", SYMBOL_STORAGE, SAFETENSORS_I64 },
	{ "torch", "IntStorage", SYMBOL_STORAGE, SAFETENSORS_I32 },
	{ "torch", "ShortStorage", SYMBOL_STORAGE, SAFETENSORS_I16 },
	{ "torch", "CharStorage", SYMBOL_STORAGE, SAFETENSORS_I8 },
	{ "torch", "ByteStorage", SYMBOL_STORAGE, SAFETENSORS_U8 },
	{ "torch", "BoolStorage", SYMBOL_STORAGE, SAFETENSORS_BOOL },
	{ "torch.storage", "UntypedStorage", SYMBOL_UNTYPED_STORAGE, SAFETENSORS_DTYPE_INVALID },
	{ "torch", "float8_e4m3fn", SYMBOL_DTYPE, SAFETENSORS_F8_E4M3 },
	{ "torch", "float8_e5m2", SYMBOL_DTYPE, SAFETENSORS_F8_E5M2 },
	{ "torch", "float8_e8m0fnu", SYMBOL_DTYPE, SAFETENSORS_F8_E8M0 },
	{ "torch", "uint16", SYMBOL_DTYPE, SAFETENSORS_U16 },
	{ "torch", "uint32", SYMBOL_DTYPE, SAFETENSORS_U32 },
	{ "torch", "uint64", SYMBOL_DTYPE, SAFETENSORS_U64 },
};

enum { ID_ITEMS = 5, MAX_KEY_DIGITS = 10, FIRST_CAPACITY = 64 };

#define MAX_DIMENSION INT64_C(0x7fffffff)

int pickle_symbol_find(struct pickle_machine *machine, const char *module, const char *name,
		       const struct pickle_symbol **ret)
{
	for (size_t i = 0; i < ARRAY_SIZE(symbols); i++) {
		if (strcmp(symbols[i].module, module) == 0 && strcmp(symbols[i].name, name) == 0) {
			*ret = &symbols[i];
			return 0;
		}
	}
	return pickle_refuse(machine,
			     "it names %s.%s, which no tensor needs; nothing of it was run", module,
			     name);
}

const char *pickle_symbol_text(const struct pickle_symbol *symbol)
{
	return symbol->name;
}

/* ----------------------------------------------------------------------------------- storages */

static bool is_symbol(const struct pickle_value *value, enum symbol_kind kind)
{
	return value->kind == PICKLE_SYMBOL && value->symbol->kind == kind;
}

static bool key_is_plain(const struct pickle_value *key)
{
	size_t length;

	if (key->kind != PICKLE_STRING)
		return false;
	length = key->string.bytes;
	return length >= 1 && length <= MAX_KEY_DIGITS &&
	       strspn(key->string.text, "0123456789") == length;
}

static int storage_remember(struct pickle_machine *machine, const struct pickle_storage *storage)
{
	if (machine->storages == machine->storage_capacity) {
		size_t capacity = MAX_OF(2 * machine->storage_capacity, (size_t)FIRST_CAPACITY);
		const struct pickle_storage **more;

		more = realloc(machine->storage, capacity * sizeof(*more));
		if (!more)
			return pickle_no_memory(machine);
		machine->storage = more;
		machine->storage_capacity = capacity;
	}
	machine->storage[machine->storages++] = storage;
	return 0;
}

int pickle_storage_make(struct pickle_machine *machine, const struct pickle_value *id,
			struct pickle_value **ret)
{
	const struct pickle_value *const *item = id->list.item;
	struct pickle_storage *storage;
	struct pickle_value *value;

	if (id->kind != PICKLE_TUPLE || id->list.count != ID_ITEMS ||
	    item[0]->kind != PICKLE_STRING || strcmp(item[0]->string.text, "storage") != 0)
		return pickle_refuse(machine, "a persistent id that is not a storage's");
	if (!is_symbol(item[1], SYMBOL_STORAGE) && !is_symbol(item[1], SYMBOL_UNTYPED_STORAGE))
		return pickle_refuse(machine, "a storage without a type of storage");
	if (!key_is_plain(item[2]) || item[3]->kind != PICKLE_STRING)
		return pickle_refuse(machine, "a storage whose key is not a number of 1 to 10 "
					      "digits, or whose place is not a text");
	if (item[4]->kind != PICKLE_INTEGER || item[4]->integer < 0)
		return pickle_refuse(machine, "a storage whose size is not a number from 0 on");
	storage = pool_take(machine->pool, 1, sizeof(*storage));
	value = pickle_make(machine, PICKLE_STORAGE);
	if (!storage || !value)
		return pickle_no_memory(machine);
	*storage = (struct pickle_storage){ .key = item[2]->string.text,
					    .untyped = is_symbol(item[1], SYMBOL_UNTYPED_STORAGE),
					    .dtype = item[1]->symbol->dtype,
					    .numel = (uint64_t)item[4]->integer };
	value->storage = storage;
	*ret = value;
	return storage_remember(machine, storage);
}

static int compare_storages(const void *a, const void *b)
{
	const struct pickle_storage *const *left = a, *const *right = b;

	return strcmp((*left)->key, (*right)->key);
}

int pickle_storages_check(struct pickle_machine *machine)
{
	const struct pickle_storage **storage = machine->storage;

	if (machine->storages)
		qsort(storage, machine->storages, sizeof(*storage), compare_storages);
	for (size_t i = 1; i < machine->storages; i++) {
		const struct pickle_storage *a = storage[i - 1], *b = storage[i];

		if (strcmp(a->key, b->key) == 0 &&
		    (a->untyped != b->untyped || a->dtype != b->dtype || a->numel != b->numel))
			return pickle_refuse(machine, "storage %s has two types or two sizes",
					     a->key);
	}
	return 0;
}

/* ------------------------------------------------------------------------------------ tensors */

static bool is_size(const struct pickle_value *value, int64_t high)
{
	return value->kind == PICKLE_INTEGER && value->integer >= 0 && value->integer <= high;
}

/* Fills rank, shape, stride and count. */
static int dimensions_read(struct pickle_machine *machine, const struct pickle_value *size,
			   const struct pickle_value *stride, struct pickle_tensor *tensor)
{
	bool empty = false;

	if (size->kind != PICKLE_TUPLE || stride->kind != PICKLE_TUPLE ||
	    size->list.count != stride->list.count || size->list.count > SAFETENSORS_MAX_RANK)
		return pickle_refuse(machine,
				     "a tensor whose sizes and strides are not two "
				     "tuples of the same length up to %d",
				     SAFETENSORS_MAX_RANK);
	tensor->rank = (int)size->list.count;
	tensor->count = 1;
	for (int d = 0; d < tensor->rank; d++) {
		if (!is_size(size->list.item[d], MAX_DIMENSION) ||
		    !is_size(stride->list.item[d], INT64_MAX))
			return pickle_refuse(machine, "a tensor with an impossible size or stride");
		tensor->shape[d] = size->list.item[d]->integer;
		tensor->stride[d] = stride->list.item[d]->integer;
		if (tensor->shape[d] == 0)
			empty = true;
		else if (__builtin_mul_overflow(tensor->count, (uint64_t)tensor->shape[d],
						&tensor->count))
			return pickle_refuse(machine, "a tensor whose size overflows 64 bits");
	}
	if (empty)
		tensor->count = 0;
	return 0;
}

/* The elements a tensor touches must lie in its storage. Fills span. */
static int span_check(struct pickle_machine *machine, struct pickle_tensor *tensor)
{
	uint64_t each = safetensors_dtype_bytes(tensor->dtype), last = 0, end, bytes;
	uint64_t have = tensor->storage->numel;

	/* The whole tensor must fit into 64 bits of bytes too, as it is written elsewhere. */
	if (__builtin_mul_overflow(tensor->count, each, &bytes) || bytes > INT64_MAX)
		return pickle_refuse(machine, "a tensor whose size overflows 64 bits");
	if (tensor->storage->untyped)
		have /= each;
	if (tensor->count == 0)
		return tensor->offset <= have ?
			       0 :
			       pickle_refuse(machine, "a tensor beyond its storage");
	for (int d = 0; d < tensor->rank; d++) {
		uint64_t step;

		if (__builtin_mul_overflow((uint64_t)tensor->shape[d] - 1,
					   (uint64_t)tensor->stride[d], &step) ||
		    __builtin_add_overflow(last, step, &last))
			return pickle_refuse(machine, "a tensor whose strides overflow 64 bits");
	}
	if (__builtin_add_overflow(tensor->offset, last, &end) || end >= have)
		return pickle_refuse(machine,
				     "a tensor beyond its storage: element %" PRIu64
				     " of storage %s, which has %" PRIu64,
				     end, tensor->storage->key, have);
	tensor->span = last + 1;
	return 0;
}

static bool hooks_are_empty(const struct pickle_value *hooks)
{
	return hooks->kind == PICKLE_DICT && hooks->dict.count == 0;
}

/* 0 storage, 1 offset, 2 sizes, 3 strides, 4 requires_grad, 5 hooks, [6 type,] [metadata] */
static int tensor_make(struct pickle_machine *machine, const struct pickle_value *arguments,
		       bool with_dtype, struct pickle_value **ret)
{
	const struct pickle_value *const *item = arguments->list.item;
	size_t items = with_dtype ? 7 : 6;
	struct pickle_tensor *tensor;
	struct pickle_value *value;
	int r;

	if (arguments->list.count != items && arguments->list.count != items + 1)
		return pickle_refuse(machine, "a tensor of %zu parts", arguments->list.count);
	if (item[0]->kind != PICKLE_STORAGE || item[0]->storage->untyped != with_dtype ||
	    (with_dtype && !is_symbol(item[6], SYMBOL_DTYPE)))
		return pickle_refuse(machine, "a tensor without a storage of its type");
	if (!is_size(item[1], INT64_MAX) || item[4]->kind != PICKLE_BOOL ||
	    !hooks_are_empty(item[5]))
		return pickle_refuse(machine, "a tensor with an impossible offset, gradient flag "
					      "or hooks");
	if (++machine->tensors > PICKLE_MAX_TENSORS)
		return pickle_refuse(machine, "more than %d tensors", PICKLE_MAX_TENSORS);
	tensor = pool_take(machine->pool, 1, sizeof(*tensor));
	value = pickle_make(machine, PICKLE_TENSOR);
	if (!tensor || !value)
		return pickle_no_memory(machine);
	tensor->storage = item[0]->storage;
	tensor->dtype = with_dtype ? item[6]->symbol->dtype : tensor->storage->dtype;
	tensor->offset = (uint64_t)item[1]->integer;
	value->tensor = tensor;
	r = dimensions_read(machine, item[2], item[3], tensor);
	if (r >= 0)
		r = span_check(machine, tensor);
	if (r >= 0)
		*ret = value;
	return r;
}

/* A parameter is its tensor. */
static int parameter_make(struct pickle_machine *machine, const struct pickle_value *arguments,
			  struct pickle_value **ret)
{
	const struct pickle_value *const *item = arguments->list.item;
	struct pickle_value *value;

	if (arguments->list.count != 3 || item[0]->kind != PICKLE_TENSOR ||
	    item[1]->kind != PICKLE_BOOL || !hooks_are_empty(item[2]))
		return pickle_refuse(machine, "a parameter that is not a tensor, a flag and an "
					      "empty dictionary");
	value = pickle_make(machine, PICKLE_TENSOR);
	if (!value)
		return pickle_no_memory(machine);
	value->tensor = item[0]->tensor;
	*ret = value;
	return 0;
}

int pickle_reduce(struct pickle_machine *machine, const struct pickle_value *callable,
		  const struct pickle_value *arguments, struct pickle_value **ret)
{
	if (callable->kind != PICKLE_SYMBOL || arguments->kind != PICKLE_TUPLE)
		return pickle_refuse(machine, "REDUCE of %s with %s",
				     pickle_kind_name(callable->kind),
				     pickle_kind_name(arguments->kind));
	switch (callable->symbol->kind) {
	case SYMBOL_ORDERED_DICT:
		if (arguments->list.count)
			return pickle_refuse(machine, "OrderedDict with arguments");
		*ret = pickle_make(machine, PICKLE_DICT);
		return *ret ? 0 : pickle_no_memory(machine);
	case SYMBOL_TENSOR_V2:
		return tensor_make(machine, arguments, false, ret);
	case SYMBOL_TENSOR_V3:
		return tensor_make(machine, arguments, true, ret);
	case SYMBOL_PARAMETER:
		return parameter_make(machine, arguments, ret);
	case SYMBOL_STORAGE:
	case SYMBOL_UNTYPED_STORAGE:
	case SYMBOL_DTYPE:
		break;
	}
	return pickle_refuse(machine, "%s is called, but makes nothing here",
			     pickle_symbol_text(callable->symbol));
}
