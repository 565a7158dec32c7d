// SPDX-License-Identifier: Apache-2.0
// What memory that others made is, and that a peer can have it: on every driver at hand.
#include <fabricmem/from_pointer.hpp>

#include <array>
#include <cstring>
#include <limits>
#include <memory>
#include <optional>
#include <vector>

#include <sys/mman.h>

#include <fabricmem/arena.hpp>
#include <fabricmem/fault_driver.hpp>

#include "driver/driver_state.hpp"
#include "support/buffers.hpp"
#include "support/driver_memory.hpp"
#include "support/driver_under_test.hpp"
#include "support/expect_error.hpp"
#include "support/reserved.hpp"
#include "support/test.hpp"

using namespace fabricmem;
using namespace fabricmem::test;

namespace {

void* at(CUdeviceptr address) { return reinterpret_cast<void*>(static_cast<std::uintptr_t>(address)); }

MemoryPiece only_piece(const PointerMemory& memory) {
    REQUIRE(memory.pieces.size() == 1);
    return memory.pieces.front();
}

// Two allocations, of one and of two granules, side by side in one reservation.
class SideBySide {
public:
    SideBySide(Driver& driver, const CUmemAllocationProp& first, const CUmemAllocationProp& second)
        : range_(driver, 3 * kTwoMiB) {
        REQUIRE(driver.mem_create(&handles_[0], kTwoMiB, &first, 0) == CUDA_SUCCESS);
        REQUIRE(driver.mem_create(&handles_[1], 2 * kTwoMiB, &second, 0) == CUDA_SUCCESS);
        REQUIRE(driver.mem_map(range_.address, kTwoMiB, 0, handles_[0], 0) == CUDA_SUCCESS);
        REQUIRE(driver.mem_map(range_.address + kTwoMiB, 2 * kTwoMiB, 0, handles_[1], 0) == CUDA_SUCCESS);
    }
    SideBySide(const SideBySide&) = delete;
    SideBySide& operator=(const SideBySide&) = delete;
    ~SideBySide() {
        range_.driver.mem_unmap(range_.address, 3 * kTwoMiB);
        for (const CUmemGenericAllocationHandle handle : handles_) range_.driver.mem_release(handle);
    }
    [[nodiscard]] CUdeviceptr address() const { return range_.address; }

private:
    Reserved range_;
    std::array<CUmemGenericAllocationHandle, 2> handles_{};
};

Id128 id_at(const std::shared_ptr<Driver>& driver, CUdeviceptr address) {
    const MemoryPiece piece = only_piece(from_pointer(driver, at(address), 1));
    REQUIRE(piece.blob.has_value());
    REQUIRE(piece.blob->allocation_id.has_value());
    return *piece.blob->allocation_id;
}

}  // namespace

TEST_CASE("A part of another's device memory is found with its allocation, and imports", "[pointer][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const Mapped memory(*driver, device_memory(kFabric), {access_for(kDevice)}, 2 * kTwoMiB);
    REQUIRE(memory.result() == CUDA_SUCCESS);
    const MemoryPiece piece = only_piece(from_pointer(driver, at(memory.address() + kTwoMiB + 4), 1000));
    CHECK(piece.kind == MemoryKind::device_vmm);
    CHECK(piece.owner == MemoryOwner::other);
    CHECK(piece.location == Location::device(0));
    CHECK(piece.base == at(memory.address()));
    CHECK(piece.mapped_bytes == 2 * kTwoMiB);
    CHECK(piece.address == at(memory.address() + kTwoMiB + 4));
    CHECK(piece.offset == kTwoMiB + 4);
    CHECK(piece.bytes == 1000);
    CHECK(piece.kinds == HandleKind::fabric);
    CHECK(piece.why_not.empty());
    REQUIRE(piece.blob.has_value());
    const HandleBlob blob = HandleBlob::from_bytes(piece.blob->to_bytes());
    CHECK(blob.location_kind == LocationKind::device);
    CHECK(blob.process_id == driver->platform().process_id());
    CHECK(blob.mapped_bytes == 2 * kTwoMiB);

    const CurrentContext context(*driver);
    REQUIRE(driver->memset_d8(memory.address() + kTwoMiB + 4, 0x5c, 1000) == CUDA_SUCCESS);
    const ImportedFabricBuffer imported(driver, blob);
    CHECK(imported.location() == Location::device(0));
    CHECK(fabricmem::test::read_back(*driver, imported) == std::vector<unsigned char>(1000, 0x5c));
}

