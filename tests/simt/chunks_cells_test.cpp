/// Chunks of a user's row cells, and of heads of a static length, in every number. Oracle: the reference in double.
#include "chunks.hpp"

using namespace rwkv;
using config::check_chunks;

TEST_CASE_TEMPLATE("simt: chunks of a user's own cell", Cell, config::LinearAttention, config::ReadsItself,
                   config::ReadsFirst) {
  check_chunks<Cell, float>(Extent<12>{}, {1, 5, 15, 16, 17, 31, 32, 33, 50});
}

TEST_CASE_TEMPLATE("simt: chunks of heads of a static length", Cell, WKV5, WKV7) {
  check_chunks<Cell, float>(Extent<16>{}, {33});
  check_chunks<Cell, float>(Extent<128>{}, {18}, 1, 2);
}

TEST_CASE_TEMPLATE("simt: chunks in 16 bits and in double precision", U, bf16, double) {
  check_chunks<WKV5, U>(Extent<20>{}, {37});
  check_chunks<WKV7, U>(Extent<20>{}, {37});
}

TEST_CASE("simt: chunks of a long head in double precision") { check_chunks<WKV7, double>(Extent<132>{}, {6}, 1, 1); }
