/* A look at a SentencePiece file before the library sees it. */
#include "engine/tokenizer_check.h"

#include <errno.h>
#include <math.h>

#include "base/utf8.h"

static const char error_name[] = "tokenizer.open";

/* Fields of the file, of a piece and of the normaliser. */
enum {
	FILE_PIECE = 1,
	FILE_TRAINER = 2,
	FILE_NORMALISER = 3,
	FILE_SELF_TEST = 4,
	FILE_DENORMALISER = 5,
	PIECE_TEXT = 1,
	PIECE_SCORE = 2,
	PIECE_TYPE = 3,
	NORMALISER_MAP = 2,
};

enum piece_type {
	PIECE_NORMAL = 1,
	PIECE_UNKNOWN,
	PIECE_CONTROL,
	PIECE_USER_DEFINED,
	PIECE_UNUSED,
	PIECE_BYTE,
};

enum { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };

struct wire {
	const uint8_t *at, *end;
};

struct field {
	uint64_t number;
	int type;
	uint64_t value;	     /* of a varint */
	struct wire content; /* of bytes and fixed values */
};

struct check {
	struct sana_error *error;
	int pieces, unknown, control;
	bool trainer, normaliser; /* seen */
};

static bool wire_varint(struct wire *wire, uint64_t *ret)
{
	uint64_t value = 0;

	for (int shift = 0; shift < 70 && wire->at < wire->end; shift += 7) {
		const uint8_t byte = *wire->at++;

		/* The tenth byte has room for one bit. */
		if (shift == 63 && byte > 1)
			return false;
		value |= (uint64_t)(byte & 0x7f) << shift;
		if (byte < 0x80) {
			*ret = value;
			return true;
		}
	}
	return false;
}

/* One field; false where the bytes are none, wire->at is then of no meaning. */
static bool wire_field(struct wire *wire, struct field *ret)
{
	uint64_t tag, length;

	if (!wire_varint(wire, &tag) || tag >> 32 || tag >> 3 == 0)
		return false;
	*ret = (struct field){ .number = tag >> 3, .type = (int)(tag & 7) };
	switch (ret->type) {
	case WIRE_VARINT:
		return wire_varint(wire, &ret->value);
	case WIRE_FIXED64:
		length = 8;
		break;
	case WIRE_FIXED32:
		length = 4;
		break;
	case WIRE_BYTES:
		if (!wire_varint(wire, &length))
			return false;
		break;
	default: /* groups: never written by the library */
		return false;
	}
	if (length > (uint64_t)(wire->end - wire->at))
		return false;
	ret->content = (struct wire){ wire->at, wire->at + length };
	wire->at += length;
	return true;
}

static int fail(const struct check *check, const char *what)
{
	return sana_error_set(
		check->error, -EINVAL, error_name,
		"no usable SentencePiece model (%s); copy the model's tokenizer.model here again.",
		what);
}

static int fail_piece(const struct check *check, const char *what)
{
	return sana_error_set(check->error, -EINVAL, error_name,
			      "no usable SentencePiece model (piece %d %s); copy the model's "
			      "tokenizer.model here again.",
			      check->pieces, what);
}

static int fail_wire(const struct check *check)
{
	return fail(check, "its bytes are damaged or it is another kind of file");
}

static int check_text(const struct check *check, struct wire text)
{
	uint32_t character;

	if (text.at == text.end)
		return fail_piece(check, "is empty");
	if (text.end - text.at > TOKENIZER_MAX_PIECE_BYTES)
		return fail_piece(check, "is too long");
	while (text.at < text.end) {
		int n = utf8_next((const char *)text.at, (size_t)(text.end - text.at), &character);

		if (n < 0 || character == 0)
			return fail_piece(check, "is not UTF-8");
		text.at += n;
	}
	return 0;
}

static float float_read(struct wire from)
{
	const uint32_t bits = from.at[0] | (uint32_t)from.at[1] << 8 | (uint32_t)from.at[2] << 16 |
			      (uint32_t)from.at[3] << 24;
	float value;

	memcpy(&value, &bits, sizeof(value));
	return value;
}

