// SPDX-License-Identifier: Apache-2.0
// The one face that each pixel sees, pixels that see one in a list; and the way back.
//
// How long the list is, is known only at the end. So each band of rows leaves a list of its own, made while the planes of
// its faces are at hand; then there is room for all, and the bands are put one after another.
#include "fragment_bands.h"
#include "search.h"

namespace gd {
namespace {

template <class T>
using Job = geodiff::VisibleJob<T>;

// A face, kept for the pixels of the rim to come: neighbours mostly share theirs, in this row and the next.
template <class T>
struct Known {
    int face = -1;
    Clip<T> corner[3];
    Polygon<T> polygon;
    Edge<T> edges[4];
    HardPlane<T> unused;

    void set(const Scene<T>& scene, i64 image, int f) {
        if (f == face) return;
        face = f;
        scene.corners(image, f, corner);
        polygon = make_polygon(corner, scene.job.near);
        for (int k = 0; k < polygon.n; ++k) edges[k] = make_edge(polygon, k);
    }
    void barycentric(T x, T y, T out[3]) const {
        const Fragment<T> f = fragment_at(corner, polygon, edges, unused, x, y, false);
        for (int i = 0; i < 3; ++i) out[i] = f.barycentric[i];
    }
};

constexpr int kKept = 64;  // faces

// What the pixels of a band see.
template <class T>
struct Seen {
    i64 count;
    Scratch<int> pixel, id;  // of the image; 2·face + (1 if it covers the pixel)
    Scratch<T> barycentric;

    explicit Seen(i64 pixels) : count(0), pixel(pixels), id(pixels), barycentric(3 * pixels) {}

