// SPDX-License-Identifier: Apache-2.0
// Every driver call of every public operation fails, once for each kind of failure: one typed error, nothing leaked,
// and the next try succeeds. The operations are a table (support/operations.hpp) that the headers and the seam are
// compared with.
#include <algorithm>
#include <cctype>
#include <cstdio>
#include <set>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "support/buffers.hpp"
#include "support/expect_error.hpp"
#include "support/operations.hpp"
#include "support/public_functions.hpp"
#include "support/test.hpp"

using namespace fabricmem;
using namespace fabricmem::test;

// The sanitizers look for what one result and one broken driver show, and are slow.
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define FAULT_LOOP_SANITIZED
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define FAULT_LOOP_SANITIZED
#endif

namespace {

#if defined(FAULT_LOOP_SANITIZED)
constexpr bool kAllResults = false;
#else
constexpr bool kAllResults = true;
#endif
#undef FAULT_LOOP_SANITIZED

// A failed call that is no failure of the operation's, and why. Each has to occur.
struct Exempt {
    const char* call;
    std::vector<CUresult> results;  // empty: every one
    const char* functions;          // how their names begin
    const char* reason;
    std::size_t met = 0;
};

std::vector<Exempt> exemptions() {
    constexpr const char* kOwn = "FabricBuffer::FabricBuffer";
    const std::vector<CUresult> refusals{CUDA_ERROR_NOT_SUPPORTED, CUDA_ERROR_NOT_PERMITTED, CUDA_ERROR_INVALID_VALUE};
    const char* const at_exit = "the driver has shut down at exit and has taken everything with it";
    const char* const attribute = "a driver that is older than the attribute: as if the device did not have it";
    const char* const refused = "access that is refused to all at once is asked for one by one";
    const char* const context = "without an answer the device's primary context is taken";
    const char* const question = "asks whether memory that is given back is still referenced";
    const char* const bounce = "what the memory is copied to is given back by a destructor, which logs";
    const char* const capture = "only opts out of what other threads' captures forbid";
    return {
        {"device_get_attribute", {CUDA_ERROR_INVALID_VALUE}, "", attribute},
        {"mem_set_access", refusals, "", refused},
        {"ctx_get_current", {}, "", context},
        {"ctx_get_device", {}, "", context},
        {"thread_exchange_stream_capture_mode", {}, "", capture},
        {"ctx_pop_current", {}, "", "the caller's context is put back by a destructor, which logs"},
        {"device_primary_ctx_release", {}, "", "given back by a destructor, which logs"},
        {"stream_destroy", {CUDA_ERROR_DEINITIALIZED}, kOwn, at_exit},
        {"stream_destroy", {}, "probe", "given back by a destructor, which logs"},
        {"stream_destroy", {}, "make_peer_probe", "given back by a destructor, which logs"},
        {"stream_destroy", {}, "check_peer_probe", "given back by a destructor, which logs"},
        {"mem_unmap", {}, "check_peer_probe", bounce},
        {"mem_release", {}, "check_peer_probe", bounce},
        {"mem_address_free", {}, "check_peer_probe", bounce},
        {"stream_destroy", {CUDA_ERROR_DEINITIALIZED}, "FlagSlots", at_exit},
        {"mem_unmap", {CUDA_ERROR_DEINITIALIZED}, "", at_exit},
        {"mem_release", {CUDA_ERROR_DEINITIALIZED}, "", at_exit},
        {"mem_address_free", {CUDA_ERROR_DEINITIALIZED}, "", at_exit},
        {"mem_import_from_shareable_handle", {}, "FabricBuffer::close", question},
        {"mem_import_from_shareable_handle", {}, "Arena::close", question},
        {"mem_import_from_shareable_handle", {}, "probe", question},
        {"mem_import_from_shareable_handle",
         {CUDA_ERROR_NOT_SUPPORTED},
         "import_if_alive",
         "nullopt: the peer is gone"},
    };
}

// "mem_create" and "cuMemCreate" alike.
std::string plain(std::string_view name) {
    if (name.substr(0, 2) == "cu") name.remove_prefix(2);
    std::string letters;
    for (const char letter : name) {
        if (letter != '_') letters += static_cast<char>(std::tolower(static_cast<unsigned char>(letter)));
    }
    return letters;
}

enum class Extent { one_call, all_from_there };

struct Failure {
    CUresult result;
    Extent extent = Extent::one_call;
};

// The context that is current meanwhile; none where `device` is -1.
struct Current {
    Current(const World& world, int device) {
        if (device >= 0) context.emplace(world.emulated, device);
    }
    std::optional<PrimaryContext> context;
};

class Loop {
public:
    // Fails call 1, 2, 3 ... until the operation makes no further one.
    void run(const Operation& operation, const Failure& failure, int current_device) {
        const Current current(world_, current_device);
        before_ = held();
        before_descriptors_ = open_descriptors();
        for (std::uint64_t number = 1;; ++number) {
            where_ = operation.name + ", call " + std::to_string(number) + " fails with " +
                     std::to_string(static_cast<int>(failure.result)) +
                     (failure.extent == Extent::one_call ? "" : " and all later ones") + ", context of " +
                     std::to_string(current_device);
            if (!fails(operation, failure, number)) break;
            ++faults_;
        }
    }

