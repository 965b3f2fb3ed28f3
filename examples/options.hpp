#pragma once
// The options of an example, read with the C library's getopt_long.
#include <getopt.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <functional>
#include <initializer_list>
#include <limits>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace example {

/// Options that write to variables; what a variable holds before is the default. A number is taken as it is typed, in
/// decimal, or refused. Of an option that is given again, the last value counts.
///
/// Errors    std::invalid_argument: one sentence that names the option and what was typed
class Options {
 public:
  Options(std::string program, std::string purpose) : program_(std::move(program)), purpose_(std::move(purpose)) {}

  /// A number from `least` to `most`.
  template <class T>
  requires std::is_arithmetic_v<T>
  void add(const std::string& name, T& value, const std::string& help,
           std::type_identity_t<T> least = std::numeric_limits<T>::lowest(),
           std::type_identity_t<T> most = std::numeric_limits<T>::max()) {
    add_reader(name, written(value), help,
               [=, &value](const std::string& text) { value = number<T>(name, text, least, most); });
  }

  /// Numbers from 0 on, separated by commas.
  template <class T>
  void add(const std::string& name, std::vector<T>& values, const std::string& help) {
    add_reader(name, "", help, [=, &values](const std::string& text) {
      values.clear();
      for (std::size_t begin = 0, comma = 0; comma != std::string::npos; begin = comma + 1) {
        comma = text.find(',', begin);
        values.push_back(
            number<T>(name + " " + shown(text), text.substr(begin, comma - begin), 0, std::numeric_limits<T>::max()));
      }
    });
  }

  /// A path, a name or a pattern. Where it is missing, a program may do something else, so an empty one is refused: it
  /// is most often a variable of a shell that was never set.
  void add(const std::string& name, std::string& value, const std::string& help) {
    add_reader(name, value, help, [=, &value](const std::string& text) {
      if (text.empty()) fail(name + ": the value is empty");
      value = text;
    });
  }

  /// A text, which may be empty.
  void add_text(const std::string& name, std::string& value, const std::string& help) {
    add_reader(name, value, help, [&value](const std::string& text) { value = text; });
  }

  /// One of several texts.
  void add(const std::string& name, std::string& value, const std::string& help,
           const std::vector<std::string>& choices) {
    add_reader(name, value, help, [=, &value](const std::string& text) {
      std::string all;
      for (const std::string& choice : choices) {
        if (choice == text) {
          value = text;
          return;
        }
        all += (all.empty() ? "" : ", ") + choice;
      }
      refuse(name, text, "none of " + all);
    });
  }

  /// A switch, which takes no value.
  void add(const std::string& name, bool& value, const std::string& help) {
    add_reader(name, "", help, [&value](const std::string&) { value = true; });
    options_.back().takes = no_argument;
  }

  /// The one text that stands on the command line without a name; `name` is for errors and help.
  void add_argument(const std::string& name, std::string& value, const std::string& help) {
    argument_ = options_.size();
    add(name, value, help);
  }

  /// What help shows as the default of the option added last.
  void show_default(const std::string& text) { options_.back().standard = text; }

  /// Reads the command line. Returns false when help was asked for, which is printed.
  bool parse(int argc, char** argv) {
    constexpr int first = 256;  // above all characters
    std::vector<::option> names{{"help", no_argument, nullptr, 'h'}};
    for (std::size_t i = 0; i < options_.size(); ++i) {
      if (i != argument_) names.push_back({options_[i].name.c_str() + 2, options_[i].takes, nullptr, first + int(i)});
    }
    names.push_back({});
    opterr = 0;  // the errors are ours
    for (;;) {
      const std::string word = optind < argc ? argv[optind] : "";
      // '-': arguments without a name come in their turn, as 1; ':': a missing value has a mark of its own.
      const int found = getopt_long(argc, argv, "-:h", names.data(), nullptr);
      if (found == -1) break;
      if (found == 'h') {
        if (word != "--help" && !word.starts_with("-h")) fail("there is no option " + shown(word));
        return print_help(), false;
      }
      if (found == 1) {
        take_argument(optarg);
        continue;
      }
      if (found == ':') fail(shown(word) + ": the value is missing");
      if (found < first) fail("there is no option " + shown(word));
      Option& option = options_[static_cast<std::size_t>(found - first)];
      // getopt_long also takes the beginning of a name, which a later option could make ambiguous.
      const bool joined = word.starts_with(option.name + "=");
      if (word != option.name && !joined) fail("there is no option " + shown(word));
      const std::string value = optarg == nullptr ? "" : optarg;
      if (!joined && value.starts_with("--")) fail(option.name + ": the value is missing before " + shown(value));
      option.read(value);
      option.given = true;
    }
    while (optind < argc) take_argument(argv[optind++]);  // behind a "--"
    return true;
  }

