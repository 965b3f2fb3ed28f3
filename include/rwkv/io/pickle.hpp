#pragma once
/// Reads the pickle of a PyTorch state dict without executing anything.
///
/// The machine knows the opcodes and globals that a dictionary of tensors needs (pickle protocol 2), and a few more
/// that lead to a better sentence, and refuses all others; a global is a kind in a list here, never something that is
/// looked up or called. Every opcode checks the type of its operands, because lists of allowed names alone do not stop
/// an opcode from being applied to the wrong object.
#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "rwkv/config.hpp"
#include "rwkv/core/checked.hpp"
#include "rwkv/core/error.hpp"
#include "rwkv/io/dialects.hpp"
#include "rwkv/io/pickle_globals.hpp"
#include "rwkv/io/pickle_values.hpp"
#include "rwkv/io/tensor.hpp"
#include "rwkv/system/byte_reader.hpp"
#include "rwkv/system/utf8.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
namespace detail {

class StateDictPickle : PickleValues {
 public:
  /// `where` starts every error.
  StateDictPickle(std::span<const std::byte> pickle, std::string_view where)
      : where_(where), pickle_(as_text(pickle)), reader_(pickle, where) {
    expects(pickle.size() <= max_pickle, where, ": ", pickle.size(), " bytes of pickle exceed the limit of ",
            max_pickle);
  }

  /// The tensors in the order of the dictionary: of the outermost one, or of the one state dict of a model in it.
  std::vector<PickledTensor> read() {
    require(reader_.remaining() >= 2 && reader_.u8() == proto, "is no pickle of protocol 2 or later");
    const std::uint8_t protocol = reader_.u8();
    require(protocol == 2, "has pickle protocol ", protocol, "; torch.save writes protocol 2 unless told otherwise");
    while (step()) {
    }
    require(reader_.remaining() == 0, "goes on after its end");
    return collect();
  }

  /// The entry of the outermost dictionary that holds the tensors; empty if it holds them itself.
  std::string_view entry() const { return entry_; }

 private:
  static constexpr std::uint8_t proto = 0x80;
  static constexpr std::string_view not_needed =
      ", which a dictionary of tensors does not need; save the state dict of the model alone";
  static constexpr std::string_view not_text = " instead of a text";

  /// Executes one opcode; false at the end. The comments give Python's names.
  bool step() {
    opcode_at_ = reader_.position();
    const std::uint8_t opcode = reader_.u8();
    switch (opcode) {
      case '.': return false;                                                         // STOP
      case '(': return push(Mark{});                                                  // MARK
      case 'N': return push(None{});                                                  // NONE
      case 0x88: return push(true);                                                   // NEWTRUE
      case 0x89: return push(false);                                                  // NEWFALSE
      case 'J': return push(std::int64_t{static_cast<std::int32_t>(reader_.u32())});  // BININT
      case 'K': return push(std::int64_t{reader_.u8()});                              // BININT1
      case 'M': return push(std::int64_t{reader_.u16()});                             // BININT2
      case 0x8a: return push(read_long(reader_.u8()));                                // LONG1
      case 'G': return push(read_float());                                            // BINFLOAT
      case 'X': return push(read_text());                                             // BINUNICODE
      case 'c': return push(read_global());                                           // GLOBAL
      case '}': return push(new_dict());                                              // EMPTY_DICT
      case ')': return push(make_tuple(0));                                           // EMPTY_TUPLE
      case 0x85: return push(make_tuple(1));                                          // TUPLE1
      case 0x86: return push(make_tuple(2));                                          // TUPLE2
      case 0x87: return push(make_tuple(3));                                          // TUPLE3
      case 't': return push(make_marked_tuple());                                     // TUPLE
      case ']': return push(List{});                                                  // EMPTY_LIST
      case 'a': return append();                                                      // APPEND
      case 'e': return append_marked();                                               // APPENDS
      case 'q': return put(reader_.u8());                                             // BINPUT
      case 'r': return put(reader_.u32());                                            // LONG_BINPUT
      case 'h': return get(reader_.u8());                                             // BINGET
      case 'j': return get(reader_.u32());                                            // LONG_BINGET
      case 's': return set_item();                                                    // SETITEM
      case 'u': return set_items();                                                   // SETITEMS
      case 'Q': return push(load_storage(pop<Tuple>("a tuple")));                     // BINPERSID
      case 'R': return reduce();                                                      // REDUCE
      case 'b': return build();                                                       // BUILD
      default: refuse("has opcode ", opcode, not_needed);
    }
  }