    [[nodiscard]] std::string wrong() const {
        std::ostringstream text;
        text << wrong_.size() << " wrong\n";
        for (std::size_t i = 0; i < std::min<std::size_t>(wrong_.size(), 20); ++i) text << wrong_[i] << '\n';
        return text.str();
    }
    [[nodiscard]] bool good() const { return wrong_.empty(); }
    [[nodiscard]] std::size_t faults() const { return faults_; }
    [[nodiscard]] std::size_t leaks() const { return leaks_; }
    [[nodiscard]] const std::vector<Exempt>& exempt() const { return exempt_; }

private:
    struct Held {
        EmulatedCounts counts;
        CUcontext current = nullptr;
        friend bool operator==(const Held&, const Held&) = default;
    };
    struct Told {
        std::optional<Error> error;
        std::string log;
        bool threw_something_else = false;
    };

    // False where the operation made fewer calls.
    bool fails(const Operation& operation, const Failure& failure, std::uint64_t number) {
        Scene scene(world_);
        operation.prepare(scene);
        scene.driver->forget();
        for (std::uint64_t i = 0; i < (failure.extent == Extent::one_call ? 1 : 100); ++i)
            scene.driver->add({.number = number + i, .result = failure.result});
        const Told told = act(operation, scene);
        const bool met = scene.driver->met() != 0;
        const std::string call = met ? scene.driver->calls()[number - 1] : "";
        where_ += " (" + call + ")";
        check_told(operation, failure, told, call);
        expect(held().current == before_.current, "another context is current");
        scene.driver->clear();
        give_back(scene, "after the failure");
        succeeds(operation, scene);
        return met;
    }

    void succeeds(const Operation& operation, Scene& scene) {
        operation.prepare(scene);
        const Told told = act(operation, scene);
        expect(!told.error.has_value() && !told.threw_something_else && told.log.empty(), "the next one fails too");
        give_back(scene, "after the next one");
        if (open_descriptors() == before_descriptors_) return;
        ++leaks_;
        expect(false, "leaks a descriptor");
    }

    // What was made ends, and all is as it was but for the addresses that were to be retired.
    void give_back(Scene& scene, const char* when) {
        scene.clear();
        before_.counts.ranges += std::exchange(scene.retired, 0);
        const Held now = held();
        if (now == before_) return;
        ++leaks_;
        std::ostringstream text;
        text << "leaks " << when << ": allocations " << now.counts.allocations << " for " << before_.counts.allocations
             << ", handles " << now.counts.handles << " for " << before_.counts.handles << ", ranges "
             << now.counts.ranges << " for " << before_.counts.ranges << ", mappings " << now.counts.mappings << " for "
             << before_.counts.mappings << ", streams " << now.counts.streams << ", contexts "
             << now.counts.primary_contexts;
        expect(false, text.str());
        before_ = now;  // told once
    }

    [[nodiscard]] Held held() const {
        CUcontext current = nullptr;
        world_.emulated->ctx_get_current(&current);
        return {emulated_counts(*world_.emulated), current};
    }

    static Told act(const Operation& operation, Scene& scene) {
        const CapturedLog log(LogLevel::warning);
        Told told;
        try {
            operation.act(scene);
            told.error = scene.answer();
        } catch (const Error& error) {
            told.error = error;
        } catch (...) {
            told.threw_something_else = true;
        }
        told.log = log.text();
        return told;
    }

