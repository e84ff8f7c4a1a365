// Sums per channel of a membrane, of spikes and of a layer's inputs, each in one sweep.
//
// Tensors are float32 (samples, channels, space), contiguous. Numbers are added up in the order of
// torch's own kernels (ATen/native/cpu/SumKernel.cpp and ReduceOpsKernel.cpp), with vectors of the
// same width, so that the last bits are the same; whole numbers need no order.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

constexpr int64_t PIECE = 512;  // values whose bins are found before they are counted
constexpr int TABLES = 4;       // of counts: where values are alike, one would wait for itself
constexpr int WORTH = 1024;     // values for which there are several
constexpr int MOST = 256;       // bins of a table

struct Shape {
  int64_t samples, channels, space;
};

struct Bins {  // position = value * scale + shift, from 0 to last
  float scale, shift;
  int32_t last;
};

struct Moments {  // means and sums of squared distances to them, both (channels)
  double *means, *squares;
};

struct Known {  // those of what came before; null if nothing did
  const double *means, *squares;
  double share, weight;  // of what comes, n / (m + n) and m n / (m + n)
};

typedef float V4 __attribute__((vector_size(16)));
typedef float V8 __attribute__((vector_size(32)));

template <typename V>
constexpr int64_t width() {
  return sizeof(V) / sizeof(float);
}

template <typename V>
inline V load(const float* from) {
  V found;
  std::memcpy(&found, from, sizeof found);
  return found;
}

inline int64_t ceil_log2(int64_t n) {
  int64_t power = 0;
  while ((int64_t(1) << power) < n) power++;
  return power;
}

// ROWS sums side by side, each of every ROWS-th item, gathered in four levels.
template <typename V, int ROWS, typename Load>
void cascade(const Load& load, int64_t items, V sums[ROWS]) {
  constexpr int LEVELS = 4, LEAST = 4;
  int64_t at = 0;
  const auto take = [&](int64_t end) {
    for (; at < end; at++)
      for (int k = 0; k < ROWS; k++) sums[k] += load(at * ROWS + k);
  };
  if (items < 1 << LEAST) return take(items);  // one level suffices
  const int64_t power = std::max<int64_t>(LEAST, ceil_log2(items) / LEVELS);
  const int64_t step = int64_t(1) << power;
  V higher[LEVELS][ROWS] = {};
  while (at + step <= items) {
    take(at + step);
    for (int level = 1; level < LEVELS; level++) {
      V* lower = level == 1 ? sums : higher[level - 1];
      for (int k = 0; k < ROWS; k++) {
        higher[level][k] += lower[k];
        lower[k] = V{};
      }
      if (at & ((step - 1) << (level * power))) break;
    }
  }
  take(items);
  for (int level = 1; level < LEVELS; level++)
    for (int k = 0; k < ROWS; k++) sums[k] += higher[level][k];
}

template <typename V, typename Load>
V add_up(const Load& load, int64_t items) {
  V sums[4] = {};
  if (items >= 4) cascade<V, 4>(load, items / 4, sums);
  for (int64_t i = items / 4 * 4; i < items; i++) sums[0] += load(i);
  for (int k = 1; k < 4; k++) sums[0] += sums[k];
  return sums[0];
}

// One value of each sample: torch adds up whole groups of channels another way than what is left.
double add_column(const double* x, int64_t n, bool in_group) {
  const auto load = [=](int64_t i) { return x[i]; };
  if (!in_group) return add_up<double>(load, n);
  double sum[1] = {};
  cascade<double, 1>(load, n, sum);
  return sum[0];
}

template <typename V>
float add_row(const float* x, int64_t n) {
  if (n < width<V>()) return add_up<float>([=](int64_t i) { return x[i]; }, n);
  const int64_t whole = n / width<V>();
  const V sums = add_up<V>([=](int64_t i) { return load<V>(x + i * width<V>()); }, whole);
  float total = 0;
  for (int64_t i = whole * width<V>(); i < n; i++) total += x[i];
  for (int k = 0; k < width<V>(); k++) total += sums[k];
  return total;
}