  bool push(const Value& value) {
    require(stack_.size() < max_stack, "stacks more than ", max_stack, " values");
    stack_.push_back(value);
    return true;
  }

  /// Takes the top of the stack, which must be a T.
  template <class T>
  T pop(std::string_view what) {
    require(!stack_.empty() && std::holds_alternative<T>(stack_.back()), "lacks ", what, " on its stack");
    const T value = std::get<T>(stack_.back());
    stack_.pop_back();
    return value;
  }

  /// The top of the stack must be a T and stays there.
  template <class T>
  T top(std::string_view what) {
    const T value = pop<T>(what);
    stack_.push_back(value);
    return value;
  }

  /// An integer that 64 bits do not hold, such as a seed, belongs to no tensor: only that it is there is kept.
  Value read_long(std::uint8_t size) {
    const auto bytes = reader_.take(size);
    if (size > 8) return Object{};
    std::uint64_t value = 0;
    unsigned shift = 0;
    for (const std::byte b : bytes) {
      value |= std::to_integer<std::uint64_t>(b) << shift;
      shift += 8;
    }
    // The last byte carries the sign.
    if (shift != 0 && shift < 64 && (value >> (shift - 1) & 1u) != 0) value |= ~std::uint64_t{0} << shift;
    return static_cast<std::int64_t>(value);
  }

  /// The only number of a pickle with its highest byte first.
  double read_float() {
    std::uint64_t bits = 0;
    for (const std::byte b : reader_.take(8)) bits = bits << 8 | std::to_integer<std::uint64_t>(b);
    return std::bit_cast<double>(bits);
  }

  /// A longer text, such as a configuration, is no name: only that it is there is kept.
  Value read_text() {
    const std::uint32_t size = reader_.u32();
    const auto begin = static_cast<std::uint32_t>(reader_.position());
    require(is_utf8(reader_.text(size)), "has a text that is not UTF-8");
    if (size > max_text) return Object{};
    return Text{begin, size};
  }

  Global read_global() {
    const std::string_view module = read_line();
    const auto begin = static_cast<std::uint32_t>(reader_.position());
    const std::string_view name = read_line();
    const Text place{begin, static_cast<std::uint32_t>(name.size())};
    if (const auto known = pickle_global(module, name)) return {known->kind, known->dtype, place};
    if (expects_type()) return {Kind::foreign_type, DType::f32, place};
    refuse("asks for ", in_quotes(module), " ", in_quotes(name), not_needed);
  }

  /// Whether the arguments of _rebuild_from_type_v2 have come to the class of a tensor: (function, class, ...).
  bool expects_type() const {
    if (stack_.size() < 3 || !std::holds_alternative<Mark>(stack_[stack_.size() - 2])) return false;
    const Global* function = std::get_if<Global>(&stack_[stack_.size() - 3]);
    return function != nullptr && function->kind == Kind::rebuild_from_type &&
           std::holds_alternative<Global>(stack_.back());
  }

  std::string_view read_line() {
    const std::string_view rest = pickle_.substr(reader_.position(), max_text);
    const std::size_t end = rest.find('\n');
    require(end != std::string_view::npos, "has a name without an end");
    return reader_.text(end + 1).substr(0, end);
  }

  bool append() {
    require(!stack_.empty() && !std::holds_alternative<Mark>(stack_.back()), "lacks a value for a list");
    stack_.pop_back();
    top<List>("a list");
    return true;
  }

