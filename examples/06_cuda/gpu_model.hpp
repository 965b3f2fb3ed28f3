#pragma once
#include <rwkv/model/any_model.hpp>

#include <filesystem>

/// An RWKV-4 from a checkpoint, on the first GPU. Defined in a .cu file; who calls it needs no CUDA.
/// Errors    no device, a file that holds no such model
rwkv::AnyModel load_on_gpu(const std::filesystem::path& checkpoint);
