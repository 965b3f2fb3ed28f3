#pragma once
/// Everything on the CPU: the building blocks, checkpoints and text.
#include "rwkv/blocks.hpp"
#include "rwkv/io/checkpoint.hpp"
#include "rwkv/text/generate.hpp"
#include "rwkv/text/sampler.hpp"
#include "rwkv/text/tokenizer.hpp"
