// SPDX-License-Identifier: Apache-2.0
// What an ImportedFabricBuffer promises: in one process here, between processes in peers_test.cpp.
#include <cstring>
#include <vector>

#include <fabricmem/fabric_buffer.hpp>
#include <fabricmem/fault_driver.hpp>

#include "support/buffers.hpp"
#include "support/driver_under_test.hpp"
#include "support/expect_error.hpp"
#include "support/test.hpp"

using namespace fabricmem;
using namespace fabricmem::test;

TEST_CASE("An import in the exporting process shows the same memory", "[buffer][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const PrimaryContext context(driver, 0);
    for (const Location& location : {Location::device(0), Location::host_numa(0)}) {
        CAPTURE(to_string(location));
        const FabricBuffer own(driver, 1000, {.location = location});
        const ImportedFabricBuffer imported(driver, own.blob());
        CHECK(imported.address() != own.address());
        CHECK(imported.bytes() == own.bytes());
        CHECK(imported.mapped_bytes() == own.mapped_bytes());
        CHECK(imported.granularity() == own.granularity());
        CHECK(imported.location() == location);
        CHECK(imported.kinds() == HandleKinds(HandleKind::fabric));
        CHECK(imported.access() == own.access());
        CHECK(imported.rdma() == own.rdma());
        CHECK(imported.blob() == own.blob());
        CHECK(driver->memset_d8(pointer(imported), 0x17, 1000) == CUDA_SUCCESS);
        CHECK(read_back(*driver, own) == std::vector<unsigned char>(1000, 0x17));
        if (!location.is_host()) continue;
        std::memset(imported.address(), 0x18, 1000);
        CHECK(static_cast<unsigned char*>(own.address())[999] == 0x18);
    }
}

TEST_CASE("An import outlives the exporter's buffer", "[buffer][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const PrimaryContext context(driver, 0);
    FabricBuffer own(driver, 16);
    REQUIRE(driver->memset_d8(pointer(own), 0x42, 16) == CUDA_SUCCESS);
    ImportedFabricBuffer imported(driver, own.blob());
    CHECK(own.close() == CloseResult::released);  // an import is not a reference of the exporter's
    CHECK_FALSE(import_if_alive(driver, imported.blob()).has_value());
    CHECK(read_back(*driver, imported) == std::vector<unsigned char>(16, 0x42));
    imported.close();
    CHECK_FALSE(imported.is_open());
    imported.close();
}

TEST_CASE("A sub-range blob maps the whole and points to its part", "[buffer][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const PrimaryContext context(driver, 0);
    const FabricBuffer own(driver, 10000, {.location = Location::host_numa(0)});
    static_cast<unsigned char*>(own.address())[4100] = 0x77;
    const ImportedFabricBuffer imported(driver, own.blob().sub_range(4096, 100));
    CHECK(imported.bytes() == 100);
    CHECK(imported.mapped_bytes() == own.mapped_bytes());
    CHECK(static_cast<unsigned char*>(imported.address())[4] == 0x77);
    CHECK(reinterpret_cast<std::uintptr_t>(imported.address()) % imported.granularity() == 4096);
}

TEST_CASE("A bare handle is importable, and has no identity", "[buffer][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const FabricBuffer own(driver, 1, {.location = Location::host_numa(0)});
    const HandleBlob bare = HandleBlob::from_bare(own.blob().bare_hex(), own.mapped_bytes(), Location::host_numa(0));
    CHECK_FALSE(bare.allocation_id.has_value());
    const ImportedFabricBuffer imported(driver, bare);
    CHECK(imported.granularity() == own.granularity());
    static_cast<unsigned char*>(imported.address())[0] = 0x31;
    CHECK(static_cast<unsigned char*>(own.address())[0] == 0x31);
}