  bool append_marked() {
    stack_.resize(stack_.size() - count_to_mark());
    pop<Mark>("a mark");
    top<List>("a list");
    return true;
  }

  Dict new_dict() {
    require(dict_sizes_.size() < max_values, "makes too many dictionaries");
    dict_sizes_.push_back(0);
    return {static_cast<std::uint32_t>(dict_sizes_.size() - 1)};
  }

  Tuple make_tuple(std::size_t size) {
    require(size <= stack_.size(), "lacks ", size, " values on its stack");
    require(tuple_items_.size() + size <= max_values, "holds more than ", max_values, " values in tuples");
    const auto begin = stack_.end() - static_cast<std::ptrdiff_t>(size);
    for (auto value = begin; value != stack_.end(); ++value) {
      require(!std::holds_alternative<Mark>(*value), "puts a mark into a tuple");
    }
    tuple_items_.insert(tuple_items_.end(), begin, stack_.end());
    stack_.erase(begin, stack_.end());
    return {static_cast<std::uint32_t>(tuple_items_.size() - size), static_cast<std::uint32_t>(size)};
  }

  Tuple make_marked_tuple() {
    const Tuple tuple = make_tuple(count_to_mark());
    pop<Mark>("a mark");
    return tuple;
  }

  /// The number of values above the last mark.
  std::size_t count_to_mark() const {
    std::size_t count = 0;
    while (count < stack_.size() && !std::holds_alternative<Mark>(stack_[stack_.size() - 1 - count])) ++count;
    require(count < stack_.size(), "lacks a mark on its stack");
    return count;
  }

  /// Memo indices are handed out in sequence by every writer, which keeps the memo dense.
  bool put(std::uint32_t index) {
    require(!stack_.empty() && !std::holds_alternative<Mark>(stack_.back()), "lacks a value to remember");
    require(index == memo_.size() && index < max_values, "remembers a value as number ", index, " after ",
            memo_.size());
    memo_.push_back(stack_.back());
    return true;
  }

  bool get(std::uint32_t index) {
    require(index < memo_.size(), "recalls value ", index, " of ", memo_.size());
    return push(memo_[index]);
  }

  void add_item(Dict dict, const Value& key, const Value& value) {
    // The dictionaries of an optimizer have numbers as keys.
    require(std::holds_alternative<Text>(key) || std::holds_alternative<std::int64_t>(key),
            "has a dictionary key that is ", describe(key), not_text);
    require(!std::holds_alternative<Mark>(value), "puts a mark into a dictionary");
    require(items_.size() < max_items, "holds more than ", max_items, " values in dictionaries");
    items_.push_back({dict.id, key, value});
    ++dict_sizes_[dict.id];
  }

  bool set_item() {
    require(stack_.size() >= 3, "lacks a dictionary, a key and a value on its stack");
    const Value value = stack_.back();
    stack_.pop_back();
    const Value key = stack_.back();
    stack_.pop_back();
    add_item(top<Dict>("a dictionary"), key, value);
    return true;
  }

  bool set_items() {
    const std::size_t count = count_to_mark();
    require(count % 2 == 0, "has a dictionary key without a value");
    const std::size_t begin = stack_.size() - count;
    const bool has_dict = begin >= 2 && std::holds_alternative<Dict>(stack_[begin - 2]);
    require(has_dict, "lacks a dictionary below the items");
    const Dict dict = std::get<Dict>(stack_[begin - 2]);
    for (std::size_t i = begin; i < stack_.size(); i += 2) add_item(dict, stack_[i], stack_[i + 1]);
    stack_.resize(begin - 1);
    return true;
  }

  /// Element `i` of a tuple, which must be a T.
  template <class T>
  T item(Tuple tuple, std::size_t i, std::string_view what) const {
    const Value& value = tuple_items_[tuple.begin + i];
    require(std::holds_alternative<T>(value), "has ", describe(value), " in place of ", what);
    return std::get<T>(value);
  }

