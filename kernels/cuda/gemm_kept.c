/* Choices of matrix products in a file, and what of it can be believed. */
#include "kernels/cuda/gemm_plan_private.h"

#include <stdio.h>

#include "kernels/cuda/driver.h"

static void choice_of(const struct gemm_plan *plan, enum gemm_epilogue epilogue,
		      struct tuning_choice *ret)
{
	*ret = (struct tuning_choice){ .products = plan->products };
	memcpy(ret->key, plan->key, sizeof(ret->key));
	(void)snprintf(ret->kernel, sizeof(ret->kernel), "%s",
		       plan->way < 0 ? "-" : gemm_way_name(plan->way, epilogue));
	for (int i = 0; i < plan->products; i++) {
		const struct gemm_product *product = &plan->product[i];

		ret->product[i].first = product->first;
		ret->product[i].parts = product->parts;
		memcpy(ret->product[i].algorithm,
		       cublaslt_plan_algorithm(product->plan, product->algorithm),
		       sizeof(ret->product[i].algorithm));
	}
}

/* An algorithm is only taken if the library offers the very same again. */
static bool product_again(const struct gemm_bench *b, const struct tuning_product *kept,
			  struct gemm_product *ret)
{
	struct gemm_product product = { .first = kept->first, .parts = kept->parts };
	struct cublaslt_product wanted;

	if (kept->first + kept->parts > b->p->parts)
		return false;
	for (int i = 1; i < kept->parts; i++)
		if (!gemm_part_joins(b->p, kept->first + i))
			return false;
	wanted = gemm_library_product(b->p, kept->first, kept->parts);
	if (cublaslt_plan_create(b->plans->library, &wanted, GEMM_ALGORITHMS, GEMM_LIBRARY_BYTES,
				 &product.plan) < 0)
		return false;
	for (int i = 0; i < cublaslt_plan_algorithms(product.plan); i++)
		if (memcmp(cublaslt_plan_algorithm(product.plan, i), kept->algorithm,
			   sizeof(kept->algorithm)) == 0) {
			product.algorithm = i;
			cublaslt_plan_name(product.plan, i, product.name);
			*ret = product;
			return true;
		}
	cublaslt_plan_destroy(product.plan);
	return false;
}

static int way_by_name(const struct gemm_bench *b, const char *name)
{
	for (int i = 0; i < gemm_ways(); i++)
		if (gemm_way_usable(b->d, b->p, i, b->epilogue) &&
		    strcmp(gemm_way_name(i, b->epilogue), name) == 0)
			return i;
	return -1;
}

/* False: it does not fit, and is measured anew. */
bool gemm_kept_take(const struct gemm_bench *b, const struct tuning_choice *kept,
		    struct gemm_plan *ret)
{
	struct gemm_plan plan = { .way = way_by_name(b, kept->kernel) };
	int made = 0;
	bool fits = !kept->products || gemm_library_may(b);

	for (int i = 0, next = 0; fits && i < kept->products; i++) {
		fits = kept->product[i].first >= next &&
		       product_again(b, &kept->product[i], &plan.product[i]);
		plan.products += fits;
		next = kept->product[i].first + kept->product[i].parts;
		made += kept->product[i].parts;
	}
	/* A kernel for what is left, and none where nothing is. */
	fits = fits && (made < b->p->parts) == (plan.way >= 0);
	if (!fits) {
		gemm_products_clear(&plan);
		return false;
	}
	memcpy(plan.key, kept->key, sizeof(plan.key));
	*ret = plan;
	return true;
}

/* "H200" and "H200 MIG 1g" are two files; nothing of a name but letters and digits is in a path. */
static void path_make(const struct kernel_device *d, struct gemm_plans *plans)
{
	char name[sizeof(d->properties.name)];
	size_t i;

	for (i = 0; d->properties.name[i] && i + 1 < sizeof(name); i++) {
		const char c = d->properties.name[i];
		const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
				   (c >= '0' && c <= '9');

		name[i] = plain ? c : '-';
	}
	name[i] = '\0';
	(void)snprintf(plans->path, sizeof(plans->path), "%s/products-%s%s.tuning",
		       plans->directory, name, plans->portable ? "-portable" : "");
}

void gemm_kept_load(const struct kernel_device *d)
{
	struct gemm_plans *plans = d->plans;
	struct tuning_machine here = {
		.capability = d->properties.capability,
		.multiprocessors = d->properties.multiprocessors,
		.driver = d->driver.version,
		.library = plans->library_version,
		.kernels = cuda_images_digest() ^ (uint64_t)plans->portable,
	};
	int r;

	(void)snprintf(here.device, sizeof(here.device), "%s", d->properties.name);
	plans->kept.machine = here;
	if (!plans->directory[0])
		return;
	path_make(d, plans);
	r = tuning_load(plans->path, &here, &plans->kept);
	if (r < 0 && r != -ENOENT)
		(void)snprintf(plans->report.note, sizeof(plans->report.note),
			       "The choices kept in %.160s are not used: %s.", plans->path,
			       r == -ESTALE  ? "they are of another device or version" :
			       r == -EBADMSG ? "the file is damaged" :
					       strerror(-r));
}

void gemm_kept_put(const struct gemm_bench *b, const struct gemm_plan *plan)
{
	struct tuning_choice choice;

	choice_of(plan, b->epilogue, &choice);
	tuning_put(&b->plans->kept, &choice);
	b->plans->changed = true;
}

void gemm_kept_save(struct gemm_plans *plans)
{
	int r;

	if (!plans->changed || !plans->path[0])
		return;
	plans->changed = false;
	r = tuning_save(plans->path, &plans->kept);
	if (r < 0)
		(void)snprintf(plans->report.note, sizeof(plans->report.note),
			       "The choices are not kept in %.160s: %s.", plans->path,
			       strerror(-r));
}
