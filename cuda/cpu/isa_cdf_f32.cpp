// SPDX-License-Identifier: Apache-2.0
#include "cdf_stage.inl"

namespace gd {
template CdfStage<float> cdf_stage<float>(int, bool, Need);
}  // namespace gd
