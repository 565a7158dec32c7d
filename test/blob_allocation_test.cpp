// SPDX-License-Identifier: Apache-2.0
// Replaces the program's operator new to count, so it is a program of its own.
#include <cstdlib>
#include <new>

#include <fabricmem/handle_blob.hpp>

#include "support/blobs.hpp"
#include "support/test.hpp"

namespace {
thread_local int allocations = 0;
}  // namespace

void* operator new(std::size_t bytes) {
    ++allocations;
    if (void* const memory = std::malloc(bytes == 0 ? 1 : bytes)) return memory;
    throw std::bad_alloc();
}
// The nothrow forms too: a sanitizer's own would not match the delete below.
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
    ++allocations;
    return std::malloc(bytes == 0 ? 1 : bytes);
}
void operator delete(void* memory, const std::nothrow_t&) noexcept { std::free(memory); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

TEST_CASE("A blob is written and read without an allocation", "[blob]") {
    const fabricmem::HandleBlob blob = fabricmem::test::full_blob();
    allocations = 0;
    const auto bytes = blob.to_bytes();
    const auto words = blob.to_words();
    const auto back = fabricmem::HandleBlob::from_bytes(bytes);
    const auto from_words = fabricmem::HandleBlob::from_words(words);
    const int counted = allocations;
    CHECK(counted == 0);
    CHECK((back == blob));
    CHECK((from_words == blob));
    (void)blob.to_hex();
    CHECK(allocations > counted);  // the counter works
}