TEST_CASE("Importing and letting go makes no call beyond the necessary ones", "[buffer][each]") {
    FABRICMEM_DRIVER_OR_SKIP(under_test);
    const auto driver =
        std::make_shared<FaultDriver>(testing_cuda() ? under_test : make_emulated_driver({.devices = 2}));
    for (const Location& location : {Location::device(0), Location::host_numa(0)}) {
        CAPTURE(to_string(location));
        const FabricBuffer own(driver, 1, {.location = location});
        { const ImportedFabricBuffer warm(driver, own.blob()); }
        driver->forget();
        { const ImportedFabricBuffer imported(driver, own.blob()); }
        CHECK(driver->calls() == std::vector<std::string>{"mem_address_reserve", "mem_import_from_shareable_handle",
                                                          "mem_map", "mem_set_access", "mem_unmap", "mem_release",
                                                          "mem_address_free"});
    }
}

TEST_CASE("A blob that can't be imported is refused before any driver call", "[buffer]") {
    const auto driver = std::make_shared<FaultDriver>(make_emulated_driver());
    const FabricBuffer own(driver, 1);
    driver->forget();
    const auto refused = [&](auto&& change) {
        HandleBlob blob = own.blob();
        change(blob);
        const ErrorKind kind = kind_of([&] { ImportedFabricBuffer(driver, blob); });
        CHECK(driver->calls().empty());
        return kind;
    };
    CHECK(refused([](HandleBlob& blob) { blob.kinds = HandleKind::posix_fd; }) == ErrorKind::unsupported);
    CHECK(refused([](HandleBlob& blob) { blob.kinds = HandleKind::cuda_ipc; }) == ErrorKind::unsupported);
    CHECK(refused([](HandleBlob& blob) { blob.kinds = HandleKinds(); }) == ErrorKind::bad_blob);
    CHECK(refused([](HandleBlob& blob) { blob.mapped_bytes = 0; }) == ErrorKind::bad_blob);
    CHECK(refused([](HandleBlob& blob) { blob.bytes = 0; }) == ErrorKind::bad_blob);
    CHECK(refused([](HandleBlob& blob) { blob.mapped_bytes += 4096; }) == ErrorKind::bad_blob);
    CHECK(refused([](HandleBlob& blob) { blob.offset = ~std::uint64_t{0}; }) == ErrorKind::bad_blob);
    CHECK(refused([](HandleBlob& blob) { blob.offset = blob.mapped_bytes; }) == ErrorKind::bad_blob);
    CHECK(refused([](HandleBlob& blob) { blob.mapped_bytes = 4096, blob.granularity = 4096; }) == ErrorKind::bad_blob);
    CHECK(refused([](HandleBlob& blob) { blob.mapped_bytes = 4096, blob.granularity = 1; }) == ErrorKind::bad_blob);
    CHECK(refused([](HandleBlob& blob) { blob.mapped_bytes = 4096, blob.granularity = {}; }) == ErrorKind::bad_blob);
    CHECK(refused([](HandleBlob& blob) { blob.handle = {}; }) == ErrorKind::bad_blob);
    CHECK(refused([](HandleBlob& blob) { blob.location_kind = LocationKind::host_nearest; }) == ErrorKind::bad_blob);
}

TEST_CASE("A wrong argument of an import is a typed error and leaves nothing", "[buffer]") {
    const auto driver = make_emulated_driver({.devices = 2});
    const FabricBuffer own(driver, 1);
    const EmulatedCounts before = emulated_counts(*driver);
    CHECK(kind_of([&] { ImportedFabricBuffer(nullptr, own.blob()); }) == ErrorKind::bad_argument);
    CHECK(kind_of([&] { ImportedFabricBuffer(driver, own.blob(), {.access = std::vector<int>{2}}); }) ==
          ErrorKind::bad_argument);
    CHECK(kind_of([&] { ImportedFabricBuffer(driver, own.blob(), {.access = std::vector<int>{}}); }) ==
          ErrorKind::bad_argument);
    CHECK(kind_of([&] { ImportedFabricBuffer(driver, own.blob(), {.alignment_bytes = 3}); }) ==
          ErrorKind::bad_argument);
    CHECK(kind_of([&] { ImportedFabricBuffer(driver, own.blob(), {.host_access = HostAccess::required}); }) ==
          ErrorKind::unsupported);
    CHECK(emulated_counts(*driver) == before);
}

