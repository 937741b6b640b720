// SPDX-License-Identifier: Apache-2.0
// geodiff/members.def in C++: numbers by name, and what is known of a number.
#pragma once
#include "../portability.h"

namespace gd {

enum DistributionId {
#define DISTRIBUTION(number, Struct, kind, parameter) k##Struct = number,
#include "../../geodiff/members.def"
};
enum TConormId {
#define TCONORM(number, Struct, keeps, parameter) k##Struct = number,
#include "../../geodiff/members.def"
};

enum class Kind { unknown, symmetric, skewed };
enum class Keeps { unknown, sum, levels, winner, mean };
enum class Parameter { none, shape, p };

inline Kind kind_of(int distribution) {
    switch (distribution) {
#define DISTRIBUTION(number, Struct, kind, parameter) case number: return Kind::kind;
#include "../../geodiff/members.def"
    }
    return Kind::unknown;
}

inline Keeps kept_by(int tconorm) {
    switch (tconorm) {
#define TCONORM(number, Struct, keeps, parameter) case number: return Keeps::keeps;
#include "../../geodiff/members.def"
    }
    return Keeps::unknown;
}

}  // namespace gd
