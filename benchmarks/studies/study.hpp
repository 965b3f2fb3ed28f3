#pragma once
// What studies share: the command line, a table that grows row by row, training that goes on where it stopped, and the
// report.
#include <rwkv/rwkv.hpp>

#include <algorithm>
#include <cstddef>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "../../examples/gnuplot.hpp"
#include "../../examples/options.hpp"
#include "../../examples/paths.hpp"
#include "../../examples/program.hpp"
#include "../../examples/progress.hpp"
#include "../../examples/stop.hpp"

namespace study {

using namespace rwkv;
using namespace example;

/// What the command line says.
struct Settings {
  std::string out;      ///< the beginning of the names of all files
  std::string command;  ///< as it was typed, without the folder of the program
  bool smoke = false;   ///< everything once, in seconds
  Seed seed{1};
  int threads = 2;

  std::filesystem::path file(const char* ending) const { return out + ending; }
};

/// The fields of a line.
inline std::vector<std::string> fields_of(std::string_view line) {
  std::vector<std::string> fields;
  for (std::size_t begin = 0, comma = 0; comma != std::string_view::npos; begin = comma + 1) {
    comma = line.find(',', begin);
    fields.emplace_back(line.substr(begin, comma - begin));
  }
  return fields;
}

/// The rows of a study, in a CSV file. Every addition replaces the file in one step.
class Table {
 public:
  /// Goes on with the rows that the file has. `about` is its first line: what the rows depend on.
  /// Errors    a file with another beginning
  Table(std::filesystem::path file, const std::string& about, const std::string& columns)
      : file_(std::move(file)), text_("# " + about + "\n" + columns + "\n"), head_(text_.size()) {
    if (!std::filesystem::exists(file_)) return;
    const Bytes bytes = read_file(file_);
    const std::string_view found(reinterpret_cast<const char*>(bytes.view().data()), bytes.view().size());
    expects(found.starts_with(text_), file_.string(),
            ": these are not the rows of this study with these settings; remove the file, or pass another OUT_PREFIX");
    text_ = found;
  }

  /// Whether there is a row that begins with these fields.
  bool has(const std::string& fields) const { return text_.find("\n" + fields + ",") != std::string::npos; }

  void add(const std::string& rows) {
    text_ += rows;
    write_atomically(system_files(), file_, [&](FileWriter& file) { file.write(text_); });
  }

  /// All rows, each as its fields.
  std::vector<std::vector<std::string>> rows() const {
    std::vector<std::vector<std::string>> all;
    for (std::size_t begin = head_, end = 0; begin < text_.size(); begin = end + 1) {
      end = text_.find('\n', begin);
      all.push_back(fields_of(std::string_view(text_).substr(begin, end - begin)));
    }
    return all;
  }

 private:
  std::filesystem::path file_;
  std::string text_;
  std::size_t head_;
};

/// How far a study is, and how long the rest will take. Its work is counted in a unit of its own.
class Course {
 public:
  explicit Course(double work) : left_(work) {}

  /// Some of the work was done before.
  void skip(double work) { left_ -= work; }

  /// Some of the work is done; `what` says which.
  void advance(double work, const std::string& what) {
    left_ -= work;
    done_ += work;
    progress_.update([&] {
      const double seconds = (now() - began_) / done_ * std::max(left_, 0.0);
      return text("%s  %s left", what.c_str(), clock_time(seconds).c_str());
    });
  }

  void print(const std::string& line) { progress_.print(line); }

 private:
  double left_, done_ = 0, began_ = now();
  example::Progress progress_;
};

/// A study while it runs.
struct Study {
  Settings settings;
  std::string about;  ///< what its rows depend on
  Table table;
  Course course;

  Study(const Settings& typed, const std::string& what, const std::string& columns, double work)
      : settings(typed), about(join(what, ", seed ", typed.seed.value)), table(typed.file(".csv"), about, columns),
        course(work) {}

  /// Trains a model to its last step. When the program is asked to stop, the run is kept in a file, and the same call
  /// goes on from there. Returns the steps taken: fewer when it was asked to stop, or when the loss or the gradient is
  /// no longer a number.
  /// `batches.fill(step, batch)` makes the batch of a step.
  template <class Net, class Batches>
  Index train(Trainer<Net>& trainer, const Batches& batches, Index steps, const std::string& name,
              double work_of_a_step) {
    if (is_kept(name)) {
      trainer.resume(run_file());
      course.skip(work_of_a_step * static_cast<double>(trainer.steps()));
      course.print(text("%s goes on after step %td", name.c_str(), trainer.steps()));
    }
    for (Batch batch; trainer.steps() < steps;) {
      if (stopped != 0) {
        keep(trainer, name);
        break;
      }
      batches.fill(trainer.steps(), batch);
      try {
        trainer.step(batch);
      } catch (const Error& error) {
        course.print(name + ": " + error.what());
        course.skip(work_of_a_step * static_cast<double>(steps - trainer.steps()));
        break;
      }
      course.advance(work_of_a_step, text("%s  step %td of %td", name.c_str(), trainer.steps(), steps));
    }
    return trainer.steps();
  }