  std::uint64_t count_item(Tuple tuple, std::size_t i, std::string_view what) const {
    const std::int64_t number = item<std::int64_t>(tuple, i, what);
    require(number >= 0, "has ", number, " as ", what);
    return static_cast<std::uint64_t>(number);
  }

  /// ('storage', type, key, device, elements), the only thing that the pickle may load from outside of itself.
  StorageRef load_storage(Tuple id) {
    require(id.size == 5 && text(item<Text>(id, 0, "the word storage")) == "storage",
            "loads something that is no storage");
    const Global type = item<Global>(id, 1, "a storage type");
    require(type.kind == Kind::storage || type.kind == Kind::foreign_storage,
            "has a function in place of a storage type");
    const Text key = item<Text>(id, 2, "the name of a storage");
    item<Text>(id, 3, "a device");
    require(storages_.size() < 2 * max_tensors, "loads too many storages");
    storages_.push_back({type, key, count_item(id, 4, "the size of a storage")});
    return {static_cast<std::uint32_t>(storages_.size() - 1)};
  }

  bool reduce() {
    const Tuple arguments = pop<Tuple>("a tuple of arguments");
    const Global function = pop<Global>("a function");
    switch (function.kind) {
      case Kind::ordered_dict:
        require(arguments.size == 0, "makes a dictionary from ", arguments.size, " arguments");
        return push(new_dict());
      case Kind::rebuild_tensor: return push(rebuild_tensor(arguments));
      case Kind::rebuild_parameter: return push(rebuild_parameter(arguments, function));
      case Kind::rebuild_from_type: return push(rebuild_from_type(arguments));
      case Kind::foreign_tensor: return push(foreign_tensor(arguments, function));
      case Kind::object: return push(Object{});
      case Kind::storage:
      case Kind::foreign_storage: refuse("calls a storage type");
      case Kind::number_type: refuse("calls a number type");
      case Kind::tensor_type:
      case Kind::foreign_type: break;
    }
    refuse("calls the type ", in_quotes(text(function.name)));
  }

  /// (tensor, requires_grad, hooks), and the state of its attributes, which say nothing about its numbers.
  TensorRef rebuild_parameter(Tuple arguments, Global function) {
    const std::size_t count = text(function.name).ends_with("_with_state") ? 4 : 3;
    require(arguments.size == count, "makes a parameter from ", arguments.size, " arguments instead of ", count);
    check_hooks(arguments, 1);
    if (count == 4) check_attributes(arguments, 3);
    return item<TensorRef>(arguments, 0, "a tensor");
  }

  /// (function, class, its arguments, state): a tensor with attributes, whose numbers are those that the function
  /// makes, or one of another class, whose numbers may mean anything.
  TensorRef rebuild_from_type(Tuple arguments) {
    require(arguments.size == 4, "makes a tensor from ", arguments.size, " arguments instead of 4");
    const auto function = item<Global>(arguments, 0, "a function");
    const auto type = item<Global>(arguments, 1, "the class of a tensor");
    const auto inner = item<Tuple>(arguments, 2, "a tuple of arguments");
    check_attributes(arguments, 3);
    const bool known = function.kind == Kind::rebuild_tensor || function.kind == Kind::foreign_tensor;
    require(known, "makes a tensor by ", in_quotes(text(function.name)));
    const bool is_plain = type.kind == Kind::tensor_type;
    require(is_plain || type.kind == Kind::foreign_type, "has ", in_quotes(text(type.name)),
            " in place of the class of a tensor");
    const TensorRef made =
        function.kind == Kind::rebuild_tensor ? rebuild_tensor(inner) : foreign_tensor(inner, function);
    if (!is_plain) tensors_[made.id].foreign = type;
    return made;
  }

