/*
 * Precision policies by name. The engine has one per back end today; the others are named, so that a
 * client learns that they are known and do not run here.
 */
#include "daemon/stream_private.h"

#include "base/util.h"

#include <errno.h>

static const struct {
	const char *name, *description, *backend;
} policies[] = {
	{ "fp32", "32-bit floating point throughout: the reference", "cpu" },
	{ "bf16", "bfloat16 operands, 32-bit accumulation", "cuda" },
	{ "fp8", "8-bit floating point operands where the quality allows, else bfloat16", NULL },
	{ "nvfp4", "4-bit and 8-bit floating point operands where the quality allows", NULL },
};

const char *stream_policy_of(const char *backend)
{
	for (size_t i = 0; i < ARRAY_SIZE(policies); i++)
		if (policies[i].backend && strcmp(policies[i].backend, backend) == 0)
			return policies[i].name;
	return "";
}

int stream_policy_check(const char *backend, const char *name, struct sana_error *error)
{
	const char *here = stream_policy_of(backend);

	if (!*backend)
		return sana_error_set(error, -EAGAIN, "policy.unsupported",
				      "The model is still being loaded: which policies run is not "
				      "known yet.");
	if (strcmp(name, here) == 0)
		return 0;
	return sana_error_set(
		error, -ENOTSUP, "policy.unsupported",
		"The policy \"%.32s\" does not run on the back end %s, which has: %s.", name,
		backend, *here ? here : "none with a name");
}

int live_stream_list_policies(struct live_stream *s, struct live_device *ret, int capacity)
{
	const char *here = stream_policy_of(s->backend);

	for (int i = 0; i < MIN_OF((int)ARRAY_SIZE(policies), capacity); i++) {
		ret[i] = (struct live_device){ .present = strcmp(policies[i].name, here) == 0 };
		(void)snprintf(ret[i].identity, sizeof(ret->identity), "%s", policies[i].name);
		(void)snprintf(ret[i].description, sizeof(ret->description), "%s",
			       policies[i].description);
	}
	return ARRAY_SIZE(policies);
}