static int check_piece_type(struct check *check, uint64_t type)
{
	if (type < PIECE_NORMAL || type > PIECE_BYTE)
		return fail_piece(check, "is of no known type");
	check->unknown += type == PIECE_UNKNOWN;
	check->control += type == PIECE_CONTROL;
	if (check->unknown > 1)
		return fail_piece(check, "is a second unknown piece");
	if (check->control > TOKENIZER_MAX_CONTROL_PIECES)
		return fail_piece(check, "is one control piece too many");
	return 0;
}

static int check_piece(struct check *check, struct wire wire)
{
	struct wire text = { NULL, NULL };
	uint64_t type = PIECE_NORMAL;
	struct field field;
	int r;

	while (wire.at < wire.end) {
		if (!wire_field(&wire, &field))
			return fail_wire(check);
		if (field.number == PIECE_TEXT && field.type == WIRE_BYTES)
			text = field.content;
		else if (field.number == PIECE_SCORE && field.type == WIRE_FIXED32) {
			if (!isfinite(float_read(field.content)))
				return fail_piece(check, "has a score that is no number");
		} else if (field.number == PIECE_TYPE && field.type == WIRE_VARINT)
			type = field.value;
		else if (field.number <= PIECE_TYPE)
			return fail_wire(check);
	}
	r = check_text(check, text);
	if (r < 0)
		return r;
	r = check_piece_type(check, type);
	if (r < 0)
		return r;
	if (++check->pieces > TOKENIZER_MAX_PIECES)
		return fail(check, "it has too many pieces");
	return 0;
}

/* Training settings and normalisers: well-formed, and (normalisers) without a character map. */
static int check_settings(const struct check *check, struct wire wire, bool normaliser)
{
	struct field field;

	while (wire.at < wire.end) {
		if (!wire_field(&wire, &field))
			return fail_wire(check);
		if (normaliser && field.number == NORMALISER_MAP &&
		    (field.type != WIRE_BYTES || field.content.at != field.content.end))
			return fail(
				check,
				"it wants a character map; only identity normalisation is read");
	}
	return 0;
}

static int check_field(struct check *check, const struct field *field)
{
	if (field->number <= FILE_DENORMALISER && field->type != WIRE_BYTES)
		return fail_wire(check);
	switch (field->number) {
	case FILE_PIECE:
		return check_piece(check, field->content);
	case FILE_TRAINER:
		check->trainer = true;
		return check_settings(check, field->content, false);
	case FILE_NORMALISER:
		check->normaliser = true;
		return check_settings(check, field->content, true);
	case FILE_DENORMALISER:
		return check_settings(check, field->content, true);
	case FILE_SELF_TEST:
		/* The library encodes these samples while loading. */
		if (field->content.end - field->content.at > TOKENIZER_MAX_SELF_TEST_BYTES)
			return fail(check, "its samples for a self-test are too long");
		return check_settings(check, field->content, false);
	default:
		return 0;
	}
}

int tokenizer_check(const void *data, size_t size, struct sana_error *error)
{
	struct wire wire = { data, (const uint8_t *)data + size };
	struct check check = { .error = error };
	struct field field;
	int r;

	if (size == 0)
		return fail(&check, "the file is empty");
	if (size > TOKENIZER_MAX_BYTES)
		return fail(&check, "the file is larger than 64 MiB");
	while (wire.at < wire.end) {
		if (!wire_field(&wire, &field))
			return fail_wire(&check);
		r = check_field(&check, &field);
		if (r < 0)
			return r;
	}
	if (check.pieces == 0)
		return fail(&check, "it has no pieces");
	if (check.unknown == 0)
		return fail(&check, "it has no unknown piece");
	if (!check.trainer || !check.normaliser)
		return fail(&check, "its settings are missing, so the file is not whole");
	return 0;
}
