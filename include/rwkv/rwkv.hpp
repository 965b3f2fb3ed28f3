#pragma once
/// Everything on the CPU: the building blocks, checkpoints, text and training.
#include "rwkv/blocks.hpp"
#include "rwkv/io/checkpoint.hpp"
#include "rwkv/io/load_model.hpp"
#include "rwkv/io/quantised.hpp"
#include "rwkv/io/state_file.hpp"
#include "rwkv/text/chat.hpp"
#include "rwkv/text/generate.hpp"
#include "rwkv/text/sampler.hpp"
#include "rwkv/text/tokenizer.hpp"
#include "rwkv/train/evaluate.hpp"
#include "rwkv/train/initialize.hpp"
#include "rwkv/train/trainer.hpp"