    // Room for a pixel's barycentrics.
    T* add(int at, int name) {
        pixel[count] = at;
        id[count] = name;
        return barycentric.get() + 3 * count++;
    }
};

// What of a band covers the pixel centres.
template <class T>
Seen<T>* seen_inside(const Scene<T>& scene, const ZBand<T>& band, const int* faces, int first, int end) {
    const int width = scene.job.width;
    i64 count = 0;
    for (int row = first; row < end; ++row) {
        const int* winner = band.winner.get() + i64(row - first) * band.stride;
        int own = 0;
        for (int column = 0; column < width; ++column) own += winner[column] >= 0 ? 1 : 0;
        count += own;
    }
    Seen<T>* seen = new Seen<T>(count);
    for (int row = first; row < end; ++row) {
        const T y = scene.grid.y(row);
        const int* winner = band.winner.get() + i64(row - first) * band.stride;
        for (int column = 0; column < width; ++column) {
            const int place = winner[column];
            if (place < 0) continue;
            T* out = seen->add(row * width + column, 2 * faces[place] + 1);
            barycentric_at(band.planes[place], scene.grid.x(column), y, out);
        }
    }
    return seen;
}

// That, and the rim.
template <class T>
Seen<T>* with_rim(const Scene<T>& scene, i64 image, const Seen<T>& inside, const int* ids, int first, int end) {
    const int width = scene.job.width;
    i64 count = 0;
    for (int pixel = first * width; pixel < end * width; ++pixel) count += ids[pixel] >= 0 ? 1 : 0;
    Seen<T>* seen = new Seen<T>(count);
    Known<T> kept[kKept];
    i64 next = 0;  // of those inside
    for (int pixel = first * width; pixel < end * width; ++pixel) {
        const int id = ids[pixel];
        if (id < 0) continue;
        T* out = seen->add(pixel, id);
        if (id & 1) {
            const T* from = inside.barycentric.get() + 3 * next++;
            for (int i = 0; i < 3; ++i) out[i] = from[i];
            continue;
        }
        Known<T>& known = kept[(id >> 1) % kKept];
        known.set(scene, image, id >> 1);
        known.barycentric(scene.grid.x(pixel % width), scene.grid.y(pixel / width), out);
    }
    return seen;
}

template <class T>
void find_image(const Scene<T>& scene, i64 image, int threads, Seen<T>** seen) {
    const Job<T>& job = static_cast<const Job<T>&>(scene.job);
    const int bands = (job.height + kZBandRows - 1) / kZBandRows;
    const bool rim = job.blur > 0;
    const ZBuffer<T> buffer(scene.grid, job.clip + 4 * job.layout[3 * image], job.faces + 3 * job.layout[3 * image + 1],
                            scene.faces_of(image), job.near, threads, rim);
    Scratch<int> ids(rim ? i64(job.height) * job.width : 0);
    parallel(bands, threads, [&](i64 b) {
        const int first = int(b) * kZBandRows, end = min(first + kZBandRows, job.height);
        const ZBand<T> band(buffer, int(b), first, end, job.width);
        seen[b] = seen_inside(scene, band, buffer.faces(int(b)), first, end);
        if (!rim) return;
        for (int pixel = first * job.width; pixel < end * job.width; ++pixel) ids[pixel] = -1;
        for (i64 i = 0; i < seen[b]->count; ++i) ids[seen[b]->pixel[i]] = seen[b]->id[i];
    });
    if (!rim) return;
    const Rim<T> open(job, scene.blur, scene.grid, image, buffer, ids.get(), threads);
    parallel(bands, threads, [&](i64 b) {
        if (!open.draw(int(b))) return;
        const int first = int(b) * kZBandRows, end = min(first + kZBandRows, job.height);
        Seen<T>* all = with_rim(scene, image, *seen[b], ids.get(), first, end);
        delete seen[b];
        seen[b] = all;
    });
}

template <class T>
void forward(const Job<T>& job) {
    const Scene<T> scene(job);
    const int bands = (job.height + kZBandRows - 1) / kZBandRows;
    const i64 all = job.images * bands;
    Scratch<Seen<T>*> seen(all);
    each_image(job, [&](i64 image, int threads) { find_image(scene, image, threads, seen.get() + image * bands); });
    Scratch<i64> start(all);
    i64 total = 0;
    for (i64 i = 0; i < all; ++i) {
        start[i] = total;
        total += seen[i]->count;
    }
    const geodiff::VisibleList<T> out = job.room(job.context, total);
    parallel(all, threads_for(job), [&](i64 i) {
        const Seen<T>& own = *seen[i];
        const i64 base = i / bands * (i64(job.height) * job.width), at = start[i];
        for (i64 k = 0; k < own.count; ++k) {
            out.place[at + k] = base + own.pixel[k];
            out.face[at + k] = own.id[k] >> 1;
            out.inside[at + k] = own.id[k] & 1;
        }
        if (own.count) __builtin_memcpy(out.barycentric + 3 * at, own.barycentric.get(), sizeof(T) * 3 * own.count);
        delete seen[i];
    });
}

constexpr int kPixels = 8;  // lanes

// Adds the pixels (of an image that starts at `base`) of one face that are inside of it, side by side, and returns how many
// are not.
template <class T>
i64 inside_pixels(const Job<T>& job, const Scene<T>& scene, i64 base, i64 first, const int* items, i64 count,
                  const Clip<T>* corner, FaceGradient& g) {
    double sums[9][kPixels];
    for (int c = 0; c < 9; ++c) {
        for (int i = 0; i < kPixels; ++i) sums[c][i] = 0;
    }
    const Clip<T> corners[3] = {corner[0], corner[1], corner[2]};
    i64 outside = 0;
    for (i64 group = 0; group < count; group += kPixels) {
        double x[kPixels], y[kPixels], up[3][kPixels];
        for (int i = 0; i < kPixels; ++i) {
            const bool used = group + i < count;
            const i64 at = first + items[used ? group + i : count - 1];
            const int pixel = int(job.place[at] - base);
            const T* by = job.up_barycentric + 3 * at;
            const bool lane = used && job.inside[at];
            x[i] = scene.grid.x(pixel % job.width);
            y[i] = scene.grid.y(pixel / job.width);
            for (int k = 0; k < 3; ++k) up[k][i] = lane ? double(by[k]) : 0.0;
            outside += used && !lane ? 1 : 0;
        }
#pragma GCC ivdep
        for (int i = 0; i < kPixels; ++i) {
            const double own[3] = {up[0][i], up[1][i], up[2][i]};
            Clip<double> share[3];
            inside_share(corners, x[i], y[i], own, 0.0, share);
            for (int k = 0; k < 3; ++k) {
                sums[3 * k][i] += share[k].x;
                sums[3 * k + 1][i] += share[k].y;
                sums[3 * k + 2][i] += share[k].w;
            }
        }
    }
    for (int k = 0; k < 3; ++k) {
        for (int i = 0; i < kPixels; ++i) {
            g.corner[k].x += sums[3 * k][i];
            g.corner[k].y += sums[3 * k + 1][i];
            g.corner[k].w += sums[3 * k + 2][i];
        }
    }
    return outside;
}

// The same for its pixels on the rim, which are few.
template <class T>
void rim_pixels(const Job<T>& job, const Scene<T>& scene, i64 base, i64 first, const int* items, i64 count,
                const Clip<T>* corner, const Polygon<T>& p, FaceGradient& g) {
    Edge<T> edges[4];
    for (int k = 0; k < p.n; ++k) edges[k] = make_edge(p, k);
    for (i64 i = 0; i < count; ++i) {
        const i64 at = first + items[i];
        if (job.inside[at]) continue;
        const int pixel = int(job.place[at] - base);
        const T* by = job.up_barycentric + 3 * at;
        const double own[3] = {double(by[0]), double(by[1]), double(by[2])};
        const T x = scene.grid.x(pixel % job.width), y = scene.grid.y(pixel / job.width);
        fragment_backward(corner, p, edges, x, y, false, 0.0, own, 0.0, g);
    }
    face_backward(corner, p, g);
}

template <class T>
void backward_image(const Job<T>& job, const Scene<T>& scene, i64 image, int threads) {
    const i64 pixels = i64(job.height) * job.width, base = image * pixels, faces = scene.faces_of(image);
    const i64 first = first_at_least(job.place, job.points, base);
    const i64 count = first_at_least(job.place, job.points, base + pixels) - first;
    const ByFace by_face(faces, count, [&](i64 i) { return job.face[first + i]; });
    const i64* start = by_face.start.get();
    // Of faces that are seen, in their order.
    const i64 blocks = (faces + kFaceBlock - 1) / kFaceBlock;
    Scratch<Clip<T>> grads(3 * faces);
    parallel(blocks, threads, [&](i64 block) {
        for (i64 f = block * kFaceBlock; f < min(faces, (block + 1) * kFaceBlock); ++f) {
            if (start[f] == start[f + 1]) continue;
            const int* items = by_face.items.get() + start[f];
            const i64 own = start[f + 1] - start[f];
            Clip<T> corner[3];
            scene.corners(image, f, corner);
            const Polygon<T> p = make_polygon(corner, job.near);
            FaceGradient g = no_gradient();
            // (Nobody sees a face without a polygon: then the list is not what the forward pass left.)
            if (p.n != 0 && inside_pixels(job, scene, base, first, items, own, corner, g) > 0) {
                rim_pixels(job, scene, base, first, items, own, corner, p, g);
            }
            for (int k = 0; k < 3; ++k) {
                grads[3 * f + k] = {T(g.corner[k].x), T(g.corner[k].y), T(g.corner[k].depth), T(g.corner[k].w)};
            }
        }
    });
    T* grad = job.grad_clip + 4 * job.layout[3 * image];
    const int* corners = job.faces + 3 * job.layout[3 * image + 1];
    for (i64 f = 0; f < faces; ++f) {
        if (start[f] == start[f + 1]) continue;
        for (int k = 0; k < 3; ++k) {
            T* into = grad + 4 * i64(corners[3 * f + k]);
            const Clip<T>& g = grads[3 * f + k];
            into[0] += g.x;
            into[1] += g.y;
            into[2] += g.depth;
            into[3] += g.w;
        }
    }
}

template <class T>
void backward(const Job<T>& job) {
    const Scene<T> scene(job);
    each_image(job, [&](i64 image, int threads) { backward_image(job, scene, image, threads); });
}

}  // namespace

const geodiff::Kernel<geodiff::VisibleJob> kernel::visible_forward = {forward, forward};
const geodiff::Kernel<geodiff::VisibleJob> kernel::visible_backward = {backward, backward};

}  // namespace gd