  /// The state of a tensor: None, its attributes, or a pair of attributes and slots.
  void check_attributes(Tuple arguments, std::size_t i) const {
    const Value& state = tuple_items_[arguments.begin + i];
    const Tuple* pair = std::get_if<Tuple>(&state);
    require(std::holds_alternative<None>(state) || std::holds_alternative<Dict>(state) ||
                (pair != nullptr && pair->size == 2),
            "has ", describe(state), " in place of the attributes of a tensor");
  }

  /// (storage, offset, shape, strides, requires_grad, hooks), and marks for a view of negated or conjugate numbers.
  TensorRef rebuild_tensor(Tuple arguments) {
    require(arguments.size == 6 || arguments.size == 7, "makes a tensor from ", arguments.size,
            " arguments instead of 6 or 7");
    const auto storage = item<StorageRef>(arguments, 0, "a storage");
    const std::uint64_t offset = count_item(arguments, 1, "an offset");
    const auto shape = item<Tuple>(arguments, 2, "a shape");
    const auto strides = item<Tuple>(arguments, 3, "strides");
    require(shape.size == strides.size, "has ", strides.size, " strides for ", shape.size, " dimensions");
    check_hooks(arguments, 4);
    Tensor tensor{storage.id, offset, shape, strides, storages_[storage.id].type, false};
    if (arguments.size == 7) {
      item<Dict>(arguments, 6, "a dictionary of marks");
      tensor.is_marked = true;
    }
    take_shape(tensor, shape);
    for (std::size_t i = 0; i < tensor.shape.size; ++i) count_item(strides, i, "a stride");
    return add_tensor(tensor);
  }

  /// Shapes of too many dimensions are not even looked at.
  void take_shape(Tensor& tensor, Tuple shape) const {
    tensor.has_shape = shape.size <= max_rank;
    tensor.shape = tensor.has_shape ? shape : Tuple{};
    tensor.dimensions = tensor.has_shape ? 0 : shape.size;
    for (std::size_t i = 0; i < tensor.shape.size; ++i) count_item(shape, i, "a size");
  }

  /// A tensor in a form that is not read. Most forms begin as plain tensors do: (storage, offset, shape, ...).
  TensorRef foreign_tensor(Tuple arguments, Global function) {
    Tensor tensor{0, 0, {}, {}, function, false};
    const auto holds = [&]<class T>(std::size_t i, T) {
      return i < arguments.size && std::holds_alternative<T>(tuple_items_[arguments.begin + i]);
    };
    if (holds(0, StorageRef{}) && holds(1, std::int64_t{}) && holds(2, Tuple{})) {
      take_shape(tensor, item<Tuple>(arguments, 2, "a shape"));
    }
    // Version 3 is that of number types without a storage type of their own, and names the number type.
    if (text(function.name) == "_rebuild_tensor_v3" && holds(6, Global{})) {
      const Global type = item<Global>(arguments, 6, "a number type");
      require(type.kind == Kind::number_type, "has ", in_quotes(text(type.name)), " in place of a number type");
      tensor.foreign = type;
    }
    return add_tensor(tensor);
  }

  TensorRef add_tensor(const Tensor& tensor) {
    require(tensors_.size() < 2 * max_tensors, "makes too many tensors");
    tensors_.push_back(tensor);
    return {static_cast<std::uint32_t>(tensors_.size() - 1)};
  }

  /// Why a tensor cannot be read; empty when it can.
  std::string why_unreadable(const Tensor& tensor) const {
    const auto name = in_quotes(text(tensor.foreign.name));
    if (tensor.foreign.kind == Kind::foreign_type) {
      return join("it is of the class ", name, "; save it as a plain tensor, by as_subclass(torch.Tensor)");
    }
    if (tensor.foreign.kind == Kind::foreign_tensor) {
      return join("it is no plain tensor, PyTorch makes it by ", name, "; save it as a dense, contiguous one");
    }
    if (tensor.foreign.kind != Kind::storage) {
      return join("its numbers are of the type ", name, "; convert it to float32 before saving");
    }
    if (tensor.dimensions != 0) return too_many_dimensions(tensor.dimensions);
    if (tensor.is_marked) {
      return "it is a view of negated or conjugate numbers; save what resolve_neg() and resolve_conj() make of it";
    }
    return {};
  }

