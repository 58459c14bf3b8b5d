/* The restricted machine: what its opcodes (pickle.c) and its symbols (pickle_torch.c) share. */
#pragma once

#include "engine/checkpoint/pickle.h"
#include "engine/checkpoint/pool.h"

struct pickle_machine {
	const uint8_t *begin, *at, *end;
	size_t opcode; /* position of the opcode that runs */
	const char *where;
	struct sana_error *error;
	struct pool *pool;

	struct pickle_value **stack;
	size_t count, capacity;
	size_t mark[PICKLE_MAX_MARKS]; /* stack counts */
	int marks;
	struct pickle_value **memo;
	size_t memo_capacity;
	struct pickle_value *dicts; /* all of them, linked */
	const struct pickle_storage **storage;
	size_t storages, storage_capacity;
	size_t tensors;
	bool started, stopped;
};

/* −EINVAL and "WHERE: byte N of the pickle: …". */
int pickle_refuse(struct pickle_machine *machine, const char *format, ...) _printf_(2, 3);
int pickle_no_memory(struct pickle_machine *machine);

/* A new value of that kind, not yet on the stack; NULL: the memory limit is reached. */
struct pickle_value *pickle_make(struct pickle_machine *machine, enum pickle_kind kind);

/* Any "module.name" that is not in the table is refused by this name. */
int pickle_symbol_find(struct pickle_machine *machine, const char *module, const char *name,
		       const struct pickle_symbol **ret);
const char *pickle_symbol_text(const struct pickle_symbol *symbol);

/* What a persistent id stands for. */
int pickle_storage_make(struct pickle_machine *machine, const struct pickle_value *id,
			struct pickle_value **ret);

/* What a symbol called with arguments gives. */
int pickle_reduce(struct pickle_machine *machine, const struct pickle_value *callable,
		  const struct pickle_value *arguments, struct pickle_value **ret);

/* The same key must always mean the same storage. */
int pickle_storages_check(struct pickle_machine *machine);
