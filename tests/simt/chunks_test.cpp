/// Row cells in chunks of time, of any length. Oracle: the reference in double, token after token.
#include "chunks.hpp"

using namespace rwkv;
using config::check_chunks;

TEST_CASE_TEMPLATE("simt: chunks of heads of any length, forward and back", Cell, WKV5, WKV7) {
  for (const Index size : {1, 3}) check_chunks<Cell, float>(Extent<>{size}, {1, 2, 3, 4, 5, 15, 16, 17, 33, 100, 300});
  for (const Index size : {8, 16}) check_chunks<Cell, float>(Extent<>{size}, {7, 16, 40});
  check_chunks<Cell, float>(Extent<>{48}, {21});
  check_chunks<Cell, float>(Extent<>{64}, {35});
  check_chunks<Cell, float>(Extent<>{70}, {18}, 1, 1);
  check_chunks<Cell, float>(Extent<>{200}, {9}, 1, 1);
}
