// SPDX-License-Identifier: Apache-2.0
// Which faces the pixels of an image see, and the way back from faces to vertices: what `isa_fragments` and `isa_visible`
// share.
//
// Forward, a thread owns a band of rows and goes through the faces in order, so ties go to the lowest index. Hard images
// (one fragment, no blur or order 1) use the z-buffer of the hard rasteriser. Backward, fragments are sorted by face; a
// thread owns faces, adds up their fragments in a fixed order, and the faces are added to the vertices in order.
#pragma once
#include "rim.h"

namespace gd {

using geodiff::parallel;

constexpr i64 kFaceBlock = 256;
constexpr i64 kSerialWork = 20000;

template <class T>
struct Scene {
    const geodiff::FragmentsJob<T>& job;
    Grid<T> grid;
    T blur, blur2;

    explicit Scene(const geodiff::FragmentsJob<T>& j) : job(j), grid(j.height, j.width) {
        blur = T(j.blur < 1e6 ? j.blur : 1e6);
        blur2 = j.blur < 1e6 ? blur * blur : Real<T>::largest;
    }

    i64 faces_of(i64 image) const { return job.layout[3 * image + 2]; }
    void corners(i64 image, i64 f, Clip<T> corner[3]) const {
        load_face(job.clip + 4 * job.layout[3 * image], job.faces + 3 * (job.layout[3 * image + 1] + f), corner);
    }

    T log_weight(T d) const { return gd::log_weight(WeightTable<T>{job.table, job.table_size, job.table_unit}, d); }
};

// A band's lists: k smallest keys a pixel, in order; `id` is 2·face + (1 if the face covers the pixel), −1 for none.
template <class T>
struct Lists {
    int k;
    Scratch<T> key;
    Scratch<int> id;

    Lists(i64 cells, int k_) : k(k_), key(cells * k_), id(cells * k_) {
        for (i64 i = 0; i < cells * k; ++i) {
            key[i] = Real<T>::largest;
            id[i] = -1;
        }
    }

    void insert(i64 cell, T value, int name) {
        gd::insert(key.get() + cell * k, id.get() + cell * k, k, value, name);
    }
};

// The least key that a face may have at pixels, from its box and its least depth.
template <class T>
struct LeastKey {
    T left, right, bottom, top, near;

    LeastKey(const Polygon<T>& p, const Clip<T> corner[3], T clip_near, T sharpness) {
        left = right = p.x[0];
        bottom = top = p.y[0];
        for (int k = 1; k < p.n; ++k) {
            left = min(left, p.x[k]);
            right = max(right, p.x[k]);
            bottom = min(bottom, p.y[k]);
            top = max(top, p.y[k]);
        }
        near = max(min(corner[0].depth, min(corner[1].depth, corner[2].depth)), clip_near) * sharpness;
    }

    // Of pixels from x0 to x1 and y0 to y1.
    T at(const Scene<T>& scene, T x0, T x1, T y0, T y1) const {
        const T dx = max(max(left - x1, x0 - right), T(0)), dy = max(max(bottom - y1, y0 - top), T(0));
        const T away = sqrt(dx * dx + dy * dy);
        const T most = away > T(0) ? scene.log_weight(-away) : T(0);
        return near - most - (T(1e-4) * (near - most) + T(1e-3));  // room for rounding
    }
};

// For lists by weight, which faces reach from far: squares of kLane by kLane pixels of a band, with the largest key that
// any of their lists ends with. A face whose least key is not below that is passed over.
template <class T>
struct Tiles {
    const Scene<T>& scene;
    const Lists<T>& lists;
    int first_row, end_row, stride, across;
    Scratch<T> last;
    Scratch<unsigned char> open;  // of the row of squares at hand

    Tiles(const Scene<T>& s, const Lists<T>& l, int first, int end, int stride_)
        : scene(s), lists(l), first_row(first), end_row(end), stride(stride_), across(stride_ / kLane + 1),
          last(s.job.order == kByWeight ? i64(across) * ((end - first) / kLane + 1) : 1), open(across) {
        for (i64 i = 0; s.job.order == kByWeight && i < i64(across) * ((end - first) / kLane + 1); ++i) {
            last[i] = Real<T>::largest;
        }
    }

    bool starts(int row) const { return (row - first_row) % kLane == 0; }

