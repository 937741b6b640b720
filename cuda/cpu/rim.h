// SPDX-License-Identifier: Apache-2.0
// The rim of a hard image: for each pixel that no face covers, the face that is nearest in the image, if within `blur`.
//
// Most faces of a fine mesh lie amid covered pixels and are the nearest to no other. Proof, in pixels: let small faces cover
// all centres in the box around a face, grown by 1.35, and q be a centre that nothing covers, d away. On the way to q, 0.85
// from the face, a covered centre is within 0.71, hence a face no farther from q than d − 0.14. That beats both terms of the
// key that are not distance, as long as d ≤ kFarthest and small faces fit into kSmall².
#pragma once
#include "../raster/fragments.h"
#include "../raster/ranking.h"
#include "parallel.h"
#include "zbuffer.h"

namespace gd {

// How many pixels are open, and how many are not covered by a small face, in any rectangle: sums over all to the left and
// above, one number in the low half and one in the high half.
class OpenPixels {
  public:
    // kind(row, column): 0 open, 1 covered, 2 covered by a small face.
    template <class Kind>
    OpenPixels(int height, int width, Kind&& kind)
        : height_(height), width_(width), sums_(i64(height + 1) * (width + 1)) {
        for (int c = 0; c <= width; ++c) sums_[c] = 0;
        for (int r = 0; r < height; ++r) {
            const u64* above = sums_.get() + i64(r) * (width + 1);
            u64* here = sums_.get() + i64(r + 1) * (width + 1);
            u64 own = 0;
            here[0] = 0;
            for (int c = 0; c < width; ++c) {
                const int what = kind(r, c);
                own += what == 0 ? u64(1) + kLoose : (what == 1 ? kLoose : u64(0));
                here[c + 1] = above[c + 1] + own;
            }
        }
    }

    bool any() const { return u32(at(height_, width_)) > 0; }

    // Within a box, in pixels, grown by `by`.
    bool open(const PixelBox& box, float by) const { return u32(in(box, by)) > 0; }

    // Whether small faces cover all pixels of a box grown by `by`, and it ends within the image.
    bool amid(const PixelBox& box, float by) const {
        const bool whole = box.left >= by && box.top >= by && box.right + by <= float(width_ - 1) &&
                           box.bottom + by <= float(height_ - 1);
        return whole && in(box, by) >> 32 == 0;
    }

  private:
    static constexpr u64 kLoose = u64(1) << 32;

    u64 at(int row, int column) const { return sums_[i64(row) * (width_ + 1) + column]; }

    u64 in(const PixelBox& box, float by) const {
        const float up = 0.99f;  // centres from the box on, and a hundredth for rounding
        const int left = to_int(box.left - by + up, 0, width_), right = to_int(box.right + by + 1.01f, left, width_);
        const int top = to_int(box.top - by + up, 0, height_), bottom = to_int(box.bottom + by + 1.01f, top, height_);
        return at(bottom, right) - at(bottom, left) - at(top, right) + at(top, left);
    }

    const int height_, width_;
    Scratch<u64> sums_;
};

template <class T>
class Rim {
  public:
    // ids (H, W): 2·face + 1 where a face covers the pixel, −1 elsewhere; `draw` puts 2·face there.
    Rim(const geodiff::RasterJob<T>& job, T blur, const Grid<T>& grid, i64 image, const ZBuffer<T>& buffer, int* ids,
        int threads)
        : job_(job), grid_(grid), blur_(blur), image_(image), ids_(ids), buffer_(buffer),
          open_(job.height, job.width, [&](int row, int column) { return kind(row, column); }), rows_(faces()),
          at_border_(faces()), any_(open_.any()), near_(find(threads)),
          bins_(rows_.get(), near_, (job.height + kZBandRows - 1) / kZBandRows) {}

