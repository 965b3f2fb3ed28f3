#pragma once
/// A model on the CPU, from one translation unit for each instruction set.
#include <rwkv/model/any_model.hpp>

#include <filesystem>

rwkv::AnyModel load_for_v2(const std::filesystem::path& path, int threads);
rwkv::AnyModel load_for_v3(const std::filesystem::path& path, int threads);
rwkv::AnyModel load_for_v4(const std::filesystem::path& path, int threads);
