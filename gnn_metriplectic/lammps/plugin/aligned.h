// Arrays that begin at a cache line, so that no record of four or eight numbers lies across two.

#ifndef METRIPLECTIC_ALIGNED_H
#define METRIPLECTIC_ALIGNED_H

#include <cstddef>
#include <new>
#include <vector>

namespace metriplectic {

template <typename T> struct CacheLines {
  using value_type = T;
  static constexpr std::align_val_t LINE{64};

  CacheLines() = default;
  template <typename U> CacheLines(const CacheLines<U> &) {}

  T *allocate(std::size_t count) { return static_cast<T *>(::operator new(count * sizeof(T), LINE)); }
  void deallocate(T *data, std::size_t) { ::operator delete(data, LINE); }

  template <typename U> bool operator==(const CacheLines<U> &) const { return true; }
  template <typename U> bool operator!=(const CacheLines<U> &) const { return false; }
};

template <typename T> using Array = std::vector<T, CacheLines<T>>;

}    // namespace metriplectic

#endif
