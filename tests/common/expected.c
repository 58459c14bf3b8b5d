/* What comes with the demo model to compare with. */
#include "tests/common/expected.h"

#include <math.h>

static const char tensors_path[] = EXPECTED_DEMO "/expected/expected.safetensors";

enum { HEADER_MAX_BYTES = 1 << 20 };

json_t *expected_rules(void)
{
	return json_load_file(EXPECTED_DEMO "/expected/expected.json", 0, NULL);
}

static json_t *header_read(FILE *file, uint64_t *ret_bytes)
{
	_cleanup_(freep) char *text = NULL;
	uint64_t bytes;

	if (fread(&bytes, sizeof(bytes), 1, file) != 1 || bytes > HEADER_MAX_BYTES)
		return NULL;
	text = malloc(bytes);
	if (!text || fread(text, 1, bytes, file) != bytes)
		return NULL;
	*ret_bytes = sizeof(bytes) + bytes;
	return json_loadb(text, bytes, 0, NULL);
}

void *expected_tensor(const char *name, size_t bytes)
{
	_cleanup_(fclosep) FILE *file = fopen(tensors_path, "rb");
	json_int_t first = -1, end = -1;
	uint64_t header_bytes = 0;
	json_t *header;
	void *values;

	if (!file)
		return NULL;
	header = header_read(file, &header_bytes);
	(void)json_unpack(header, "{s:{s:[I,I]}}", name, "data_offsets", &first, &end);
	json_decref(header);
	if (first < 0 || end - first != (json_int_t)bytes ||
	    fseek(file, (long)(header_bytes + (uint64_t)first), SEEK_SET) < 0)
		return NULL;
	values = malloc(bytes);
	if (values && fread(values, 1, bytes, file) != bytes) {
		free(values);
		values = NULL;
	}
	return values;
}

double expected_relative_l2(const float *got, const float *want, size_t count)
{
	double difference = 0, norm = 0;

	for (size_t i = 0; i < count; i++) {
		difference += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
		norm += (double)want[i] * want[i];
	}
	return sqrt(difference / norm);
}
