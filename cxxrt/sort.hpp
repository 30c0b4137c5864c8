// SPDX-License-Identifier: GPL-2.0
// cxxrt/sort.hpp - sorting in place, without recursion and without memory: heap sort.
//
// O(n log n) whatever the order of the input is, so that media contents cannot make it slow. Not
// stable. The caller keeps others away from the range.
#pragma once
#include "cxxrt/span.hpp"

namespace rt
{

namespace sort_detail
{

// Restores the heap order below `root` in heap[0, n), where only the root may be too small. The
// hole that the root leaves wanders down; each element is moved once.
template <class T, class Less>
constexpr void sift_down(T *heap, usize root, usize n, Less &less) noexcept
{
    T value = rt::move(heap[root]);
    for (;;) {
        usize child = 2 * root + 1;
        if (child >= n)
            break;
        if (child + 1 < n && less(heap[child], heap[child + 1]))
            ++child;
        if (!less(value, heap[child]))
            break;
        heap[root] = rt::move(heap[child]);
        root = child;
    }
    heap[root] = rt::move(value);
}

} // namespace sort_detail

// Sorts so that less(b, a) holds for no a in front of a b. `less` is a strict weak order and is
// called O(n log n) times. An order that contradicts itself gives some permutation, never an access
// outside.
template <class T, class Less>
constexpr void heap_sort(Span<T> range, Less less) noexcept
{
    T *a = range.data();
    usize n = range.size();
    for (usize i = n / 2; i-- > 0;)
        sort_detail::sift_down(a, i, n, less);
    for (usize end = n; end-- > 1;) {
        rt::swap(a[0], a[end]);
        sort_detail::sift_down(a, 0, end, less);
    }
}

} // namespace rt
