/// Memory ends: the n-th allocation fails, or all from the n-th on, for every n, in everything that loads, runs, trains,
/// saves and quantises. Each time there is the right result or one error; after an error everything is as it was, works,
/// and no memory, file or descriptor is left over. With STRIDE only every STRIDE-th n, others each day. This program
/// replaces operator new.
///
///     out_of_memory FOLDER CORPUS [STRIDE]
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <memory>
#include <new>
#include <ranges>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <rwkv/ranks/pipeline.hpp>
#include <rwkv/train/thread_comm.hpp>

#include "../instances.hpp"

namespace memory {

std::atomic<long> live{0}, calls{0}, refused{0};
std::atomic<long> refuse_from{std::numeric_limits<long>::max()}, refuse_to{0};  // of the calls
constinit thread_local long until_refused = 0;  // so many calls of this thread until one is, if above zero

void* take(std::size_t size, std::size_t alignment) noexcept {
  const long call = ++calls;
  if (refuse_from <= call && call <= refuse_to) return ++refused, nullptr;
  if (until_refused > 0 && --until_refused == 0) return ++refused, nullptr;
  void* block = std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
  if (block != nullptr) ++live;
  return block;
}
void* demand(std::size_t size, std::size_t alignment) {
  if (void* block = take(size, alignment)) return block;
  throw std::bad_alloc();
}
void give(void* block) noexcept {
  if (block != nullptr) --live;
  std::free(block);
}
constexpr std::size_t usual = alignof(std::max_align_t);

/// While it lives, memory does not end.
class Enough {
 public:
  ~Enough() { refuse_to = before_; }

 private:
  long before_ = refuse_to.exchange(0);
};

}  // namespace memory

// What is not here, such as the forms for arrays, calls what is.
void* operator new(std::size_t size) { return memory::demand(size, memory::usual); }
void* operator new(std::size_t size, std::align_val_t a) { return memory::demand(size, static_cast<std::size_t>(a)); }
void* operator new(std::size_t size, const std::nothrow_t&) noexcept { return memory::take(size, memory::usual); }
void* operator new(std::size_t size, std::align_val_t a, const std::nothrow_t&) noexcept {
  return memory::take(size, static_cast<std::size_t>(a));
}
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept { return memory::take(size, memory::usual); }
void operator delete(void* block) noexcept { memory::give(block); }
void operator delete(void* block, std::size_t) noexcept { memory::give(block); }
void operator delete(void* block, std::align_val_t) noexcept { memory::give(block); }
void operator delete(void* block, std::size_t, std::align_val_t) noexcept { memory::give(block); }
void operator delete(void* block, const std::nothrow_t&) noexcept { memory::give(block); }
void operator delete(void* block, std::align_val_t, const std::nothrow_t&) noexcept { memory::give(block); }
void operator delete[](void* block, const std::nothrow_t&) noexcept { memory::give(block); }

using namespace rwkv;
namespace fs = std::filesystem;