TEST_CASE("A size that is not the allocation's is a bad blob", "[buffer][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const FabricBuffer own(driver, 4 * kMiB);
    for (const std::uint64_t bytes : {2 * kMiB, 6 * kMiB}) {
        HandleBlob blob = own.blob();
        blob.mapped_bytes = bytes;
        blob.bytes = 1;
        const auto error = error_of([&] { ImportedFabricBuffer(driver, blob); });
        REQUIRE(error.has_value());
        CHECK(error->kind() == ErrorKind::bad_blob);
        CHECK(error->details().call == "cuMemMap");
    }
}

TEST_CASE("Memory that its exporter released can't be imported, and the error says so", "[buffer][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    FabricBuffer own(driver, 1);
    const HandleBlob blob = own.blob();
    CHECK(own.close() == CloseResult::released);
    const auto error = error_of([&] { ImportedFabricBuffer(driver, blob); });
    REQUIRE(error.has_value());
    CHECK(error->kind() == ErrorKind::peer_gone);
    CHECK(error->code() == CUDA_ERROR_NOT_SUPPORTED);
    CHECK(error->details().check == "FM-PEER-001");
    CHECK(contains(error->details().cause, "lives, but has released the memory"));
    const auto bare = error_of([&] {
        ImportedFabricBuffer(driver, HandleBlob::from_bare(blob.bare_hex(), blob.mapped_bytes, Location::device(0)));
    });
    REQUIRE(bare.has_value());
    CHECK(bare->details().check == "FM-PEER-001");
    CHECK(contains(bare->details().cause, "or these bytes are no fabric handle"));
    CHECK(contains(error->details().identity, "Exporter: host"));
    CHECK(contains(error->details().identity, to_string(*blob.allocation_id)));
    CHECK(contains(error->details().identity, "Importer: host"));
    CHECK_FALSE(import_if_alive(driver, blob).has_value());
}

TEST_CASE("import_if_alive imports what lives and throws what is wrong", "[buffer][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const FabricBuffer own(driver, 1);
    CHECK(import_if_alive(driver, own.blob()).has_value());
    HandleBlob wrong = own.blob();
    wrong.bytes = 0;
    CHECK(kind_of([&] { static_cast<void>(import_if_alive(driver, wrong)); }) == ErrorKind::bad_blob);
}

TEST_CASE("Exporter and importer on different IMEX channels are told apart from other refusals", "[buffer][fault]") {
    const auto exporter = make_emulated_driver({.imex_channel = 0});
    const FabricBuffer own(exporter, 1);
    const auto other = error_of([&] { ImportedFabricBuffer(make_emulated_driver({.imex_channel = 1}), own.blob()); });
    REQUIRE(other.has_value());
    CHECK(other->kind() == ErrorKind::not_permitted);
    CHECK(other->code() == CUDA_ERROR_NOT_PERMITTED);
    CHECK(contains(other->details().cause, "holds IMEX channel 0, this process 1"));
    const auto none =
        error_of([&] { ImportedFabricBuffer(make_emulated_driver({.imex_channel = std::nullopt}), own.blob()); });
    REQUIRE(none.has_value());
    CHECK(none->kind() == ErrorKind::not_permitted);
    CHECK(contains(none->details().cause, "no IMEX channel node"));
}

TEST_CASE("An importer without fabric handles is told so, not that the exporter is gone", "[buffer]") {
    const FabricBuffer own(make_emulated_driver(), 1);
    const auto importer = make_emulated_driver({.fabric = FabricAttribute::unsupported});
    const auto error = error_of([&] { static_cast<void>(import_if_alive(importer, own.blob())); });
    REQUIRE(error.has_value());
    CHECK(error->kind() == ErrorKind::unsupported);
    CHECK(error->code() == CUDA_ERROR_NOT_SUPPORTED);
    CHECK(contains(error->details().cause, "attribute 128"));
}

