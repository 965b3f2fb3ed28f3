#define DOCTEST_CONFIG_IMPLEMENT
#include <cuda_runtime.h>
#include <doctest/doctest.h>

int main(int count, char** arguments) {
  simt::host_memory_is_managed = true;  // what the tests allocate themselves
  return doctest::Context(count, arguments).run();
}
