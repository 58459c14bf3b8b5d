/* One character of UTF-8 at a time, strictly. */
#include "engine/utf8.h"

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