TEST_CASE("Host access to imported device memory is refused with cause and cure", "[buffer][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const FabricBuffer own(driver, 1);
    const auto error =
        error_of([&] { ImportedFabricBuffer(driver, own.blob(), {.host_access = HostAccess::required}); });
    REQUIRE(error.has_value());
    CHECK(error->kind() == ErrorKind::unsupported);
    CHECK(contains(error->details().cause, "CPU can't access device memory"));
    CHECK_FALSE(error->details().cure.empty());
}

TEST_CASE("A damaged handle is a typed error and leaves nothing behind, whichever byte it is", "[buffer]") {
    const auto driver = make_emulated_driver();
    const FabricBuffer own(driver, 1);
    const EmulatedCounts before = emulated_counts(*driver);
    for (std::size_t i = 0; i < own.blob().handle.size(); ++i) {
        CAPTURE(i);
        HandleBlob blob = own.blob();
        blob.handle[i] ^= 0x40U;
        ErrorKind expected = ErrorKind::peer_gone;
        if (i == 16) expected = ErrorKind::system;                    // the node's number
        if (i >= 40 && i <= 43) expected = ErrorKind::not_permitted;  // the channel
        const auto error = error_of([&] { ImportedFabricBuffer(driver, blob); });
        REQUIRE(error.has_value());
        INFO(error->what());
        CHECK(to_string(error->kind()) == to_string(expected));
        CHECK(emulated_counts(*driver) == before);
    }
}

TEST_CASE("A bare handle whose size is no multiple of the granularity is a bad blob", "[buffer]") {
    const auto driver = make_emulated_driver();
    const FabricBuffer own(driver, 1);
    const EmulatedCounts before = emulated_counts(*driver);
    const HandleBlob bare = HandleBlob::from_bare(own.blob().bare_hex(), 4096, Location::device(0));
    CHECK(kind_of([&] { ImportedFabricBuffer(driver, bare); }) == ErrorKind::bad_blob);
    CHECK(emulated_counts(*driver) == before);
}

TEST_CASE("What the channel nodes are like is told where fabric memory is refused", "[buffer][fault]") {
    // A platform and a driver that refuses, as a machine whose node is not usable.
    class Nodes : public Platform {
    public:
        Nodes(std::vector<ImexChannel> channels, int folder_errno)
            : channels_(std::move(channels)), folder_errno_(folder_errno) {}
        [[nodiscard]] std::vector<ImexChannel> imex_channels() const override { return channels_; }
        [[nodiscard]] int imex_channels_errno() const override { return folder_errno_; }

    private:
        std::vector<ImexChannel> channels_;
        int folder_errno_;
    };
    class Refusing : public FaultDriver {
    public:
        Refusing(std::shared_ptr<Driver> inner, std::vector<ImexChannel> channels, int folder_errno)
            : FaultDriver(std::move(inner)), nodes_(std::move(channels), folder_errno) {
            add({.call = "mem_create", .result = CUDA_ERROR_NOT_PERMITTED});
        }
        [[nodiscard]] const Platform& platform() const noexcept override { return nodes_; }

    private:
        Nodes nodes_;
    };
    struct Row {
        std::vector<ImexChannel> channels;
        const char* cause;
        const char* cure;
        const char* check;
        int folder_errno = 0;
    };
    const std::vector<Row> rows{
        {{}, "no IMEX channel node", "mknod", "FM-CHANNEL-001"},
        {{}, "no IMEX channel node", "mknod", "FM-CHANNEL-001", ENOENT},
        {{}, "can't be listed (errno 5)", "mknod", "FM-CHANNEL-001", EIO},
        {{}, "this user may not list it", "chmod 0755 /dev/nvidia-caps-imex-channels`", "FM-CHANNEL-002", EACCES},
        {{{.number = 0, .device_minor = 5}},
         "although IMEX channel 5 can be opened (the node is /dev/nvidia-caps-imex-channels/channel0 (channel 5",
         "again",
         "FM-CHANNEL-008"},
        {{{.number = 0, .open_errno = EACCES}},
         "mode or owner",
         "chmod 0666 /dev/nvidia-caps-imex-channels/",
         "FM-CHANNEL-002"},
        {{{.number = 2, .open_errno = EPERM}}, "device cgroup", "--device", "FM-CHANNEL-003"},
        {{{.number = 4095, .open_errno = ENXIO}}, "ImexChannelCount", "use a lower channel", "FM-CHANNEL-005"},
        {{{.number = 0, .open_errno = 0, .major_matches = false}},
         "major number",
         "make it again: `rm",
         "FM-CHANNEL-004"},
        {{{.number = 3, .open_errno = 0}},
         "although IMEX channel 3 can be opened",
         "start the process again",
         "FM-CHANNEL-008"},
        {{{.number = 0, .open_errno = EACCES}, {.number = 7, .open_errno = 0}},
         "although IMEX channel 7",
         "again",
         "FM-CHANNEL-008"},
    };
    for (const Row& row : rows) {
        CAPTURE(row.cause);
        const auto driver = std::make_shared<Refusing>(make_emulated_driver(), row.channels, row.folder_errno);
        const auto error = error_of([&] { FabricBuffer(driver, 1); });
        REQUIRE(error.has_value());
        INFO(error->what());
        CHECK(error->kind() == ErrorKind::not_permitted);
        CHECK(contains(error->details().cause, row.cause));
        CHECK(contains(error->details().cure, row.cure));
        CHECK(error->details().check == row.check);
        CHECK(contains(error->what(), std::string(". Check: ") + row.check));
    }
}

