// SPDX-License-Identifier: Apache-2.0
// A library that is looked for at run time: what is missing is said, and nothing is linked.
#pragma once

#include <dlfcn.h>

#include <string>
#include <utility>

namespace bench {

/// Stays loaded until the process ends: such libraries have threads and exit handlers of their own.
class LoadedLibrary {
public:
    /// `flags` are dlopen's.
    LoadedLibrary(std::string file, int flags) : file_(std::move(file)), handle_(::dlopen(file_.c_str(), flags)) {
        if (handle_ != nullptr) return;
        const char* const why = ::dlerror();
        missing_ = why != nullptr ? why : file_ + " is not loaded";
    }

    /// False where it is not there; missing() says what is.
    template <class Function>
    bool find(Function& function, const char* name) {
        if (handle_ == nullptr) return false;
        function = reinterpret_cast<Function>(::dlsym(handle_, name));
        if (function == nullptr && missing_.empty()) missing_ = file_ + " has no " + name;
        return function != nullptr;
    }

    /// Empty: nothing was.
    [[nodiscard]] const std::string& missing() const noexcept { return missing_; }

private:
    std::string file_;
    void* handle_;
    std::string missing_{};
};

}  // namespace bench