    // Finds the open squares of those that a row is in.
    void enter(const LeastKey<T>& least, int row) {
        const int top = row - (row - first_row) % kLane, bottom = min(top + kLane, end_row) - 1;
        const T* own = last.get() + i64((row - first_row) / kLane) * across;
        for (int t = 0; t < across; ++t) {
            const int end = min(t * kLane + kLane, scene.grid.width);
            if (t * kLane >= end) {  // beyond the image
                open[t] = 0;
                continue;
            }
            const T x0 = scene.grid.x(t * kLane), x1 = scene.grid.x(end - 1);
            open[t] = least.at(scene, x0, x1, scene.grid.y(bottom), scene.grid.y(top)) < own[t];
        }
    }

    // Whether a group of kLane pixels is in an open square.
    bool meets(int column) const { return open[column / kLane] || open[(column + kLane - 1) / kLane]; }

    // The open squares that a row is in have new lists.
    void leave(int row) {
        const int top = row - (row - first_row) % kLane, bottom = min(top + kLane, end_row);
        T* own = last.get() + i64((row - first_row) / kLane) * across;
        for (int t = 0; t < across; ++t) {
            if (!open[t]) continue;
            T largest = -Real<T>::largest;
            for (int r = top; r < bottom; ++r) {
                const T* keys = lists.key.get() + (i64(r - first_row) * stride + t * kLane) * lists.k + lists.k - 1;
                const int end = min(kLane, scene.grid.width - t * kLane);
                for (int i = 0; i < end; ++i) largest = max(largest, keys[i64(i) * lists.k]);
            }
            own[t] = largest;
        }
    }
};

template <class T>
struct Drawer {
    const Scene<T>& scene;
    Lists<T>& lists;
    Tiles<T>& tiles;
    i64 image;
    int first_row, end_row, stride;

    // Whether no pixel of a group may take a face with a key of this size into its list.
    bool hopeless(i64 cell, int lanes, T key) const {
        for (int i = 0; i < lanes; ++i) {
            if (key < lists.key[(cell + i) * lists.k + lists.k - 1]) return false;
        }
        return true;
    }

