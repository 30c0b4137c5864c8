// SPDX-License-Identifier: GPL-2.0
// cxxrt/box.hpp - owning pointers: Box for one object, Array for a number of them that is fixed
// once.
//
// Memory comes from a functor given to the factory, `void *allocate(usize bytes)` (null: there is
// none), and goes back through a policy, `static void Free::free(const void *)`. Neither type locks
// anything; an owner is moved, never copied. A moved-from or default Box and Array own nothing.
#pragma once
#include "cxxrt/result.hpp"
#include "cxxrt/span.hpp"

namespace rt
{

// T may be incomplete where a Box is only declared.
template <class T, class Free>
class Box : NonCopyable
{
    T *p_ = nullptr;

public:
    Box() noexcept = default;
    // Takes *p over: made by placement new in memory that Free::free takes back. Null is fine.
    explicit Box(T *p) noexcept : p_(p) {}
    Box(Box &&o) noexcept : p_(o.release()) {}
    Box &operator=(Box &&o) noexcept
    {
        if (this != &o)
            reset(o.release());
        return *this;
    }
    ~Box() { reset(); }

    explicit operator bool() const noexcept { return p_ != nullptr; }
    T *get() const noexcept { return p_; }
    T &operator*() const noexcept
    {
        RT_ASSERT(p_);
        return *p_;
    }
    T *operator->() const noexcept
    {
        RT_ASSERT(p_);
        return p_;
    }
    // Gives the object up; the caller owns it.
    [[nodiscard]] T *release() noexcept
    {
        T *p = p_;
        p_ = nullptr;
        return p;
    }
    // Destroys what it owns, if anything, and owns *p from then on.
    void reset(T *p = nullptr) noexcept
    {
        T *old = p_;
        p_ = p;
        if (old) {
            old->~T();
            Free::free(old);
        }
    }
};

// A T made of these arguments. Error::no_memory when the functor has none.
template <class T, class Free, class Allocate, class... A>
Result<Box<T, Free>> make_box(Allocate &&allocate, A &&...arguments) noexcept
{
    void *room = allocate(sizeof(T));
    if (!room)
        return Error::no_memory;
    RT_ASSERT(reinterpret_cast<usize>(room) % alignof(T) == 0);
    return Box<T, Free>(::new (room) T(rt::forward<A>(arguments)...));
}

// Indexing is checked.
template <class T, class Free>
class Array : NonCopyable
{
    T *data_ = nullptr;
    usize size_ = 0;

public:
    Array() noexcept = default;
    // Takes over: n objects in memory that Free::free takes back.
    Array(T *data, usize n) noexcept : data_(data), size_(n) {}
    Array(Array &&o) noexcept : data_(o.data_), size_(o.size_)
    {
        o.data_ = nullptr;
        o.size_ = 0;
    }
    Array &operator=(Array &&o) noexcept
    {
        if (this != &o) {
            reset();
            rt::swap(data_, o.data_);
            rt::swap(size_, o.size_);
        }
        return *this;
    }
    ~Array() { reset(); }

    usize size() const noexcept { return size_; }
    bool empty() const noexcept { return size_ == 0; }
    T *data() const noexcept { return data_; }
    T &operator[](usize i) const noexcept
    {
        RT_ASSERT(i < size_);
        return data_[i];
    }
    T *begin() const noexcept { return data_; }
    T *end() const noexcept { return data_ + size_; }
    operator Span<T>() const noexcept { return {data_, size_}; }
    // Destroys the elements, the last one first, and frees the memory.
    void reset() noexcept
    {
        if constexpr (!TriviallyDestructible<T>)
            for (usize i = size_; i-- > 0;)
                data_[i].~T();
        Free::free(data_);
        data_ = nullptr;
        size_ = 0;
    }
};

// n value-initialised elements (numbers are 0). Error::no_memory also when n of them exceed what a
// usize counts. n == 0 allocates nothing.
template <class T, class Free, class Allocate>
Result<Array<T, Free>> make_array(Allocate &&allocate, usize n) noexcept
{
    usize bytes;
    if (n == 0)
        return Array<T, Free>();
    if (__builtin_mul_overflow(n, sizeof(T), &bytes))
        return Error::no_memory;
    void *room = allocate(bytes);
    if (!room)
        return Error::no_memory;
    RT_ASSERT(reinterpret_cast<usize>(room) % alignof(T) == 0);
    T *data = static_cast<T *>(room);
    for (usize i = 0; i < n; ++i)
        ::new (data + i) T();
    return Array<T, Free>(data, n);
}

} // namespace rt