  /// Keeps a run for the next call of train.
  template <class Net>
  void keep(const Trainer<Net>& trainer, const std::string& name) const {
    trainer.save(run_file(), {{"run", join(about, ": ", name)}});
  }
  /// All rows of the run are in the table.
  void forget_run() const { std::filesystem::remove(run_file()); }

  /// Writes the report, and draws the table as the study's script says.
  void report(const std::string& title, const std::string& body) {
    const auto picture = settings.file(".svg");
    const std::string drawn = run_gnuplot(
        join("table = ", gnuplot_text(settings.file(".csv").string()), "\npicture = ", gnuplot_text(picture.string()),
             "\nload ", gnuplot_text(RWKV_STUDY_SCRIPT), "\n"),
        picture);
    write_atomically(system_files(), settings.file(".md"), [&](FileWriter& file) {
      file.write(join("# ", title, "\n\n- ", machine(), "\n- `", settings.command, "`\n- ", about, "\n\n", body));
      if (std::filesystem::exists(picture)) file.write(join("\n![", title, "](", picture.filename().string(), ")\n"));
    });
    course.print(body);
    course.print(drawn);
    course.print("the report is in " + settings.file(".md").string());
  }

 private:
  std::filesystem::path run_file() const { return settings.file(".run.safetensors"); }

  bool is_kept(const std::string& name) const {
    if (!std::filesystem::exists(run_file())) return false;
    const TensorFile file = open_tensors(run_file());
    const auto note = file.metadata().find("note.run");
    return note != file.metadata().end() && note->second == join(about, ": ", name);
  }

  /// The day, the processor and the compiler.
  static std::string machine() {
    char day[16];
    const std::time_t seconds = std::time(nullptr);
    std::strftime(day, sizeof day, "%Y-%m-%d", std::gmtime(&seconds));
    std::string processor = "an unknown processor";
    std::ifstream cpus("/proc/cpuinfo");
    for (std::string line; std::getline(cpus, line);) {
      if (!line.starts_with("model name")) continue;
      processor = line.substr(line.find(':') + 2);
      break;
    }
    return join(day, ", ", processor, ", ", std::thread::hardware_concurrency(), " cores, compiler ", __VERSION__);
  }
};

/// A line of a Markdown table.
inline std::string line_of(const std::vector<std::string>& cells) {
  std::string line = "|";
  for (const std::string& cell : cells) line += " " + cell + " |";
  return line + "\n";
}

/// The text that is trained on, and its last tenth, which is not.
struct Text {
  TokenData training, held_out;

  static Text shakespeare() {
    const auto all = TokenData::open(RWKV_EXAMPLE_TEXT, TokenWidth::bits8);
    const Index kept = all.size() / 10;
    return {all.slice(0, all.size() - kept), all.slice(all.size() - kept, all.size())};
  }
};

/// The program: reads the command line and calls run(settings).
template <class Run>
int run_study(const std::string& name, const std::string& purpose, int argc, char** argv, const Run& run) {
  const std::string program = "study_" + name;
  Settings settings;
  settings.command = program;
  for (int i = 1; i < argc; ++i) settings.command += " " + std::string(argv[i]);
  Options options(program, purpose);
  options.add_argument("OUT_PREFIX", settings.out, "writes OUT_PREFIX.csv, .md and, by gnuplot, .svg");
  options.add("--smoke", settings.smoke, "everything once, small, in seconds");
  options.add("--seed", settings.seed.value, "equal seeds give equal rows");
  options.add("--threads", settings.threads, "any number gives the same bits", 1, 1024);
  return run_program(program.c_str(), [&] {
    if (!options.parse(argc, argv)) return 0;
    if (settings.smoke && settings.out.empty()) {  // begins anew
      settings.out = name + "-smoke";
      std::filesystem::remove(settings.file(".csv"));
    }
    if (settings.out.empty()) options.require("OUT_PREFIX");
    for (const char* ending : {".csv", ".md", ".svg", ".run.safetensors"}) check_target(settings.file(ending));
    stop_when_asked();
    run(settings);
    if (stopped == 0) return 0;
    std::printf("stopped; the same command goes on\n");
    return 128 + stopped;
  });
}

}  // namespace study
