// error: rwkv: a static extent must not be negative; use rwkv::dyn for a run-time size
#include <rwkv/blocks.hpp>

template struct rwkv::Extent<-2>;