TEST_CASE("Memory that can't be exported is told from a refusal", "[buffer][fault]") {
    const auto emulated = make_emulated_driver();
    const auto driver = std::make_shared<FaultDriver>(emulated);
    driver->add({.call = "mem_export_to_shareable_handle", .result = CUDA_ERROR_INVALID_VALUE});
    const auto error = error_of([&] { FabricBuffer(driver, 1); });
    REQUIRE(error.has_value());
    CHECK(error->kind() == ErrorKind::unsupported);
    CHECK(contains(error->details().cause, "not created for fabric handles"));
    CHECK(emulated_counts(*emulated) == EmulatedCounts());
}

TEST_CASE("Another NVLink domain is told from a blob of the wrong size", "[buffer][fault]") {
    class Cliques : public Platform {
    public:
        explicit Cliques(std::uint32_t clique) : clique_(clique) {}
        [[nodiscard]] std::vector<ImexChannel> imex_channels() const override { return {{}}; }
        [[nodiscard]] std::optional<FabricInfo> fabric_info(std::string_view) const override {
            FabricInfo info;
            info.state = FabricInfo::State::completed;
            info.cluster_uuid.bytes.fill(9);
            info.clique = clique_;
            return info;
        }

    private:
        std::uint32_t clique_;
    };
    class Placed : public FaultDriver {
    public:
        Placed(std::shared_ptr<Driver> inner, std::uint32_t clique) : FaultDriver(std::move(inner)), place_(clique) {}
        [[nodiscard]] const Platform& platform() const noexcept override { return place_; }

    private:
        Cliques place_;
    };
    const auto emulated = make_emulated_driver();
    const auto exporter = std::make_shared<Placed>(emulated, 1);
    const FabricBuffer own(exporter, 1);
    REQUIRE(own.blob().fabric.has_value());
    CHECK(own.blob().fabric->clique == 1);
    struct Row {
        const char* call;
        CUresult result;
        ErrorKind elsewhere;
        ErrorKind same_clique;
    };
    for (const Row& row :
         {Row{"mem_import_from_shareable_handle", CUDA_ERROR_INVALID_HANDLE, ErrorKind::foreign_domain,
              ErrorKind::foreign_domain},
          Row{"mem_map", CUDA_ERROR_INVALID_VALUE, ErrorKind::foreign_domain, ErrorKind::bad_blob},
          Row{"mem_map", CUDA_ERROR_NOT_SUPPORTED, ErrorKind::foreign_domain, ErrorKind::bad_blob},
          Row{"mem_set_access", CUDA_ERROR_NOT_SUPPORTED, ErrorKind::foreign_domain, ErrorKind::unsupported}}) {
        CAPTURE(row.call, static_cast<int>(row.result));
        for (const std::uint32_t clique : {1U, 2U}) {
            CAPTURE(clique);
            const auto importer = std::make_shared<Placed>(emulated, clique);
            importer->add({.call = row.call, .result = row.result});
            const auto error = error_of([&] { ImportedFabricBuffer(importer, own.blob()); });
            REQUIRE(error.has_value());
            INFO(error->what());
            CHECK(error->kind() == (clique == 1 ? row.same_clique : row.elsewhere));
            if (clique == 2) CHECK(error->details().check == "FM-PEER-002");
            CHECK(contains(error->details().identity, "clique 1"));
            CHECK((clique == 1 || contains(error->details().identity, "clique 2")));
        }
    }
}

