// SPDX-License-Identifier: GPL-2.0
// cxxrt/list.hpp - an intrusive singly linked FIFO.
//
// An element has a member `Link<T> link` and is in at most one queue at a time; it must not be
// destroyed while it is in one. Nothing is allocated; every operation is O(1). No locking: the
// owner's lock guards the queue.
#pragma once
#include "cxxrt/base.hpp"

namespace rt
{

template <class T>
struct Link {
    T *next = nullptr;
};

// T may be incomplete where a Queue is only declared.
template <class T>
class Queue : NonCopyable
{
    T *head_ = nullptr;
    T *tail_ = nullptr;

public:
    bool empty() const noexcept { return head_ == nullptr; }
    T *front() const noexcept { return head_; }
    void push_back(T &e) noexcept
    {
        e.link.next = nullptr;
        if (tail_)
            tail_->link.next = &e;
        else
            head_ = &e;
        tail_ = &e;
    }
    void push_front(T &e) noexcept
    {
        e.link.next = head_;
        head_ = &e;
        if (!tail_)
            tail_ = &e;
    }
    // nullptr when empty.
    T *pop_front() noexcept
    {
        T *e = head_;
        if (e) {
            head_ = e->link.next;
            if (!head_)
                tail_ = nullptr;
            e->link.next = nullptr;
        }
        return e;
    }
    // Moves everything of `other` behind what is here; other is empty afterwards.
    void splice_back(Queue &other) noexcept
    {
        if (other.empty())
            return;
        if (tail_)
            tail_->link.next = other.head_;
        else
            head_ = other.head_;
        tail_ = other.tail_;
        other.head_ = other.tail_ = nullptr;
    }
};

} // namespace rt
