#include "versions.hpp"

template int example::train_version<rwkv::V7a, rwkv::Cpu>(const Settings&, Ranks);
