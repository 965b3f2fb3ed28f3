#include "versions.hpp"

template int example::train_version<rwkv::V6, rwkv::Cpu>(const Settings&, Ranks);
