// SPDX-License-Identifier: GPL-2.0
// cxxrt/result.hpp - errors as values.
//
// Error carries the numbers of Linux's errno (positive); the shims negate them at the edge.
// Result<T> is a T or an Error. There is no exception and no abort: reading the value of a failed
// Result is an assertion of our own code.
#pragma once
#include "cxxrt/base.hpp"

namespace rt
{

enum class [[nodiscard]] Error : int {
    none = 0,
    not_permitted = 1, // EPERM
    io = 5,            // EIO
    again = 11,        // EAGAIN
    no_memory = 12,    // ENOMEM
    busy = 16,         // EBUSY
    exists = 17,       // EEXIST
    no_device = 19,    // ENODEV
    invalid = 22,      // EINVAL
    no_space = 28,     // ENOSPC
    read_only = 30,    // EROFS
    not_supported = 95 // EOPNOTSUPP
};

// 0 or a negative errno, for the C side.
constexpr int to_errno(Error e) noexcept { return -static_cast<int>(e); }
constexpr bool ok(Error e) noexcept { return e == Error::none; }

// alignas(8): g++-12 realigns the stack to return a 12-byte aggregate in registers.
template <class T>
class [[nodiscard]] alignas(8) Result
{
    union {
        T value_;
    };
    Error error_;

public:
    Result(T &&v) noexcept : value_(rt::move(v)), error_(Error::none) {}
    Result(const T &v) noexcept
        requires TriviallyCopyable<T>
        : value_(v), error_(Error::none)
    {
    }
    Result(Error e) noexcept : error_(e) { RT_ASSERT(e != Error::none); }
    // Trivial when T is: the ABI then returns small results in registers.
    Result(Result &&)
        requires TriviallyCopyable<T>
    = default;
    Result(Result &&o) noexcept : error_(o.error_)
    {
        if (ok(error_))
            ::new (&value_) T(rt::move(o.value_));
    }
    Result(const Result &) = delete;
    Result &operator=(const Result &) = delete;
    Result &operator=(Result &&) = delete;
    ~Result()
        requires TriviallyDestructible<T>
    = default;
    ~Result()
    {
        if (ok(error_))
            value_.~T();
    }
    explicit operator bool() const noexcept { return ok(error_); }
    Error error() const noexcept { return error_; }
    T &operator*() & noexcept
    {
        RT_ASSERT(ok(error_));
        return value_;
    }
    const T &operator*() const & noexcept
    {
        RT_ASSERT(ok(error_));
        return value_;
    }
    T &&operator*() && noexcept
    {
        RT_ASSERT(ok(error_));
        return rt::move(value_);
    }
    T *operator->() noexcept
    {
        RT_ASSERT(ok(error_));
        return &value_;
    }
};

// Leaves the function with the error, if there is one. For functions that return Error or Result.
#define RT_TRY(expression)                                                                         \
    do {                                                                                           \
        if (::rt::Error rt_try_error = (expression); rt_try_error != ::rt::Error::none)            \
            return rt_try_error;                                                                   \
    } while (0)

} // namespace rt
