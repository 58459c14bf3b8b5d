/*
 * Every tensor a model must have, from its configuration: name, shape, whether it may be missing.
 * Names are those of the published state dicts (docs/model).
 */
#pragma once

#include "engine/model_config.h"

enum { MODEL_KEY_NAME_BYTES = 128, MODEL_KEY_RANK = 5 };

struct model_key {
	char name[MODEL_KEY_NAME_BYTES];
	int rank;
	int64_t shape[MODEL_KEY_RANK];
	bool optional; /* pos_embed, y_embedder.y_embedding: unused, may be missing or extra */
};

/* Called once per key in a fixed order; a negative return stops the walk and is returned. */
typedef int (*model_key_visit)(void *context, const struct model_key *key);

int dit_keys_visit(const struct dit_config *config, model_key_visit visit, void *context);
/* with_statistics: also latents_mean and latents_std. */
int vae_keys_visit(const struct vae_config *config, bool with_statistics, model_key_visit visit,
		   void *context);
int text_keys_visit(const struct text_config *config, model_key_visit visit, void *context);
