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

enum class [[nodiscard]] Error : int{
    none = 0,
    not_permitted = 1, // EPERM
    interrupted = 4,   // EINTR
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
constexpr int to_errno(Error e) noexcept
{
    return -static_cast<int>(e);
}
constexpr bool ok(Error e) noexcept
{
    return e == Error::none;
}

// Where a Result keeps what it has. Trivial when T is: the ABI then returns small results in
// registers. Two types and not two constrained destructors, which clang has from 16 on only.
template <class T, bool trivial = TriviallyCopyable<T>>
struct ResultStorage {
    union {
        T value_;
    };
    Error error_;
    explicit ResultStorage(Error e) noexcept : error_(e) {}
    explicit ResultStorage(T &&v) noexcept : value_(rt::move(v)), error_(Error::none) {}
    ResultStorage(ResultStorage &&) = default;
};
template <class T>
struct ResultStorage<T, false> {
    union {
        T value_;
    };
    Error error_;
    explicit ResultStorage(Error e) noexcept : error_(e) {}
    explicit ResultStorage(T &&v) noexcept : value_(rt::move(v)), error_(Error::none) {}
    ResultStorage(ResultStorage &&o) noexcept : error_(o.error_)
    {
        if (ok(error_))
            ::new (&value_) T(rt::move(o.value_));
    }
    ~ResultStorage()
    {
        if (ok(error_))
            value_.~T();
    }
};

// alignas(8): g++-12 realigns the stack to return a 12-byte aggregate in registers.
template <class T>
class [[nodiscard]] alignas(8) Result : ResultStorage<T>
{
    using Storage = ResultStorage<T>;
    using Storage::error_;
    using Storage::value_;

public:
    Result(T &&v) noexcept : Storage(rt::move(v)) {}
    Result(const T &v) noexcept requires TriviallyCopyable<T> : Storage(T(v)) {}
    Result(Error e) noexcept : Storage(e) { RT_ASSERT(e != Error::none); }
    Result(Result &&) = default;
    Result(const Result &) = delete;
    Result &operator=(const Result &) = delete;
    Result &operator=(Result &&) = delete;
    explicit operator bool() const noexcept { return ok(error_); }
    Error error() const noexcept { return error_; }
    T &operator*() &noexcept
    {
        RT_ASSERT(ok(error_));
        return value_;
    }
    const T &operator*() const &noexcept
    {
        RT_ASSERT(ok(error_));
        return value_;
    }
    T &&operator*() &&noexcept
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
