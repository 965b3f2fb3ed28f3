// error: rwkv: a layer is made of two blocks; see rwkv::Block
#include <rwkv/blocks.hpp>

template class rwkv::Layer<config::ChannelCell, float>;
