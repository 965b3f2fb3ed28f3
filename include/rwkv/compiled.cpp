/// What the headers only declare where RWKV_COMPILED is defined, but for the models of compiled_models.cpp. The CMake target
/// rwkv::compiled is these two files; by hand, compile both once, give -DRWKV_COMPILED to the rest and link them.
#ifndef RWKV_COMPILED
#define RWKV_COMPILED
#endif
#include "rwkv/io/checkpoint.ipp"
#include "rwkv/io/dialects.ipp"
#include "rwkv/io/gguf.ipp"
#include "rwkv/io/names.ipp"
#include "rwkv/io/official_names.ipp"
#include "rwkv/io/pth.ipp"
#include "rwkv/io/safetensors.ipp"
#include "rwkv/io/shards.ipp"
#include "rwkv/io/state_file.ipp"
#include "rwkv/io/tensor.ipp"
#include "rwkv/io/tensor_file.ipp"
#include "rwkv/system/byte_reader.ipp"
#include "rwkv/system/crc32.ipp"
#include "rwkv/system/file.ipp"
#include "rwkv/system/file_kind.ipp"
#include "rwkv/system/glob.ipp"
#include "rwkv/system/system_files.ipp"
#include "rwkv/system/utf8.ipp"
#include "rwkv/text/chat.ipp"
#include "rwkv/text/sampler.ipp"
#include "rwkv/text/text_stream.ipp"
#include "rwkv/text/tokenizer.ipp"
#include "rwkv/train/run_file.ipp"
#include "rwkv/train/token_data.ipp"
