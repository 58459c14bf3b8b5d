/* NVIDIA's matrix library where there is no GPU: found or not, asked, refused, closed, and opened again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kernels/cublaslt.h"

#include <dlfcn.h>
#include <errno.h>

/* What it allocates where it finds no device is its own loss. */
const char *__lsan_default_suppressions(void);

const char *__lsan_default_suppressions(void)
{
	return "leak:libcublasLt.so\n";
}

static void opened_twice(void **state)
{
	const struct cublaslt_product product = {
		.rows = 256, .in = 128, .out = 64, .ldx = 128, .ldy = 64
	};
	struct cublaslt_plan *plan = NULL;
	struct cublaslt *lt;
	void *library = NULL;
	void *driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
	int r;

	(void)state;
	for (int i = 0; i < 2; i++) {
		r = cublaslt_open(&lt);
		if (r == -ENOENT) {
			print_message("there is no libcublasLt here\n");
			skip();
		}
		assert_int_equal(r, 0);
#ifdef __SANITIZE_ADDRESS__
		/* Mapped to the end: what it lost can be told from what we lose. */
		if (!library)
			library = dlopen("libcublasLt.so.13", RTLD_NOW | RTLD_LOCAL);
#endif
		print_message("version %zu\n", cublaslt_version(lt));
		assert_true(cublaslt_version(lt) >= 120000);
		/* It wants a device; where there is one, a context, which nobody has made here. */
		r = driver ? -EIO : cublaslt_plan_create(lt, &product, 8, 1 << 20, &plan);
		assert_int_equal(r, -EIO);
		assert_null(plan);
		cublaslt_close(lt);
	}
	cublaslt_close(NULL);
	cublaslt_plan_destroy(NULL);
	(void)library;
	if (driver)
		(void)dlclose(driver);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(opened_twice),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
