/*
 * Any bytes as a tokenizer file. The check runs here; what passes it goes to the SentencePiece
 * library in a child with limits, because a fault there is not ours to mend: it is only told.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/tokenizer.h"
#include "engine/tokenizer_check.h"

enum { CHILD_SECONDS = 5, CHILD_BROKEN = 3, MAX_IDS = 64 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds)
{
	if (!holds)
		abort();
}

/* An open tokenizer: every id is of its vocabulary, and no more ids are stored than asked for. */
static int encode_some(const struct tokenizer *tokenizer)
{
	static const char text[] = "a sepia <s> tone, caf\xc3\xa9\n42";
	int32_t ids[MAX_IDS + 1];
	int n;

	ids[MAX_IDS] = -7;
	n = tokenizer_encode_literals(tokenizer, text, strlen(text), ids, MAX_IDS);
	for (int i = 0; i < MIN_OF(n, MAX_IDS); i++)
		if (ids[i] < 0 || ids[i] >= tokenizer_pieces(tokenizer))
			return CHILD_BROKEN;
	if (tokenizer_bos(tokenizer) >= tokenizer_pieces(tokenizer))
		return CHILD_BROKEN;
	return ids[MAX_IDS] == -7 ? 0 : CHILD_BROKEN;
}

static int child_main(const uint8_t *data, size_t size)
{
	const struct rlimit seconds = { CHILD_SECONDS, CHILD_SECONDS }, no_core = { 0, 0 };
	const int fd = memfd_create("tokenizer", MFD_CLOEXEC);
	const int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
	struct tokenizer *tokenizer = NULL;
	struct sana_error error = { 0 };
	char path[64];
	int r;

	(void)setrlimit(RLIMIT_CPU, &seconds);
	(void)setrlimit(RLIMIT_CORE, &no_core);
	if (fd < 0 || write(fd, data, size) != (ssize_t)size)
		return CHILD_BROKEN;
	(void)dup2(nowhere, STDERR_FILENO);
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	r = tokenizer_open(path, &tokenizer, &error);
	if (r < 0)
		return strcmp(error.name, "tokenizer.open") == 0 && error.text[0] ? 0 :
										    CHILD_BROKEN;
	r = encode_some(tokenizer);
	tokenizer_close(tokenizer);
	return r;
}

static void load_apart(const uint8_t *data, size_t size)
{
	int status = 0;
	pid_t child;

	(void)fflush(NULL);
	child = fork();
	require(child >= 0);
	if (child == 0)
		_exit(child_main(data, size));
	require(waitpid(child, &status, 0) == child);
	require(!WIFEXITED(status) || WEXITSTATUS(status) != CHILD_BROKEN);
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		(void)fprintf(stderr, "the library fails on a file that passes: status %x\n",
			      status);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sana_error error = { 0 };
	int r = tokenizer_check(data, size, &error);

	if (r == 0)
		load_apart(data, size);
	else
		require(r == -EINVAL && strcmp(error.name, "tokenizer.open") == 0 && error.text[0]);
	return 0;
}