    void check_told(const Operation& operation, const Failure& failure, const Told& told, const std::string& call) {
        expect(!told.threw_something_else, "throws what is no Error");
        if (call.empty()) {
            expect(!told.error.has_value() && told.log.empty(), "fails without a fault");
            return;
        }
        if (told.error.has_value()) {
            expect(told.error->code() == static_cast<int>(failure.result), "has another code");
            expect(kind_fits(told.error->kind(), failure.result), "is of a kind that does not fit");
            if (failure.extent == Extent::one_call)
                expect(plain(told.error->details().call) == plain(call), "names " + told.error->details().call);
            return;
        }
        if (failure.extent == Extent::all_from_there && is_exempt(operation, call, failure.result) != nullptr) return;
        if (operation.told == test::Told::logged && plain(told.log).find(plain(call)) != std::string::npos) return;
        Exempt* const exempt = is_exempt(operation, call, failure.result);
        expect(exempt != nullptr, "is told to nobody");
        if (exempt != nullptr) ++exempt->met;
    }

    static bool kind_fits(ErrorKind kind, CUresult result) {
        switch (static_cast<int>(result)) {
            case CUDA_ERROR_OUT_OF_MEMORY: return kind == ErrorKind::out_of_memory;
            case CUDA_ERROR_NOT_PERMITTED: return kind == ErrorKind::not_permitted;
            case CUDA_ERROR_DEINITIALIZED: return kind == ErrorKind::closed;
            case CUDA_ERROR_UNKNOWN: return kind == ErrorKind::driver;
            default: return true;
        }
    }

    Exempt* is_exempt(const Operation& operation, const std::string& call, CUresult result) {
        for (Exempt& exempt : exempt_) {
            const bool of_result = exempt.results.empty() || std::find(exempt.results.begin(), exempt.results.end(),
                                                                       result) != exempt.results.end();
            if (exempt.call == call && of_result && operation.function.rfind(exempt.functions, 0) == 0) return &exempt;
        }
        return nullptr;
    }

    void expect(bool good, const std::string& what) {
        if (!good) wrong_.push_back(where_ + ": " + what);
    }

    World world_;
    Held before_;
    std::size_t before_descriptors_ = 0;
    std::vector<Exempt> exempt_ = exemptions();
    std::vector<std::string> wrong_;
    std::string where_;
    std::size_t faults_ = 0;
    std::size_t leaks_ = 0;
};

// The calls that the operation makes where nothing fails.
std::vector<std::string> calls_of(const World& world, const Operation& operation, int current_device) {
    const Current current(world, current_device);
    Scene scene(world);
    operation.prepare(scene);
    scene.driver->forget();
    operation.act(scene);
    return scene.driver->calls();
}

bool covers(const Untried& untried, const std::string& function) {
    const std::size_t star = untried.functions.rfind("::*");
    if (star == std::string::npos) return untried.functions == function;
    return function.rfind(untried.functions.substr(0, star + 2), 0) == 0 &&
           function.find("Driver", function.find('(')) == std::string::npos;
}

}  // namespace

TEST_CASE("Each driver call of each operation can fail without a leak", "[fault][loop]") {
    Loop loop;
    for (const Operation& operation : operations()) {
        loop.run(operation, {CUDA_ERROR_OUT_OF_MEMORY}, -1);
        loop.run(operation, {CUDA_ERROR_UNKNOWN, Extent::all_from_there}, -1);
        const bool needs_context = contains(operation.name, "zeroed") || contains(operation.name, "probe");
        if (needs_context) {
            for (const int device : {0, 1}) loop.run(operation, {CUDA_ERROR_OUT_OF_MEMORY}, device);
        }
        if (!kAllResults) continue;
        for (const CUresult result : {CUDA_ERROR_NOT_SUPPORTED, CUDA_ERROR_NOT_PERMITTED, CUDA_ERROR_INVALID_VALUE,
                                      CUDA_ERROR_UNKNOWN, CUDA_ERROR_DEINITIALIZED})
            loop.run(operation, {result}, -1);
    }
    INFO(loop.wrong());
    CHECK(loop.good());
    CHECK(loop.leaks() == 0);
    for (const Exempt& exempt : loop.exempt()) {
        CAPTURE(exempt.call, exempt.functions, exempt.reason);
        if (kAllResults) CHECK(exempt.met > 0);
    }
    CHECK(loop.faults() > operations().size() * 10);
    std::printf("fault loop: %zu operations, %zu faults tried, %zu leaks\n", operations().size(), loop.faults(),
                loop.leaks());
}

