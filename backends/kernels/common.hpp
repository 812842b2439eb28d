// What the kernel libraries of this folder share: how they are exported and cloned, and how work is spread over threads.

#pragma once

#include <algorithm>
#include <atomic>
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

// Threads that somebody else keeps: runs work(data) on each of a team of them, the caller's among them, and comes back when
// all are done. It is what OpenMP's GOMP_parallel does, members = 0 being as many as its other loops have.
using Team = void (*)(void (*work)(void*), void* data, unsigned members, unsigned flags);

namespace {

Team team = nullptr;

// [0, all) in parts, which threads take one after the other. Of a team where one was lent: torch's own threads spin between
// its operators, and a thread started beside them waits for a processor for as long as the loop takes (backends/kernels/
// team.py). Otherwise of threads that are started for the call.
template <class Work>
void spread(Index all, Index part, const Work& work) {
  if (all <= part) return work(0, all);
  struct Job {
    const Work& work;
    Index all, part;
    std::atomic<Index> next;
  } job{work, all, part, {0}};
  const auto take = [](void* data) {
    Job& j = *static_cast<Job*>(data);
    for (Index first; (first = j.next.fetch_add(j.part)) < j.all;) j.work(first, std::min(first + j.part, j.all));
  };
  if (team) return team(take, &job, 0, 0);
  std::vector<std::thread> helpers;
  try {
    for (Index first = part; first < all; first += part) helpers.emplace_back(take, &job);
  } catch (const std::exception&) {
    // no thread to be had: those that are here do it all
  }
  take(&job);
  for (std::thread& helper : helpers) helper.join();
}

}  // namespace

// Lends a team to this library, or takes it back (null).
EXPORT void neuro_lend_team(Team lent) { team = lent; }