  /// Whether the command line had the option.
  bool given(const std::string& name) const {
    for (const Option& option : options_) {
      if (option.name == name) return option.given;
    }
    throw std::logic_error("no option " + name);
  }

  /// The first option of the command line that is none of these, or "".
  std::string given_beside(std::initializer_list<std::string_view> names) const {
    for (const Option& option : options_) {
      if (option.given && std::find(names.begin(), names.end(), option.name) == names.end()) return option.name;
    }
    return "";
  }

  /// Throws unless the command line had the option.
  void require(const std::string& name) const {
    if (!given(name)) fail(name + " is missing");
  }

 private:
  struct Option {
    std::string name, standard, help;
    std::function<void(const std::string&)> read;
    int takes = required_argument;
    bool given = false;
  };

  void add_reader(const std::string& name, const std::string& standard, const std::string& help,
                  std::function<void(const std::string&)> read) {
    options_.push_back({name, standard, help, std::move(read)});
  }

  void take_argument(const std::string& text) {
    if (argument_ >= options_.size() || options_[argument_].given) fail("'" + shown(text) + "' belongs to no option");
    options_[argument_].read(text);
    options_[argument_].given = true;
  }

  template <class T>
  static T number(const std::string& name, const std::string& text, T least, T most) {
    T value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    bool good = error == std::errc() && end == text.data() + text.size();
    if constexpr (std::is_integral_v<T>) good = good && written(value) == text;  // no leading zero, no -0
    else good = good && std::isfinite(value);
    if (good && least <= value && value <= most) return value;
    std::string range = " from " + written(least) + " to " + written(most);
    if (std::is_floating_point_v<T> && most == std::numeric_limits<T>::max()) {
      range = least == std::numeric_limits<T>::lowest() ? "" : " of at least " + written(least);
    }
    refuse(name, text, std::string(std::is_integral_v<T> ? "no whole number" : "no finite decimal number") + range);
  }

  template <class T>
  static std::string written(T value) {
    char digits[32];
    return {digits, std::to_chars(digits, digits + sizeof digits, value).ptr};
  }

  /// A text on one line.
  static std::string shown(const std::string& text) {
    std::string line;
    for (const char c : text) {
      if (c == '\n') line += "\\n";
      else line += static_cast<unsigned char>(c) < ' ' ? '?' : c;
    }
    return line;
  }

  [[noreturn]] static void fail(const std::string& sentence) { throw std::invalid_argument(sentence); }
  [[noreturn]] static void refuse(const std::string& name, const std::string& text, const std::string& what) {
    fail(name + ": '" + shown(text) + "' is " + what);
  }

  void print_help() const {
    std::printf("%s\nUsage: %s", purpose_.c_str(), program_.c_str());
    if (argument_ < options_.size()) {
      const Option& argument = options_[argument_];
      std::printf(argument.standard.empty() ? " %s" : " [%s]", argument.name.c_str());
    }
    std::printf(" [OPTIONS]\n\n");
    for (const Option& option : options_) {
      const std::string left = option.name + (option.standard.empty() ? "" : " [" + shown(option.standard) + "]");
      std::printf("  %-36s  %s\n", left.c_str(), option.help.c_str());
    }
    std::printf("  %-36s  %s\n", "-h, --help", "print this and exit");
  }

  std::string program_, purpose_;
  std::vector<Option> options_;
  std::size_t argument_ = static_cast<std::size_t>(-1);  ///< which of them has no name on the command line
};

}  // namespace example
