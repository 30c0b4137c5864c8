// SPDX-License-Identifier: GPL-2.0
// selftests/sim/shadow/cxxrt/atomic.hpp - stands in front of cxxrt/atomic.hpp in the simulator's
// build: the same class, with a point where another task may go on in front of each access. The
// module's sources are compiled unchanged.
#pragma once
#include "cxxrt/base.hpp"

extern "C" int sim_countdown;
extern "C" void sim_preempt(void) noexcept;

namespace rt
{

template <class T>
requires(__is_trivially_copyable(T) &&
         (sizeof(T) == 1 || sizeof(T) == 4 || sizeof(T) == 8)) class Atomic : NonCopyable
{
    alignas(sizeof(T)) T v_;
    static void point() noexcept
    {
        if (--sim_countdown <= 0)
            sim_preempt();
    }

public:
    constexpr explicit Atomic(T v = T{}) noexcept : v_(v) {}
    T read() const noexcept
    {
        point();
        return __atomic_load_n(&v_, __ATOMIC_RELAXED);
    }
    void set(T v) noexcept
    {
        point();
        __atomic_store_n(&v_, v, __ATOMIC_RELAXED);
    }
    T load_acquire() const noexcept
    {
        point();
        return __atomic_load_n(&v_, __ATOMIC_RELAXED);
    }
    void store_release(T v) noexcept
    {
        point();
        __atomic_store_n(&v_, v, __ATOMIC_RELAXED);
    }
    void add(T d) noexcept { (void)fetch_add(d); }
    T fetch_add(T d) noexcept
    {
        point();
        const T old = v_;
        __atomic_store_n(&v_, static_cast<T>(old + d), __ATOMIC_RELAXED);
        return old;
    }
    T fetch_or(T d) noexcept
    {
        point();
        const T old = v_;
        v_ = static_cast<T>(old | d);
        return old;
    }
    T fetch_and(T d) noexcept
    {
        point();
        const T old = v_;
        v_ = static_cast<T>(old & d);
        return old;
    }
    T xchg(T v) noexcept
    {
        point();
        const T old = v_;
        v_ = v;
        return old;
    }
    bool try_cmpxchg(T &old, T v) noexcept
    {
        point();
        if (v_ == old) {
            v_ = v;
            return true;
        }
        old = v_;
        return false;
    }
};

} // namespace rt
