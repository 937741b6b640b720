// SPDX-License-Identifier: Apache-2.0
// Points of textured surfaces, a few at a time, each in a lane of its own, so that a compiler can vectorise over them.
#pragma once
#include "../shading/surface.h"
#include "jobs.h"
#include "light_lanes.h"

namespace gd {

// Where a few points are in the texture, each in a lane of its own. Lanes that are not used repeat the last point.
template <class T>
struct Spots {
    T weight[3][kLitPoints], uv[3][2][kLitPoints];  // as in SurfacePoint
    T right[kLitPoints], down[kLitPoints];
    int row[4][kLitPoints];  // of the texels, in their image

    // The points from `first` on. Textures are larger than caches, so the texels are asked for.
    void load(const geodiff::SurfaceJob<T>& job, i64 first, int used, const T* texture) {
        for (int i = 0; i < kLitPoints; ++i) {
            const i64 p = 3 * (first + min(i, used - 1));
            for (int k = 0; k < 3; ++k) {
                const T* from = job.uv + 2 * i64(job.uv_corners[p + k]);
                weight[k][i] = job.weight[p + k];
                for (int c = 0; c < 2; ++c) uv[k][c][i] = from[c];
            }
        }
        place(job);
        for (int i = 0; i < kLitPoints; ++i) {
            for (int k = 0; k < 4; k += 2) __builtin_prefetch(texture + 3 * i64(row[k][i]));
        }
    }

  private:
    void place(const geodiff::SurfaceJob<T>& job) {
        const int height = job.height, width = job.width;
        int left[kLitPoints], top[kLitPoints], beyond = 0;
        T u[kLitPoints], v[kLitPoints];
#pragma GCC ivdep
        for (int i = 0; i < kLitPoints; ++i) {
            const T w[3] = {weight[0][i], weight[1][i], weight[2][i]};
            u[i] = at_corners(w, uv[0][0][i], uv[1][0][i], uv[2][0][i]);
            v[i] = at_corners(w, uv[0][1][i], uv[1][1][i], uv[2][1][i]);
            texel_place(u[i], v[i], height, width, left[i], top[i], right[i], down[i]);
            beyond += (left[i] < 0) + (left[i] >= width - 1) + (top[i] < 0) + (top[i] >= height - 1);
        }
        for (int i = 0; beyond == 0 && i < kLitPoints; ++i) {
            row[0][i] = top[i] * width + left[i];
            row[1][i] = row[0][i] + 1;
            row[2][i] = row[0][i] + width;
            row[3][i] = row[2][i] + 1;
        }
        for (int i = 0; beyond > 0 && i < kLitPoints; ++i) {
            const Texels<T> at = texels(u[i], v[i], height, width, job.wrap);
            for (int k = 0; k < 4; ++k) row[k][i] = int(at.row[k]);
        }
    }
};

// Goes through points, a group after another, each point in a lane of its own; see SurfacePoint.
template <class T>
class Lanes {
  public:
    T frame[3][kSurfaceFrame][kLitPoints], texel[4][3][kLitPoints];
    VecLanes<T> albedo;
    LightLanes<T> light;
    i64 first;  // of the group
    int used;

    Lanes(const geodiff::SurfaceJob<T>& job, i64 begin, i64 end, const T* texture)
        : first(begin - kLitPoints), used(0), job_(job), end_(end), texture_(texture) {
        ask(begin, 1 - now_);
    }

    const Spots<T>& spots() const { return spots_[now_]; }

    SurfacePoint<T> operator[](int i) const {
        const Spots<T>& at = spots();
        SurfacePoint<T> s;
        for (int k = 0; k < 3; ++k) {
            s.weight[k] = at.weight[k][i];
            for (int c = 0; c < 2; ++c) s.uv[k][c] = at.uv[k][c][i];
            for (int c = 0; c < kSurfaceFrame; ++c) s.frame[k][c] = frame[k][c][i];
        }
        for (int k = 0; k < 4; ++k) {
            for (int c = 0; c < 3; ++c) s.texel[k][c] = texel[k][c][i];
        }
        s.right = at.right[i];
        s.down = at.down[i];
        return s;
    }

    // Goes to the next group; false at the end. The texels of the group after it are asked for meanwhile.
    bool next() {
        first += kLitPoints;
        if (first >= end_) return false;
        used = size(first);
        now_ = 1 - now_;
        if (first + kLitPoints < end_) ask(first + kLitPoints, 1 - now_);
        for (int i = 0; i < kLitPoints; ++i) {
            const i64 p = 3 * (first + min(i, used - 1));
            for (int k = 0; k < 3; ++k) {
                const T* from = job_.frame + kSurfaceFrame * i64(job_.corners[p + k]);
                for (int c = 0; c < kSurfaceFrame; ++c) frame[k][c][i] = from[c];
            }
        }
        for (int i = 0; i < kLitPoints; ++i) {
            for (int k = 0; k < 4; ++k) {
                const T* from = texture_ + 3 * i64(spots().row[k][i]);
                for (int c = 0; c < 3; ++c) texel[k][c][i] = from[c];
            }
        }
#pragma GCC ivdep
        for (int i = 0; i < kLitPoints; ++i) {
            const SurfacePoint<T> s = (*this)[i];
            light.x.set(i, surface_place(s, 0));
            light.normal.set(i, surface_place(s, 1));
            albedo.set(i, surface_albedo(s));
        }
        return true;
    }

  private:
    int size(i64 group) const { return int(min(end_ - group, i64(kLitPoints))); }
    void ask(i64 group, int slot) { spots_[slot].load(job_, group, size(group), texture_); }

    const geodiff::SurfaceJob<T>& job_;
    i64 end_;
    const T* texture_;
    int now_ = 0;  // of the two below; the other is that of the next group
    Spots<T> spots_[2];
};

}  // namespace gd
