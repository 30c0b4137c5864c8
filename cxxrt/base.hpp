// SPDX-License-Identifier: GPL-2.0
// cxxrt/base.hpp - the bits of <type_traits>, <utility> and <new> that the engine needs, over
// compiler builtins; and RT_ASSERT, for invariants of our own code (never for what media says).
#pragma once
#include "cxxrt/types.h"

extern "C" void rt_assert_failed(const char *file, int line, const char *expr) noexcept
    __attribute__((cold));

// Not a noreturn call: objtool of 6.1 would warn "falls through". ud2 ends the path instead.
#define RT_ASSERT(e)                                                                               \
    (__builtin_expect(!!(e), 1) ? static_cast<void>(0)                                             \
                                : (rt_assert_failed(__FILE__, __LINE__, #e), __builtin_trap()))

// Placement new. A hosted file must get it from <new>.
#if __STDC_HOSTED__
#include <new>
#else
inline void *operator new(usize, void *p) noexcept
{
    return p;
}
inline void operator delete(void *, void *) noexcept {}
#endif

namespace rt
{

template <class T>
struct RemoveReference {
    using Type = T;
};
template <class T>
struct RemoveReference<T &> {
    using Type = T;
};
template <class T>
struct RemoveReference<T &&> {
    using Type = T;
};

template <class T>
constexpr typename RemoveReference<T>::Type &&move(T &&t) noexcept
{
    return static_cast<typename RemoveReference<T>::Type &&>(t);
}
template <class T>
constexpr T &&forward(typename RemoveReference<T>::Type &t) noexcept
{
    return static_cast<T &&>(t);
}
template <class T>
constexpr void swap(T &a, T &b) noexcept
{
    T t = rt::move(a);
    a = rt::move(b);
    b = rt::move(t);
}

template <class T>
concept TriviallyCopyable = __is_trivially_copyable(T);
#if __has_builtin(__is_trivially_destructible) // clang; g++ has it from 16 on
template <class T>
concept TriviallyDestructible = __is_trivially_destructible(T);
#else
template <class T>
concept TriviallyDestructible = __has_trivial_destructor(T);
#endif
template <class A, class B>
concept SameAs = __is_same(A, B);
template <class B, class D>
concept BaseOf = __is_base_of(B, D);

struct NonCopyable {
    constexpr NonCopyable() = default;
    NonCopyable(const NonCopyable &) = delete;
    NonCopyable &operator=(const NonCopyable &) = delete;
};

template <class T>
constexpr T min(T a, T b) noexcept
{
    return b < a ? b : a;
}
template <class T>
constexpr T max(T a, T b) noexcept
{
    return a < b ? b : a;
}
// a must be a power of two.
template <class T>
constexpr T round_up(T v, T a) noexcept
{
    return (v + a - 1) & ~(a - 1);
}
template <class T>
constexpr T round_down(T v, T a) noexcept
{
    return v & ~(a - 1);
}

} // namespace rt
