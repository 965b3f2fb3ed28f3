#pragma once
// Pictures by gnuplot, where it is installed.
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>

namespace example {

/// A text as gnuplot reads it.
inline std::string gnuplot_text(const std::string& plain) {
  std::string quoted = "'";
  for (const char c : plain) quoted += c == '\'' ? std::string("''") : std::string(1, c);
  return quoted + "'";
}

/// Runs a script that draws `picture`, and says in a line what came of it.
inline std::string run_gnuplot(const std::string& script, const std::filesystem::path& picture) {
  if (std::system("gnuplot --version > /dev/null 2>&1") != 0) return "no plot: gnuplot is not installed";
  std::FILE* gnuplot = popen("gnuplot 2> /dev/null", "w");  // it warns of curves without points
  if (gnuplot == nullptr) return "no plot: gnuplot cannot be started";
  std::fputs(script.c_str(), gnuplot);
  return pclose(gnuplot) == 0 ? "the curve is drawn in " + picture.string() : "no plot: gnuplot failed";
}

}  // namespace example
