#include "versions.hpp"

template int example::train_version<rwkv::V4, rwkv::Cpu>(const Settings&, Ranks);