namespace {

long bad = 0;
void complain(const std::string& operation, long n, const char* what) {
  if (++bad <= 40) std::printf("BAD: %s, allocation %ld: %s\n", operation.c_str(), n, what);
}

// What comes out of an operation is kept with enough memory.
std::string content_of(const fs::path& path) {
  const memory::Enough enough;
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}
template <class T>
std::string bytes_of_numbers(std::span<T> numbers) {
  const memory::Enough enough;
  return {reinterpret_cast<const char*>(numbers.data()), numbers.size_bytes()};
}
long descriptors() { return std::distance(fs::directory_iterator("/proc/self/fd"), {}); }
long temporaries(const fs::path& folder) {
  return std::ranges::count_if(fs::directory_iterator(folder),
                               [](const auto& entry) { return is_temporary(entry.path().filename().native()); });
}

struct Totals {
  long operations = 0, allocations = 0, errors = 0, right = 0;
} totals;

fs::path work;
long stride = 1, first_of_today = 1;

/// Runs an operation again and again, with one more allocation before memory ends. make() prepares an object, run(object)
/// is the operation and returns what comes out of it, look(object) tells all that may not change when it fails.
template <class Make, class Run, class Look>
void sweep(const std::string& name, const Make& make, const Run& run, const Look& look) {
  std::string before, result, after;
  for (int warm = 0; warm < 2; ++warm) {  // what a library allocates once and for all is allocated then
    auto object = make();
    before = look(object);
    result = run(object);
    after = look(object);
  }
  long allocations = 0, errors = 0, right = 0;
  for (const bool once : {true, false}) {
    for (long n = first_of_today;; n += stride) {
      auto object = make();
      std::string came;
      bool done = false;
      const long live = memory::live, open = descriptors();
      const long first = memory::calls + n;
      memory::refused = 0;
      memory::refuse_to = once ? first : std::numeric_limits<long>::max();
      memory::refuse_from = first;
      try {
        came = run(object);
        done = true;
      } catch (const std::bad_alloc&) {
      } catch (const Error&) {
      } catch (const std::exception& error) {
        memory::refuse_to = 0;
        complain(name, n, error.what());
      }
      memory::refuse_to = 0;
      if (memory::refused == 0) break;
      ++allocations;
      if (done) {
        ++right;
        if (came != result) complain(name, n, "another result");
        if (look(object) != after) complain(name, n, "another object");
      } else {
        ++errors;
        if (memory::live != live) complain(name, n, "memory is left over");
        if (descriptors() != open) complain(name, n, "a descriptor is left over");
        if (look(object) != before) complain(name, n, "the object has changed");
        try {
          if (run(object) != result) complain(name, n, "another result afterwards");
          if (look(object) != after) complain(name, n, "another object afterwards");
        } catch (const std::exception& error) {
          complain(name, n, error.what());
        }
      }
      if (temporaries(work) != 0) complain(name, n, "a temporary file is left over");
    }
  }
  std::printf("%-44s %6ld refused, %6ld errors, %5ld right\n", name.c_str(), allocations, errors, right);
  totals.operations += 1, totals.allocations += allocations, totals.errors += errors, totals.right += right;
}

struct Nothing {};
Nothing nothing() { return {}; }
std::string none(const Nothing&) { return {}; }
/// An operation on nothing, such as one that makes an object.
template <class Run>
void sweep(const std::string& name, const Run& run) {
  sweep(
      name, nothing, [&](Nothing&) { return run(); }, none);
}
/// An operation that writes a file.
template <class Run>
void sweep_file(const std::string& name, const fs::path& path, const Run& run) {
  sweep(
      name, [&] { return std::ofstream(path, std::ios::binary) << "old", Nothing(); },
      [&](Nothing&) { return run(), content_of(path); }, [&](const Nothing&) { return content_of(path); });
}

using Net = LanguageModel<V7, float, Cpu>;
constexpr ModelSizes sizes{.vocab = 29, .width = 32, .depth = 2, .head_size = 8};

template <class M>
std::string digest(const M& net) {
  const memory::Enough enough;
  std::string numbers;
  for (const auto& parameter : net.parameters()) numbers += bytes_of_numbers(parameter.numbers());
  return numbers;
}
template <class C>
std::string state_of(const C& context) {
  const memory::Enough enough;
  const auto numbers = context.state();
  std::string text = bytes_of_numbers(std::span(numbers)) + join(context.batch());
  for (Index i = 0; i < context.batch(); ++i) text += join(" ", context.position(i));
  return text;
}

const std::vector<Token> prompt{1, 7, 3, 28, 5, 11, 2, 9, 4, 20};

void run_models(const fs::path& model) {
  for (const int threads : {1, 3}) {
    const std::string by = join(", ", threads, threads == 1 ? " thread" : " threads");
    sweep("backend" + by, [&] { return join(Cpu(threads).threads()); });
    sweep("load_checkpoint" + by, [&] { return digest(load_checkpoint<Net>(model, {}, Cpu(threads))); });
    sweep("load_model" + by, [&] { return join(load_model(model, Cpu(threads)).sizes().width); });
    const auto net = load_checkpoint<Net>(model, {}, Cpu(threads));
    const ContextOptions options{.batch = 2, .chunk = 4};
    sweep("context" + by, [&] { return state_of(net.context(options)); });
    const auto make = [&] {
      auto context = net.context(options);
      context.prefill(prompt);
      return context;
    };
    const auto look = [](auto& context) { return state_of(context); };
    const auto on_context = [&](const char* name, const auto& run) { sweep(name + by, make, run, look); };
    const std::vector<Token> two{3, 4};
    on_context("step", [&](auto& context) { return bytes_of_numbers(context.step(two)); });
    on_context("prefill", [&](auto& context) { return bytes_of_numbers(context.prefill(prompt)); });
    on_context("prefill of a sequence", [&](auto& context) { return bytes_of_numbers(context.prefill(1, prompt)); });
    on_context("sequence", [&](auto& context) {
      std::vector<float> logits(prompt.size() * static_cast<std::size_t>(sizes.vocab));
      context.sequence(prompt, logits);
      return bytes_of_numbers(std::span(logits));
    });
    on_context("fork", [&](auto& context) { return state_of(context.fork()); });
    on_context("state and restore", [&](auto& context) {
      const auto numbers = context.state(0);
      context.restore(0, numbers, 7);
      return std::string();
    });
    on_context("remove", [&](auto& context) { return context.remove(0), std::string(); });
    const auto make_smaller = [&] {
      auto context = make();
      context.remove(0);
      return context;
    };
    sweep(
        "add" + by, make_smaller, [](auto& context) { return join(context.add()); }, look);
    on_context("StateRing", [&](auto& context) { return join(StateRing(context, 3).kept()); });
    if (threads > 1) continue;  // files do not know of threads
    const auto saved = work / "state.safetensors";
    auto saving = make();
    sweep_file("save_state" + by, saved, [&] { save_state(saving, 1, saved); });
    on_context("load_state", [&](auto& context) { return load_state(context, 0, saved), std::string(); });
    Sampler sampler{.temperature = 0.8, .top_p = 0.9, .seed = 3};
    sweep_file("save_conversation" + by, saved, [&] { save_conversation(saving, 1, sampler, 5, saved); });
    on_context("load_conversation",
               [&](auto& context) { return join(load_conversation(context, 0, sampler, saved).value_or(-1)); });
  }
}

void run_training() {
  const auto model = work / "small.safetensors";
  Net small({.vocab = 29, .width = 16, .depth = 1, .head_size = 8});
  live_weights(small, 5);
  save_checkpoint(small, model);
  for (const bool averaged : {false, true}) {
    const std::string kind = averaged ? ", averaged" : ", low rank";
    TrainerOptions options{.shape = {.batch = 2, .length = 5}, .rate = {.peak = 1e-2, .steps = 9}};
    if (averaged) options.average = 0.9;
    else options.lora = {.matrices = "blocks.*.att.{key,value}.weight", .rank = 2};
    struct Run {
      std::unique_ptr<Net> net;
      std::unique_ptr<Trainer<Net>> trainer;
    };
    Batch first, second;
    std::vector<Token> text(100);
    for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<Token>(i * i % 29);
    const TokenData data(text);
    const ContiguousStreams streams(data, options.shape);
    streams.fill(0, first);
    streams.fill(1, second);
    const auto make = [&] {
      Run run;
      run.net = std::make_unique<Net>(load_checkpoint<Net>(model));
      run.trainer = std::make_unique<Trainer<Net>>(*run.net, options);
      run.trainer->step(first);
      return run;
    };
    const auto file = work / "look.safetensors", saved = work / "run.safetensors";
    const auto look = [&](const Run& run) {
      run.trainer->save(file);
      return content_of(file) + digest(*run.net);
    };
    sweep("Trainer" + kind, [&] {
      auto net = load_checkpoint<Net>(model);
      return join(Trainer<Net>(net, options).steps());
    });
    const auto step = [&](Run& run) {
      const double loss = run.trainer->step(second);
      const memory::Enough enough;
      return join(loss);
    };
    sweep("training step" + kind, make, step, look);
    const Run saving = make();
    sweep_file("Trainer::save" + kind, saved, [&] { saving.trainer->save(saved, {{"note", "text"}}); });
    sweep(
        "Trainer::resume" + kind, make, [&](Run& run) { return run.trainer->resume(saved).at("note"); }, look);
  }
  sweep("model without a file", [&] { return digest(Net(sizes)); });
}

/// What a rank does while one allocation after the other fails on one of them: each time
/// all ranks throw and nothing has changed, or none does.
template <class Work, class Look>
void sweep_rank(const std::string& name, ThreadComm comm, const Work& do_work, const Look& look) {
  for (int unlucky = 0; unlucky < comm.size(); ++unlucky) {
    long allocations = 0;
    for (long n = 1;; ++n, ++allocations) {
      const std::string before = look();
      bool threw = false;
      memory::until_refused = comm.rank() == unlucky ? n : 0;
      try {
        do_work();
      } catch (const std::bad_alloc&) {
        threw = true;
      } catch (const Error&) {
        threw = true;
      }
      const bool refused = comm.rank() == unlucky && memory::until_refused == 0;
      memory::until_refused = 0;
      const auto all = gather_each(comm, threw ? 1 : 0);
      if (gather_each(comm, refused ? 1 : 0)[static_cast<std::size_t>(unlucky)] == 0) break;
      for (const int other : all) {
        if (other != all[0]) complain(name, n, "not all ranks end");
      }
      if (threw && look() != before) complain(name, n, "a rank has changed");
    }
    if (comm.rank() == 0) {
      std::printf("%-44s %6ld refused on rank %d\n", name.c_str(), allocations, unlucky);
      totals.operations += 1, totals.allocations += allocations, totals.errors += allocations;
    }
    static_cast<void>(gather_each(comm, 0));
  }
}

/// Memory ends on one of several ranks: none waits for it.
void run_ranked(const fs::path& model) {
  Batch batch;
  const BatchShape shape{.batch = 4, .length = 5};
  std::vector<Token> text(100);
  for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<Token>(i * i % 29);
  const TokenData data(text);
  ContiguousStreams(data, shape).fill(0, batch);
  const TrainerOptions options{.shape = shape, .rate = {.peak = 1e-2, .steps = 9}};
  run_ranks(2, [&](ThreadComm comm) {
    auto net = load_checkpoint<Net>(work / "small.safetensors");
    Trainer<Net, Keep, ThreadComm> trainer(net, options, comm);
    sweep_rank(
        "training step of ranks", comm, [&] { trainer.step(batch); },
        [&] { return digest(net) + join(trainer.steps()); });
  });
  run_ranks(2, [&](ThreadComm comm) {
    auto pipeline = Pipeline<Net, ThreadComm>::load(model, comm, {.chunk = 4});
    sweep_rank(
        "prefill of ranks", comm, [&] { pipeline.prefill(prompt); },
        [&] { return bytes_of_numbers(std::span<const float>(pipeline.state())); });
  });
  // A rank that is left by what it throws ends the others.
  const long usual_stride = stride;
  stride *= 10;
  const auto saved = work / "ranks.safetensors";
  sweep("ranks that train", [&] {
    std::string result;
    run_ranks(2, [&](ThreadComm comm) {
      auto net = load_checkpoint<Net>(work / "small.safetensors");
      Trainer<Net, Keep, ThreadComm> trainer(net, options, comm);
      for (int step = 0; step < 2; ++step) trainer.step(batch);
      trainer.save(saved);
      trainer.resume(saved);
      if (comm.rank() == 0) result = digest(net);
    });
    return result;
  });
  sweep("ranks that divide layers", [&] {
    std::string result;
    run_ranks(2, [&](ThreadComm comm) {
      auto pipeline = Pipeline<Net, ThreadComm>::load(model, comm, {.chunk = 4});
      pipeline.prefill(prompt);
      const auto logits = pipeline.step(3);
      if (comm.rank() == 0) result = bytes_of_numbers(logits);
    });
    return result;
  });
  stride = usual_stride;
}

void run_files(const fs::path& model, const fs::path& corpus) {
  const auto net = load_checkpoint<Net>(model);
  const auto saved = work / "saved.safetensors";
  sweep_file("save_checkpoint", saved, [&] { save_checkpoint(net, saved); });
  sweep_file("save_checkpoint<bf16>", saved, [&] { save_checkpoint<bf16>(net, saved, {{"key", "text"}}); });
  sweep("load_checkpoint of bf16", [&] { return digest(load_checkpoint<Net>(saved)); });
  sweep_file("save_quantised", saved, [&] {
    save_quantised(net, saved, {.matrices = DType::q4_0, .embedding = DType::q8_0, .head = DType::q5_1});
  });
  sweep("load_checkpoint of quantised numbers", [&] { return digest(load_checkpoint<Net>(saved)); });
  sweep("load_model of quantised numbers", [&] { return join(load_model(saved, Cpu()).sizes().width); });

  for (const char* format : {"safetensors", "pth", "gguf"}) {
    for (const auto& entry : fs::directory_iterator(corpus / format)) {
      if (entry.file_size() > 20000) continue;
      const auto open = [&]() -> std::string {
        try {
          const TensorFile file = open_tensors(entry.path());
          std::string list;
          for (const TensorView& tensor : file.tensors()) list += tensor.name + bytes_of_numbers(tensor.bytes);
          return list + join(sizes_of_model(OfficialNames(file)).width);
        } catch (const Error& error) {
          if (std::strstr(error.what(), "no memory") != nullptr) throw;
          return error.what();
        }
      };
      sweep(join(format, " ", entry.path().filename().string()), open);
    }
  }
  const auto words = corpus / "vocabulary" / "single_bytes";
  sweep("Tokenizer", [&] {
    const auto tokenizer = Tokenizer::open(words);
    return tokenizer.decode(tokenizer.encode("any text"));
  });
  sweep("TokenData", [&] { return join(TokenData::open(words, TokenWidth::bits8).size()); });
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3 && argc != 4) return std::fputs("usage: out_of_memory FOLDER CORPUS [STRIDE]\n", stderr), 2;
  if (argc == 4) stride = std::max(1L, std::atol(argv[3]));
  first_of_today = 1 + static_cast<long>(std::time(nullptr)) / 86400 % stride;
  std::setvbuf(stdout, nullptr, _IOLBF, 0);  // to be read where the program was ended
  work = argv[1];
  fs::remove_all(work);
  fs::create_directories(work);
  const auto model = work / "model.safetensors";
  Net net(sizes);
  live_weights(net, 4);
  save_checkpoint(net, model);
  run_models(model);
  run_training();
  run_ranked(model);
  run_files(model, argv[2]);
  std::printf("%ld operations, %ld refused allocations: %ld errors, %ld right results, %ld bad\n", totals.operations,
              totals.allocations, totals.errors, totals.right, bad);
  return bad == 0 ? 0 : 1;
}
