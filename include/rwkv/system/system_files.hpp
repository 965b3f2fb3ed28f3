#pragma once
/// The file system of this machine.
#include "rwkv/config.hpp"
#include "rwkv/system/file_system.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// The file system of the machine the program runs on: POSIX calls, or standard streams where there are none.
FileSystem& system_files();

}  // namespace RWKV_ABI
}  // namespace rwkv

#ifndef RWKV_COMPILED
#include "rwkv/system/system_files.ipp"
#endif
