// SPDX-License-Identifier: Apache-2.0
// Points cut into blocks of one image each, always the same ones: what belongs to an image is summed block by block, and
// the blocks are added in order, so the sum has the same bits on any number of threads.
#pragma once
#include "grid.h"

namespace gd {

class ImageBlocks {
  public:
    static constexpr i64 kSize = 1024;

    // `image` (points) ascends, or is null where all points belong to image 0.
    ImageBlocks(const int* image, i64 points) : image_(image), count_(fill(image, points, nullptr)), starts_(count_ + 1) {
        fill(image, points, starts_.get());
        starts_[count_] = points;
    }

    i64 count() const { return count_; }
    i64 first(i64 block) const { return starts_[block]; }
    i64 end(i64 block) const { return starts_[block + 1]; }
    i64 image(i64 block) const { return image_ ? i64(image_[starts_[block]]) : 0; }

  private:
    static i64 fill(const int* image, i64 points, i64* starts) {
        i64 count = 0, start = 0;
        if (!image) {
            for (; start < points; start += kSize, ++count) {
                if (starts) starts[count] = start;
            }
            return count;
        }
        for (i64 p = 0; p < points; ++p) {
            if (p == 0 || p - start == kSize || image[p] != image[p - 1]) {
                start = p;
                if (starts) starts[count] = p;
                ++count;
            }
        }
        return count;
    }

    const int* image_;
    i64 count_;
    Scratch<i64> starts_;
};

}  // namespace gd
