#pragma once
/// What a translation unit found. It holds no type of the library, so it is the same under all flags.
struct Answers {
  double single, twofold, oracle;
  bool caught;  ///< an rwkv::Error thrown in this translation unit
};
