#pragma once
// Every version is a file of its own, train_v4.cpp to train_v7a.cpp: they are compiled side by side, each in less memory.
#include "train.hpp"
#ifdef RWKV_WITH_MPI
#include <rwkv/train/mpi.hpp>
#endif

namespace example {

#ifdef RWKV_WITH_MPI
using Ranks = MpiComm;
#else
using Ranks = SelfComm;
#endif

extern template int train_version<V4, Cpu>(const Settings&, Ranks);
extern template int train_version<V5_0, Cpu>(const Settings&, Ranks);
extern template int train_version<V5_1, Cpu>(const Settings&, Ranks);
extern template int train_version<V5, Cpu>(const Settings&, Ranks);
extern template int train_version<V6, Cpu>(const Settings&, Ranks);
extern template int train_version<V7, Cpu>(const Settings&, Ranks);
extern template int train_version<V7a, Cpu>(const Settings&, Ranks);

}  // namespace example
