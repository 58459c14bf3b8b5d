/* UTF-8: characters and whole texts. */
#include "base/utf8.h"

#include <errno.h>

int utf8_next(const char *text, size_t length, uint32_t *ret_character)
{
	/* Smallest character that needs so many bytes: less is an overlong form. */
	static const uint32_t smallest[] = { 0, 0, 0x80, 0x800, 0x10000 };
	const uint8_t *bytes = (const uint8_t *)text;
	uint32_t character;
	int count;

	if (bytes[0] < 0x80) {
		*ret_character = bytes[0];
		return 1;
	}
	if (bytes[0] >= 0xf8 || bytes[0] < 0xc0)
		return -EINVAL;
	count = bytes[0] >= 0xf0 ? 4 : bytes[0] >= 0xe0 ? 3 : 2;
	if ((size_t)count > length)
		return -EINVAL;
	character = bytes[0] & (0x7fu >> count);
	for (int i = 1; i < count; i++) {
		if ((bytes[i] & 0xc0) != 0x80)
			return -EINVAL;
		character = character << 6 | (bytes[i] & 0x3f);
	}
	if (character < smallest[count] || character > 0x10ffff ||
	    (character >= 0xd800 && character <= 0xdfff))
		return -EINVAL;
	*ret_character = character;
	return count;
}

bool utf8_is_space(uint32_t character)
{
	return (character >= 0x09 && character <= 0x0d) || character == 0x20 || character == 0x85 ||
	       character == 0xa0 || character == 0x1680 ||
	       (character >= 0x2000 && character <= 0x200a) || character == 0x2028 ||
	       character == 0x2029 || character == 0x202f || character == 0x205f ||
	       character == 0x3000;
}

bool utf8_is_control(uint32_t character)
{
	return character < 0x20 || (character >= 0x7f && character <= 0x9f);
}

bool utf8_is_noncharacter(uint32_t character)
{
	return (character >= 0xfdd0 && character <= 0xfdef) || (character & 0xfffe) == 0xfffe;
}

static bool is_valid(const char *text, bool controls)
{
	size_t left = strlen(text);
	uint32_t character;

	while (left > 0) {
		const int bytes = utf8_next(text, left, &character);

		if (bytes < 0 || utf8_is_noncharacter(character) ||
		    (!controls && utf8_is_control(character)))
			return false;
		text += bytes;
		left -= (size_t)bytes;
	}
	return true;
}

bool utf8_is_text(const char *text)
{
	return is_valid(text, true);
}

bool utf8_is_line(const char *text)
{
	return is_valid(text, false);
}

/* The text ends in the middle of a character that begins here. */
static bool is_cut(const char *text, size_t left)
{
	const uint8_t first = (uint8_t)text[0];
	const size_t count = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;

	if (first < 0xc0 || first >= 0xf8 || left >= count)
		return false;
	for (size_t i = 1; i < left; i++)
		if (((uint8_t)text[i] & 0xc0) != 0x80)
			return false;
	return true;
}

void utf8_make_line(char *text)
{
	size_t left = strlen(text);
	const char *from = text;
	uint32_t character;

	while (left > 0) {
		const int bytes = utf8_next(from, left, &character);
		const size_t taken = bytes > 0 ? (size_t)bytes : 1;

		if (bytes < 0 && is_cut(from, left))
			break;
		if (bytes < 0 || utf8_is_control(character) || utf8_is_noncharacter(character)) {
			*text++ = '?';
		} else {
			memmove(text, from, taken);
			text += taken;
		}
		from += taken;
		left -= taken;
	}
	*text = '\0';
}

int utf8_cut(const char *text, int most)
{
	int length = (int)strnlen(text, (size_t)most + 1);

	if (length <= most)
		return length;
	length = most;
	while (length > 0 && ((uint8_t)text[length] & 0xc0) == 0x80)
		length--;
	return length;
}
