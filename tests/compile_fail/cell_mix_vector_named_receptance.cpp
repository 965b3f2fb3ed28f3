// error: rwkv: an input or shared vector of a cell in CellMix cannot be named receptance or output, the block has those itself
#include <rwkv/block/cell_mix.hpp>
#include <rwkv/blocks.hpp>

template class rwkv::CellMix<rwkv::WKV7, float, rwkv::Cpu>;
