// Helpers for the fuzz targets of the kernels: pieces of an input, and reports of findings.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace sprat::fuzzing {

// Takes pieces from the front of an input; what is not there is zero.
class Input {
  public:
    Input(const uint8_t *data, size_t size) : data_(data), left_(size) {}

    uint8_t byte() {
        uint8_t out = 0;
        fill(&out, 1);
        return out;
    }
    // 0 to n - 1.
    int below(int n) { return byte() % n; }

    // In a block of the heap of exactly this size, so that the sanitizer sees what is beyond it.
    std::vector<uint8_t> bytes(size_t n) {
        std::vector<uint8_t> out(n);
        fill(out.data(), n);
        out.shrink_to_fit();
        return out;
    }
    // Any bits at all.
    std::vector<float> any_floats(size_t n) {
        std::vector<float> out(n);
        fill(out.data(), 4 * n);
        return out;
    }
    // Finite ones of a model's size: -8 to 8.
    std::vector<float> small_floats(size_t n) {
        std::vector<float> out(n);
        for (float &x : out) x = float(int8_t(byte())) / 16;
        return out;
    }

  private:
    void fill(void *out, size_t n) {
        const size_t given = std::min(n, left_);
        if (given) std::memcpy(out, data_, given);
        data_ += given, left_ -= given;
    }

    const uint8_t *data_;
    size_t left_;
};

// Ends the process, which libFuzzer reports with the input.
[[noreturn]] inline void found(const char *what, const char *isa, const char *format) {
    std::fprintf(stderr, "%s: %s on %s\n", format, what, isa);
    std::abort();
}

inline bool is_bad(float x) { return !std::isfinite(x); }

}  // namespace sprat::fuzzing
