// SPDX-License-Identifier: GPL-2.0
// cxxrt/atomic.hpp - atomics for data that only C++ touches; names and orders are the kernel's
// (LKMM). Only the orders that have an exact counterpart there. What C touches, too, goes through a
// shim.
#pragma once
#include "cxxrt/base.hpp"

namespace rt
{

template <class T>
requires(__is_trivially_copyable(T) &&
         (sizeof(T) == 1 || sizeof(T) == 4 || sizeof(T) == 8)) class Atomic : NonCopyable
{
    alignas(sizeof(T)) T v_;

public:
    constexpr explicit Atomic(T v = T{}) noexcept : v_(v) {}
    T read() const noexcept { return __atomic_load_n(&v_, __ATOMIC_RELAXED); } // READ_ONCE
    void set(T v) noexcept { __atomic_store_n(&v_, v, __ATOMIC_RELAXED); }     // WRITE_ONCE
    T load_acquire() const noexcept { return __atomic_load_n(&v_, __ATOMIC_ACQUIRE); }
    void store_release(T v) noexcept { __atomic_store_n(&v_, v, __ATOMIC_RELEASE); }
    void add(T d) noexcept { __atomic_fetch_add(&v_, d, __ATOMIC_RELAXED); } // atomic_add
    // The value-returning ones are full barriers, as in the kernel. They return the old value.
    T fetch_add(T d) noexcept { return __atomic_fetch_add(&v_, d, __ATOMIC_SEQ_CST); }
    T fetch_or(T d) noexcept { return __atomic_fetch_or(&v_, d, __ATOMIC_SEQ_CST); }
    T fetch_and(T d) noexcept { return __atomic_fetch_and(&v_, d, __ATOMIC_SEQ_CST); }
    T xchg(T v) noexcept { return __atomic_exchange_n(&v_, v, __ATOMIC_SEQ_CST); }
    bool try_cmpxchg(T &old, T v) noexcept
    {
        return __atomic_compare_exchange_n(&v_, &old, v, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
    }
};

} // namespace rt
