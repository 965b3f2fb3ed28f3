#pragma once
/// Forward declarations of the public types, safe to include anywhere, and the only place of their default arguments.
/// CellMix is missing because nvcc 13.0 repeats its default argument at the definition.
#include "rwkv/core/extent.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

// Scalars and number types of functors.
struct bf16;
struct f16;
template <class Storage, class Compute>
struct Numerics;
template <class T>
struct One;
template <class R, int K = 1>
struct Dual;

// Views and sizes; a size is dynamic unless given.
template <class T, Index N = dyn>
struct Vec;
template <class T, Index C = dyn>
struct Mat;
template <class T, Index W = dyn>
struct Seq;
template <Index Width = dyn, Index Heads = dyn, Index Ffn = dyn, Index Vocab = dyn>
struct Dims;

// Recurrences, and the versions built on them.
struct WKV4;
struct WKV5;
struct WKV7;
struct V4;
struct V5;
struct V5_0;
struct V5_1;
struct V6;
struct V7;
struct V7a;

// Backends.
class Reference;
inline namespace RWKV_CPU_ABI {
class Cpu;
}

// Blocks: version V, scalar S, backend B, sizes D.
template <class V, class S, class B, class D = Dims<>>
class TimeMix;
template <class V, class S, class B, class D = Dims<>>
class ChannelMix;
template <class Cell, class S, class B, class D = Dims<>>
class CellMix;
template <class V, class S, class B>
struct WKVState;
template <class S, class B, class D = Dims<>>
class TokenShift;
template <class S, class B, class D = Dims<>>
class LayerNorm;

// Models.
template <class S, class B, class D = Dims<>>
class Embedding;
template <class S, class B, class D = Dims<>>
class Head;
template <class TimeMixing, class ChannelMixing>
class Layer;
template <class First, class... Rest>
class Chain;
template <class L, Index N = dyn>
class Stack;
template <class E, class Body, class H>
class Model;
template <class M>
class Context;
template <class M>
class StateRing;
template <class C>
class SequenceHandles;
class AnyModel;
class AnyContext;
struct Keep;
struct Recompute;

/// The standard stack of one version: embedding with ln0, layers of its time mix and channel mix, head. Depth and sizes
/// come from the file unless D fixes them.
template <class V, class S, class B, class D = Dims<>>
using LanguageModel =
    Model<Embedding<S, B, D>, Stack<Layer<TimeMix<V, S, B, D>, ChannelMix<V, S, B, D>>>, Head<S, B, D>>;

// Training: model M, memory policy P, communicator C.
struct SelfComm;
class ThreadComm;
class MpiComm;
template <class M, class P = Keep>
class Gradient;
template <class M, class P = Keep, class C = SelfComm>
class Trainer;
struct TrainerOptions;
struct Sharing;
struct AdamW;
struct LearningRate;
struct Lora;
struct Miss;
class TokenData;
struct Batch;
class RandomWindows;
class ContiguousStreams;

// Running by several ranks.
template <class M, class C = SelfComm>
class Pipeline;
struct PipelineOptions;

// Input, output and text.
class Error;
class TensorFile;
struct Adapter;
class Tokenizer;
class TextStream;
struct Sampler;
struct Chat;

}  // namespace RWKV_ABI
}  // namespace rwkv
