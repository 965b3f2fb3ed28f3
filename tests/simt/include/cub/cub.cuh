#pragma once
/// Stands in for CUB's umbrella header, in tests only.
#include "block/block_reduce.cuh"
#include "block/block_scan.cuh"
#include "device/device_scan.cuh"
