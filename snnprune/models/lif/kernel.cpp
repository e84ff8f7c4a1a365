// The steps of plain.py for a block of neurons at a time, so that what they pass on stays in the
// cache. Every operation rounds as the one of torch that it stands for: std::fma where torch's
// kernels contract, and nowhere else (-ffp-contract=off).

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace {

constexpr int64_t BLOCK = 256;

struct Neuron {  // as `Constants` of native.py
  float beta, threshold, v_rest, gain;
  float leaked_rest, on_spike;  // what Eq. 4 adds to the potential; 0 where it adds nothing
  float soft_slope;             // dh/ds of a soft reset; of a hard one on_spike - beta u
  float surrogate_a, surrogate_b;
  int32_t soft, detach_reset, surrogate;
};

enum Surrogate { ATAN = 0, TRIANGLE = 1 };

template <bool SOFT>
inline float leak(float u, float s, const Neuron& neuron) {  // h of Eq. 4
  float h = SOFT ? std::fma(s, -neuron.threshold, u) : std::fma(-u, s, u);
  h *= neuron.beta;
  if (neuron.leaked_rest != 0) h += neuron.leaked_rest;
  if (!SOFT && neuron.on_spike != 0) h = std::fma(s, neuron.on_spike, h);
  return h;
}

// One step of n neurons: u - above and s from the current x, and h for the next; s or u may be left
// out.
template <bool SOFT>
inline void step(const float* __restrict x, float* __restrict h, float* __restrict u,
                 float* __restrict s, int64_t n, const Neuron& neuron, float above = 0) {
  for (int64_t i = 0; i < n; i++) {
    const float membrane = std::fma(x[i], neuron.gain, h[i]);
    const float spike = membrane >= neuron.threshold ? 1.0f : 0.0f;
    if (u) u[i] = membrane - above;
    if (s) s[i] = spike;
    h[i] = leak<SOFT>(membrane, spike, neuron);
  }
}

inline float derivative(float z, const Neuron& neuron) {
  if (neuron.surrogate == ATAN)
    return 1.0f / std::fma(neuron.surrogate_b * z, z, neuron.surrogate_a);
  const float above = neuron.surrogate_a - std::fabs(z);
  return (above < 0 ? 0.0f : above) * neuron.surrogate_b;  // NaN stays NaN
}

// dL/du of one step into `later`, which holds that of the step after, and times `gain` into `out`,
// which holds u.
template <bool SOFT, bool LAST>
inline void step_back(const float* __restrict grad_s, float* __restrict later,
                      float* __restrict out, int64_t n, const Neuron& neuron) {
  for (int64_t i = 0; i < n; i++) {
    const float u = out[i];
    float grad = grad_s[i];
    if (!LAST && !neuron.detach_reset)
      grad = std::fma(later[i], SOFT ? neuron.soft_slope : neuron.on_spike - neuron.beta * u, grad);
    grad *= derivative(u - neuron.threshold, neuron);
    if (!LAST && SOFT) grad = std::fma(later[i], neuron.beta, grad);
    if (!LAST && !SOFT)  // a hard reset forgets u
      grad = std::fma(neuron.beta * later[i], u < neuron.threshold ? 1.0f : 0.0f, grad);
    later[i] = grad;
    out[i] = neuron.gain != 1 ? grad * neuron.gain : grad;
  }
}

template <typename Work>
void for_each_block(int64_t neurons, int threads, const Work& work) {
  const int64_t blocks = (neurons + BLOCK - 1) / BLOCK;
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
  for (int64_t block = 0; block < blocks; block++)
    work(block * BLOCK, std::min(BLOCK, neurons - block * BLOCK));
}

template <bool SOFT>
void forward(const float* x, int64_t stride, float* s, float* u, int64_t steps, int64_t neurons,
             const Neuron& neuron, float above, int threads) {
  for_each_block(neurons, threads, [=](int64_t at, int64_t n) {
    float h[BLOCK];
    std::fill(h, h + n, neuron.v_rest);
    for (int64_t t = 0; t < steps; t++)
      step<SOFT>(x + t * stride + at, h, u ? u + t * neurons + at : nullptr, s + t * neurons + at,
                 n, neuron, above);
  });
}

template <bool SOFT>
void backward(const float* x, int64_t stride, const float* grad_s, float* grad, int64_t steps,
              int64_t neurons, const Neuron& neuron, int threads) {
  for_each_block(neurons, threads, [=](int64_t at, int64_t n) {
    float carried[BLOCK];  // h on the way there, dL/du on the way back
    std::fill(carried, carried + n, neuron.v_rest);
    for (int64_t t = 0; t < steps; t++)
      step<SOFT>(x + t * stride + at, carried, grad + t * neurons + at, nullptr, n, neuron);
    for (int64_t t = steps - 1; t >= 0; t--)
      (t == steps - 1 ? step_back<SOFT, true> : step_back<SOFT, false>)(
          grad_s + t * neurons + at, carried, grad + t * neurons + at, n, neuron);
  });
}

}  // namespace

extern "C" {

// The current is (steps, neurons), its steps `stride` floats apart (0: the same at every step);
// all else is contiguous. `membrane` may be null; it gets the membrane less `above`.
void lif_forward(const float* current, int64_t stride, float* spikes, float* membrane, float above,
                 int64_t steps, int64_t neurons, const Neuron* neuron, int threads) {
  (neuron->soft ? forward<true> : forward<false>)(current, stride, spikes, membrane, steps,
                                                  neurons, *neuron, above, threads);
}

// dL/dcurrent from dL/dspikes; u is computed again, in the memory of the gradient.
void lif_backward(const float* current, int64_t stride, const float* grad_spikes, float* grad,
                  int64_t steps, int64_t neurons, const Neuron* neuron, int threads) {
  (neuron->soft ? backward<true> : backward<false>)(current, stride, grad_spikes, grad, steps,
                                                    neurons, *neuron, threads);
}

const char* lif_compiler() {
#ifdef __clang__
  return __VERSION__;
#else
  return "g++ " __VERSION__;
#endif
}

int lif_parallel() {
#ifdef _OPENMP
  return 1;
#else
  return 0;
#endif
}
}
