#pragma once
#include <algorithm>
#include <array>
#include <cstddef>
#include <string_view>

#include "rwkv/system/file_kind.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
namespace detail {

struct FileMark {
  std::size_t at;
  std::string_view bytes;
  std::string_view kind;
};

inline constexpr std::string_view lfs_kind =
    "a Git LFS pointer, not the file itself; run `git lfs pull`, or download the file";
inline constexpr std::string_view legacy_kind =
    "a .pth in the format before PyTorch 1.6; load and save it with a newer PyTorch";
inline constexpr std::string_view ggml_kind =
    "a file of rwkv.cpp or another ggml program; use the .pth that it was converted from";

/// A file has a kind when these bytes stand at that place.
inline constexpr std::array<FileMark, 30> file_marks{
    {{0, "version https://git-lfs", lfs_kind},
     {0, "version https://hawser", lfs_kind},  // as it was called at first
     {0, "# xet version", "a Xet pointer, not the file itself; download the file"},
     {0, "GGUF", "a GGUF file, which holds a model"},
     {0, "fmgg", ggml_kind},  // the numbers 'ggmf', 'ggml', 'ggjt' and 'ggla' with their lowest byte first
     {0, "lmgg", ggml_kind},
     {0, "tjgg", ggml_kind},
     {0, "algg", ggml_kind},
     {0, "ggmf", ggml_kind},
     {0, "ggml", ggml_kind},
     {0, "ggjt", ggml_kind},
     {0, "\x1f\x8b", "a gzip archive; unpack it"},
     {0, "BZh", "a bzip2 archive; unpack it"},
     {0, "\xfd\x37zXZ", "an xz archive; unpack it"},
     {0, "\x28\xb5\x2f\xfd", "a zstd archive; unpack it"},
     {0, "7z\xbc\xaf\x27\x1c", "a 7-zip archive; unpack it"},
     {0, "Rar!", "a RAR archive; unpack it"},
     {257, "ustar", "a tar archive; unpack it"},
     {0, "PK\x05\x06", "an empty zip archive"},
     {0, "\x93NUMPY", "a NumPy array; save tensors as .safetensors or .pth"},
     {0, "\x89HDF", "an HDF5 file; save tensors as .safetensors or .pth"},
     {4, "TFL3", "a TensorFlow Lite file; use the .pth or .safetensors that it was converted from"},
     {0, "\x80\x02\x8a\x0a", legacy_kind},  // a pickle of protocol 2 to 5 that begins with an integer of ten bytes
     {0, "\x80\x03\x8a\x0a", legacy_kind},
     {11, "\x8a\x0a\x6c\xfc\x9c\x46", legacy_kind},  // the same behind the head of a frame, as of protocol 4
     {0, "%PDF", "a PDF document"},
     {0, "#version: ", "the merges.txt of a byte-pair tokenizer"},
     {0, "<unk>\t", "the vocabulary of a SentencePiece tokenizer"},
     {0, "[PAD]\n", "the vocabulary of a WordPiece tokenizer"},
     {0, "IQ== 0\n", "the vocabulary of tiktoken"}}};

/// Whether the text begins so, whatever the case of its letters; `lower` is in lower case.
inline bool begins_with(std::string_view text, std::string_view lower) {
  const auto same = [](char a, char b) { return a == b || ('A' <= a && a <= 'Z' && a - 'A' + 'a' == b); };
  return text.size() >= lower.size() &&
         std::equal(lower.begin(), lower.end(), text.begin(), [&](char b, char a) { return same(a, b); });
}

RWKV_BODY std::string_view kind_of_file(std::string_view content) {
  for (const FileMark& mark : file_marks) {
    if (content.size() >= mark.at && content.substr(mark.at).starts_with(mark.bytes)) return mark.kind;
  }
  // The others take more than a few bytes to tell.
  const std::string_view start = content.substr(0, 65536);
  const auto byte = [&](std::size_t i) { return i < start.size() ? start[i] : '\xff'; };
  if (byte(0) == '\x80' && '\x02' <= byte(1) && byte(1) <= '\x05') {
    return "a bare pickle of Python; save the tensors with torch.save";
  }
  // A protocol buffer of pieces, of which the first is one like <unk>.
  if (byte(0) == '\x0a' && byte(2) == '\x0a' && byte(4) == '<') return "a SentencePiece tokenizer";
  // A protocol buffer whose first fields are the number of the format and who wrote it.
  if (byte(0) == '\x08' && byte(2) == '\x12') {
    return "an ONNX model; use the .pth or .safetensors that it was converted from";
  }
  constexpr std::size_t many = 64;
  if (start.size() >= many && start.find_first_not_of('\0') >= many) {
    return "a file that begins with zeros, as interrupted downloads leave it; download the file again";
  }
  std::string_view text = start.starts_with("\xef\xbb\xbf") ? start.substr(3) : start;
  const auto skip_blanks = [&] { text.remove_prefix(std::min(text.find_first_not_of(" \t\r\n"), text.size())); };
  skip_blanks();
  for (const std::string_view page : {"<!doctype", "<!--", "<html", "<head", "<body", "<script", "<?xml"}) {
    if (begins_with(text, page)) return "a web page or XML text, as failed downloads leave it; download the file again";
  }
  if (!text.starts_with('{') && !text.starts_with('[')) return {};
  text.remove_prefix(1);
  skip_blanks();
  if (text.empty() || std::string_view("\"{}[]-0123456789").find(text[0]) == std::string_view::npos) return {};
  const auto holds = [&](std::string_view key) { return text.find(key) != std::string_view::npos; };
  if (holds("\"weight_map\"")) return index_kind;
  if (holds("\"added_tokens\"") || holds("\"merges\"")) return "the tokenizer.json of another tokenizer";
  if (holds("\"model_type\"") || holds("\"architectures\"")) return "the config.json of a model, not its weights";
  return "a JSON text";
}

}  // namespace detail
}  // namespace RWKV_ABI
}  // namespace rwkv
