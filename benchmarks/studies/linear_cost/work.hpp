#pragma once
/// The work whose cost the study measures: a layer of each kind, in each form.
#include <memory>

#include "rwkv/core/extent.hpp"

namespace linear_cost {

using rwkv::Index;

enum class Kind { rwkv4, rwkv7, attention, lstm };
inline constexpr Kind kinds[] = {Kind::rwkv4, Kind::rwkv7, Kind::attention, Kind::lstm};
inline constexpr const char* names[] = {"RWKV-4", "RWKV-7", "attention", "LSTM"};
constexpr const char* name_of(Kind kind) { return names[static_cast<int>(kind)]; }

/// In chunks, as rwkv::Context takes a prompt; one token after the other; all at once, forwards and backwards.
enum class Form { sequence, step, training };
inline constexpr Form forms[] = {Form::sequence, Form::step, Form::training};
inline constexpr const char* form_names[] = {"sequence", "step", "training"};
constexpr const char* name_of(Form form) { return form_names[static_cast<int>(form)]; }

inline constexpr Index layer_width = 256, layer_head_size = 64;
inline constexpr Index chunk = 256;  ///< that of rwkv::ContextOptions
inline constexpr int seed = 1;

/// A pass of a layer through a sequence. Memory is allocated by the constructor.
class Work {
 public:
  Index stride = 1;  ///< tokens of a call
  Index parameters = 0;
  Index state_bytes = 0;    ///< that remember the past
  Index scratch_bytes = 0;  ///< of a call; in training what is kept for the backward pass is in there

  virtual ~Work() = default;
  /// Forgets the past.
  virtual void reset() = 0;
  /// Runs `stride` tokens from token t on, or those that are left.
  virtual void run(Index t) = 0;
};

std::unique_ptr<Work> make_work(Kind kind, Form form, Index tokens, int threads);

}  // namespace linear_cost