// Root of the sum of the squared distances to `mean`.
template <typename V>
float measure_distance(const float* x, int64_t n, float mean) {
  float sums[width<V>()] = {};
  int64_t i = 0;
  for (; i + width<V>() <= n; i += width<V>())
    for (int k = 0; k < width<V>(); k++) {
      const float apart = x[i + k] - mean;
      sums[k] += apart * apart;
    }
  float total = sums[0];
  for (int k = 1; k < width<V>(); k++) total += sums[k];
  for (; i + 4 <= n; i += 4)  // as the compiler of torch multiplies four at a time
    for (int k = 0; k < 4; k++) total += (x[i + k] - mean) * (x[i + k] - mean);
  for (; i < n; i++) total = std::fma(x[i] - mean, x[i] - mean, total);
  return std::sqrt(total);
}

// Counts n values into tables, of each of the places in turn one.
template <int TABLES>
void count(const float* x, int64_t n, const Bins& bins, int32_t* tables) {
  int32_t places[PIECE];
  for (int64_t from = 0; from < n; from += PIECE) {
    const int64_t some = std::min(PIECE, n - from);
    for (int64_t i = 0; i < some; i++) {
      const float position = x[from + i] * bins.scale + bins.shift;
      const float last = bins.last;
      const float low = position > 0 ? position : 0;  // NaN too, which the moments tell of
      places[i] = static_cast<int32_t>(low < last ? low : last);
    }
    int64_t i = 0;
    for (; i + TABLES <= some; i += TABLES)
      for (int table = 0; table < TABLES; table++) tables[table * MOST + places[i + table]]++;
    for (; i < some; i++) tables[places[i]]++;
  }
}

template <typename Work>
void for_each_channel(const Shape& shape, int threads, const Work& work) {
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
  for (int64_t channel = 0; channel < shape.channels; channel++) work(channel);
}

// The moments of `samples` rows, from each row's mean and root of squared distances to that.
void merge_rows(const double* means, double* within, int64_t samples, int64_t space, bool in_group,
                double& mean, double& squares) {
  mean = add_column(means, samples, in_group) / static_cast<double>(samples);
  for (int64_t i = 0; i < samples; i++) within[i] *= within[i];
  squares = add_column(within, samples, in_group);
  for (int64_t i = 0; i < samples; i++) within[i] = (means[i] - mean) * (means[i] - mean);
  squares += static_cast<double>(space) * add_column(within, samples, in_group);
}

// Both together (Chan, Golub, LeVeque 1979).
void take_in(const Known& known, int64_t channel, double mean, double squares,
             const Moments& moments) {
  if (known.means) {
    const double apart = mean - known.means[channel];
    mean = known.means[channel] + apart * known.share;
    squares = known.squares[channel] + squares + apart * apart * known.weight;
  }
  moments.means[channel] = mean;
  moments.squares[channel] = squares;
}

template <typename V>
int measure(const float* x, const Shape& shape, const Bins& bins, const Known& known,
            const Moments& moments, int64_t* counts, int threads) {
  const int64_t grouped = shape.channels / (2 * width<V>()) * (2 * width<V>());
  for_each_channel(shape, threads, [=](int64_t channel) {
    const bool many = shape.samples * shape.space > WORTH;
    const int used = many ? TABLES : 1;
    int32_t tables[TABLES * MOST];
    std::fill(tables, tables + used * MOST, 0);
    std::vector<double> rows(2 * shape.samples);
    for (int64_t sample = 0; sample < shape.samples; sample++) {
      const float* values = x + (sample * shape.channels + channel) * shape.space;
      const float mean = add_row<V>(values, shape.space) / static_cast<float>(shape.space);
      rows[sample] = mean;
      rows[shape.samples + sample] = measure_distance<V>(values, shape.space, mean);
      (many ? count<TABLES> : count<1>)(values, shape.space, bins, tables);
    }
    double mean, squares;
    merge_rows(rows.data(), rows.data() + shape.samples, shape.samples, shape.space,
               channel < grouped, mean, squares);
    take_in(known, channel, mean, squares, moments);
    for (int bin = 0; bin <= bins.last; bin++)
      for (int table = 0; table < used; table++)
        counts[channel * (bins.last + 1) + bin] += tables[table * MOST + bin];
  });
  const auto finite = [](double one) { return std::isfinite(one); };
  return std::all_of(moments.squares, moments.squares + shape.channels, finite);
}

