/* First bytes of the kinds of files that people take for checkpoints. */
#include "engine/checkpoint/looks.h"

enum { HEAD_BYTES = 512, TAR_OFFSET = 257, SAFETENSORS_HEADER_LIMIT = 100000000 };

static const struct {
	size_t offset, bytes;
	const char *magic;
	enum file_look look;
	const char *text;
} known[] = {
	{ 0, 4, "PK\3\4", LOOK_TORCH, "a zip file" },
	{ 0, 14, "\x80\2\x8a\n\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19", LOOK_TORCH_LEGACY,
	  "a checkpoint in the format that PyTorch wrote before version 1.6 (no zip file); load it "
	  "and save it again with a current PyTorch, or convert it to safetensors" },
	{ TAR_OFFSET, 5, "ustar", LOOK_TORCH_TAR,
	  "a tar archive, as the first versions of PyTorch wrote them; load it and save it again "
	  "with a current PyTorch, or unpack it" },
	{ 0, 8, "\x89HDF\r\n\x1a\n", LOOK_OTHER, "an HDF5 file (Keras, TensorFlow)" },
	{ 0, 4, "GGUF", LOOK_OTHER, "a GGUF file (llama.cpp)" },
	{ 0, 4, "ggml", LOOK_OTHER, "a GGML file (llama.cpp)" },
	{ 0, 8, "version ", LOOK_OTHER,
	  "a Git LFS pointer, not the file it stands for; fetch it with \"git lfs pull\"" },
	{ 0, 2, "\x1f\x8b", LOOK_OTHER, "a gzip file; unpack it first" },
	{ 0, 6,
	  "\xfd"
	  "7zXZ\0",
	  LOOK_OTHER, "an xz file; unpack it first" },
	{ 0, 4, "\x28\xb5\x2f\xfd", LOOK_OTHER, "a zstd file; unpack it first" },
	{ 0, 6, "7z\xbc\xaf\x27\x1c", LOOK_OTHER, "a 7-zip file; unpack it first" },
	{ 0, 6, "\x93NUMPY", LOOK_OTHER, "a NumPy array" },
	{ 0, 4,
	  "\x7f"
	  "ELF",
	  LOOK_OTHER, "a program" },
	{ 0, 8, "\x89PNG\r\n\x1a\n", LOOK_OTHER, "a PNG picture" },
	{ 0, 3, "\xff\xd8\xff", LOOK_OTHER, "a JPEG picture" },
	{ 4, 4, "ftyp", LOOK_OTHER, "an MP4 video" },
	{ 0, 5, "%PDF-", LOOK_OTHER, "a PDF document" },
	{ 0, 1, "<", LOOK_OTHER,
	  "an HTML or XML page, perhaps an error page in place of a download" },
	{ 0, 1, "{", LOOK_JSON, "a JSON file" },
	/* Last, as a legacy checkpoint begins like it. */
	{ 0, 1, "\x80", LOOK_OTHER, "a bare Python pickle, not a checkpoint of torch.save" },
};

/* ASCII with line ends; other texts are not told from data. */
static bool is_text(const uint8_t *head, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		if (head[i] > 0x7e ||
		    (head[i] < 0x20 && head[i] != '\n' && head[i] != '\t' && head[i] != '\r'))
			return false;
	return true;
}

enum file_look file_look(const struct byte_source *source, const char **ret_text)
{
	uint8_t head[HEAD_BYTES] = { 0 };
	size_t bytes = (size_t)MIN_OF(source->size, (uint64_t)HEAD_BYTES);

	*ret_text = "no kind of file known here";
	if (bytes == 0) {
		*ret_text = "an empty file";
		return LOOK_EMPTY;
	}
	if (byte_source_read(source, 0, head, bytes) < 0)
		return LOOK_UNKNOWN;
	if (bytes > 8 && head[8] == '{' && bytes_u64(head) >= 2 &&
	    bytes_u64(head) <= SAFETENSORS_HEADER_LIMIT) {
		*ret_text = "a safetensors file";
		return LOOK_SAFETENSORS;
	}
	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		if (known[i].offset + known[i].bytes > bytes ||
		    memcmp(head + known[i].offset, known[i].magic, known[i].bytes) != 0)
			continue;
		*ret_text = known[i].text;
		return known[i].look;
	}
	if (!is_text(head, bytes))
		return LOOK_UNKNOWN;
	*ret_text = "a text file";
	return LOOK_OTHER;
}
