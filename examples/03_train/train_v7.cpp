#include "versions.hpp"

template int example::train_version<rwkv::V7, rwkv::Cpu>(const Settings&, Ranks);
