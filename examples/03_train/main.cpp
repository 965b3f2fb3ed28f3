// Trains on the CPU. The program is train.hpp; ../06_cuda runs the same on a GPU. With RWKV_WITH_MPI it is a rank of MPI.
#include "versions.hpp"

#ifndef RWKV_WITH_MPI
int main(int argc, char** argv) { return example::train<rwkv::Cpu>(argc, argv); }
#else
#include <chrono>
#include <cstdio>

int main(int argc, char** argv) {
  int provided = 0;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided);
  int status = 1;
  {
    rwkv::MpiComm comm, end(MPI_COMM_WORLD, std::chrono::seconds(5));
    // Only the first rank shows how far the run is; every rank says what went wrong.
    if (comm.rank() != 0 && std::freopen("/dev/null", "w", stdout) == nullptr)
      comm.abort("train: there is no /dev/null");
    status = example::train<rwkv::Cpu>(argc, argv, comm);
    try {
      if (status == 1) end.broadcast({}, 0);  // an error of all ranks, unless they do not come
    } catch (const rwkv::Error&) {
      comm.abort(rwkv::join("train: rank ", comm.rank(), " has ended with an error, so all ranks end"));
    }
  }
  MPI_Finalize();
  return status;
}
#endif