    // Whether there was anything to draw.
    bool draw(int band) const {
        if (bins_.start[band] == bins_.start[band + 1]) return false;
        const int first = band * kZBandRows, end = min(first + kZBandRows, job_.height);
        Strip strip(first, end, job_.width);
        for (int row = first; row < end; ++row) {
            const int* own = ids_ + i64(row) * job_.width;
            T* keys = strip.keys.get() + strip.at(row, 0);
            for (int i = 0; i < strip.stride; ++i) keys[i] = T(-1);
            for (int i = 0; i < job_.width; ++i) keys[i] = own[i] < 0 ? Real<T>::largest : T(-1);
            for (int column = 0; column < strip.stride; column += kLane) strip.settle(row, column);
        }
        // First the faces at the border of what is covered: they leave the others little.
        for (int pass = 0; pass < 2; ++pass) {
            for (i64 i = bins_.start[band]; i < bins_.start[band + 1]; ++i) {
                if (at_border_[bins_.faces[i]] == (pass == 0)) draw_face(bins_.faces[i], strip);
            }
        }
        for (int row = first; row < end; ++row) {
            int* own = ids_ + i64(row) * job_.width;
            const T* keys = strip.keys.get() + strip.at(row, 0);
            const int* names = strip.names.get() + strip.at(row, 0);
            for (int i = 0; i < job_.width; ++i) {
                const bool found = keys[i] >= T(0) && keys[i] < Real<T>::largest;
                own[i] = found ? names[i] : own[i];
            }
        }
        return true;
    }

  private:
    // The pixels of a band: the least keys so far, −1 where a face covers them, and whose they are; and the largest key of
    // each group of kLane.
    struct Strip {
        const int first, end, stride;
        Scratch<T> keys, largest;
        Scratch<int> names;

        Strip(int first_, int end_, int width)
            : first(first_), end(end_), stride((width + kLane - 1) / kLane * kLane), keys(i64(end - first) * stride),
              largest(i64(end - first) * stride / kLane), names(i64(end - first) * stride) {}

        i64 at(int row, int column) const { return i64(row - first) * stride + column; }

        void settle(int row, int column) {
            const T* own = keys.get() + at(row, column);
            T most = own[0];
            for (int i = 1; i < kLane; ++i) most = max(most, own[i]);
            largest[at(row, column) / kLane] = most;
        }
    };

    static constexpr float kSmall = 32, kFarthest = 200, kGrown = 1.35f;  // pixels
    static constexpr float kMargin = 0.05f;                                // of one, for rounding

    i64 faces() const { return job_.layout[3 * image_ + 2]; }

    int kind(int row, int column) const {
        const int id = ids_[i64(row) * job_.width + column];
        if (id < 0) return 0;
        const PixelBox& box = buffer_.place(id >> 1);
        return box.right - box.left <= kSmall && box.bottom - box.top <= kSmall ? 2 : 1;
    }

    // In pixels, and a little more.
    float reach() const { return float(min(blur_ * grid_.per_step, T(1e6))) + 1; }

    // Finds the rows that faces may be the nearest in.
    i64 find(int threads) {
        if (!any_) return 0;
        const float reach = this->reach();
        const i64 count = faces(), blocks = (count + kZFaces - 1) / kZFaces;
        geodiff::parallel(blocks, blocks > 4 ? threads : 1, [&](i64 block) {
            for (i64 f = block * kZFaces; f < min(count, (block + 1) * kZFaces); ++f) {
                const PixelBox& box = buffer_.place(f);
                rows_[f] = {0, 0};
                at_border_[f] = 0;
                if (!(box.left <= box.right)) continue;
                if (reach <= kFarthest && open_.amid(box, kGrown)) continue;
                if (!open_.open(box, reach)) continue;
                rows_[f] = {to_int(box.top - reach, 0, job_.height), to_int(box.bottom + reach + 1.f, 0, job_.height)};
            }
        });
        for (int row = 0; row < job_.height; ++row) {
            const int* own = ids_ + i64(row) * job_.width;
            const int* above = row > 0 ? own - job_.width : own;
            const int* below = row + 1 < job_.height ? own + job_.width : own;
            for (int column = 0; column < job_.width; ++column) {
                const int before = own[max(column - 1, 0)], after = own[min(column + 1, job_.width - 1)];
                if (own[column] >= 0 && (before < 0 || after < 0 || above[column] < 0 || below[column] < 0)) {
                    at_border_[own[column] >> 1] = 1;
                }
            }
        }
        return count;
    }

    // A face as it is measured, made once the first group of pixels asks for it.
    struct Measured {
        Polygon<T> p;
        Edge<T> edges[4];
        T middle_x, middle_y, handicap;
        bool made = false;

        void make(const Clip<T> corner[3], T near) {
            made = true;
            p = make_polygon(corner, near);
            middle_x = middle_y = T(0);
            for (int k = 0; k < p.n; ++k) {
                edges[k] = make_edge(p, k);
                middle_x += p.x[k] / T(p.n);
                middle_y += p.y[k] / T(p.n);
            }
            handicap = rim_handicap(p.orientation);
        }
    };