TEST_CASE("Another's host memory has its base, which is not 0", "[pointer][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const Mapped memory(*driver, host_memory(kFabric), {access_for(kHostNuma)}, 2 * kTwoMiB);
    REQUIRE(memory.result() == CUDA_SUCCESS);
    const MemoryPiece piece = only_piece(from_pointer(driver, at(memory.address() + 64), 2 * kTwoMiB - 64));
    CHECK(piece.kind == MemoryKind::host_vmm);
    CHECK(piece.base == at(memory.address()));
    CHECK(piece.mapped_bytes == 2 * kTwoMiB);
    CHECK(piece.offset == 64);
    CHECK(piece.location == Location::host_numa(0));
    REQUIRE(piece.blob.has_value());
    std::memset(at(memory.address()), 0x37, 100);
    const ImportedFabricBuffer imported(driver, *piece.blob);
    REQUIRE(imported.access().host);
    CHECK(*static_cast<const unsigned char*>(imported.address()) == 0x37);
    CHECK(static_cast<const unsigned char*>(imported.address())[36] == 0);
}

TEST_CASE("Allocations side by side under one range have a blob each", "[pointer][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const SideBySide memory(*driver, device_memory(kFabric), host_memory(kFabric));
    const PointerMemory found = from_pointer(driver, at(memory.address() + 100), 3 * kTwoMiB - 200);
    REQUIRE(found.pieces.size() == 2);
    CHECK(found.is_remotely_writable());
    CHECK(found.pieces[0].kind == MemoryKind::device_vmm);
    CHECK(found.pieces[0].base == at(memory.address()));
    CHECK(found.pieces[0].mapped_bytes == kTwoMiB);
    CHECK(found.pieces[0].offset == 100);
    CHECK(found.pieces[0].bytes == kTwoMiB - 100);
    CHECK(found.pieces[1].kind == MemoryKind::host_vmm);
    CHECK(found.pieces[1].base == at(memory.address() + kTwoMiB));
    CHECK(found.pieces[1].mapped_bytes == 2 * kTwoMiB);
    CHECK(found.pieces[1].offset == 0);
    CHECK(found.pieces[1].bytes == 2 * kTwoMiB - 100);
    const std::vector<HandleBlob> blobs = found.blobs();
    REQUIRE(blobs.size() == 2);
    CHECK(blobs[0].allocation_id != blobs[1].allocation_id);
    CHECK(blobs[0].offset + blobs[0].bytes == kTwoMiB);
    // A range within the second alone is one piece.
    CHECK(only_piece(from_pointer(driver, at(memory.address() + kTwoMiB), 8)).base == at(memory.address() + kTwoMiB));
    FABRICMEM_CHECK_ERROR(from_pointer(driver, at(memory.address()), 3 * kTwoMiB + 1), bad_argument,
                          "only 6291456 of them");
}

TEST_CASE("Memory created without a fabric handle says so, and what it has", "[pointer][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    for (const unsigned int types : {kNoHandle, kPosixFd}) {
        CAPTURE(types);
        const Mapped memory(*driver, device_memory(types), {access_for(kDevice)});
        REQUIRE(memory.result() == CUDA_SUCCESS);
        const PointerMemory found = from_pointer(driver, at(memory.address()), kTwoMiB);
        const MemoryPiece piece = only_piece(found);
        CHECK(piece.kind == MemoryKind::device_vmm);
        CHECK(piece.kinds == (types == kPosixFd ? HandleKinds(HandleKind::posix_fd) : HandleKinds()));
        CHECK_FALSE(piece.blob.has_value());
        CHECK_FALSE(found.is_remotely_writable());
        CHECK(contains(piece.why_not, types == kPosixFd ? "posix_fd" : "none"));
        FABRICMEM_CHECK_ERROR(found.blobs(), unsupported, "without a fabric handle");
    }
}

