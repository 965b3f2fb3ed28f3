// error: rwkv: CellMix runs channel cells; a row cell needs a block that makes its shared vectors
#include <rwkv/block/cell_mix.hpp>
#include <rwkv/blocks.hpp>

template class rwkv::CellMix<rwkv::WKV7, float, rwkv::Cpu>;
