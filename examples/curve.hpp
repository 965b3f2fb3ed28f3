#pragma once
// The losses of a run over time, as a table and as a picture.
#include <rwkv/rwkv.hpp>

#include <filesystem>
#include <string>
#include <string_view>

#include "gnuplot.hpp"

namespace example {

/// The first line of every curve.
inline constexpr std::string_view curve_head = "step,tokens,loss,validation,seconds\n";

/// How a curve is drawn.
struct Plot {
  std::string validation = "validation";  ///< what the column of that name holds
  bool logarithmic = false;               ///< the axis of the losses; values of zero have no place on it
};

/// Draws a CSV file of such lines as an SVG beside it, and says in a line what came of it.
inline std::string plot_curve(const std::filesystem::path& csv, const Plot& plot = {}) {
  if (std::filesystem::file_size(csv) <= curve_head.size()) return "no plot: the run was too short for a curve";
  auto svg = csv;
  svg.replace_extension(".svg");
  const std::string script =
      rwkv::join("set terminal svg size 800,500 background 'white'\nset output ", gnuplot_text(svg.string()),
                 "\nset datafile separator ','\nset xlabel 'tokens'\nset ylabel 'loss, nats per token'\nset grid\n",
                 plot.logarithmic ? "set logscale y\n" : "", "plot ", gnuplot_text(csv.string()),
                 " using 2:3 skip 1 with lines title 'training', ", gnuplot_text(csv.string()),
                 " using ($4 > 0 ? $2 : NaN):4 skip 1 with points pointtype 7 pointsize 0.5 title ",
                 gnuplot_text(plot.validation), "\n");
  return run_gnuplot(script, svg);
}

}  // namespace example
