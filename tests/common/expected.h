/* What comes with the demo model to compare with: models/demo/expected/. */
#pragma once

#include <jansson.h>

#include "base/util.h"

/* Paths are from the root of the repository, where tests run. */
#define EXPECTED_DEMO "models/demo"
#define EXPECTED_TOKENIZER EXPECTED_DEMO "/text_encoder/tokenizer.model"

/* expected.json; NULL when it cannot be read. The caller drops it. */
json_t *expected_rules(void);

/*
 * The bytes of one tensor of expected.safetensors, which must have `bytes` of them; NULL when there
 * is none such. The caller frees.
 */
void *expected_tensor(const char *name, size_t bytes);

/* ‖got − want‖₂ / ‖want‖₂ in double. */
double expected_relative_l2(const float *got, const float *want, size_t count);
