// SPDX-License-Identifier: Apache-2.0
// Lists of kLane pixels side by side, each sorted by keys, and what ties by ids. They are kept sorted in vectors: a new key
// is taken along from the first place where it is less than some pixel's, and all exchange theirs with it.
#pragma once
#include "grid.h"

namespace gd {

template <class T>
class SortedLanes {
  public:
    static constexpr int kNone = 0x7fffffff;  // the id beside a key of infinity

    SortedLanes() = default;
    ~SortedLanes() { __builtin_free(slots_); }
    SortedLanes(const SortedLanes&) = delete;
    SortedLanes& operator=(const SortedLanes&) = delete;

    void clear() { size_ = 0; }
    int size() const { return size_; }  // of the longest; the others end with infinity
    const T* keys(int place) const { return slots_[place].key; }
    // Where what was found there is kept: of each pixel, what `insert` was told with its key.
    const int* records(int place) const { return slots_[place].record; }

    // Takes in what is not infinite, and drops what falls behind the first `most` (0: nothing).
    void insert(const T* key, const int* id, int record, int most) {
        Slot own;
        copy_lane(own.key, key);
#pragma omp simd
        for (int i = 0; i < kLane; ++i) {
            own.id[i] = id[i];
            own.record[i] = record;
        }
        int from = size_;
        while (from > 0 && precedes(own, slots_[from - 1])) --from;
        for (int s = from; s < size_; ++s) exchange(slots_[s], own);
        if (size_ == most && most > 0) return;
        int left = 0;
#pragma omp simd reduction(| : left)
        for (int i = 0; i < kLane; ++i) left |= int(own.id[i] != kNone);
        if (!left) return;
        if (size_ == room_) {
            room_ = 2 * room_ + 8;
            slots_ = static_cast<Slot*>(__builtin_realloc(slots_, sizeof(Slot) * (unsigned long long)(room_)));
        }
        slots_[size_++] = own;
    }

    // How many of each pixel's are needed: those above `limit` are not, nor the last ones, as long as they have no more than
    // the share `error` of all weights exp(−key) together.
    void needed(const T* limit, T error, int* count) {
        T total[kLane], left[kLane];
        fill_lane(total, T(0));
        fill_lane(left, T(0));
        for (int i = 0; i < kLane; ++i) count[i] = 0;
        if (size_ == 0) return;
        T first[kLane], most[kLane];
        copy_lane(first, slots_[0].key);
        for (int s = 0; s < size_; ++s) {
            Slot& own = slots_[s];
#pragma omp simd
            for (int i = 0; i < kLane; ++i) {
                const bool there = own.key[i] <= limit[i];
                own.share[i] = there ? exp(first[i] - own.key[i]) : T(0);
                total[i] += own.share[i];
                count[i] += int(there);
            }
        }
        for (int i = 0; i < kLane; ++i) {  // keys that round to coarse steps say little of weights
            const bool fine = error > T(0) && Real<T>::epsilon * abs(first[i]) <= T(1e-3);
            most[i] = fine ? error * total[i] : T(-1);
        }
        for (int s = size_ - 1; s > 0; --s) {
            const Slot& own = slots_[s];
#pragma omp simd
            for (int i = 0; i < kLane; ++i) {
                left[i] += own.share[i];
                count[i] = int(count[i] == s + 1) & int(left[i] <= most[i]) ? s : count[i];
            }
        }
    }

  private:
    struct Slot {
        T key[kLane], share[kLane];
        int id[kLane], record[kLane];
    };

    static bool precedes(const Slot& a, const Slot& b) {
        int any = 0;
#pragma omp simd reduction(| : any)
        for (int i = 0; i < kLane; ++i) {
            any |= int(a.key[i] < b.key[i]) | (int(a.key[i] == b.key[i]) & int(a.id[i] < b.id[i]));
        }
        return any;
    }

    static void exchange(Slot& __restrict slot, Slot& __restrict own) {
#pragma omp simd
        for (int i = 0; i < kLane; ++i) {
            const T a = slot.key[i], b = own.key[i];
            const int m = slot.id[i], n = own.id[i], q = slot.record[i], r = own.record[i];
            const bool before = int(b < a) | (int(b == a) & int(n < m));
            slot.key[i] = before ? b : a;
            own.key[i] = before ? a : b;
            slot.id[i] = before ? n : m;
            own.id[i] = before ? m : n;
            slot.record[i] = before ? r : q;
            own.record[i] = before ? q : r;
        }
    }

    Slot* slots_ = nullptr;
    int size_ = 0, room_ = 0;
};

}  // namespace gd
