/* The file of measured choices: written, read, doubted. */
#include "kernels/tuning.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char magic[] = "sana-streamd tuning ";
enum { FORMAT_VERSION = 1 };

const struct tuning_choice *tuning_find(const struct tuning *tuning, const int key[TUNING_FIELDS])
{
	for (int i = 0; i < tuning->choices; i++)
		if (memcmp(tuning->choice[i].key, key, sizeof(tuning->choice[i].key)) == 0)
			return &tuning->choice[i];
	return NULL;
}

void tuning_put(struct tuning *tuning, const struct tuning_choice *choice)
{
	const struct tuning_choice *known = tuning_find(tuning, choice->key);

	if (known) {
		tuning->choice[known - tuning->choice] = *choice;
		return;
	}
	if (tuning->choices == TUNING_CHOICES)
		tuning->choices = 0;
	tuning->choice[tuning->choices++] = *choice;
}

/* FNV-1a: against damage, not against malice. */
static uint64_t check_sum(const char *text, size_t bytes)
{
	uint64_t sum = 0xcbf29ce484222325u;

	for (size_t i = 0; i < bytes; i++)
		sum = (sum ^ (unsigned char)text[i]) * 0x100000001b3u;
	return sum;
}

static bool device_valid(const char *name)
{
	for (const char *p = name; *p; p++)
		if (*p < ' ' || *p > '~')
			return false;
	return *name;
}

static bool word_byte(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
}

static bool kernel_valid(const char *name)
{
	for (const char *p = name; *p; p++)
		if (!word_byte(*p))
			return false;
	return *name;
}

/* -------------------------------------------------------------------------------------- reading */

/* What is left of the text; `bad` sticks. */
struct reader {
	const char *at, *end;
	bool bad;
};

static void expect(struct reader *r, const char *text)
{
	const size_t length = strlen(text);

	if (r->bad || (size_t)(r->end - r->at) < length || memcmp(r->at, text, length) != 0) {
		r->bad = true;
		return;
	}
	r->at += length;
}

/* Digits as they are written: no sign, no leading zero. */
static int64_t number_take(struct reader *r, int64_t most)
{
	const char *first = r->at;
	int64_t value = 0;

	while (!r->bad && r->at < r->end && *r->at >= '0' && *r->at <= '9') {
		value = 10 * value + (*r->at++ - '0');
		r->bad = value > most;
	}
	if (r->at == first || (*first == '0' && r->at - first > 1))
		r->bad = true;
	return r->bad ? 0 : value;
}

static uint64_t word_take(struct reader *r)
{
	static const char digits[] = "0123456789abcdef";
	uint64_t value = 0;

	for (int i = 0; i < 16 && !r->bad; i++) {
		const char *digit = r->at < r->end && *r->at ?
					    memchr(digits, *r->at, sizeof(digits) - 1) :
					    NULL;

		if (!digit) {
			r->bad = true;
			return 0;
		}
		value = value << 4 | (uint64_t)(digit - digits);
		r->at++;
	}
	return value;
}

/* Up to and without `stop`. */
static void text_take(struct reader *r, char stop, char *to, size_t bytes)
{
	size_t length = 0;

	while (!r->bad && r->at < r->end && *r->at != stop) {
		if (length + 1 >= bytes || !*r->at)
			r->bad = true;
		else
			to[length++] = *r->at++;
	}
	to[length] = '\0';
}

static void machine_read(struct reader *r, struct tuning_machine *machine)
{
	expect(r, "device ");
	text_take(r, '\n', machine->device, sizeof(machine->device));
	expect(r, "\ncapability ");
	machine->capability = (int)number_take(r, INT_MAX);
	expect(r, "\nmultiprocessors ");
	machine->multiprocessors = (int)number_take(r, INT_MAX);
	expect(r, "\ndriver ");
	machine->driver = (int)number_take(r, INT_MAX);
	expect(r, "\nlibrary ");
	machine->library = (uint64_t)number_take(r, INT_MAX);
	expect(r, "\nkernels ");
	machine->kernels = word_take(r);
	expect(r, "\n");
	r->bad = r->bad || !device_valid(machine->device);
}

