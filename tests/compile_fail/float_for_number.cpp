// A functor is never instantiated with a bare float; the number types are One, Pack and Dual.
// error: no matching function for call to
#include <rwkv/blocks.hpp>

float run(float (&state)[3], const float (&x)[4]) { return config::ChannelCell::step(state, x); }
