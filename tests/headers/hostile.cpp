// fwd.hpp goes before everything and after everything, and its names are those of the definitions. In between is every
// header, after macros that <windows.h>, the X Window System and Arduino are known to define. Not among them are
// the min and max of <windows.h>, which programs turn off by NOMINMAX.
#include <rwkv/fwd.hpp>

using Version = rwkv::V4;
using Net = rwkv::LanguageModel<Version, rwkv::bf16, rwkv::Cpu>;
using Pattern = rwkv::Chain<
    rwkv::Layer<rwkv::TimeMix<Version, float, rwkv::Reference>, rwkv::ChannelMix<Version, float, rwkv::Reference>>>;
const void* address(const Net* net);
long width(rwkv::Seq<const float, 64> x);

#include "others.hpp"

#define near
#define far
#define small char
#define interface struct
#define pascal
#define TRUE 1
#define FALSE 0
#define ERROR 0
#define IN
#define OUT
#define OPTIONAL
#define Bool int
#define Status int
#define Success 0
#define Always 2
#define PI 3.14159
#define F(text) text
#define _S(text) text

#include "rwkv_all.hpp"

int hostile() { return Success; }

#include <rwkv/fwd.hpp>

const void* address(const Net* net) { return &net->sizes(); }
long width(rwkv::Seq<const float, 64> x) { return x.width; }
static_assert(rwkv::Block<rwkv::TokenShift<float, rwkv::Reference>>);
static_assert(Pattern::layers == 1);
