#pragma once
/// What ranks that are threads say when they fail.
#include <doctest/doctest.h>
#include <rwkv/train/thread_comm.hpp>

#include <functional>
#include <mutex>
#include <string>
#include <vector>

namespace config {

/// The sentence that all ranks throw.
inline std::string sentence_of(int ranks, const std::function<void(rwkv::ThreadComm)>& work) {
  std::mutex mutex;
  std::vector<std::string> sentences;
  rwkv::run_ranks(ranks, [&](rwkv::ThreadComm comm) {
    std::string sentence = "nothing";
    try {
      work(comm);
    } catch (const rwkv::Error& error) {
      sentence = error.what();
    }
    const std::lock_guard lock(mutex);
    sentences.push_back(sentence);
  });
  for (const std::string& sentence : sentences) CHECK(sentence == sentences[0]);
  return sentences[0];
}

}  // namespace config
