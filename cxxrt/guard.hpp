// SPDX-License-Identifier: GPL-2.0
// cxxrt/guard.hpp - a lock held for a scope, and data that can be reached only through its lock.
//
// A Lock is any type with lock() and unlock(); what may sleep under it is the Lock's affair.
#pragma once
#include "cxxrt/base.hpp"

namespace rt
{

template <class Lock>
class [[nodiscard]] Guard : NonCopyable
{
    Lock &lock_;

public:
    explicit Guard(Lock &l) noexcept : lock_(l) { lock_.lock(); }
    ~Guard() { lock_.unlock(); }
};

// T together with the lock that guards it. `auto g = x.lock(); g->member` is the only way in.
template <class T, class Lock>
class Locked : NonCopyable
{
    Lock lock_;
    T value_;

public:
    template <class... A>
    explicit Locked(A &&...lock_arguments) noexcept
        : lock_(rt::forward<A>(lock_arguments)...), value_()
    {
    }
    class [[nodiscard]] Access : NonCopyable
    {
        Locked &owner_;

    public:
        explicit Access(Locked &o) noexcept : owner_(o) { owner_.lock_.lock(); }
        ~Access() { owner_.lock_.unlock(); }
        T *operator->() const noexcept { return &owner_.value_; }
        T &operator*() const noexcept { return owner_.value_; }
    };
    Access lock() noexcept { return Access(*this); }
};

} // namespace rt
