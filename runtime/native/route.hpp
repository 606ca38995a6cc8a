// Which experts a token goes to (arXiv 2405.04434, eq. 21; arXiv 2412.19437, eq. 13 to 16).
#pragma once

#include "runtime/native/layers.hpp"

namespace sprat {

// expert_ids and weights (n, n_chosen), best first, of router logits (n, n_experts). bias may be
// nullptr; it is added to the scores for the choice only. Takes microseconds per token: no threads.
void route(const MoeSpec &spec, const float *logits, const float *bias, int64_t n,
           int32_t *expert_ids, float *weights);

}  // namespace sprat