    void draw(int f, const Polygon<T>& p, const Clip<T> corner[3]) {
        const geodiff::FragmentsJob<T>& job = scene.job;
        const Grid<T>& grid = scene.grid;
        Edge<T> edges[4];
        for (int k = 0; k < p.n; ++k) edges[k] = make_edge(p, k);
        for (int k = p.n; k < 4; ++k) edges[k] = edges[0];
        Reach<T> reach;
        reach.init(p, edges, scene.blur, grid);
        const int from = max(reach.first_row, first_row), to = min(reach.end_row, end_row);
        if (from >= to) return;
        HardFace<T> hard;
        hard_face(corner, p, hard);
        const bool measured = scene.blur > T(0) || job.order == kByWeight;
        const T sharpness = job.order == kByWeight ? job.sharpness[image] : T(0);
        const T* xs = grid.columns();
        const LeastKey<T> least(p, corner, job.near, sharpness);
        const bool tiled = job.order == kByWeight;
        for (int row = from; row < to; ++row) {
            const T y = grid.y(row);
            int first, end;
            reach.columns(y, grid, first, end);
            const i64 line = i64(row - first_row) * stride;
            if (tiled && (row == from || tiles.starts(row))) tiles.enter(least, row);
            for (int column = first; column < end; column += kLane) {
                T d2[kLane], edge[kLane], along[kLane], side[kLane];
                const int lanes = min(kLane, grid.width - column);
                if (tiled) {
                    if (!tiles.meets(column)) continue;
                    const T x0 = grid.x(column), x1 = grid.x(column + kLane - 1);
                    if (hopeless(line + column, lanes, least.at(scene, x0, x1, y, y))) continue;
                }
                if (measured) {
#pragma GCC ivdep
                    for (int i = 0; i < kLane; ++i) {
                        Nearest<T> near = no_edge<T>();
                        const T x = xs[column + i];
                        meet(near, edges[0], T(0), x, y);
                        meet(near, edges[1], T(1), x, y);
                        meet(near, edges[2], T(2), x, y);
                        d2[i] = near.d2;
                        edge[i] = near.edge;
                        along[i] = near.along;
                    }
                    for (int i = 0; p.n == 4 && i < kLane; ++i) {
                        Nearest<T> near = no_edge<T>();
                        meet(near, edges[3], T(3), xs[column + i], y);
                        const bool closer = near.d2 < d2[i];
                        d2[i] = closer ? near.d2 : d2[i];
                        edge[i] = closer ? T(3) : edge[i];
                        along[i] = closer ? near.along : along[i];
                    }
                }
                for (int i = 0; i < kLane; ++i) side[i] = T(0);
                for (int k = 0; k < p.n; ++k) {
                    for (int i = 0; i < kLane; ++i) {
                        side[i] = on_inner_side(hard, k, xs[column + i], y) ? side[i] : T(-1);
                    }
                }
                for (int i = 0; i < lanes; ++i) {
                    const bool inside = side[i] >= T(0);
                    if (!inside && !(measured && scene.blur > T(0) && d2[i] <= scene.blur2)) continue;
                    const T depth = inside ? depth_at(hard, xs[column + i], y)
                                           : edge_depth(p, int(edge[i]), along[i]);
                    T key = depth;
                    if (job.order == kByWeight) {
                        const T length = sqrt(d2[i]);
                        key = depth * sharpness - scene.log_weight(inside ? length : -length);
                    }
                    lists.insert(line + column + i, key, 2 * f + (inside ? 1 : 0));
                }
            }
            if (tiled && (row + 1 == to || tiles.starts(row + 1))) tiles.leave(row);
        }
    }
};

// The nearest faces in depth, by the z-buffer, and those of the rim where there is a blur.
template <class T, class Keep>
void draw_nearest(const Scene<T>& scene, i64 image, int threads, Keep&& keep) {
    const geodiff::FragmentsJob<T>& job = scene.job;
    const int bands = (job.height + kZBandRows - 1) / kZBandRows, stride = job.width + kLane;
    const bool rim = job.order == kVisible && job.blur > 0;
    const ZBuffer<T> buffer(scene.grid, job.clip + 4 * job.layout[3 * image], job.faces + 3 * job.layout[3 * image + 1],
                            scene.faces_of(image), job.near, threads, rim);
    Scratch<int> ids(rim ? i64(job.height) * job.width : 0);
    parallel(bands, threads, [&](i64 b) {
        const int first = int(b) * kZBandRows, end = min(first + kZBandRows, job.height);
        const ZBand<T> drawn(buffer, int(b), first, end, job.width);
        const int* faces = buffer.faces(int(b));
        Lists<T> lists(rim ? 0 : i64(end - first) * stride, 1);
        for (int row = first; row < end; ++row) {
            const int* winner = drawn.winner.get() + i64(row - first) * stride;
            int* to = rim ? ids.get() + i64(row) * job.width : lists.id.get() + i64(row - first) * stride;
            for (int i = 0; i < job.width; ++i) to[i] = winner[i] >= 0 ? 2 * faces[winner[i]] + 1 : -1;
        }
        if (!rim) keep(lists, image, first, end, stride, &drawn);
    });
    if (!rim) return;
    const Rim<T> open(job, scene.blur, scene.grid, image, buffer, ids.get(), threads);
    parallel(bands, threads, [&](i64 b) {
        const int first = int(b) * kZBandRows, end = min(first + kZBandRows, job.height);
        open.draw(int(b));
        Lists<T> lists(i64(end - first) * stride, 1);
        for (int row = first; row < end; ++row) {
            __builtin_memcpy(&lists.id[i64(row - first) * stride], &ids[i64(row) * job.width], sizeof(int) * job.width);
        }
        const ZBand<T>* none = nullptr;
        keep(lists, image, first, end, stride, none);
    });
}

// Calls keep(lists, image, first row, row after the last, stride, z-buffer or null) for each band, once drawn.
template <class T, class Keep>
void draw_image(const Scene<T>& scene, i64 image, int threads, Keep&& keep) {
    const geodiff::FragmentsJob<T>& job = scene.job;
    if (job.order == kVisible || (job.blur == 0 && job.k == 1 && job.order == kByDepth)) {
        draw_nearest(scene, image, threads, keep);
        return;
    }
    const Grid<T>& grid = scene.grid;
    const int bands = (job.height + kZBandRows - 1) / kZBandRows;
    const int stride = job.width + kLane;
    const i64 count = scene.faces_of(image);
    Scratch<Polygon<T>> polygons(count);
    Scratch<Rows> rows(count);
    const i64 blocks = (count + kFaceBlock - 1) / kFaceBlock;
    parallel(blocks, blocks > 4 ? threads : 1, [&](i64 block) {
        for (i64 f = block * kFaceBlock; f < min(count, (block + 1) * kFaceBlock); ++f) {
            Clip<T> corner[3];
            scene.corners(image, f, corner);
            polygons[f] = make_polygon(corner, job.near);
            rows[f] = {0, 0};
            if (polygons[f].n == 0) continue;
            Edge<T> edges[4];
            for (int k = 0; k < polygons[f].n; ++k) edges[k] = make_edge(polygons[f], k);
            Reach<T> reach;
            reach.init(polygons[f], edges, scene.blur, grid);
            rows[f] = {reach.first_row, reach.end_row};
        }
    });
    const Bins bins(rows.get(), count, bands);
    parallel(bands, threads, [&](i64 b) {
        const int first = int(b) * kZBandRows;
        const int end = min(first + kZBandRows, job.height);
        Lists<T> lists(i64(end - first) * stride, job.k);
        Tiles<T> tiles(scene, lists, first, end, stride);
        Drawer<T> drawer{scene, lists, tiles, image, first, end, stride};
        for (i64 i = bins.start[b]; i < bins.start[b + 1]; ++i) {
            const i64 f = bins.faces[i];
            Clip<T> corner[3];
            scene.corners(image, f, corner);
            drawer.draw(int(f), polygons[f], corner);
        }
        const ZBand<T>* none = nullptr;
        keep(lists, image, first, end, stride, none);
    });
}

template <class T>
int threads_for(const geodiff::FragmentsJob<T>& job) {
    i64 work = job.images * job.height * job.width * max(job.k, 1);  // 0: no limit
    for (i64 image = 0; image < job.images; ++image) work += 4 * job.layout[3 * image + 2];
    return work < kSerialWork ? 1 : job.threads;
}

// Calls body(image, threads) for each image: many at once, or one after another.
template <class T, class Body>
void each_image(const geodiff::FragmentsJob<T>& job, Body&& body) {
    const int threads = threads_for(job);
    if (job.images >= kManyImages) {
        parallel(job.images, threads, [&](i64 image) { body(image, 1); });
    } else {
        for (i64 image = 0; image < job.images; ++image) body(image, threads);
    }
}

// The items of an image, those of one face after another, each face's in order; face_of(item) may be −1.
struct ByFace {
    Scratch<i64> start;
    Scratch<int> items;

