#pragma once
/// That the study compares what it says: the two blocks against plain evaluations of their formulas and against finite
/// differences.
namespace linear_cost {

/// Prints the largest error of every check. Throws if one is too large.
void check_blocks();

}  // namespace linear_cost
