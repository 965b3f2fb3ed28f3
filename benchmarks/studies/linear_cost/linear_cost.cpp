/// Time and memory by the length of a sequence, of a layer of RWKV-4, of RWKV-7, of softmax attention and of an LSTM.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <span>
#include <sstream>
#include <string>
#include <vector>

#include "../../../examples/gnuplot.hpp"
#include "../../../examples/options.hpp"
#include "../../../examples/program.hpp"
#include "../../../examples/progress.hpp"
#include "../../../examples/stop.hpp"
#include "../../limits.hpp"
#include "checks.hpp"
#include "rwkv/core/error.hpp"
#include "work.hpp"

namespace linear_cost {

using rwkv::expects;
using rwkv::join;

struct Settings {
  std::string out;  ///< the names of the files without their endings; empty: no files
  Index shortest = 128, longest = 16384, repetitions = 7;
  int threads = 2;

  std::vector<Index> lengths() const {
    std::vector<Index> all;
    for (Index tokens = shortest; tokens <= longest; tokens *= 2) all.push_back(tokens);
    return all;
  }
};

/// What is measured at a time, and how often it was before.
struct Case {
  Kind kind;
  Form form;
  Index tokens, repetition;

  bool operator==(const Case&) const = default;
};

struct Row {
  Case of;
  double seconds;        ///< of all tokens
  double us_at_end;      ///< microseconds a token, step by step over the last eighth, otherwise over all
  double state_bytes;    ///< that remember the past
  double scratch_bytes;  ///< of a call
  double parameters;
};

constexpr const char* head = "model,form,tokens,repetition,seconds,us_at_end,state_bytes,scratch_bytes,parameters";

std::string line_of(const Row& row) {
  return join(name_of(row.of.kind), ',', name_of(row.of.form), ',', row.of.tokens, ',', row.of.repetition, ',',
              row.seconds, ',', row.us_at_end, ',', row.state_bytes, ',', row.scratch_bytes, ',', row.parameters);
}

Row row_of(const std::string& line, const std::string& file) {
  std::vector<std::string> cells;
  std::istringstream stream(line);
  for (std::string cell; std::getline(stream, cell, ',');) cells.push_back(cell);
  const auto nth = [&](const auto& known, const std::string& name) {
    const auto found = std::find(std::begin(known), std::end(known), name);
    expects(found != std::end(known), file, ": '", line, "' is no row of this study");
    return static_cast<int>(found - std::begin(known));
  };
  expects(cells.size() == 9, file, ": '", line, "' is no row of this study");
  return {{kinds[nth(names, cells[0])], forms[nth(form_names, cells[1])], std::stol(cells[2]), std::stol(cells[3])},
          std::stod(cells[4]),
          std::stod(cells[5]),
          std::stod(cells[6]),
          std::stod(cells[7]),
          std::stod(cells[8])};
}

/// What rows of one file have in common.
std::string setup_of(const Settings& settings) {
  std::string processor = "unknown processor";
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.starts_with("model name")) processor = line.substr(line.find(':') + 2);
  }
#if defined(__clang__)
  const char* const compiler = "clang++";
#else
  const char* const compiler = "g++";
#endif
  return join(processor, "; ", settings.threads, " threads; vectors of ", RWKV_SIMD_BYTES, " bytes; ", compiler, " ",
              __VERSION__, "; fp32; width ", layer_width, ", heads of ", layer_head_size, "; chunks of ", chunk,
              "; seed ", seed);
}

/// The rows so far, and the file that keeps them.
class Rows {
 public:
  Rows(const std::string& file, const std::string& setup) : file_(file) {
    if (file.empty()) return;
    std::string text;
    if (std::ifstream before(file, std::ios::binary); before) text.assign(std::istreambuf_iterator<char>(before), {});
    text.resize(text.rfind('\n') + 1);  // an interrupted write leaves half a line
    if (text.empty()) {
      text = join("# ", setup, "\n", head, "\n");
    } else {
      std::istringstream lines(text);
      std::string line;
      std::getline(lines, line);
      expects(line == "# " + setup, file, ": its rows are of another setup: '", line, "'; pass another OUT_PREFIX");
      std::getline(lines, line);
      while (std::getline(lines, line)) rows_.push_back(row_of(line, file));
    }
    write(text, std::ios::trunc);
  }

  void add(const Row& row) {
    rows_.push_back(row);
    if (!file_.empty()) write(line_of(row) + "\n", std::ios::app);
  }

  bool has(const Case& wanted) const {
    return std::any_of(rows_.begin(), rows_.end(), [&](const Row& row) { return row.of == wanted; });
  }
  /// The median of all repetitions; NaN without any.
  double median(Kind kind, Form form, Index tokens, double (*of)(const Row&)) const {
    std::vector<double> all;
    for (const Row& row : rows_) {
      if (row.of == Case{kind, form, tokens, row.of.repetition}) all.push_back(of(row));
    }
    return all.empty() ? std::nan("") : bench::median(all);
  }

 private:
  void write(const std::string& text, std::ios::openmode mode) const {
    std::ofstream file(file_, std::ios::binary | mode);
    expects(static_cast<bool>(file << text << std::flush), file_, ": cannot be written");
  }