TEST_CASE("An allocation keeps its id for as long as its mapping stays", "[pointer][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const Mapped memory(*driver, device_memory(kFabric), {access_for(kDevice)});
    const Mapped other(*driver, device_memory(kFabric), {access_for(kDevice)});
    REQUIRE(memory.result() == CUDA_SUCCESS);
    REQUIRE(other.result() == CUDA_SUCCESS);
    const Id128 id = id_at(driver, memory.address());
    CHECK_FALSE(id.is_zero());
    CHECK(id_at(driver, memory.address() + kTwoMiB - 1) == id);
    CHECK(id_at(driver, other.address()) != id);
    CHECK(id_at(driver, memory.address()) == id);
}

TEST_CASE("The same memory mapped twice has one id", "[pointer][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    std::optional<Mapped> memory;
    memory.emplace(*driver, device_memory(kFabric), std::vector<CUmemAccessDesc>{access_for(kDevice)});
    REQUIRE(memory->result() == CUDA_SUCCESS);
    const Id128 id = id_at(driver, memory->address());
    CUmemGenericAllocationHandle again = 0;
    REQUIRE(driver->mem_retain_allocation_handle(&again, at(memory->address())) == CUDA_SUCCESS);
    const Mapped second(*driver, again, {access_for(kDevice)});
    REQUIRE(second.result() == CUDA_SUCCESS);
    CHECK(id_at(driver, second.address()) == id);
    memory.reset();
    CHECK(id_at(driver, second.address()) == id);
}

TEST_CASE("Memory that is made where other memory was has an id of its own", "[pointer][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const Reserved range(*driver, kTwoMiB);
    const CUmemAllocationProp wanted = device_memory(kFabric);
    std::vector<Id128> ids;
    for (int round = 0; round < 3; ++round) {
        CUmemGenericAllocationHandle handle = 0;
        REQUIRE(driver->mem_create(&handle, kTwoMiB, &wanted, 0) == CUDA_SUCCESS);
        REQUIRE(driver->mem_map(range.address, kTwoMiB, 0, handle, 0) == CUDA_SUCCESS);
        ids.push_back(id_at(driver, range.address));
        CHECK(id_at(driver, range.address) == ids.back());
        CHECK(driver->mem_unmap(range.address, kTwoMiB) == CUDA_SUCCESS);
        CHECK(driver->mem_release(handle) == CUDA_SUCCESS);
    }
    CHECK(ids[0] != ids[1]);
    CHECK(ids[1] != ids[2]);
    CHECK(ids[0] != ids[2]);
}

TEST_CASE("A FabricBuffer's memory has the buffer's blob, also by another mapping of it", "[pointer][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const FabricBuffer own(driver, 3 * kMiB, {.peer = Id128{{1}}, .generation = 7});
    auto* const base = static_cast<std::byte*>(own.address());
    const MemoryPiece piece = only_piece(from_pointer(driver, base + 5000, 100, {.generation = 9}));
    CHECK(piece.owner == MemoryOwner::fabric_buffer);
    CHECK(piece.kind == MemoryKind::device_vmm);
    CHECK(piece.blob == own.blob().sub_range(5000, 100));
    CHECK(piece.kinds == own.kinds());

    CUmemGenericAllocationHandle again = 0;
    REQUIRE(driver->mem_retain_allocation_handle(&again, base) == CUDA_SUCCESS);
    const Mapped second(*driver, again, {access_for(kDevice)}, own.mapped_bytes());
    REQUIRE(second.result() == CUDA_SUCCESS);
    CHECK(id_at(driver, second.address()) == own.blob().allocation_id);
}

TEST_CASE("An import is told by the blob that it came from", "[pointer][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const FabricBuffer own(driver, 3 * kMiB);
    const ImportedFabricBuffer imported(driver, own.blob().sub_range(4096, 4096));
    const MemoryPiece piece = only_piece(from_pointer(driver, imported.address(), 16));
    CHECK(piece.owner == MemoryOwner::imported);
    CHECK(piece.blob == own.blob().sub_range(4096, 16));
    // One that this library did not make has none: only the exporter can export.
    CUmemGenericAllocationHandle handle = 0;
    REQUIRE(import_fabric(*driver, own.blob().handle, &handle) == CUDA_SUCCESS);
    const Mapped foreign(*driver, handle, {access_for(kDevice)}, own.mapped_bytes());
    REQUIRE(foreign.result() == CUDA_SUCCESS);
    const MemoryPiece other = only_piece(from_pointer(driver, at(foreign.address()), 16));
    CHECK(other.kind == MemoryKind::device_vmm);
    CHECK(other.owner == MemoryOwner::other);
    CHECK(other.base == at(foreign.address()));
    CHECK(other.kinds.empty());
    CHECK_FALSE(other.blob.has_value());
    CHECK(contains(other.why_not, "or it was imported"));
}

