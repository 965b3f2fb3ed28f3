// What context is worth: the loss of a byte by how many bytes the model has read before it, for the shipped model and for
// small models trained on windows of several lengths.
#include <algorithm>
#include <span>
#include <string>
#include <vector>

#include "../study.hpp"

namespace {

using namespace study;

/// The sizes of the study.
struct Scale {
  std::vector<Index> contexts{64, 256, 1024};  ///< bytes of a window in training
  ModelSizes sizes{.vocab = 256, .width = 96, .depth = 2, .head_size = 32};
  Index bytes_of_a_step = 4096, steps = 256;
  Index longest = 4096;    ///< context in the table, a power of two
  Index judged = 1 << 15;  ///< bytes that a row predicts, a multiple of longest / 2

  static Scale smoke() { return {{16, 32}, {.vocab = 256, .width = 16, .depth = 1, .head_size = 8}, 64, 100, 64, 256}; }
};

/// The contexts of a row: from `first` to `last` bytes.
struct Bin {
  Index first, last;

  Index count() const { return last - first + 1; }
};

/// 1, 2, 3 to 4, 5 to 8 and so on.
std::vector<Bin> all_bins(const Scale& scale) {
  std::vector<Bin> bins{{1, 1}};
  while (bins.back().last < scale.longest) bins.push_back({bins.back().last + 1, 2 * bins.back().last});
  return bins;
}

/// A model of the study. "shipped" is the RWKV-4 of examples/03_train, trained on windows of 256 bytes.
struct Subject {
  std::string name, version;
  Index context;

