// What the kernel libraries of this folder share: how they are exported and cloned, and how work is spread over threads.

#pragma once

#include <algorithm>
#include <cstdint>
#include <exception>
#include <thread>
#include <vector>

#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#endif

#if defined(_WIN32)
#define EXPORT extern "C" __declspec(dllexport)
#else
#define EXPORT extern "C" __attribute__((visibility("default")))
#endif

// One build runs on every x86-64 and uses what it finds there. Choosing while loading needs glibc.
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__GLIBC__)
#define CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define CLONES
#endif

#if defined(__GNUC__)
#define INLINE inline __attribute__((always_inline))
#else
#define INLINE inline
#endif

using Index = std::int64_t;

namespace {

// [0, all) in parts, the first of them here. Threads that are started for the call, and not OpenMP: a second OpenMP runtime
// beside torch's would keep its own pool spinning, and its pool does not survive a fork.
template <class Work>
void spread(Index all, Index part, const Work& work) {
  std::vector<std::thread> helpers;
  Index rest = std::min(part, all);
  try {
    for (; rest < all; rest += part) {
      const Index first = rest, last = std::min(rest + part, all);
      helpers.emplace_back([&work, first, last] { work(first, last); });
    }
  } catch (const std::exception&) {
    work(rest, all);  // no thread to be had: this one does it all
  }
  work(0, std::min(part, all));
  for (std::thread& helper : helpers) helper.join();
}

}  // namespace