TEST_CASE("A block of an arena is told as the buffer that it is in", "[pointer]") {
    const std::shared_ptr<Driver> driver = make_emulated_driver();
    Arena arena(driver, kMiB);
    const Block first = arena.allocate(100);
    const Block second = arena.allocate(100);
    CHECK(only_piece(from_pointer(driver, second.address(), 100)).blob == second.blob());
    CHECK(first.blob() != second.blob());
}

TEST_CASE("A buffer that was closed is no answer any more", "[pointer][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    FabricBuffer own(driver, 1, {.retire_address = RetireAddress::yes});
    void* const address = own.address();
    CHECK(only_piece(from_pointer(driver, address, 1)).owner == MemoryOwner::fabric_buffer);
    CHECK(own.close() == CloseResult::released);
    FABRICMEM_CHECK_ERROR(from_pointer(driver, address, 1), bad_argument, "freed or unmapped");
}

TEST_CASE("cudaMalloc memory is told as what it is, with its range", "[pointer][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const CurrentContext context(*driver);
    CUdeviceptr device = 0;
    REQUIRE(driver->mem_alloc(&device, 3 * kMiB) == CUDA_SUCCESS);
    const PointerMemory found = from_pointer(driver, at(device + 10), 20);
    const MemoryPiece piece = only_piece(found);
    CHECK(piece.kind == MemoryKind::device_alloc);
    CHECK(piece.base == at(device));
    CHECK(piece.mapped_bytes >= 3 * kMiB);
    CHECK(piece.offset == 10);
    CHECK(piece.location == Location::device(0));
    CHECK(piece.kinds == HandleKind::cuda_ipc);
    CHECK_FALSE(piece.blob.has_value());
    FABRICMEM_CHECK_ERROR(found.blobs(), unsupported, "cudaMalloc memory");
    FABRICMEM_CHECK_ERROR(from_pointer(driver, at(device), std::uint64_t{1} << 40), bad_argument, "device_alloc");
    CHECK(driver->mem_free(device) == CUDA_SUCCESS);
}

TEST_CASE("Memory of a pool and managed memory are told as what they are, with their ranges", "[pointer][real]") {
    FABRICMEM_REAL_DRIVER_OR_SKIP(driver);
    const CurrentContext context(*driver);
    const CUdeviceptr pooled = allocate_in_pool(3 * kMiB);
    const CUdeviceptr next = allocate_in_pool(3 * kMiB);
    REQUIRE(pooled != 0);
    REQUIRE(next != 0);
    for (const CUdeviceptr begin : {pooled, next}) {
        const PointerMemory found = from_pointer(driver, at(begin + 10), 20);
        const MemoryPiece piece = only_piece(found);
        CHECK(piece.kind == MemoryKind::device_pool);
        CHECK(piece.base == at(begin));
        CHECK(piece.mapped_bytes >= 3 * kMiB);
        CHECK(piece.offset == 10);
        CHECK(piece.location == Location::device(0));
        CHECK_FALSE(piece.blob.has_value());
        FABRICMEM_CHECK_ERROR(found.blobs(), unsupported, "stream-ordered pool");
        FABRICMEM_CHECK_ERROR(from_pointer(driver, at(begin), std::uint64_t{1} << 40), bad_argument, "device_pool");
    }
    CHECK(free_in_pool(pooled) == CUDA_SUCCESS);
    CHECK(free_in_pool(next) == CUDA_SUCCESS);

    const CUdeviceptr managed = allocate_managed(3 * kMiB);
    REQUIRE(managed != 0);
    const PointerMemory found = from_pointer(driver, at(managed + 10), 20);
    CHECK(only_piece(found).kind == MemoryKind::managed);
    CHECK(only_piece(found).base == at(managed));
    FABRICMEM_CHECK_ERROR(found.blobs(), unsupported, "managed memory");
    CHECK(driver->mem_free(managed) == CUDA_SUCCESS);
}