  bool is_shipped() const { return name == "shipped"; }
  /// The work of reading a byte, where a small RWKV-4 has 1.
  double work() const { return is_shipped() ? 5 : version == "RWKV-7" ? 2 : 1; }
  double training_work_of_a_step(const Scale& scale) const {
    return is_shipped() ? 0 : 3 * work() * static_cast<double>(scale.bytes_of_a_step);
  }
  double judging_work(const Bin& bin, const Scale& scale) const {
    return work() * static_cast<double>(scale.judged / bin.count() * bin.last);
  }
  std::string fields(const Bin& bin) const { return join(name, ",", bin.first, ",", bin.last); }
};

std::vector<Subject> all_subjects(const Scale& scale) {
  std::vector<Subject> subjects{{"shipped", "RWKV-4", 256}};
  for (const char* version : {"RWKV-4", "RWKV-7"}) {
    for (const Index context : scale.contexts) subjects.push_back({join(version, " ", context), version, context});
  }
  return subjects;
}

/// The mean loss in nats of `judged` bytes of the text, which are the same in every bin. Each window starts from the fresh
/// state, reads first - 1 bytes, and predicts a byte after each of the next ones.
template <class Net>
double loss_in(const Bin& bin, const Net& net, const TokenData& text, const Scale& scale) {
  const Index read = bin.first - 1, windows = scale.judged / bin.count();
  const Index batch = std::min(windows, std::max<Index>(8, 2048 / bin.last));
  const auto bytes = [&](Index each) { return std::vector<Token>(static_cast<std::size_t>(batch * each)); };
  auto before = bytes(read), tokens = bytes(bin.count()), targets = tokens;
  std::vector<float> logits(tokens.size() * 256);
  auto context = net.context({.batch = batch});
  double sum = 0;
  for (Index window = 0; window < windows && stopped == 0; window += batch) {
    const auto copy = [&](std::vector<Token>& to, Index begin) {
      const auto each = to.size() / static_cast<std::size_t>(batch);
      for (Index b = 0; b < batch; ++b) {
        text.copy(begin + (window + b) * bin.count(), std::span(to).subspan(static_cast<std::size_t>(b) * each, each));
      }
    };
    copy(before, scale.longest - 1 - read);
    copy(tokens, scale.longest - 1);
    copy(targets, scale.longest);
    context.reset();
    if (read > 0) context.prefill(before);
    context.sequence(tokens, logits);
    for (std::size_t i = 0; i < targets.size(); ++i) {
      sum += surprisal(std::span<const float>(logits).subspan(i * 256, 256), targets[i]);
    }
  }
  return sum / static_cast<double>(scale.judged);
}

/// Adds the rows of a model that the table does not have.
template <class Net>
void judge(Study& study, const Subject& subject, const Net& net, const TokenData& held_out, const Scale& scale) {
  for (const Bin& bin : all_bins(scale)) {
    if (study.table.has(subject.fields(bin))) continue;
    const double loss = loss_in(bin, net, held_out, scale);
    if (stopped != 0) return;
    study.table.add(join(subject.fields(bin), ",", loss, "\n"));
    study.course.advance(subject.judging_work(bin, scale),
                         text("%s  %td to %td bytes of context", subject.name.c_str(), bin.first, bin.last));
  }
}

template <class V>
void train_and_judge(Study& study, const Subject& subject, const Text& text, const Scale& scale) {
  LanguageModel<V, float, Cpu> net(scale.sizes, Cpu(study.settings.threads));
  initialize(net, study.settings.seed);
  const BatchShape shape{.batch = scale.bytes_of_a_step / subject.context, .length = subject.context};
  Trainer trainer(
      net, {.shape = shape, .rate = {.peak = 3e-3, .final = 3e-4, .steps = scale.steps, .warmup = scale.steps / 10}});
  const RandomWindows windows(text.training, shape, study.settings.seed);
  const Index steps = study.train(trainer, windows, scale.steps, subject.name, subject.training_work_of_a_step(scale));
  if (stopped != 0) return;
  expects(steps == scale.steps, subject.name, ": the training ended after step ", steps);
  judge(study, subject, net, text.held_out, scale);
  if (stopped != 0) study.keep(trainer, subject.name);
  else study.forget_run();
}

/// A row for each bin and a column for each model.
std::string table(const Study& study, const Scale& scale) {
  std::vector<std::string> head{"bytes of context"}, rule{"---"};
  for (const Subject& subject : all_subjects(scale)) head.push_back(subject.name), rule.push_back("---:");
  std::string lines = line_of(head) + line_of(rule);
  const auto rows = study.table.rows();
  for (const Bin& bin : all_bins(scale)) {
    std::vector<std::string> cells{bin.count() == 1 ? join(bin.last) : join(bin.first, " to ", bin.last)};
    for (const Subject& subject : all_subjects(scale)) {
      for (const auto& row : rows) {
        if (row[0] == subject.name && row[1] == join(bin.first)) cells.push_back(text("%.3f", std::stod(row[3])));
      }
    }
    lines += line_of(cells);
  }
  return "The loss in nats per byte, by bytes of context; the numbers in the head are those of training:\n\n" + lines;
}

void run_all(const Settings& settings) {
  const Scale scale = settings.smoke ? Scale::smoke() : Scale();
  const auto subjects = all_subjects(scale);
  const auto bins = all_bins(scale);
  double work = 0;
  for (const Subject& subject : subjects) {
    work += subject.training_work_of_a_step(scale) * static_cast<double>(scale.steps);
    for (const Bin& bin : bins) work += subject.judging_work(bin, scale);
  }
  Study study(settings,
              join(scale.sizes.depth, " layers of width ", scale.sizes.width, ", ", scale.steps, " steps of ",
                   scale.bytes_of_a_step, " bytes, rows of ", scale.judged, " bytes"),
              "model,first,last,loss", work);
  const Text text = Text::shakespeare();
  for (const Subject& subject : subjects) {
    for (const Bin& bin : bins) {
      if (study.table.has(subject.fields(bin))) study.course.skip(subject.judging_work(bin, scale));
    }
    if (study.table.has(subject.fields(bins.back()))) {
      study.course.skip(subject.training_work_of_a_step(scale) * static_cast<double>(scale.steps));
    } else if (subject.is_shipped()) {
      judge(study, subject, load_model(RWKV_EXAMPLE_MODEL, Cpu(settings.threads)), text.held_out, scale);
    } else if (subject.version == "RWKV-4") {
      train_and_judge<V4>(study, subject, text, scale);
    } else {
      train_and_judge<V7>(study, subject, text, scale);
    }
    if (stopped != 0) return;
  }
  study.report("Loss by context", table(study, scale));
}

}  // namespace

int main(int argc, char** argv) {
  return study::run_study("context", "Measures how much more context lowers the loss.", argc, argv, run_all);
}