  /// requires_grad and an empty dictionary of backward hooks.
  void check_hooks(Tuple arguments, std::size_t i) const {
    item<bool>(arguments, i, "requires_grad");
    const Dict hooks = item<Dict>(arguments, i + 1, "a dictionary of hooks");
    require(dict_sizes_[hooks.id] == 0, "has backward hooks");
  }

  /// The state of an object. Only a state dict has one: the versions of the modules that made it, which say nothing
  /// about the tensors.
  bool build() {
    const Dict state = pop<Dict>("a dictionary with a state");
    require(!stack_.empty() && std::holds_alternative<Dict>(stack_.back()),
            "gives a state to something that is no dictionary");
    require(dict_sizes_[state.id] == 1 && items_.back().dict == state.id && is_key(items_.back(), "_metadata") &&
                std::holds_alternative<Dict>(items_.back().value),
            "has a state that is not just '_metadata'");
    return true;
  }

  std::vector<PickledTensor> collect() {
    require(!stack_.empty(), "lacks a dictionary at the end");
    const Value result = stack_.back();
    stack_.pop_back();
    require(stack_.empty(), "leaves values on its stack");
    if (!std::holds_alternative<Dict>(result)) {
      fail(where_, ": the file holds ", describe(result), ", not a dictionary of tensors; save a state dict");
    }
    const Dict dict = state_dict(std::get<Dict>(result));
    require(dict_sizes_[dict.id] <= max_tensors, "holds more than ", max_tensors, " tensors");
    refuse_other_values(dict);
    std::vector<PickledTensor> tensors;
    tensors.reserve(dict_sizes_[dict.id]);
    for (const Item& entry : items_) {
      if (entry.dict != dict.id) continue;
      const std::string_view name = text(std::get<Text>(entry.key));
      if (!is_clean_name(name)) fail(where_, ": the tensor name ", in_quotes(name), not_clean);
      const Tensor& tensor = tensors_[std::get<TensorRef>(entry.value).id];
      std::string unreadable = why_unreadable(tensor);
      if (!unreadable.empty()) {
        tensors.push_back({name, std::move(unreadable), tensor.has_shape, {}, {}, 0, 0, numbers(tensor.shape), {}});
        continue;
      }
      const Storage& storage = storages_[tensor.storage];
      tensors.push_back({name, std::string(), true, storage.type.dtype, text(storage.key), storage.size, tensor.offset,
                         numbers(tensor.shape), numbers(tensor.strides)});
    }
    return tensors;
  }

  /// Trainers save dictionaries of what they need: {'model': ..., 'optimizer': ...}. If exactly one entry of this one is
  /// the state dict of a model, that is meant; else the dictionary itself.
  Dict state_dict(Dict outer) {
    struct Holds {
      bool weight = false, other = false;
    };
    std::vector<Holds> holds(dict_sizes_.size());
    for (const Item& item : items_) {
      const Text* name = std::get_if<Text>(&item.key);
      const bool is_tensor = name != nullptr && std::holds_alternative<TensorRef>(item.value);
      Holds& dict = holds[item.dict];
      if (!is_tensor) dict.other = true;
      else if (!dict.weight) dict.weight = is_weight_name(text(*name));
    }
    const Item* found = nullptr;
    for (const Item& item : items_) {
      if (item.dict != outer.id) continue;
      const Dict* inner = std::get_if<Dict>(&item.value);
      if (inner == nullptr || !std::holds_alternative<Text>(item.key)) continue;
      if (!holds[inner->id].weight || holds[inner->id].other) continue;
      if (found != nullptr) return outer;
      found = &item;
    }
    const bool is_converted = std::any_of(items_.begin(), items_.end(), [&](const Item& item) {
      return item.dict == outer.id && is_key(item, "_strategy");
    });
    if (found == nullptr || holds[outer.id].weight || is_converted) return outer;
    entry_ = text(std::get<Text>(found->key));
    return std::get<Dict>(found->value);
  }