TEST_CASE("Page-locked and plain host memory are not remotely writable", "[pointer][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const CurrentContext context(*driver);
    void* pinned = nullptr;
    REQUIRE(driver->mem_alloc_host(&pinned, 8192) == CUDA_SUCCESS);
    const PointerMemory locked = from_pointer(driver, static_cast<char*>(pinned) + 1, 100);
    CHECK(only_piece(locked).kind == MemoryKind::pinned_host);
    CHECK(only_piece(locked).base == pinned);
    FABRICMEM_CHECK_ERROR(locked.blobs(), unsupported, "not remotely writable");
    CHECK(driver->mem_free_host(pinned) == CUDA_SUCCESS);

    const auto heap = std::make_unique<char[]>(4096);
    const PointerMemory plain = from_pointer(driver, heap.get(), 4096);
    CHECK(only_piece(plain).kind == MemoryKind::plain_host);
    CHECK(only_piece(plain).bytes == 4096);
    CHECK_FALSE(plain.is_remotely_writable());
    FABRICMEM_CHECK_ERROR(plain.blobs(), unsupported, "not remotely writable");
    CHECK(contains(plain.describe(), "plain_host"));
}

TEST_CASE("Memory that was unmapped, or of which the end was, is an error", "[pointer][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    Mapped memory(*driver, device_memory(kFabric), {access_for(kDevice)});
    REQUIRE(memory.result() == CUDA_SUCCESS);
    const CUdeviceptr address = memory.address();
    CHECK(from_pointer(driver, at(address), 1).is_remotely_writable());
    REQUIRE(memory.unmap() == CUDA_SUCCESS);  // the address stays reserved
    FABRICMEM_CHECK_ERROR(from_pointer(driver, at(address), 1), bad_argument, "nothing is mapped at");
    CHECK(memory.destroy() == CUDA_SUCCESS);

    constexpr std::size_t kPage = 65536;  // of every system that this runs on
    void* const pages = ::mmap(nullptr, 2 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(pages != MAP_FAILED);
    REQUIRE(::mprotect(static_cast<char*>(pages) + kPage, kPage, PROT_NONE) == 0);
    CHECK(only_piece(from_pointer(driver, pages, kPage)).kind == MemoryKind::plain_host);
    FABRICMEM_CHECK_ERROR(from_pointer(driver, pages, kPage + 1), bad_argument, "nothing is mapped at");
    REQUIRE(::munmap(pages, 2 * kPage) == 0);
}

TEST_CASE("Ranges that are none are refused before any driver call", "[pointer]") {
    const auto driver = std::make_shared<FaultDriver>(make_emulated_driver());
    const int here = 0;
    FABRICMEM_CHECK_ERROR(from_pointer(driver, nullptr, 1), bad_argument, "null pointer");
    FABRICMEM_CHECK_ERROR(from_pointer(driver, &here, 0), bad_argument, "0 bytes");
    FABRICMEM_CHECK_ERROR(from_pointer(driver, &here, std::numeric_limits<std::uint64_t>::max()), bad_argument,
                          "beyond the end of the address space");
    FABRICMEM_CHECK_ERROR(from_pointer(nullptr, &here, 1), bad_argument, "driver is null");
    const void* const last = at(std::numeric_limits<CUdeviceptr>::max());
    FABRICMEM_CHECK_ERROR(from_pointer(driver, last, 2), bad_argument, "beyond the end of the address space");
    CHECK(driver->calls().empty());
    FABRICMEM_CHECK_ERROR(from_pointer(driver, last, 1), bad_argument, "nothing is mapped at");
}

TEST_CASE("Whatever is retained for an answer is released", "[pointer]") {
    const auto emulated = make_emulated_driver();
    const auto driver = std::make_shared<FaultDriver>(emulated);
    const SideBySide memory(*emulated, device_memory(kFabric), host_memory(kPosixFd));
    const EmulatedCounts before = emulated_counts(*emulated);
    const PointerMemory found = from_pointer(driver, at(memory.address()), 3 * kTwoMiB);
    CHECK(found.pieces.size() == 2);
    CHECK(count(driver->calls(), "mem_retain_allocation_handle") == 2);
    CHECK(count(driver->calls(), "mem_release") == 2);
    CHECK(emulated_counts(*emulated) == before);
    // The second answer: five calls for what has a fabric handle, four for what has none.
    driver->forget();
    static_cast<void>(from_pointer(driver, at(memory.address()), 3 * kTwoMiB));
    CHECK(driver->calls() == std::vector<std::string>{"pointer_get_attributes", "mem_retain_allocation_handle",
                                                      "mem_get_allocation_properties_from_handle",
                                                      "mem_export_to_shareable_handle", "mem_release",
                                                      "pointer_get_attributes", "mem_retain_allocation_handle",
                                                      "mem_get_allocation_properties_from_handle", "mem_release"});
}

TEST_CASE("Ids of mappings that are gone are forgotten", "[pointer]") {
    const std::shared_ptr<Driver> driver = make_emulated_driver();
    const Mapped lasting(*driver, device_memory(kFabric), {});
    const Id128 id = id_at(driver, lasting.address());
    // Reserved all at once, so that each mapping has an address of its own.
    constexpr std::size_t kMany = 600;
    const Reserved range(*driver, kMany * kTwoMiB);
    const CUmemAllocationProp wanted = device_memory(kFabric);
    for (std::size_t i = 0; i < kMany; ++i) {
        const CUdeviceptr address = range.address + i * kTwoMiB;
        CUmemGenericAllocationHandle handle = 0;
        REQUIRE(driver->mem_create(&handle, kTwoMiB, &wanted, 0) == CUDA_SUCCESS);
        REQUIRE(driver->mem_map(address, kTwoMiB, 0, handle, 0) == CUDA_SUCCESS);
        static_cast<void>(id_at(driver, address));
        REQUIRE(driver->mem_unmap(address, kTwoMiB) == CUDA_SUCCESS);
        REQUIRE(driver->mem_release(handle) == CUDA_SUCCESS);
    }
    CHECK(detail::DriverState::of(*driver).foreign_ids.size() <= 256);
    CHECK(id_at(driver, lasting.address()) == id);
}

TEST_CASE("The same handle bytes are the same memory only while the known mapping is there", "[pointer]") {
    detail::ForeignIds ids;
    const detail::ForeignIds::Handle handle{1, 2, 3};
    const detail::MappingKey known{0x10000, 0x1000, 1};
    std::vector<detail::MappingKey> asked;
    bool alive = true;
    const auto is_alive = [&](const detail::MappingKey& key) {
        asked.push_back(key);
        return alive;
    };
    const Id128 id = ids.id_of(known, handle, is_alive);
    CHECK(asked.empty());
    CHECK(ids.id_of({0x20000, 0x1000, 2}, handle, is_alive) == id);
    CHECK(asked == std::vector<detail::MappingKey>{known});
    alive = false;
    const Id128 later = ids.id_of({0x30000, 0x1000, 3}, handle, is_alive);
    CHECK(later != id);
    CHECK(ids.size() == 1);                                          // the two that are gone are forgotten
    CHECK(ids.id_of({0x30000, 0x1000, 3}, {4}, is_alive) == later);  // exported afresh, with other bytes
    CHECK(ids.id_of({0x30000, 0x1000, 4}, handle, is_alive) != later);
}

TEST_CASE("A mapping without a buffer id has a new id each time", "[pointer]") {
    // As the emulated driver but for that attribute.
    class NoBufferId : public ForwardingDriver {
    public:
        using ForwardingDriver::ForwardingDriver;
        CUresult pointer_get_attributes(unsigned int number, CUpointer_attribute* attributes, void** values,
                                        CUdeviceptr address) noexcept override {
            const CUresult result = ForwardingDriver::pointer_get_attributes(number, attributes, values, address);
            for (unsigned int i = 0; i < number; ++i) {
                if (attributes[i] == CU_POINTER_ATTRIBUTE_BUFFER_ID) *static_cast<std::uint64_t*>(values[i]) = 0;
            }
            return result;
        }
    };
    const auto driver = std::make_shared<NoBufferId>(make_emulated_driver());
    const Mapped memory(*driver, device_memory(kFabric), {});
    CHECK(id_at(driver, memory.address()) != id_at(driver, memory.address()));
}