TEST_CASE("Every public function is in the table of operations, or makes no driver call", "[fault][loop]") {
    const PublicFunctions functions(std::filesystem::path(FABRICMEM_SOURCE_DIR "/include/fabricmem"));
    REQUIRE(functions.all().size() > 200);
    std::set<std::string> tried;
    for (const Operation& operation : operations()) tried.insert(operation.function);
    for (const Quiet& quiet : quiet_functions()) CHECK(tried.insert(quiet.function).second);
    std::set<std::string> covering;
    for (const std::string& function : functions.all()) {
        CAPTURE(function);
        std::size_t covered = tried.count(function);
        for (const Untried& untried : untried_functions()) {
            if (!covers(untried, function)) continue;
            ++covered;
            covering.insert(untried.functions);
        }
        CHECK(covered == 1);
    }
    // Nothing in the table that is not in the headers any more.
    for (const std::string& function : tried) {
        CAPTURE(function);
        CHECK(std::count(functions.all().begin(), functions.all().end(), function) == 1);
    }
    for (const Untried& untried : untried_functions()) {
        CAPTURE(untried.functions, untried.reason);
        CHECK(covering.count(untried.functions) == 1);
    }
}

TEST_CASE("A new public function is seen in the headers, however it is written", "[loop]") {
    const PublicFunctions functions(std::string_view(R"(
        // FABRICMEM_API void commented_out();
        #define FABRICMEM_API __attribute__((visibility("default")))
        namespace fabricmem {
        class Forward;
        struct Plain { void not_promised(); };
        enum class Kind : std::uint8_t { a, b };
        [[nodiscard]] FABRICMEM_API std::optional<Thing> free_one(
            const Options& options = {},   // ; {
            int (*callback)(int) = nullptr);
        void private_one();
        class FABRICMEM_API Promised : public Plain {
            void hidden();
        public:
            explicit Promised(int value) noexcept : value_(value) { call(); }
            Promised(const Promised&) = delete;
            ~Promised() override;
            Promised& operator=(Promised&&) noexcept;
            [[nodiscard]] bool inline_one() const noexcept { return value_ != 0; }
            static constexpr int kNumber = 3;
            friend bool operator==(const Promised&, const Promised&) = default;
        protected:
            void hidden_too();
        public:
            virtual void last(int a, int b) = 0;
        private:
            int value_{};
        };
        struct FABRICMEM_API Open { int field{}; void member(); };
        }
    )"));
    CHECK(functions.all() ==
          std::vector<std::string>{"free_one( const Options& options = {}, int (*callback)(int) = nullptr)",
                                   "Promised::Promised(int value)", "Promised::~Promised()",
                                   "Promised::operator=(Promised&&)", "Promised::inline_one()",
                                   "Promised::operator==(const Promised&, const Promised&)",
                                   "Promised::last(int a, int b)", "Open::member()"});
}

TEST_CASE("Functions that are said to make no driver call make none", "[fault][loop]") {
    const World world;
    for (const Quiet& quiet : quiet_functions()) {
        CAPTURE(quiet.function);
        Scene scene(world);
        quiet.act(scene);
        CHECK(scene.driver->calls().empty());
    }
    // What reads of a buffer that was closed or moved from makes none either.
    Scene scene(world);
    FabricBuffer closed(scene.driver, 1);
    closed.close();
    scene.driver->forget();
    CHECK(closed.address() == nullptr);
    CHECK(kind_of([&] { static_cast<void>(closed.blob()); }) == ErrorKind::closed);
    CHECK(closed.close() == CloseResult::released);
    CHECK(scene.driver->calls().empty());
}

TEST_CASE("Every call of the seam is made by an operation, or is listed as one that is not", "[fault][loop]") {
    const World world;
    std::set<std::string> made;
    for (const Operation& operation : operations()) {
        for (const int device : {-1, 1}) {
            const std::vector<std::string> calls = calls_of(world, operation, device);
            CAPTURE(operation.name);
            CHECK_FALSE(calls.empty());  // else it belongs to the functions that make none
            made.insert(calls.begin(), calls.end());
        }
    }
    std::set<std::string> listed;
    for (const Unmade& unmade : unmade_calls()) CHECK(listed.insert(unmade.call).second);
    for (const std::string& call : FaultDriver::call_names()) {
        CAPTURE(call);
        CHECK(made.count(call) + listed.count(call) == 1);
    }
    const std::vector<std::string>& names = FaultDriver::call_names();
    for (const std::string& call : listed) {
        CAPTURE(call);
        CHECK(std::count(names.begin(), names.end(), call) == 1);
    }
}
