#include "versions.hpp"

template int example::train_version<rwkv::V5_0, rwkv::Cpu>(const Settings&, Ranks);
template int example::train_version<rwkv::V5_1, rwkv::Cpu>(const Settings&, Ranks);
template int example::train_version<rwkv::V5, rwkv::Cpu>(const Settings&, Ranks);
