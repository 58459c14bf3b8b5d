/*
 * SentencePiece behind a C interface. No exception leaves this file.
 */
extern "C" {
#include "base/file.h"
#include "base/json.h"
#include "engine/tokenizer.h"
#include "engine/tokenizer_check.h"
}

#include <sentencepiece_processor.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <new>
#include <string>
#include <string_view>
#include <vector>

/* Exported by the library, declared in none of its installed headers. */
namespace sentencepiece::logging {
void SetMinLogLevel(int level);
}

namespace {

constexpr int log_fatal_only = 3;
constexpr const char *error_name = "tokenizer.open";

struct literal {
	std::string text;
	int id;
};

} // namespace

struct tokenizer {
	sentencepiece::SentencePieceProcessor processor;
	std::vector<literal> literals; /* control and unknown pieces, longest text first */
};

namespace {

void collect_literals(struct tokenizer *t)
{
	const int pieces = t->processor.GetPieceSize();

	for (int id = 0; id < pieces; id++)
		if (t->processor.IsControl(id) || t->processor.IsUnknown(id))
			t->literals.push_back({ t->processor.IdToPiece(id), id });
	std::stable_sort(t->literals.begin(), t->literals.end(),
			 [](const literal &a, const literal &b) {
				 return a.text.size() > b.text.size();
			 });
}

int load(const char *path, std::string_view bytes, struct tokenizer **ret, struct sana_error *error)
{
	auto t = std::make_unique<struct tokenizer>();
	const auto status = t->processor.LoadFromSerializedProto(bytes);
	char reason[160];

	if (!status.ok()) {
		/* It quotes pieces of the file. */
		json_plain_text(reason, sizeof(reason), status.error_message());
		return sana_error_set(error, -EINVAL, error_name,
				      "%.300s: the SentencePiece library refuses this model (%s); "
				      "copy the model's tokenizer.model here again.",
				      path, reason);
	}
	collect_literals(t.get());
	*ret = t.release();
	return 0;
}

int encode_span(const struct tokenizer *t, std::string_view text, std::vector<int> *out)
{
	std::vector<int> ids;

	if (text.empty())
		return 0;
	if (!t->processor.Encode(text, &ids).ok())
		return -EINVAL;
	out->insert(out->end(), ids.begin(), ids.end());
	return 0;
}

const literal *literal_at(const struct tokenizer *t, std::string_view text)
{
	for (const literal &l : t->literals)
		if (text.substr(0, l.text.size()) == l.text)
			return &l;
	return nullptr;
}

int encode_literals(const struct tokenizer *t, std::string_view text, std::vector<int> *out)
{
	size_t start = 0, at = 0;
	int r;

	while (at < text.size()) {
		const literal *found = literal_at(t, text.substr(at));

		if (!found) {
			at++;
			continue;
		}
		r = encode_span(t, text.substr(start, at - start), out);
		if (r < 0)
			return r;
		out->push_back(found->id);
		at += found->text.size();
		start = at;
	}
	return encode_span(t, text.substr(start), out);
}

using encode_function = int (*)(const struct tokenizer *, std::string_view, std::vector<int> *);

int encode(encode_function how, const struct tokenizer *t, const char *text, size_t length,
	   int32_t *ids, int capacity)
{
	/* The library counts in int; a byte makes at most a few ids. */
	if ((!text && length > 0) || length > INT32_MAX / 8 || capacity < 0)
		return -EINVAL;
	try {
		std::vector<int> all;
		const int r = how(t, std::string_view(length ? text : "", length), &all);

		if (r < 0)
			return r;
		std::copy_n(all.begin(), std::min(all.size(), (size_t)capacity), ids);
		return (int)all.size();
	} catch (const std::bad_alloc &) {
		return -ENOMEM;
	} catch (...) {
		return -EINVAL;
	}
}

} // namespace

extern "C" {

int tokenizer_open(const char *path, struct tokenizer **ret, struct sana_error *error)
{
	_cleanup_(freep) char *bytes = nullptr;
	size_t size = 0;
	int r;

	r = file_read(path, TOKENIZER_MAX_BYTES, error_name, &bytes, &size, error);
	if (r == -EFBIG)
		return sana_error_set(error, -EINVAL, error_name,
				      "%.300s: a tokenizer of more than 64 MiB is not read.", path);
	if (r < 0)
		return r;
	r = tokenizer_check(bytes, size, error);
	if (r < 0)
		return sana_error_prefix(error, "%.300s", path), r;
	try {
		sentencepiece::logging::SetMinLogLevel(log_fatal_only);
		return load(path, std::string_view(bytes, size), ret, error);
	} catch (const std::bad_alloc &) {
		return sana_error_set(error, -ENOMEM, error_name,
				      "%.300s: not enough memory for this tokenizer.", path);
	} catch (...) {
		return sana_error_set(error, -EINVAL, error_name,
				      "%.300s: the SentencePiece library fails on this model.",
				      path);
	}
}

void tokenizer_close(struct tokenizer *tokenizer)
{
	delete tokenizer;
}

int tokenizer_pieces(const struct tokenizer *tokenizer)
{
	return tokenizer->processor.GetPieceSize();
}

int tokenizer_bos(const struct tokenizer *tokenizer)
{
	return tokenizer->processor.bos_id();
}

int tokenizer_encode(const struct tokenizer *tokenizer, const char *text, size_t length,
		     int32_t *ids, int capacity)
{
	return encode(encode_span, tokenizer, text, length, ids, capacity);
}

int tokenizer_encode_literals(const struct tokenizer *tokenizer, const char *text, size_t length,
			      int32_t *ids, int capacity)
{
	return encode(encode_literals, tokenizer, text, length, ids, capacity);
}
}
