// SPDX-License-Identifier: GPL-2.0
// selftests/sim/fiber.cpp - see fiber.hpp.
#include "selftests/sim/fiber.hpp"
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>
#ifndef __x86_64__
#include <new>
#include <ucontext.h>
#endif

namespace pcache::sim
{

u8 *make_stack()
{
    constexpr usize guard = 4096;
    void *p = mmap(nullptr, stack_bytes + 2 * guard, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
        perror("mmap of a stack");
        abort();
    }
    u8 *room = static_cast<u8 *>(p);
    mprotect(room, guard, PROT_NONE);
    mprotect(room + guard + stack_bytes, guard, PROT_NONE);
    return room + guard;
}

#ifdef __x86_64__

extern "C" void sim_switch_stack(void **from, void *to);
asm(R"(
.text
.globl sim_switch_stack
.type sim_switch_stack, @function
sim_switch_stack:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size sim_switch_stack, .-sim_switch_stack
)");

void *prepare(u8 *stack, void (*entry)())
{
    u64 *sp = reinterpret_cast<u64 *>(stack + stack_bytes);
    *--sp = 0; // entry's return address: none
    *--sp = reinterpret_cast<u64>(entry);
    for (int i = 0; i < 6; ++i)
        *--sp = 0;
    return sp;
}

void switch_stack(void **from, void *to)
{
    sim_switch_stack(from, to);
}

#else

void *prepare(u8 *stack, void (*entry)())
{
    // The context lies at the low end of its own stack.
    ucontext_t *c = new (stack) ucontext_t;
    getcontext(c);
    c->uc_stack.ss_sp = stack + sizeof(*c);
    c->uc_stack.ss_size = stack_bytes - sizeof(*c);
    c->uc_link = nullptr;
    makecontext(c, entry, 0);
    return c;
}

void switch_stack(void **from, void *to)
{
    ucontext_t here;
    *from = &here;
    swapcontext(&here, static_cast<ucontext_t *>(to));
}

#endif

} // namespace pcache::sim
