/* Brings a network's weights to the back end. */
#include "engine/loader.h"

#include <errno.h>
#include <stdarg.h>

/* Stands for weights that are not there yet: plans ask whether there are any, and read none. */
static const char planned = 0;

/* Host memory for widening one vector; freed before the call returns. */
static float *vector_read(struct loader *loader, const char *name, size_t count)
{
	const struct weight_tensor *tensor = weights_find(loader->table, name);
	float *values;

	if (!tensor) {
		loader->status = -ENOENT;
		return NULL;
	}
	values = malloc(count * sizeof(*values));
	if (!values) {
		loader->status = -ENOMEM;
		return NULL;
	}
	weights_read_float(tensor, values, count);
	return values;
}

void loader_floats(struct loader *loader, float **to, const float *values, size_t count)
{
	const struct kernel_backend *table = loader->backend->table;
	int r;

	*to = arena_take(loader->arena, loader->line, count, sizeof(**to));
	if (loader->measuring || loader->status < 0)
		return;
	r = table->upload(loader->backend->device, *to, values, count * sizeof(*values),
			  loader->queue);
	if (r >= 0)
		r = table->queue_wait(loader->backend->device, loader->queue);
	if (r < 0)
		loader->status = r;
}

static void vector_load(struct loader *loader, const float **to, const char *name, size_t rows,
			size_t columns)
{
	const size_t count = rows * columns;
	_cleanup_(freep) float *values = NULL;
	_cleanup_(freep) float *turned = NULL;
	float *placed = NULL;

	if (!loader->measuring && loader->status >= 0)
		values = vector_read(loader, name, count);
	if (values && rows > 1 && columns > 1) {
		turned = malloc(count * sizeof(*turned));
		if (!turned)
			loader->status = -ENOMEM;
		for (size_t i = 0; turned && i < rows; i++)
			for (size_t j = 0; j < columns; j++)
				turned[j * rows + i] = values[i * columns + j];
	}
	loader_floats(loader, &placed, turned ? turned : values, count);
	*to = placed;
}

void loader_vector(struct loader *loader, const float **to, size_t count, const char *format, ...)
{
	char name[MODEL_KEY_NAME_BYTES];
	va_list arguments;

	va_start(arguments, format);
	(void)vsnprintf(name, sizeof(name), format, arguments);
	va_end(arguments);
	vector_load(loader, to, name, 1, count);
}

void loader_vector_transposed(struct loader *loader, const float **to, size_t rows, size_t columns,
			      const char *format, ...)
{
	char name[MODEL_KEY_NAME_BYTES];
	va_list arguments;

	va_start(arguments, format);
	(void)vsnprintf(name, sizeof(name), format, arguments);
	va_end(arguments);
	vector_load(loader, to, name, rows, columns);
}

static void progress_say(struct loader *loader)
{
	const double fraction = (double)loader->arena->used / (double)loader->arena->capacity;

	if (!loader->progress || (int)(100 * fraction) == loader->percent)
		return;
	loader->percent = (int)(100 * fraction);
	loader->progress(loader->progress_context, fraction);
}

static void matrix_load(struct loader *loader, struct kernel_weight *to, const char *name)
{
	const struct kernel_backend *table = loader->backend->table;
	const struct weight_tensor *tensor = NULL;
	size_t bytes;
	void *memory;
	int r;

	to->dtype = KERNEL_BF16;
	to->data = &planned;
	if (loader->table) {
		tensor = weights_find(loader->table, name);
		if (!tensor) {
			loader->status = -ENOENT;
			return;
		}
		to->dtype = tensor->dtype;
		to->data = tensor->data;
	}
	loader->matrix_bytes += (size_t)to->out * to->in * to->taps * kernel_dtype_bytes(to->dtype);
	if (!loader->prepare)
		return;
	bytes = table->weight_prepare_bytes(loader->backend->device, to);
	if (!bytes)
		return;
	memory = arena_take(loader->arena, loader->line, 1, bytes);
	/* Workspace functions ask whether a weight is prepared, so the plan must know. */
	if (loader->measuring)
		to->prepared = (void *)&planned;
	if (loader->measuring || loader->status < 0)
		return;
	r = table->weight_prepare(loader->backend->device, to, memory, loader->queue);
	if (r < 0)
		loader->status = r;
	progress_say(loader);
}

void loader_matrix_taps(struct loader *loader, struct kernel_weight *to, int out, int in, int taps,
			int tap_first, int tap_count, const char *format, ...)
{
	char name[MODEL_KEY_NAME_BYTES];
	va_list arguments;

	va_start(arguments, format);
	(void)vsnprintf(name, sizeof(name), format, arguments);
	va_end(arguments);
	*to = (struct kernel_weight){
		.out = out,
		.in = in,
		.taps = taps,
		.tap_first = tap_first,
		.tap_count = tap_count,
	};
	matrix_load(loader, to, name);
}

void loader_matrix(struct loader *loader, struct kernel_weight *to, int out, int in, int taps,
		   const char *format, ...)
{
	char name[MODEL_KEY_NAME_BYTES];
	va_list arguments;

	va_start(arguments, format);
	(void)vsnprintf(name, sizeof(name), format, arguments);
	va_end(arguments);
	*to = (struct kernel_weight){
		.out = out, .in = in, .taps = taps, .tap_first = 0, .tap_count = taps
	};
	matrix_load(loader, to, name);
}