static void product_read(struct reader *r, struct tuning_product *product)
{
	expect(r, " ");
	product->first = (int)number_take(r, TUNING_PRODUCTS - 1);
	expect(r, " ");
	product->parts = (int)number_take(r, TUNING_PRODUCTS);
	for (int i = 0; i < TUNING_WORDS; i++) {
		expect(r, " ");
		product->algorithm[i] = word_take(r);
	}
	r->bad = r->bad || product->parts < 1 || product->first + product->parts > TUNING_PRODUCTS;
}

static void choice_read(struct reader *r, struct tuning_choice *choice)
{
	expect(r, "choice");
	for (int i = 0; i < TUNING_FIELDS; i++) {
		expect(r, " ");
		choice->key[i] = (int)number_take(r, INT_MAX);
	}
	expect(r, " ");
	text_take(r, ' ', choice->kernel, sizeof(choice->kernel));
	expect(r, " ");
	choice->products = (int)number_take(r, TUNING_PRODUCTS);
	for (int i = 0; i < choice->products && !r->bad; i++)
		product_read(r, &choice->product[i]);
	expect(r, "\n");
	r->bad = r->bad || !kernel_valid(choice->kernel);
}

static bool machine_same(const struct tuning_machine *a, const struct tuning_machine *b)
{
	return strcmp(a->device, b->device) == 0 && a->capability == b->capability &&
	       a->multiprocessors == b->multiprocessors && a->driver == b->driver &&
	       a->library == b->library && a->kernels == b->kernels;
}

static int parse(struct reader *r, const struct tuning_machine *machine, struct tuning *to)
{
	const char *text = r->at;
	uint64_t sum;

	expect(r, magic);
	if (number_take(r, INT_MAX) != FORMAT_VERSION && !r->bad)
		return -ESTALE;
	expect(r, "\n");
	machine_read(r, &to->machine);
	expect(r, "choices ");
	to->choices = (int)number_take(r, TUNING_CHOICES);
	expect(r, "\n");
	for (int i = 0; i < to->choices && !r->bad; i++)
		choice_read(r, &to->choice[i]);
	if (r->bad)
		return -EBADMSG;
	sum = check_sum(text, (size_t)(r->at - text));
	expect(r, "sum ");
	r->bad = word_take(r) != sum || r->bad;
	expect(r, "\n");
	if (r->bad || r->at != r->end)
		return -EBADMSG;
	return machine_same(&to->machine, machine) ? 0 : -ESTALE;
}

int tuning_parse(const char *text, size_t bytes, const struct tuning_machine *machine,
		 struct tuning *ret)
{
	struct reader reader = { text, text + bytes, false };
	struct tuning *read = calloc(1, sizeof(*read));
	int r;

	if (!read)
		return -ENOMEM;
	r = parse(&reader, machine, read);
	if (r >= 0)
		*ret = *read;
	free(read);
	return r;
}

static int whole_read(int fd, char *to, size_t bytes, size_t *ret_bytes)
{
	size_t have = 0;

	while (have < bytes) {
		const ssize_t n = read(fd, to + have, bytes - have);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		have += (size_t)n;
	}
	*ret_bytes = have;
	return 0;
}

static int file_parse(int fd, const struct tuning_machine *machine, struct tuning *ret)
{
	struct stat status;
	size_t bytes = 0;
	char *text;
	int r;

	if (fstat(fd, &status) < 0)
		return -errno;
	if (!S_ISREG(status.st_mode))
		return -EINVAL;
	if (status.st_size > TUNING_FILE_BYTES)
		return -EFBIG;
	text = malloc(TUNING_FILE_BYTES);
	if (!text)
		return -ENOMEM;
	r = whole_read(fd, text, TUNING_FILE_BYTES, &bytes);
	if (r >= 0)
		r = tuning_parse(text, bytes, machine, ret);
	free(text);
	return r;
}

