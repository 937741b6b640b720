// SPDX-License-Identifier: Apache-2.0
// Runs a CUDA kernel on the host, for tests: the blocks of a grid one after another, the threads of a block as fibers
// that change places at barriers. Included before a kernel's header, with GEODIFF_EMULATED defined; see
// geodiff/native/gpu/emulator.py.
//
// What it finds beside wrong sums: results that depend on the order of threads (forward, backward, shuffled), barriers
// that not all threads of a block or lanes of a warp reach, shared memory that is read before it is written (it is
// filled with what is no number for each block, backward with zeros, and of exact size, so that AddressSanitizer sees
// what lies beyond). What it cannot: races within one phase that no order of whole runs shows, memory ordering, a device's
// rounding, speed.
#pragma once
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif
#include <sys/mman.h>
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};
static dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulated {

constexpr int kMostThreads = 1024, kWarp = 32, kMostShared = 64;
constexpr size_t kStack = 256 * 1024;

// --- fibers

#if defined(__x86_64__)
using Context = void*;  // a stack pointer; the registers that a call keeps lie on that stack
extern "C" void geodiff_switch_fiber(void** save, void* load) __attribute__((visibility("hidden")));
asm(R"(
.text
.hidden geodiff_switch_fiber
.globl geodiff_switch_fiber
.type geodiff_switch_fiber,@function
geodiff_switch_fiber:
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
)");
inline void change(Context& from, Context& to) { geodiff_switch_fiber(&from, to); }
inline void begin(Context& context, char* stack, void (*entry)()) {
    void** top = reinterpret_cast<void**>(stack + kStack - 64);  // a multiple of 16, as the page is
    *--top = nullptr;                                            // where `entry` would return to
    *--top = reinterpret_cast<void*>(entry);
    for (int i = 0; i < 6; ++i) *--top = nullptr;
    context = top;
}
#else
using Context = ucontext_t;
inline void change(Context& from, Context& to) { swapcontext(&from, &to); }
inline void begin(Context& context, char* stack, void (*entry)()) {
    getcontext(&context);
    context.uc_stack.ss_sp = stack;
    context.uc_stack.ss_size = kStack;
    context.uc_link = nullptr;
    makecontext(&context, entry, 0);
}
#endif

enum class Waits { no, for_block, for_warp };

struct Fiber {
    Context context;
    char* stack;
    dim3 id;
    int index;
    bool alive;
    Waits waits;
    int site;       // line of the barrier
    unsigned mask;  // lanes that meet there
};

struct Shared {
    const void* site;
    void* memory;
    size_t size;
};

// One launch at a time (the Python side holds a lock).
static Fiber fibers[kMostThreads];
static Context scheduler;
static Fiber* current;
static unsigned long long exchanged[kMostThreads];
static Shared shared_blocks[kMostShared];
static int shared_count;
static bool zeros;  // in shared memory that was not written, in one of the orders
static char fault[256];

struct Body {
    void (*call)(void*);
    void* argument;
};
static Body body;

inline void* shared(const void* site, size_t size) {
    for (int i = 0; i < shared_count; ++i)
        if (shared_blocks[i].site == site) return shared_blocks[i].memory;
    if (shared_count == kMostShared) abort();
    void* memory = nullptr;
    if (posix_memalign(&memory, 16, size)) abort();
    // In rows of these, a float and a double are not a number, an index is far out; or zero, where that would do no harm.
    const unsigned poison = zeros ? 0u : 0x7FF8EEEEu;
    for (size_t i = 0; i < size; ++i) static_cast<char*>(memory)[i] = reinterpret_cast<const char*>(&poison)[i % 4];
    shared_blocks[shared_count++] = {site, memory, size};
    return memory;
}

inline void entry() {
    body.call(body.argument);
    current->alive = false;
    Context unused;
    change(unused, scheduler);
    abort();
}

__attribute__((noinline)) inline void wait(Waits waits, int site, unsigned mask) {
    Fiber* me = current;
    me->waits = waits;
    me->site = site;
    me->mask = mask;
    change(me->context, scheduler);
}

template <class V>
V exchange(V value, int from, unsigned mask, int site) {
    static_assert(sizeof(V) <= 8, "more than a register");
    Fiber* me = current;
    unsigned long long bits = 0;
    memcpy(&bits, &value, sizeof(V));
    exchanged[me->index] = bits;
    wait(Waits::for_warp, site, mask);
    V result = value;
    if (from >= 0 && from < kWarp) memcpy(&result, &exchanged[(me->index & ~(kWarp - 1)) + from], sizeof(V));
    wait(Waits::for_warp, -site, mask);
    return result;
}

inline unsigned ballot(bool vote, unsigned mask, int site) {
    Fiber* me = current;
    exchanged[me->index] = vote;
    wait(Waits::for_warp, site, mask);
    unsigned found = 0;
    for (int lane = 0; lane < kWarp; ++lane)
        if (mask >> lane & 1u && exchanged[(me->index & ~(kWarp - 1)) + lane]) found |= 1u << lane;
    wait(Waits::for_warp, -site, mask);
    return found;
}

inline int lane() { return current->index & (kWarp - 1); }

// --- the scheduler

// Lets the lanes of a warp go on whose whole mask has come; false where some can never meet.
inline bool release_warp(int first, int count, bool* ready, bool& any) {
    unsigned there = 0, alive = 0;
    for (int i = 0; i < kWarp && first + i < count; ++i) {
        const Fiber& f = fibers[first + i];
        if (f.alive) alive |= 1u << i;
        if (f.alive && f.waits == Waits::for_warp) there |= 1u << i;
    }
    for (int i = 0; i < kWarp && first + i < count; ++i) {
        if (!(there >> i & 1u)) continue;
        const Fiber& f = fibers[first + i];
        const unsigned wanted = f.mask & alive;
        if ((f.mask & there) != wanted || !(f.mask >> i & 1u)) {
            snprintf(fault, sizeof fault, "lanes of a warp do not meet (line %d)", abs(f.site));
            return false;
        }
        for (int j = 0; j < kWarp && first + j < count; ++j)
            if (wanted >> j & 1u && (fibers[first + j].site != f.site || fibers[first + j].mask != f.mask)) {
                snprintf(fault, sizeof fault, "lanes of a warp meet at lines %d and %d", abs(f.site),
                         abs(fibers[first + j].site));
                return false;
            }
    }
    for (int i = 0; i < kWarp && first + i < count; ++i)
        if (there >> i & 1u) {
            fibers[first + i].waits = Waits::no;
            ready[first + i] = any = true;
        }
    return true;
}

// 0 … count − 1, in an order: forward, backward or shuffled.
inline void arrange(int* to, int count, int order, unsigned& random) {
    for (int i = 0; i < count; ++i) to[i] = order == 1 ? count - 1 - i : i;
    for (int i = count - 1; order == 2 && i > 0; --i) {
        random = random * 1664525u + 1013904223u;
        std::swap(to[i], to[(random >> 8) % unsigned(i + 1)]);
    }
}

inline bool run_block(int count, int order, unsigned& random) {
    int sequence[kMostThreads / kWarp], lanes[kWarp];
    static bool ready[kMostThreads];
    for (int i = 0; i < count; ++i) {
        Fiber& f = fibers[i];
        const unsigned n = unsigned(i);
        f.alive = true;
        f.waits = Waits::no;
        f.index = i;
        f.id = {n % blockDim.x, n / blockDim.x % blockDim.y, n / (blockDim.x * blockDim.y)};
#if defined(__SANITIZE_ADDRESS__)
        __asan_unpoison_memory_region(f.stack + kStack - 1024, 1024);  // of `entry`, which never returns
#endif
        begin(f.context, f.stack, entry);
    }
    for (int alive = count; alive;) {  // from one barrier of the block to the next
        for (int i = 0; i < count; ++i) ready[i] = fibers[i].alive;
        const int warps = (count + kWarp - 1) / kWarp;
        arrange(sequence, warps, order, random);
        // One warp after another goes all the way, as far ahead of the others as a device might let it.
        for (int k = 0; k < warps; ++k) {
            const int first = sequence[k] * kWarp, size = count - first < kWarp ? count - first : kWarp;
            arrange(lanes, size, order, random);
            for (bool any = true; any;) {
                any = false;
                for (int i = 0; i < size; ++i) {
                    const int own = first + lanes[i];
                    Fiber& f = fibers[own];
                    if (!ready[own]) continue;
                    ready[own] = false;
                    f.waits = Waits::no;
                    current = &f;
                    threadIdx = f.id;
                    change(scheduler, f.context);
                    if (!f.alive) --alive;
                }
                if (!release_warp(first, count, ready, any)) return false;
            }
        }
        int site = 0;
        for (int i = 0; i < count; ++i) {
            if (!fibers[i].alive) continue;
            if (site && fibers[i].site != site) {
                snprintf(fault, sizeof fault, "threads of a block meet at lines %d and %d", site, fibers[i].site);
                return false;
            }
            site = fibers[i].site;
        }
    }
    return true;
}

inline const char* run(const unsigned* grid, const unsigned* block, Body what, int order, unsigned seed) {
    body = what;
    zeros = order == 1;
    blockDim = {block[0], block[1], block[2]};
    gridDim = {grid[0], grid[1], grid[2]};
    const unsigned long long count = 1ull * block[0] * block[1] * block[2];
    if (count == 0 || count > kMostThreads || block[2] > 64) return "blocks of 1 to 1024 threads, please";
    if (!(grid[0] && grid[1] && grid[2]) || grid[0] > 0x7FFFFFFFu || grid[1] > 65535 || grid[2] > 65535)
        return "a grid of 1 to (2147483647, 65535, 65535) blocks, please";
    for (unsigned i = 0; i < count; ++i)
        if (!fibers[i].stack) {
            void* stack = mmap(nullptr, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
            if (stack == MAP_FAILED) return "no memory for the threads' stacks";
            fibers[i].stack = static_cast<char*>(stack);
        }
#if defined(__SANITIZE_ADDRESS__)
    for (unsigned i = 0; i < count; ++i) __asan_unpoison_memory_region(fibers[i].stack, kStack);  // after a fault
#endif
    unsigned random = seed * 2654435761u + 12345u;
    fault[0] = 0;
    bool well = true;
    for (unsigned z = 0; z < grid[2] && well; ++z)
        for (unsigned y = 0; y < grid[1] && well; ++y)
            for (unsigned x = 0; x < grid[0] && well; ++x) {
                blockIdx = {x, y, z};
                well = run_block(int(count), order, random);
                for (int i = 0; i < shared_count; ++i) free(shared_blocks[i].memory);
                shared_count = 0;
            }
    return well ? nullptr : fault;
}

// --- the launcher's side: what cuLaunchKernel and cuKernelGetParamInfo are for a device

template <class... A, size_t... I>
void call(void (*kernel)(A...), void** arguments, std::index_sequence<I...>) {
    kernel(*static_cast<A*>(arguments[I])...);
}

template <class... A>
const char* launch(void (*kernel)(A...), const unsigned* grid, const unsigned* block, void** arguments, int order,
                   unsigned seed) {
    struct Call {
        void (*kernel)(A...);
        void** arguments;
    } what{kernel, arguments};
    const Body body = {[](void* p) {
                           Call* c = static_cast<Call*>(p);
                           call(c->kernel, c->arguments, std::index_sequence_for<A...>());
                       },
                       &what};
    return run(grid, block, body, order, seed);
}

template <class... A>
int sizes(void (*)(A...), long long* out) {
    const long long found[] = {(long long)sizeof(A)..., 0};
    for (size_t i = 0; i < sizeof...(A); ++i) out[i] = found[i];
    return int(sizeof...(A));
}

}  // namespace emulated

// --- what kernels call

#define __syncthreads() ::emulated::wait(::emulated::Waits::for_block, __LINE__, 0)
#define __syncwarp(...) ::emulated::wait(::emulated::Waits::for_warp, __LINE__, 0xFFFFFFFFu)
#define __shfl_sync(mask, value, from) ::emulated::exchange(value, from, mask, __LINE__)
#define __shfl_xor_sync(mask, value, bits) ::emulated::exchange(value, ::emulated::lane() ^ (bits), mask, __LINE__)
#define __shfl_up_sync(mask, value, by) ::emulated::exchange(value, ::emulated::lane() - int(by), mask, __LINE__)
#define __shfl_down_sync(mask, value, by) ::emulated::exchange(value, ::emulated::lane() + int(by), mask, __LINE__)
#define __ballot_sync(mask, vote) ::emulated::ballot(vote, mask, __LINE__)
#define __any_sync(mask, vote) (::emulated::ballot(vote, mask, __LINE__) != 0)

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
template <class V>
V atomicOr(V* at, V value) {
    const V old = *at;
    *at = old | value;
    return old;
}
template <class V>
V atomicMin(V* at, V value) {
    const V old = *at;
    *at = value < old ? value : old;
    return old;
}
template <class V>
V atomicMax(V* at, V value) {
    const V old = *at;
    *at = value > old ? value : old;
    return old;
}
template <class V>
V atomicAdd(V* at, V value) {
    static_assert(V(1) / V(2) == V(0), "sums of real numbers must not depend on an order");
    const V old = *at;
    *at = old + value;
    return old;
}