    // Groups whose pixels are all covered, or have faces that are nearer than this one's box, are passed over.
    void draw_face(int f, Strip& strip) const {
        const PixelBox& box = buffer_.place(f);
        const float reach = this->reach();
        const int from = to_int(box.left - reach, 0, job_.width) / kLane * kLane;
        const int to = to_int(box.right + reach + 1.f, 0, job_.width);
        const int top = to_int(box.top - reach, strip.first, strip.end);
        const int end = to_int(box.bottom + reach + 1.f, top, strip.end);
        const float scale = float(grid_.step * grid_.step) * 0.9999f;
        Measured face;
        for (int row = top; row < end; ++row) {
            const float up = max(max(box.top - float(row), float(row) - box.bottom) - kMargin, 0.f);
            for (int column = from; column < to; column += kLane) {
                const float left = box.left - float(column + kLane - 1), right = float(column) - box.right;
                const float across = max(max(left, right) - kMargin, 0.f);
                const T least = T((across * across + up * up) * scale);
                if (!(strip.largest[strip.at(row, column) / kLane] > least) || !may_win(box, strip, row, column)) continue;
                if (!face.made) {
                    Clip<T> corner[3];
                    load_face(job_.clip + 4 * job_.layout[3 * image_], job_.faces + 3 * (job_.layout[3 * image_ + 1] + f),
                              corner);
                    face.make(corner, job_.near);
                    if (face.p.n == 0) return;
                }
                measure(f, face, strip, row, column);
            }
        }
    }

    // Whether the box is near enough to a pixel of a group for the face to be its nearest.
    bool may_win(const PixelBox& box, const Strip& strip, int row, int column) const {
        const T blur2 = blur_ < T(1e6) ? blur_ * blur_ : Real<T>::largest, scale = grid_.step * grid_.step * T(0.9999);
        const T up = T(max(max(box.top - float(row), float(row) - box.bottom) - kMargin, 0.f)), up2 = up * up;
        const T left = T(box.left - float(column) - kMargin), right = T(float(column) - box.right - kMargin);
        const T* keys = strip.keys.get() + strip.at(row, column);
        int any = 0;
#pragma omp simd reduction(| : any)
        for (int i = 0; i < kLane; ++i) {
            const T across = max(max(left - T(i), right + T(i)), T(0));
            const T least = (across * across + up2) * scale;
            any |= int(least < keys[i]) & int(least <= blur2);
        }
        return any != 0;
    }

    void measure(int f, const Measured& face, Strip& strip, int row, int column) const {
        const T y = grid_.y(row), blur2 = blur_ < T(1e6) ? blur_ * blur_ : Real<T>::largest;
        const T* xs = grid_.columns() + column;
        T* keys = strip.keys.get() + strip.at(row, column);
        int* names = strip.names.get() + strip.at(row, column);
        T d2[kLane];
#pragma GCC ivdep
        for (int i = 0; i < kLane; ++i) {
            Nearest<T> near = no_edge<T>();
            meet(near, face.edges[0], T(0), xs[i], y);
            meet(near, face.edges[1], T(1), xs[i], y);
            meet(near, face.edges[2], T(2), xs[i], y);
            d2[i] = near.d2;
        }
        for (int i = 0; face.p.n == 4 && i < kLane; ++i) {
            Nearest<T> near = no_edge<T>();
            meet(near, face.edges[3], T(3), xs[i], y);
            d2[i] = min(d2[i], near.d2);
        }
#pragma GCC ivdep
        for (int i = 0; i < kLane; ++i) {
            const T value = rim_key(d2[i], face.handicap, xs[i] - face.middle_x, y - face.middle_y);
            const bool wins = d2[i] <= blur2 && (value < keys[i] || (value == keys[i] && 2 * f < names[i]));
            keys[i] = wins ? value : keys[i];
            names[i] = wins ? 2 * f : names[i];
        }
        strip.settle(row, column);
    }

    const geodiff::RasterJob<T>& job_;
    const Grid<T>& grid_;
    const T blur_;
    const i64 image_;
    int* ids_;
    const ZBuffer<T>& buffer_;
    const OpenPixels open_;
    Scratch<Rows> rows_;
    Scratch<bool> at_border_;
    const bool any_;
    const i64 near_;
    const Bins bins_;
};

}  // namespace gd