  std::string file_;
  std::vector<Row> rows_;
};

/// Measures passes after one that warms up, for a tenth of a second or for one pass.
Row measure(const Case& of, int threads) {
  const auto work = make_work(of.kind, of.form, of.tokens, threads);
  const Index most_to_warm_up = 1024;
  std::vector<double> seconds, at_end;
  const auto pass = [&](Index tokens) {
    work->reset();
    const Index last = work->stride == 1 ? tokens / 8 : tokens;
    const auto start = bench::Clock::now();
    auto end_begins = start;
    for (Index t = 0; t < tokens; t += work->stride) {
      if (t == tokens - last) end_begins = bench::Clock::now();
      work->run(t);
    }
    seconds.push_back(bench::seconds_since(start));
    at_end.push_back(bench::seconds_since(end_begins) / static_cast<double>(last) * 1e6);
  };
  pass(of.form == Form::step ? std::min(of.tokens, most_to_warm_up) : of.tokens);
  seconds.clear();
  at_end.clear();
  for (const auto start = bench::Clock::now(); seconds.empty() || bench::seconds_since(start) < 0.1;) pass(of.tokens);
  return {of,
          bench::median(seconds),
          bench::median(at_end),
          static_cast<double>(work->state_bytes),
          static_cast<double>(work->scratch_bytes),
          static_cast<double>(work->parameters)};
}

double seconds_of(const Row& row) { return row.seconds; }

/// About how long a case takes, from its other repetitions or from shorter sequences.
double expected_seconds(const Rows& rows, const Case& of, Index shortest) {
  double pass = rows.median(of.kind, of.form, of.tokens, seconds_of), growth = 1;
  for (Index tokens = of.tokens / 2; std::isnan(pass) && tokens >= shortest; tokens /= 2) {
    growth *= of.kind == Kind::attention ? 3.5 : 2;
    pass = rows.median(of.kind, of.form, tokens, seconds_of) * growth;
  }
  if (std::isnan(pass)) pass = 0;
  return 0.1 + (of.form == Form::step ? 1 : 2) * pass;
}

/// The exponent p of y ~ x^p, by least squares of the logarithms.
double slope(const std::vector<double>& x, const std::vector<double>& y) {
  const auto n = static_cast<double>(x.size());
  double sx = 0, sy = 0, sxx = 0, sxy = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double u = std::log(x[i]), v = std::log(y[i]);
    sx += u, sy += v, sxx += u * u, sxy += u * v;
  }
  return (n * sxy - sx * sy) / (n * sxx - sx * sx);
}

/// What is reported of the rows of one form.
struct Quantity {
  const char* title;
  const char* column;  ///< in the table of medians
  Form form;
  double (*of)(const Row&);
};
constexpr Quantity quantities[] = {
    {"Time of a sequence in chunks, ms", "sequence_ms", Form::sequence,
     [](const Row& row) { return row.seconds * 1e3; }},
    {"Time of a sequence step by step, ms", "step_ms", Form::step, [](const Row& row) { return row.seconds * 1e3; }},
    {"Time of a token at the end, step by step, us", "token_us", Form::step,
     [](const Row& row) { return row.us_at_end; }},
    {"Time forwards and backwards, ms", "training_ms", Form::training,
     [](const Row& row) { return row.seconds * 1e3; }},
    {"State, kB", "state_kB", Form::sequence, [](const Row& row) { return row.state_bytes / 1e3; }},
    {"State and scratch of a sequence in chunks, MB", "sequence_MB", Form::sequence,
     [](const Row& row) { return (row.state_bytes + row.scratch_bytes) / 1e6; }},
    {"Scratch of training, MB", "training_MB", Form::training, [](const Row& row) { return row.scratch_bytes / 1e6; }}};

std::string shown(const char* format, double number) { return example::text(format, number); }

/// A line of a table in Markdown, with a cell for each kind.
template <class Cell>
std::string table_line(const std::string& first, const Cell& cell) {
  std::string text = "| " + first + " |";
  for (const Kind kind : kinds) text += " " + cell(kind) + " |";
  return text + "\n";
}

