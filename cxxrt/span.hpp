// SPDX-License-Identifier: GPL-2.0
// cxxrt/span.hpp - a pointer with its length; indexing is checked.
#pragma once
#include "cxxrt/base.hpp"

namespace rt
{

template <class T>
class Span
{
    T *data_ = nullptr;
    usize size_ = 0;

public:
    constexpr Span() noexcept = default;
    constexpr Span(T *p, usize n) noexcept : data_(p), size_(n) {}
    template <usize N>
    constexpr Span(T (&a)[N]) noexcept : data_(a), size_(N)
    {
    }
    constexpr operator Span<const T>() const noexcept { return {data_, size_}; }
    constexpr usize size() const noexcept { return size_; }
    constexpr bool empty() const noexcept { return size_ == 0; }
    constexpr T *data() const noexcept { return data_; }
    constexpr T &operator[](usize i) const noexcept
    {
        RT_ASSERT(i < size_);
        return data_[i];
    }
    constexpr T *begin() const noexcept { return data_; }
    constexpr T *end() const noexcept { return data_ + size_; }
    // [from, from + n); both must lie inside.
    constexpr Span slice(usize from, usize n) const noexcept
    {
        RT_ASSERT(from <= size_ && n <= size_ - from);
        return {data_ + from, n};
    }
};

} // namespace rt
