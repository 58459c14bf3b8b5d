/* sana-edit: where the demo model is. */
#include "tools/edit/edit.h"

#include <errno.h>
#include <unistd.h>

/* Relative to the directory the program lies in: installed, then in a build directory. */
static const char *const beside[] = {
	"../share/sana-streamd/models/demo",
	"../../models/demo",
};

static char *program_directory(void)
{
	char path[4096];
	const ssize_t length = readlink("/proc/self/exe", path, sizeof(path) - 1);
	char *slash;

	if (length <= 0)
		return NULL;
	path[length] = '\0';
	slash = strrchr(path, '/');
	if (!slash)
		return NULL;
	*slash = '\0';
	return strdup(path);
}

static bool is_model(const char *directory)
{
	_cleanup_(freep) char *path = NULL;

	return asprintf(&path, "%s/stream.json", directory) > 0 && access(path, R_OK) == 0;
}

int edit_model_find(const char *given, char **ret, struct sana_error *error)
{
	_cleanup_(freep) char *program = program_directory();
	_cleanup_(freep) char *path = NULL;
	char *clean;

	for (size_t i = 0; !given && program && i < ARRAY_SIZE(beside); i++) {
		if (asprintf(&path, "%s/%s", program, beside[i]) < 0)
			return -ENOMEM;
		if (is_model(path)) {
			clean = realpath(path, NULL);
			*ret = clean ? clean : TAKE_PTR(path);
			return 0;
		}
		free(TAKE_PTR(path));
	}
	if (!given && !is_model("models/demo"))
		return sana_error_set(error, -ENOENT, "model.directory",
				      "The demo model is not installed beside this program: give "
				      "a model with --model DIR.");
	*ret = strdup(given ? given : "models/demo");
	return *ret ? 0 : -ENOMEM;
}