// How many of n values are 1, and whether all others are 0 and each is the spike of its membrane.
template <bool CHECKED, bool AT_THRESHOLD>
inline int32_t count_row(const float* x, const float* distance, int64_t n, int32_t& odd) {
  int32_t ones = 0, others = 0;
  for (int64_t i = 0; i < n; i++) {  // -1 is true: vectors of comparisons are so
    const int32_t one = x[i] == 1 ? -1 : 0;
    const int32_t zero = x[i] == 0 ? -1 : 0;
    ones -= one;
    others |= ~(one | zero);
    if (CHECKED) others |= one ^ ((AT_THRESHOLD ? distance[i] >= 0 : distance[i] > 0) ? -1 : 0);
  }
  odd |= others;
  return ones;
}

// Of one sample, for each channel.
template <bool CHECKED, bool AT_THRESHOLD>
void count_sample(const float* x, const float* distance, const Shape& shape, int64_t* counts,
                  int32_t& odd) {
  const int64_t n = shape.space;
  if (n == 1)  // which the compiler makes vectors of
    for (int64_t i = 0; i < shape.channels; i++)
      counts[i] += count_row<CHECKED, AT_THRESHOLD>(x + i, distance + i, 1, odd);
  else
    for (int64_t i = 0; i < shape.channels; i++)
      counts[i] += count_row<CHECKED, AT_THRESHOLD>(x + i * n, distance + i * n, n, odd);
}

template <bool CHECKED, bool AT_THRESHOLD>
int count_spikes(const float* x, const float* distance, const Shape& shape, int64_t* counts,
                 int threads) {
  int32_t odd = 0;
  const int64_t size = shape.channels * shape.space;
#pragma omp parallel num_threads(threads) reduction(| : odd) if (threads > 1)
  {
    std::vector<int64_t> own(shape.channels);  // in order of memory, which waits for it less
#pragma omp for schedule(static)
    for (int64_t at = 0; at < shape.samples * size; at += size)
      count_sample<CHECKED, AT_THRESHOLD>(x + at, distance + at, shape, own.data(), odd);
#pragma omp critical
    for (int64_t channel = 0; channel < shape.channels; channel++) counts[channel] += own[channel];
  }
  return !odd;
}

}  // namespace

extern "C" {

// Mean and sum of squared distances to it, both (channels), of x (samples, channels, space) and of
// what is known, as torch finds them by vectors of `lanes`. To `counts` (channels, last + 1) is
// added how many values are in each bin. 0 where a value is NaN or infinite.
int sweep_membrane(const float* x, int64_t samples, int64_t channels, int64_t space, float scale,
                   float shift, int32_t last, int lanes, const double* known_means,
                   const double* known_squares, double share, double weight, double* means,
                   double* squares, int64_t* counts, int threads) {
  return (lanes == 8 ? measure<V8> : measure<V4>)(
      x, {samples, channels, space}, {scale, shift, last},
      {known_means, known_squares, share, weight}, {means, squares}, counts, threads);
}

// Adds to `counts` (channels) how many values are 1; 0 where one is neither 0 nor 1 or, unless
// `distance` is null, is not what its distance to the threshold says.
int sweep_spikes(const float* x, const float* distance, int at_threshold, int64_t samples,
                 int64_t channels, int64_t space, int64_t* counts, int threads) {
  const auto run = !distance      ? count_spikes<false, false>
                   : at_threshold ? count_spikes<true, true>
                                  : count_spikes<true, false>;
  return run(x, distance ? distance : x, {samples, channels, space}, counts, threads);
}

int sweep_parallel() {
#ifdef _OPENMP
  return 1;
#else
  return 0;
#endif
}
}
