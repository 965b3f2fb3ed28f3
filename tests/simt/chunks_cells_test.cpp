/// Chunks of a user's row cells. Oracle: the reference in double, token after token.
#include "chunks.hpp"

using namespace rwkv;

TEST_CASE_TEMPLATE("simt: chunks of a user's own cell", Cell, config::LinearAttention, config::ReadsItself,
                   config::ReadsFirst) {
  config::check_chunks<Cell, float>(Extent<12>{}, {1, 5, 15, 16, 17, 31, 32, 33, 50});
}
