/// Chunks in 16 bits and in double precision. Oracle: the reference in double, token after token.
#include "chunks.hpp"

using namespace rwkv;
using config::check_chunks;

TEST_CASE_TEMPLATE("simt: chunks in 16 bits and in double precision", U, bf16, double) {
  check_chunks<WKV5, U>(Extent<20>{}, {37});
  check_chunks<WKV7, U>(Extent<20>{}, {37});
}

TEST_CASE("simt: chunks of a long head in double precision") { check_chunks<WKV7, double>(Extent<132>{}, {6}, 1, 1); }