  /// Everything in the dictionary must be a tensor. Of several values that are none, the one is named that says most
  /// about the file: the mark of a conversion, the dictionary with the tensors, another dictionary, the first.
  void refuse_other_values(Dict dict) const {
    std::vector<bool> holds_tensors(dict_sizes_.size());
    for (const Item& entry : items_) {
      if (std::holds_alternative<TensorRef>(entry.value)) holds_tensors[entry.dict] = true;
    }
    const auto weight = [&](const Item& entry) {
      if (is_key(entry, "_strategy")) return 4;
      if (const Dict* inner = std::get_if<Dict>(&entry.value)) return holds_tensors[inner->id] ? 3 : 2;
      return 1;
    };
    const Item* worst = nullptr;
    for (const Item& entry : items_) {
      if (entry.dict != dict.id) continue;
      const bool good = std::holds_alternative<Text>(entry.key) && std::holds_alternative<TensorRef>(entry.value);
      if (!good && (worst == nullptr || weight(entry) > weight(*worst))) worst = &entry;
    }
    if (worst == nullptr) return;
    const Value& value = worst->value;
    if (!std::holds_alternative<Text>(worst->key)) {
      fail(where_, ": the pickle has a dictionary key that is ", describe(worst->key), not_text);
    }
    const std::string name = in_quotes(text(std::get<Text>(worst->key)));
    switch (weight(*worst)) {
      case 4:
        fail(where_, ": the rwkv package of Python converted this file for one way of running it (", name,
             "), which changes its matrices and decays; use the original file");
      case 3:
      case 2: fail(where_, ": ", name, " is a dictionary, not a tensor; if it is the state dict, save it alone");
      default: fail(where_, ": ", name, " is ", describe(value), ", not a tensor; save the tensors alone");
    }
  }

  std::vector<Index> numbers(Tuple tuple) const {
    std::vector<Index> result;
    for (std::size_t i = 0; i < tuple.size; ++i) result.push_back(Checked(count_item(tuple, i, "a size")).to<Index>());
    return result;
  }

  std::string_view text(Text t) const { return pickle_.substr(t.begin, t.size); }

  bool is_key(const Item& entry, std::string_view key) const {
    const Text* name = std::get_if<Text>(&entry.key);
    return name != nullptr && text(*name) == key;
  }

  /// The key of the dictionary entry that is being read, for errors: keys stand at even distances from the first mark.
  std::optional<std::string_view> current_key() const {
    std::size_t begin = 0;
    while (begin < stack_.size() && !std::holds_alternative<Mark>(stack_[begin])) ++begin;
    std::optional<std::string_view> key;
    for (std::size_t i = begin + 1; i < stack_.size(); i += 2) {
      if (!std::holds_alternative<Text>(stack_[i])) break;
      key = text(std::get<Text>(stack_[i]));
    }
    return key;
  }

  template <class... Parts>
  [[noreturn]] void refuse(const Parts&... parts) const {
    const auto key = current_key();
    fail(where_, key ? join(", entry ", in_quotes(*key)) : std::string(), ": the pickle ", parts..., " (at its byte ",
         opcode_at_, ")");
  }

  template <class... Parts>
  void require(bool holds, const Parts&... parts) const {
    if (!holds) [[unlikely]]
      refuse(parts...);
  }

  std::string_view where_;
  std::string_view pickle_;
  ByteReader reader_;
  std::size_t opcode_at_ = 0;
  std::string_view entry_;
  std::vector<Value> stack_;
  std::vector<Value> memo_;
  std::vector<Value> tuple_items_;
  std::vector<Item> items_;
  std::vector<std::uint32_t> dict_sizes_;
  std::vector<Storage> storages_;
  std::vector<Tensor> tensors_;
};

}  // namespace detail
}  // namespace RWKV_ABI
}  // namespace rwkv
