// SPDX-License-Identifier: Apache-2.0
#include "cdf_stage.inl"

namespace gd {
template CdfStage<double> cdf_stage<double>(int, bool, Need);
}  // namespace gd
