/* Folding of texts with ICU: it has Unicode's tables of case, compatibility and look-alikes. */
#include "daemon/guard_fold.h"

#include "base/util.h"

#include <errno.h>
#include <unicode/uchar.h>
#include <unicode/unorm2.h>
#include <unicode/uspoof.h>
#include <unicode/ustring.h>

struct guard_fold {
	const UNormalizer2 *casefold, *decompose; /* ICU's own */
	USpoofChecker *spoof;
};

/* UTF-16 that grows. */
struct text {
	UChar *unit;
	int32_t length;
};

int guard_fold_create(struct guard_fold **ret, struct sana_error *error)
{
	struct guard_fold *fold = calloc(1, sizeof(*fold));
	UErrorCode status = U_ZERO_ERROR;

	if (!fold)
		return sana_error_set(error, -ENOMEM, "memory", "Out of memory.");
	fold->casefold = unorm2_getNFKCCasefoldInstance(&status);
	fold->decompose = unorm2_getNFDInstance(&status);
	fold->spoof = uspoof_open(&status);
	if (U_FAILURE(status)) {
		(void)guard_fold_destroy(fold);
		return sana_error_set(error, -ENOENT, "guard.unicode",
				      "Prompts cannot be screened: %s; is libicu whole?",
				      u_errorName(status));
	}
	*ret = fold;
	return 0;
}

struct guard_fold *guard_fold_destroy(struct guard_fold *fold)
{
	if (!fold)
		return NULL;
	if (fold->spoof)
		uspoof_close(fold->spoof);
	free(fold);
	return NULL;
}

typedef int32_t (*converter)(const struct guard_fold *, const struct text *, UChar *to,
			     int32_t capacity, UErrorCode *);

static int32_t to_casefold(const struct guard_fold *fold, const struct text *from, UChar *to,
			   int32_t capacity, UErrorCode *status)
{
	return unorm2_normalize(fold->casefold, from->unit, from->length, to, capacity, status);
}

static int32_t to_decomposed(const struct guard_fold *fold, const struct text *from, UChar *to,
			     int32_t capacity, UErrorCode *status)
{
	return unorm2_normalize(fold->decompose, from->unit, from->length, to, capacity, status);
}

static int32_t to_skeleton(const struct guard_fold *fold, const struct text *from, UChar *to,
			   int32_t capacity, UErrorCode *status)
{
	/* The second argument is for a kind of skeleton that Unicode gave up. */
	return uspoof_getSkeleton(fold->spoof, 0, from->unit, from->length, to, capacity, status);
}

/* Replaces the text by what the converter makes of it. */
static int text_convert(const struct guard_fold *fold, struct text *text, converter convert)
{
	UErrorCode status = U_ZERO_ERROR;
	const int32_t length = convert(fold, text, NULL, 0, &status);
	UChar *unit;

	if (status != U_BUFFER_OVERFLOW_ERROR && U_FAILURE(status))
		return -EINVAL;
	unit = malloc(((size_t)length + 1) * sizeof(*unit));
	if (!unit)
		return -ENOMEM;
	status = U_ZERO_ERROR;
	text->length = convert(fold, text, unit, length + 1, &status);
	free(text->unit);
	text->unit = unit;
	return U_FAILURE(status) ? -EINVAL : 0;
}

/* Marks go, letters and digits stay, everything else becomes one space; a space at both ends. */
static int words_only(struct text *text)
{
	UChar *unit = malloc(((size_t)text->length + 3) * sizeof(*unit));
	int32_t length = 0, i = 0;

	if (!unit)
		return -ENOMEM;
	unit[length++] = ' ';
	while (i < text->length) {
		UChar32 c;

		U16_NEXT(text->unit, i, text->length, c);
		if (U_GET_GC_MASK(c) & (U_GC_M_MASK | U_GC_CF_MASK))
			continue;
		if (u_isalnum(c))
			U16_APPEND_UNSAFE(unit, length, c);
		else if (unit[length - 1] != ' ')
			unit[length++] = ' ';
	}
	if (unit[length - 1] != ' ')
		unit[length++] = ' ';
	free(text->unit);
	text->unit = unit;
	text->length = length;
	return 0;
}

static int text_open(const char *from, struct text *ret)
{
	const size_t bytes = strlen(from);
	UErrorCode status = U_ZERO_ERROR;

	if (bytes > INT32_MAX / 8)
		return -E2BIG;
	ret->unit = malloc((bytes + 1) * sizeof(*ret->unit));
	if (!ret->unit)
		return -ENOMEM;
	(void)u_strFromUTF8(ret->unit, (int32_t)bytes + 1, &ret->length, from, (int32_t)bytes,
			    &status);
	return U_FAILURE(status) ? -EINVAL : 0;
}

static char *text_utf8(const struct text *text)
{
	const int32_t capacity = 3 * text->length + 1;
	UErrorCode status = U_ZERO_ERROR;
	char *utf8 = malloc((size_t)capacity);

	if (!utf8)
		return NULL;
	(void)u_strToUTF8(utf8, capacity, NULL, text->unit, text->length, &status);
	if (U_SUCCESS(status))
		return utf8;
	free(utf8);
	return NULL;
}

char *guard_fold_text(struct guard_fold *fold, const char *from)
{
	/* A skeleton may hold capitals and marks: case and marks once more after it. */
	static const converter steps[] = { to_casefold, to_decomposed, to_skeleton, to_casefold,
					   to_decomposed };
	struct text text = { 0 };
	char *folded = NULL;
	int r = text_open(from, &text);

	for (size_t i = 0; r >= 0 && i < ARRAY_SIZE(steps); i++)
		r = text_convert(fold, &text, steps[i]);
	if (r >= 0)
		r = words_only(&text);
	if (r >= 0)
		folded = text_utf8(&text);
	free(text.unit);
	return folded;
}
