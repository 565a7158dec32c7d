// SPDX-License-Identifier: Apache-2.0
// Asks one question of the driver under test: `fabricmem_test_measure NAME`; --list names them all.
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdio>
#include <exception>

#include "measure/measure.hpp"
#include "support/driver_under_test.hpp"

namespace fabricmem::test {

void Answers::begin(const std::string& key) {
    std::printf("%s = ", key.c_str());
    std::fflush(stdout);
}

void Answers::end(const std::string& answer) {
    std::printf("%s\n", answer.c_str());
    std::fflush(stdout);
}

void Answers::say(const std::string& key, const std::string& answer) {
    begin(key);
    end(answer);
}

namespace {

Questions all_questions() {
    Questions all;
    for (const auto& part : {questions_of_memory(), questions_of_addresses(), questions_of_pointers(),
                             questions_of_contexts(), questions_of_streams()}) {
        all.insert(all.end(), part.begin(), part.end());
    }
    return all;
}

int answer(const std::string& name) {
    for (const Question& question : all_questions()) {
        if (question.name != name) continue;
        const std::shared_ptr<Driver> driver = driver_under_test();
        Answers answers;
        question.ask(*driver, answers);
        std::fflush(stdout);
        if (testing_cuda()) ::_exit(0);  // without tear-down: that driver may be past it
        return 0;
    }
    std::fprintf(stderr, "fabricmem_test_measure: no question \"%s\"\n", name.c_str());
    return 2;
}

}  // namespace
}  // namespace fabricmem::test

int main(int argc, char** argv) {
    const rlimit no_core{0, 0};
    ::setrlimit(RLIMIT_CORE, &no_core);
    for (const int number : {SIGSEGV, SIGBUS, SIGABRT}) ::signal(number, SIG_DFL);  // a sanitizer would make it an exit
    const std::string name = argc > 1 ? argv[1] : "--list";
    if (name == "--list") {
        for (const auto& question : fabricmem::test::all_questions()) std::printf("%s\n", question.name.c_str());
        return 0;
    }
    try {
        return fabricmem::test::answer(name);
    } catch (const std::exception& error) {
        std::printf("no driver = %s\n", error.what());
        return 3;
    }
}
