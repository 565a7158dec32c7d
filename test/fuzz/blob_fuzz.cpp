// SPDX-License-Identifier: Apache-2.0
// Any bytes end in a blob or in Error{bad_blob}, and a blob that was read is written and read again as the same value.
// A libFuzzer target; with FABRICMEM_FUZZ_MAIN a program that feeds itself seeded random input, for other compilers.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <iterator>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <fabricmem/error.hpp>
#include <fabricmem/handle_blob.hpp>

#include "support/blobs.hpp"
#include "support/reference_crc32c.hpp"

namespace {

using fabricmem::Error;
using fabricmem::ErrorKind;
using fabricmem::HandleBlob;

[[noreturn]] void fail(const char* what, const char* detail) {
    std::fprintf(stderr, "blob_fuzz: %s: %s\n", what, detail);
    std::abort();
}

void require_same_again(const HandleBlob& blob) {
    try {
        if (!(HandleBlob::from_bytes(blob.to_bytes()) == blob)) fail("changed by a round trip", "bytes");
        if (!(HandleBlob::from_words(blob.to_words()) == blob)) fail("changed by a round trip", "words");
        if (!(HandleBlob::from_hex(blob.to_hex()) == blob)) fail("changed by a round trip", "hex");
        if (!(HandleBlob::from_json(blob.to_json()) == blob)) fail("changed by a round trip", "JSON");
    } catch (const std::exception& error) {
        fail("what was read can't be written or read again", error.what());
    }
}

/// Whether `read` gave a blob.
template <typename Read>
bool try_read(Read read) {
    HandleBlob blob;
    try {
        blob = read();
    } catch (const Error& error) {
        if (error.kind() != ErrorKind::bad_blob) fail("refused by another kind of error", error.what());
        return false;
    } catch (const std::exception& error) {
        fail("another exception", error.what());
    }
    require_same_again(blob);
    return true;
}

/// The same bytes with the magic, the length and the CRC made right: random input never gets past them else.
bool try_mended(std::span<const std::byte> input) {
    std::array<std::byte, HandleBlob::kBytes> bytes = fabricmem::test::full_blob().to_bytes();
    constexpr std::size_t kEnvelope = 12;  // magic, versions, total length
    if (input.size() < kEnvelope) return false;
    std::copy_n(input.begin() + kEnvelope, std::min(input.size(), std::size_t{316}) - kEnvelope,
                bytes.begin() + kEnvelope);
    const std::uint32_t crc = fabricmem::test::reference_crc32c(std::span(bytes).first(316));
    for (std::size_t i = 0; i < 4; ++i) bytes[316 + i] = static_cast<std::byte>(crc >> (8 * i) & 0xff);
    return try_read([&] { return HandleBlob::from_bytes(bytes); });
}

/// How many of the readers took the input for a blob.
int feed(std::span<const std::byte> input) {
    const std::string_view text(reinterpret_cast<const char*>(input.data()), input.size());
    int read = 0;
    read += try_read([&] { return HandleBlob::from_bytes(input); }) ? 1 : 0;
    read += try_mended(input) ? 1 : 0;
    read += try_read([&] { return HandleBlob::from_hex(text); }) ? 1 : 0;
    read += try_read([&] { return HandleBlob::from_json(text); }) ? 1 : 0;
    return read;
}

}  // namespace

// Declared first: libFuzzer gives no header.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t bytes);

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t bytes) {
    (void)feed(std::as_bytes(std::span(data, bytes)));
    return 0;
}

#ifdef FABRICMEM_FUZZ_MAIN
namespace {

/// What is damaged: right blobs in each form.
std::vector<std::string> make_seeds() {
    std::vector<std::string> seeds;
    for (const HandleBlob& blob :
         {fabricmem::test::example_blob(), fabricmem::test::full_blob(), fabricmem::test::bare_blob()}) {
        const auto bytes = blob.to_bytes();
        seeds.emplace_back(reinterpret_cast<const char*>(bytes.data()), bytes.size());
        seeds.push_back(blob.to_hex());
        seeds.push_back(blob.to_json());
    }
    return seeds;
}

class Mutator {
public:
    explicit Mutator(std::uint64_t seed) : random_(seed), seeds_(make_seeds()) {}

    std::string next() {
        std::string input = seeds_[below(seeds_.size())];
        for (std::size_t changes = below(6); changes > 0; --changes) change(input);
        return input;
    }

private:
    std::size_t below(std::size_t limit) { return static_cast<std::size_t>(random_() % limit); }

    void change(std::string& input) {
        // Pieces that a JSON reader or an integer parser may stumble over.
        static constexpr std::string_view kPieces[] = {"null",
                                                       "-1",
                                                       "0",
                                                       "1e999",
                                                       "18446744073709551616",
                                                       "18446744073709551615",
                                                       "140737488355329",
                                                       "\"\"",
                                                       "[[[[",
                                                       "}",
                                                       "{\"kind\":",
                                                       "\"\\ud800\"",
                                                       "0.0",
                                                       ",",
                                                       "true",
                                                       "\"fabric\"",
                                                       "4294967296",
                                                       "\xff"};
        if (input.empty()) input = "x";
        const std::size_t at = below(input.size());
        switch (below(6)) {
            case 0: input[at] = static_cast<char>(static_cast<unsigned char>(input[at]) ^ (1U << below(8))); break;
            case 1: input[at] = static_cast<char>(below(256)); break;
            case 2: input.resize(at); break;
            case 3: input.erase(at, below(12)); break;
            case 4: input.insert(at, kPieces[below(std::size(kPieces))]); break;
            default: splice(input, at); break;
        }
    }

    /// A piece of another seed over, or into, this one.
    void splice(std::string& input, std::size_t at) {
        const std::string& other = seeds_[below(seeds_.size())];
        const std::size_t from = below(other.size());
        input.replace(at, below(40), other, from, below(40));
    }

    std::mt19937_64 random_;
    std::vector<std::string> seeds_;
};

}  // namespace

/// blob_fuzz [iterations [seed]]
int main(int argc, char** argv) {
    const unsigned long iterations = argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 20000;
    const unsigned long seed = argc > 2 ? std::strtoul(argv[2], nullptr, 10) : 1;
    Mutator mutator(seed);
    unsigned long read = 0;
    for (unsigned long i = 0; i < iterations; ++i) {
        // An exact copy on the heap, so that a sanitizer sees any read beyond it.
        const std::string input = mutator.next();
        const std::vector<char> exact(input.begin(), input.end());
        read += static_cast<unsigned long>(feed(std::as_bytes(std::span(exact))));
    }
    std::printf("blob_fuzz: %lu inputs, seed %lu, %lu read as blobs\n", iterations, seed, read);
    if (iterations >= 1000 && read == 0) fail("nothing was read", "the inputs reach no reader's end");
    return 0;
}
#endif
