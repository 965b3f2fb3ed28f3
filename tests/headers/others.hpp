/// All that our headers include and is not ours: every standard header and the libraries underneath.
#include <bits/stdc++.h>
#include <dirent.h>
#include <fcntl.h>
#if defined(__SSE2__)
#include <immintrin.h>
#endif
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <Eigen/Core>
#include <nlohmann/json.hpp>
#include <unsupported/Eigen/CXX11/ThreadPool>
