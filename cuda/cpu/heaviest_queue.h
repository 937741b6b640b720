// SPDX-License-Identifier: Apache-2.0
// The faces that may enter the squares of a band, and those of one square in the order of the least keys they may have there.
#pragma once
#include "grid.h"

namespace gd {

// A face that may enter a square, with the least key that it may have anywhere, and there.
template <class T>
struct Entry {
    T bound, least;
    int face, next;
};

// Entries of one square, the one of the least bound on top.
template <class T>
class Heap {
  public:
    explicit Heap(i64 most) : data_(most) {}

    void fill(const Entry<T>* entries, int at) {
        size_ = 0;
        for (; at >= 0; at = entries[at].next) data_[size_++] = entries[at];
        for (int i = size_ / 2 - 1; i >= 0; --i) sink(i);
    }
    bool empty() const { return size_ == 0; }
    Entry<T> pop() {
        const Entry<T> top = data_[0];
        data_[0] = data_[--size_];
        sink(0);
        return top;
    }

  private:
    void sink(int i) {
        const Entry<T> own = data_[i];
        for (int child = 2 * i + 1; child < size_; child = 2 * i + 1) {
            if (child + 1 < size_ && data_[child + 1].bound < data_[child].bound) ++child;
            if (!(data_[child].bound < own.bound)) break;
            data_[i] = data_[child];
            i = child;
        }
        data_[i] = own;
    }

    Scratch<Entry<T>> data_;
    int size_ = 0;
};

// Memory that grows; for what may be copied as bytes.
template <class V>
struct Grown {
    V* data = nullptr;
    i64 size = 0, room = 0;

    Grown() = default;
    ~Grown() { __builtin_free(data); }
    Grown(const Grown&) = delete;
    Grown& operator=(const Grown&) = delete;
    void add(const V& value) { next() = value; }
    V& next() {
        grow(1);
        return data[size - 1];
    }
    void grow(i64 count) {
        size += count;
        if (size <= room) return;
        room = 2 * size + 1024;
        data = static_cast<V*>(__builtin_realloc(data, sizeof(V) * (unsigned long long)(room)));
    }
};

}  // namespace gd
