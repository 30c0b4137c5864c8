// SPDX-License-Identifier: GPL-2.0
// selftests/unit/cxxrt_sort_test.cpp - heap sort against std::sort, and its bounds.
#include <gtest/gtest.h>
#include <algorithm>
#include <random>
#include <vector>
#include "cxxrt/sort.hpp"

namespace
{

template <class T, class Less = std::less<T>>
void sort(std::vector<T> &v, Less less = {})
{
    rt::heap_sort(rt::Span<T>(v.data(), v.size()), less);
}

TEST(HeapSort, SortsEveryArrangementOfUpToSevenElements)
{
    for (int n = 0; n <= 7; ++n) {
        std::vector<int> order(static_cast<usize>(n));
        for (int i = 0; i < n; ++i)
            order[static_cast<usize>(i)] = i / 2; // with equal ones
        const std::vector<int> sorted = order;
        do {
            std::vector<int> v = order;
            sort(v);
            ASSERT_EQ(v, sorted);
        } while (std::next_permutation(order.begin(), order.end()));
    }
}

TEST(HeapSort, AgreesWithStdSortOnRandomInput)
{
    std::mt19937_64 rng(1);
    for (int round = 0; round < 200; ++round) {
        std::vector<u64> v(rng() % 500);
        u64 spread = u64{1} << (rng() % 60);
        for (u64 &x : v)
            x = rng() % spread;
        std::vector<u64> expected = v;
        std::sort(expected.begin(), expected.end());
        sort(v);
        ASSERT_EQ(v, expected);
    }
}

TEST(HeapSort, FollowsTheOrderItIsGiven)
{
    std::vector<int> v = {3, 1, 2, 5, 4};
    sort(v, [](int a, int b) { return a > b; });
    EXPECT_EQ(v, (std::vector<int>{5, 4, 3, 2, 1}));
}

struct MoveOnly {
    int key;
    explicit MoveOnly(int k) : key(k) {}
    MoveOnly(MoveOnly &&) = default;
    MoveOnly &operator=(MoveOnly &&) = default;
};

TEST(HeapSort, MovesElementsAndNeverCopies)
{
    std::vector<MoveOnly> v;
    for (int k : {2, 0, 1})
        v.emplace_back(k);
    sort(v, [](const MoveOnly &a, const MoveOnly &b) { return a.key < b.key; });
    for (int k = 0; k < 3; ++k)
        EXPECT_EQ(v[static_cast<usize>(k)].key, k);
}

TEST(HeapSort, NoInputIsSlow)
{
    const usize n = 1u << 14; // 2 n log2 n comparisons at most
    for (int shape = 0; shape < 3; ++shape) {
        std::vector<u32> v(n);
        for (usize i = 0; i < n; ++i)
            v[i] = static_cast<u32>(shape == 0 ? i : shape == 1 ? n - i : i % 2);
        u64 comparisons = 0;
        sort(v, [&](u32 a, u32 b) {
            ++comparisons;
            return a < b;
        });
        EXPECT_TRUE(std::is_sorted(v.begin(), v.end()));
        EXPECT_LE(comparisons, 2u * n * 14u);
    }
}

TEST(HeapSort, AContradictoryOrderKeepsTheElements)
{
    std::mt19937_64 rng(2);
    std::vector<int> v(300);
    for (usize i = 0; i < v.size(); ++i)
        v[i] = static_cast<int>(i);
    sort(v, [&](int, int) { return rng() % 2 == 0; });
    std::sort(v.begin(), v.end());
    for (usize i = 0; i < v.size(); ++i)
        ASSERT_EQ(v[i], static_cast<int>(i));
}

constexpr bool sorts_at_compile_time()
{
    int a[] = {3, 1, 2};
    rt::heap_sort(rt::Span<int>(a), [](int x, int y) { return x < y; });
    return a[0] == 1 && a[1] == 2 && a[2] == 3;
}
static_assert(sorts_at_compile_time());

} // namespace