TEST_CASE("A handle of a node that does not exist points to the IMEX daemon", "[buffer][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const FabricBuffer own(driver, 1);
    HandleBlob blob = own.blob();
    blob.handle[16] ^= 0xffU;
    const auto error = error_of([&] { ImportedFabricBuffer(driver, blob); });
    REQUIRE(error.has_value());
    CHECK(error->kind() == ErrorKind::system);
    CHECK(error->code() == CUDA_ERROR_NOT_READY);
    CHECK(contains(error->details().cause, "IMEX daemon"));
}

TEST_CASE("Host memory is imported without host access where the driver refuses it", "[buffer][fault]") {
    class NoHost : public FaultDriver {
    public:
        using FaultDriver::FaultDriver;
        CUresult mem_set_access(CUdeviceptr address, std::size_t bytes, const CUmemAccessDesc* access,
                                std::size_t n) noexcept override {
            for (std::size_t i = 0; i < n; ++i) {
                if (access[i].location.type != CU_MEM_LOCATION_TYPE_DEVICE) return CUDA_ERROR_NOT_SUPPORTED;
            }
            return FaultDriver::mem_set_access(address, bytes, access, n);
        }
    };
    const auto emulated = make_emulated_driver();
    const FabricBuffer own(emulated, 1, {.location = Location::host_numa(0)});
    const auto driver = std::make_shared<NoHost>(emulated);
    const CapturedLog log;
    const ImportedFabricBuffer imported(driver, own.blob());
    CHECK_FALSE(imported.access().host);
    CHECK(imported.access().devices == std::vector<int>{0});
    CHECK(log.text().find("the host") != std::string::npos);
    CHECK(kind_of([&] { ImportedFabricBuffer(driver, own.blob(), {.host_access = HostAccess::required}); }) ==
          ErrorKind::unsupported);
}

TEST_CASE("Memory of another node is imported, with a location that this process does not see", "[buffer]") {
    const auto there = make_emulated_driver({.node = "there"});
    const auto here = make_emulated_driver({.node = "here"});
    CHECK(there->platform().boot_id() != here->platform().boot_id());
    CHECK(there->platform().host_id() != here->platform().host_id());
    const FabricBuffer own(there, 64);
    const ImportedFabricBuffer imported(here, own.blob());
    CHECK(imported.location() == Location::device(-1));
    const PrimaryContext context(here, 0);
    CHECK(here->memset_d8(pointer(imported), 3, 64) == CUDA_SUCCESS);
    const PrimaryContext other(there, 0);
    CHECK(read_back(*there, own) == std::vector<unsigned char>(64, 3));
}

TEST_CASE("Handle bytes are not logged above debug", "[buffer]") {
    const auto driver = make_emulated_driver();
    const CapturedLog log(LogLevel::info);
    FabricBuffer own(driver, 1);
    const HandleBlob blob = own.blob();
    const ImportedFabricBuffer imported(driver, blob);
    own.close();
    HandleBlob damaged = blob;
    damaged.handle[3] ^= 1U;
    const auto error = error_of([&] { ImportedFabricBuffer(driver, damaged); });
    REQUIRE(error.has_value());
    const std::string hex = damaged.bare_hex();
    for (std::size_t at = 0; at + 16 <= hex.size(); at += 16) {
        const std::string part = hex.substr(at, 16);
        if (part == std::string(16, '0')) continue;
        CHECK_FALSE(contains(error->what(), part));
        CHECK(log.text().find(part) == std::string::npos);
    }
}