    template <class FaceOf>
    ByFace(i64 faces, i64 count, FaceOf&& face_of) : start(faces + 2), items(count) {
        for (i64 f = 0; f < faces + 2; ++f) start[f] = 0;
        for (i64 i = 0; i < count; ++i) {
            if (face_of(i) >= 0) ++start[face_of(i) + 2];
        }
        for (i64 f = 2; f < faces + 2; ++f) start[f] += start[f - 1];
        for (i64 i = 0; i < count; ++i) {
            if (face_of(i) >= 0) items[start[face_of(i) + 1]++] = int(i);
        }
    }
};

// Calls add(items of a face, how many, its corners, polygon, edges, gradient) for each face that has any, and adds the
// faces to grad_clip.
template <class T, class Add>
void faces_backward(const Scene<T>& scene, i64 image, int threads, const ByFace& by_face, Add&& add) {
    const geodiff::FragmentsJob<T>& job = scene.job;
    const i64 count = scene.faces_of(image);
    const i64* start = by_face.start.get();
    Scratch<Clip<T>> grads(3 * count);
    const i64 blocks = (count + kFaceBlock - 1) / kFaceBlock;
    parallel(blocks, threads, [&](i64 block) {
        for (i64 f = block * kFaceBlock; f < min(count, (block + 1) * kFaceBlock); ++f) {
            if (start[f] == start[f + 1]) continue;
            Clip<T> corner[3];
            scene.corners(image, f, corner);
            const Polygon<T> p = make_polygon(corner, job.near);
            for (int k = 0; k < 3; ++k) grads[3 * f + k] = {T(0), T(0), T(0), T(0)};
            if (p.n == 0) continue;  // nobody sees it: the fragments are not what the forward pass left
            Edge<T> edges[4];
            for (int k = 0; k < p.n; ++k) edges[k] = make_edge(p, k);
            FaceGradient g = no_gradient();
            add(by_face.items.get() + start[f], start[f + 1] - start[f], corner, p, edges, g);
            face_backward(corner, p, g);
            for (int k = 0; k < 3; ++k) {
                grads[3 * f + k] = {T(g.corner[k].x), T(g.corner[k].y), T(g.corner[k].depth), T(g.corner[k].w)};
            }
        }
    });
    T* grad = job.grad_clip + 4 * job.layout[3 * image];
    const int* faces = job.faces + 3 * job.layout[3 * image + 1];
    for (i64 f = 0; f < count; ++f) {
        if (start[f] == start[f + 1]) continue;
        for (int k = 0; k < 3; ++k) {
            T* into = grad + 4 * i64(faces[3 * f + k]);
            const Clip<T>& g = grads[3 * f + k];
            into[0] += g.x;
            into[1] += g.y;
            into[2] += g.depth;
            into[3] += g.w;
        }
    }
}

}  // namespace gd