int tuning_load(const char *path, const struct tuning_machine *machine, struct tuning *ret)
{
	/* O_NONBLOCK: opening a pipe nobody writes to must not wait. */
	const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW);
	int r;

	if (fd < 0)
		return -errno;
	r = file_parse(fd, machine, ret);
	(void)close(fd);
	return r;
}

/* -------------------------------------------------------------------------------------- writing */

struct writer {
	char *to;
	size_t bytes, used;
	bool full;
};

static void put(struct writer *w, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void put(struct writer *w, const char *format, ...)
{
	va_list arguments;
	int n;

	va_start(arguments, format);
	n = vsnprintf(w->to + w->used, w->bytes - w->used, format, arguments);
	va_end(arguments);
	if (n < 0 || (size_t)n >= w->bytes - w->used)
		w->full = true;
	else
		w->used += (size_t)n;
}

static void choice_put(struct writer *w, const struct tuning_choice *choice)
{
	put(w, "choice");
	for (int i = 0; i < TUNING_FIELDS; i++)
		put(w, " %d", choice->key[i]);
	put(w, " %s %d", choice->kernel, choice->products);
	for (int i = 0; i < choice->products; i++) {
		put(w, " %d %d", choice->product[i].first, choice->product[i].parts);
		for (int k = 0; k < TUNING_WORDS; k++)
			put(w, " %016" PRIx64, choice->product[i].algorithm[k]);
	}
	put(w, "\n");
}

int tuning_format(const struct tuning *tuning, char *to, size_t bytes)
{
	const struct tuning_machine *m = &tuning->machine;
	struct writer w = { .to = to, .bytes = bytes };

	if (!device_valid(m->device))
		return -EINVAL;
	put(&w, "%s%d\ndevice %s\ncapability %d\nmultiprocessors %d\ndriver %d\n", magic,
	    FORMAT_VERSION, m->device, m->capability, m->multiprocessors, m->driver);
	put(&w, "library %" PRIu64 "\nkernels %016" PRIx64 "\nchoices %d\n", m->library, m->kernels,
	    tuning->choices);
	for (int i = 0; i < tuning->choices && !w.full; i++) {
		if (!kernel_valid(tuning->choice[i].kernel))
			return -EINVAL;
		choice_put(&w, &tuning->choice[i]);
	}
	put(&w, "sum %016" PRIx64 "\n", check_sum(to, w.used));
	return w.full ? -ENOSPC : (int)w.used;
}

static int whole_write(int fd, const char *text, size_t bytes)
{
	for (size_t done = 0; done < bytes;) {
		const ssize_t n = write(fd, text + done, bytes - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		done += (size_t)n;
	}
	return fsync(fd) < 0 ? -errno : 0;
}

/* Up to the last '/' of the path. What fails here shows when the file is made. */
static void directories_make(const char *path)
{
	char part[PATH_MAX];

	for (const char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		if ((size_t)(slash - path) >= sizeof(part))
			return;
		memcpy(part, path, (size_t)(slash - path));
		part[slash - path] = '\0';
		(void)mkdir(part, 0700);
	}
}

/* A file beside it takes its place once all of it is on the disk. */
static int replace(const char *path, const char *text, size_t bytes)
{
	char beside[PATH_MAX];
	int fd, r;

	if (snprintf(beside, sizeof(beside), "%s.XXXXXX", path) >= (int)sizeof(beside))
		return -ENAMETOOLONG;
	fd = mkostemp(beside, O_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = whole_write(fd, text, bytes);
	if (close(fd) < 0 && r >= 0)
		r = -errno;
	if (r >= 0 && rename(beside, path) < 0)
		r = -errno;
	if (r < 0)
		(void)unlink(beside);
	return r;
}

int tuning_save(const char *path, const struct tuning *tuning)
{
	char *text = malloc(TUNING_FILE_BYTES);
	int r;

	if (!text)
		return -ENOMEM;
	r = tuning_format(tuning, text, TUNING_FILE_BYTES);
	if (r >= 0) {
		directories_make(path);
		r = replace(path, text, (size_t)r);
	}
	free(text);
	return r;
}