std::string report(const Rows& rows, const Settings& settings) {
  const auto lengths = settings.lengths();
  const auto number = [&](const Quantity& q, Kind kind, Index tokens) {
    return rows.median(kind, q.form, tokens, q.of);
  };
  const auto heading = [&](const std::string& title, const std::string& first) {
    return "\n## " + title + "\n\n" + table_line(first, [](Kind kind) { return std::string(name_of(kind)); }) +
           table_line("---", [](Kind) { return std::string("---"); });
  };
  std::string text = join("# Cost by length\n\n- ", setup_of(settings), "; medians of ", settings.repetitions, "\n");
  if (!settings.out.empty()) text += join("- `study_linear_cost ", settings.out, "`\n");
  text += heading("Parameters of a layer", "");
  const auto parameters = [](const Row& row) { return row.parameters; };
  text += table_line(
      "", [&](Kind kind) { return shown("%.0f", rows.median(kind, Form::sequence, lengths.front(), parameters)); });

  text += heading("Exponent p of the cost T^p, fitted", "quantity, lengths");
  std::vector<std::span<const Index>> ranges{lengths};
  if (lengths.size() > 3) ranges.push_back(ranges.front().last(3));
  for (const Quantity& q : quantities) {
    const std::string title = q.title, name = title.substr(0, title.rfind(','));
    for (const auto& range : ranges) {
      text += table_line(join(name, ", ", range.front(), " to ", range.back()), [&](Kind kind) {
        std::vector<double> x, y;
        for (const Index tokens : range) {
          x.push_back(static_cast<double>(tokens));
          y.push_back(number(q, kind, tokens));
        }
        return shown("%.2f", std::round(slope(x, y) * 100) / 100 + 0.0);  // no -0.00
      });
    }
  }

  for (const Quantity& q : quantities) {
    text += heading(q.title, "tokens");
    for (const Index tokens : lengths) {
      text += table_line(join(tokens), [&](Kind kind) { return shown("%.4g", number(q, kind, tokens)); });
    }
  }
  return text;
}

/// The medians, for a plot.
std::string medians(const Rows& rows, const Settings& settings) {
  std::string text = "model,tokens";
  for (const Quantity& q : quantities) text += join(",", q.column);
  text += "\n";
  for (const Kind kind : kinds) {
    for (const Index tokens : settings.lengths()) {
      text += join(name_of(kind), ",", tokens);
      for (const Quantity& q : quantities) text += "," + shown("%.6g", rows.median(kind, q.form, tokens, q.of));
      text += "\n";
    }
  }
  return text;
}

void write_file(const std::string& name, const std::string& text) {
  std::ofstream file(name, std::ios::binary);
  expects(static_cast<bool>(file << text << std::flush), name, ": cannot be written");
}

int run(const Settings& settings) {
  std::vector<Case> cases;  // repetition after repetition, and the kinds in turn
  for (Index repetition = 1; repetition <= settings.repetitions; ++repetition) {
    for (const Index tokens : settings.lengths()) {
      for (const Form form : forms) {
        for (const Kind kind : kinds) cases.push_back({kind, form, tokens, repetition});
      }
    }
  }
  expects(settings.lengths().size() > 1, "two lengths are needed to fit an exponent");
  Rows rows(settings.out.empty() ? "" : settings.out + ".runs.csv", setup_of(settings));
  const auto missing = [&](const Case& of) { return !rows.has(of); };
  example::Progress progress;
  progress.print(join(std::count_if(cases.begin(), cases.end(), [&](const Case& of) { return rows.has(of); }), " of ",
                      cases.size(), " rows are there"));
  for (auto next = std::find_if(cases.begin(), cases.end(), missing); next != cases.end();
       next = std::find_if(next, cases.end(), missing)) {
    if (example::stopped != 0) {
      progress.print("stopped; the same command goes on");
      return 128 + example::stopped;
    }
    rows.add(measure(*next, settings.threads));
    progress.update([&] {
      double left = 0;
      for (auto later = next; later != cases.end(); ++later) {
        if (missing(*later)) left += expected_seconds(rows, *later, settings.shortest);
      }
      return join("row ", next - cases.begin() + 1, " of ", cases.size(), ", ", example::clock_time(left),
                  " left: ", name_of(next->kind), ", ", name_of(next->form), ", ", next->tokens, " tokens");
    });
  }
  const std::string text = report(rows, settings);
  std::printf("%s", text.c_str());
  if (!settings.out.empty()) {
    const std::string table = settings.out + ".csv", picture = settings.out + ".svg";
    write_file(table, medians(rows, settings));
    write_file(settings.out + ".md", text);
    progress.print(example::run_gnuplot(
        join("table = ", example::gnuplot_text(table), "\npicture = ", example::gnuplot_text(picture), "\nload ",
             example::gnuplot_text(RWKV_STUDY_SCRIPT), "\n"),
        picture));
  }
  return 0;
}

}  // namespace linear_cost

int main(int argc, char** argv) {
  linear_cost::Settings settings;
  bool smoke = false;
  example::Options options("study_linear_cost",
                           "Time and memory of RWKV, attention and an LSTM by the length of a sequence.");
  options.add("--longest", settings.longest, "tokens; every power of two from 128 on is measured", 256, 1 << 20);
  options.add("--repetitions", settings.repetitions, "of all measurements, in turn; medians count", 1, 1000);
  options.add("--threads", settings.threads, "of the processor", 1, 1024);
  options.add_argument(
      "OUT_PREFIX", settings.out,
      "writes OUT_PREFIX.runs.csv, which a later run goes on with, and .csv, .md and, by gnuplot, .svg");
  options.add("--smoke", smoke, "check the blocks and measure two lengths once, without files");
  return example::run_program("study_linear_cost", [&] {
    if (!options.parse(argc, argv)) return 0;
    if (smoke) {
      linear_cost::check_blocks();
      settings = {.out = "", .longest = 256, .repetitions = 1, .threads = settings.threads};
    }
    if (!smoke && settings.out.empty()) options.require("OUT_PREFIX");
    example::stop_when_asked();
    return linear_cost::run(settings);
  });
}
