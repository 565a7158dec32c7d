// SPDX-License-Identifier: Apache-2.0
// The table of checks. An id is never given to something else, and never taken back: docs/failures.md tells what is
// known of each. Sources: docs/driver-notes.md, NVIDIA's manuals, reports from the field.
#include <fabricmem/checks.hpp>

#include <algorithm>
#include <iterator>

#include "error/cures.hpp"

namespace fabricmem {
namespace {

constexpr Check kChecks[] = {
    // --- libcuda and the process ---
    {"FM-DRIVER-001",
     "libcuda.so.1 can be loaded",
     ErrorKind::unsupported,
     Side::here,
     {"", "install the NVIDIA driver, which brings libcuda.so.1",
      "start it with the NVIDIA container runtime: `docker run --gpus all`",
      "ask for a GPU in the pod: `resources.limits: nvidia.com/gpu`"}},
    {"FM-DRIVER-002",
     "the NVIDIA driver has every function that is needed",
     ErrorKind::unsupported,
     Side::here,
     {"", "install a driver of CUDA 12.0 or later (R525); fabric memory needs CUDA 12.3 (R545)",
      "use a host with a newer driver: the image does not bring it", "schedule onto nodes with a newer driver"}},
    {"FM-DRIVER-003",
     "this machine has an NVIDIA GPU, and this process may see it",
     ErrorKind::unsupported,
     Side::here,
     {"look at `nvidia-smi -L`", "look for the GPU with `lspci -d 10de:` and for NVRM in `dmesg`",
      "hand the GPUs in: `docker run --gpus all`", "ask for a GPU in the pod: `resources.limits: nvidia.com/gpu`"}},
    {"FM-DRIVER-004",
     "CUDA_VISIBLE_DEVICES leaves a GPU visible",
     ErrorKind::unsupported,
     Side::here,
     {"unset CUDA_VISIBLE_DEVICES, or name a GPU of `nvidia-smi -L` in it", "", "", ""}},
    {"FM-DRIVER-005",
     "libcuda and the kernel module are of one version",
     ErrorKind::system,
     Side::here,
     {"take cuda-compat and stub folders out of LD_LIBRARY_PATH",
      "after an upgrade of the driver reboot, or load the new module: `modprobe -r nvidia_uvm nvidia && modprobe "
      "nvidia`",
      "use the host's libcuda, not one of the image's", ""}},
    {"FM-DRIVER-006",
     "the kernel module is loaded, and its device files can be opened",
     ErrorKind::driver,
     Side::here,
     {"", "`nvidia-modprobe -u -c=0`, and look for NVRM in `dmesg`",
      "hand in /dev/nvidiactl, /dev/nvidia-uvm and the GPUs: `docker run --gpus all`",
      "ask for a GPU in the pod: `resources.limits: nvidia.com/gpu`"}},
    {"FM-DRIVER-007",
     "CUDA is not used in a forked child",
     ErrorKind::unsupported,
     Side::here,
     {"start the child with exec (in Python: multiprocessing's spawn), and make its driver there", "", "", ""}},
    {"FM-DRIVER-008",
     "the driver answers in time",
     ErrorKind::timed_out,
     Side::here,
     {"end the processes that use the GPU (`nvidia-smi` lists them)",
      "look for an Xid in `dmesg`; reset the GPU, or reboot", "", ""}},
    {"FM-DRIVER-009",
     "the driver does not crash",
     ErrorKind::driver,
     Side::here,
     {"", "look for an Xid in `dmesg`, and at the driver's release notes", "", ""}},
    {"FM-DRIVER-010",
     "the CUDA context is whole",
     ErrorKind::driver,
     Side::here,
     {"end the process; let memory be idle before it is destroyed", "look for an Xid in `dmesg`", "", ""}},

    // --- IMEX channels ---
    {"FM-CHANNEL-001",
     "there is an IMEX channel node",
     ErrorKind::not_permitted,
     Side::here,
     {"",
      "`mkdir -p /dev/nvidia-caps-imex-channels && mknod -m 0666 /dev/nvidia-caps-imex-channels/channel0 c $(awk "
      "'$2==\"nvidia-caps-imex-channels\"{print $1}' /proc/devices) 0`; "
      "for good: load the nvidia module with NVreg_CreateImexChannel0=1",
      "hand it in: `docker run --device /dev/nvidia-caps-imex-channels/channel0`, or NVIDIA_IMEX_CHANNELS=0 with the "
      "NVIDIA container runtime",
      "claim a channel of a ComputeDomain in the pod (NVIDIA's DRA driver)"}},
    {"FM-CHANNEL-002",
     "the channel node's mode lets this user open it",
     ErrorKind::not_permitted,
     Side::here,
     {"", "`chmod 0666 /dev/nvidia-caps-imex-channels/channel0`",
      "run as the node's owner, or mend its mode on the host", "mend its mode on the node"}},
    {"FM-CHANNEL-003",
     "the device cgroup lets this container open the channel node",
     ErrorKind::not_permitted,
     Side::here,
     {"", "",
      "give a device rule: `docker run --device /dev/nvidia-caps-imex-channels/channel0`, not a bind mount alone",
      "claim a channel of a ComputeDomain in place of a hostPath volume"}},
    {"FM-CHANNEL-004",
     "the channel node's major number is the driver's",
     ErrorKind::not_permitted,
     Side::here,
     {"",
      "make it again: `rm /dev/nvidia-caps-imex-channels/channel0 && mknod -m 0666 "
      "/dev/nvidia-caps-imex-channels/channel0 c $(awk '$2==\"nvidia-caps-imex-channels\"{print $1}' /proc/devices) 0`",
      "start the container again: the node that it was given is of an earlier boot, or of another host",
      "delete the pod, so that it is given the node anew"}},
    {"FM-CHANNEL-005",
     "the channel's number is below ImexChannelCount",
     ErrorKind::not_permitted,
     Side::here,
     {"",
      "use a lower channel, or load the nvidia module with a higher NVreg_ImexChannelCount (`grep ImexChannelCount "
      "/proc/driver/nvidia/params`)",
      "hand in a lower channel", ""}},
    {"FM-CHANNEL-006",
     "the driver has IMEX channels (ImexChannelCount is above 0)",
     ErrorKind::unsupported,
     Side::here,
     {"", "load the nvidia module with NVreg_ImexChannelCount above 0 (2048 is its default)", "mend it on the host",
      "mend it on the node"}},
    {"FM-CHANNEL-007",
     "exporter and importer hold one channel",
     ErrorKind::not_permitted,
     Side::between,
     {"start both where channel nodes with the same lowest number can be opened: a process keeps the first that it can "
      "open",
      "", "hand the same channel into both containers", "use one ComputeDomain for both pods"}},
    {"FM-CHANNEL-008",
     "the channel could be opened when CUDA was initialised",
     ErrorKind::not_permitted,
     Side::here,
     {"start the process again: it looks for a channel once",
      "check the node's minor number against ImexChannelCount (`grep ImexChannelCount /proc/driver/nvidia/params`)", "",
      ""}},
    {"FM-CHANNEL-009",
     "the channel node's name has its minor number",
     ErrorKind::not_permitted,
     Side::here,
     {"",
      "make it again as channelN with the minor number N: `mknod -m 0666 /dev/nvidia-caps-imex-channels/channel0 c "
      "$(awk '$2==\"nvidia-caps-imex-channels\"{print $1}' /proc/devices) 0`",
      "hand the node in under its own name", "delete the pod, so that it is given the node anew"}},

    // --- devices and the NVLink fabric ---
    {"FM-FABRIC-001",
     "the device has fabric handles (attribute 128)",
     ErrorKind::unsupported,
     Side::here,
     {"use another kind of memory on this device (file descriptors work within a node)", "", "", ""}},
    {"FM-FABRIC-002",
     "the device grants the handle types that it takes requests for",
     ErrorKind::unsupported,
     Side::here,
     {"use another handle kind on this device", "", "", ""}},
    {"FM-FABRIC-003",
     "the GPU has joined the NVLink fabric",
     ErrorKind::system,
     Side::here,
     {"wait for it: it takes minutes after a boot",
      "HGX: `systemctl restart nvidia-fabricmanager`, and look at its log; GB200, GB300: look at the rack's NVLink "
      "partition (the host's own Fabric Manager has to be off)",
      "", ""}},
    {"FM-FABRIC-004",
     "the machine's NVLink fabric is up",
     ErrorKind::system,
     Side::here,
     {"",
      "HGX: start nvidia-fabricmanager, of the driver's version; GB200, GB300: the host's own Fabric Manager has to be "
      "off, look at the rack's NVLink partition",
      "", ""}},
    {"FM-FABRIC-005",
     "the GPU's place in the NVLink fabric is well",
     ErrorKind::system,
     Side::here,
     {"", "look at `nvidia-smi -q` (Fabric), at the Fabric Manager's log, and at the switches' (NMX)", "", ""}},
    {"FM-FABRIC-006",
     "joining the NVLink fabric succeeded",
     ErrorKind::system,
     Side::here,
     {"", "look at the Fabric Manager's log, and at the rack's NVLink partition", "", ""}},
    {"FM-FABRIC-007",
     "the GPU is part of a multi-node NVLink domain",
     ErrorKind::unsupported,
     Side::here,
     {"", "GB200, GB300: give the GPU a place in an NVLink partition (NMX); no HGX box has this", "", ""}},
    {"FM-FABRIC-008",
     "no GPU waits for a recovery action",
     ErrorKind::system,
     Side::here,
     {"", "do what `nvidia-smi -q` (GPU Recovery Action) asks for", "",
      "drain the node, and do what `nvidia-smi -q` (GPU Recovery Action) asks for"}},
    {"FM-FABRIC-009",
     "the NVLink peers of this process's memory live",
     ErrorKind::driver,
     Side::here,
     {"end the process: the error is sticky", "look for the node that was lost, and for an Xid in `dmesg`", "", ""}},
    {"FM-FABRIC-010",
     "host memory can travel to other nodes (attribute 143)",
     ErrorKind::unsupported,
     Side::here,
     {"use device memory between nodes", "", "", ""}},

    // --- the IMEX daemon ---
    {"FM-IMEX-001",
     "this node's IMEX daemon runs",
     ErrorKind::system,
     Side::here,
     {"", "`systemctl start nvidia-imex`, with all nodes of the domain in /etc/nvidia-imex/nodes_config.cfg",
      "start it on the host", "use a ComputeDomain, which runs it"}},
    {"FM-IMEX-002",
     "this node's IMEX daemon did not die with memory exported",
     ErrorKind::system,
     Side::here,
     {"", "`systemctl restart nvidia-imex`; fabric memory stays off until it is back", "",
      "look at the ComputeDomain's daemon pods"}},
    {"FM-IMEX-003",
     "the IMEX domain is up",
     ErrorKind::system,
     Side::here,
     {"", "`nvidia-imex-ctl -N` lists the nodes: start nvidia-imex on those that are missing", "",
      "look at the ComputeDomain's daemon pods"}},
    {"FM-IMEX-004",
     "the IMEX daemon answers in time",
     ErrorKind::timed_out,
     Side::unknown,
     {"try again with the lost peers gone",
      "`nvidia-imex-ctl -N` lists the nodes: mend or remove those that are lost, then restart nvidia-imex", "",
      "look at the ComputeDomain's daemon pods"}},
    {"FM-IMEX-005",
     "the exporter's IMEX daemon ran when the memory was exported",
     ErrorKind::peer_gone,
     Side::there,
     {"export it anew (export_again()) once that node's nvidia-imex is READY: the old handle works on its own node "
      "alone, for ever",
      "", "", ""}},
    {"FM-IMEX-006",
     "nvidia-imex-ctl says what can be understood",
     ErrorKind::system,
     Side::here,
     {"", "run `nvidia-imex-ctl -N -j` by hand", "", ""}},

    // --- the steps of an allocation's life ---
    {"FM-MEMORY-001",
     "memory can be created",
     ErrorKind::driver,
     Side::here,
     {"", "look for an Xid in `dmesg`, and for the code in the driver's documentation", "", ""}},
    {"FM-MEMORY-002",
     "size, place and handle types are ones that the driver takes",
     ErrorKind::bad_argument,
     Side::here,
     {"look at the size, the place and the handle types", "", "", ""}},
    {"FM-MEMORY-003",
     "there is memory left",
     ErrorKind::out_of_memory,
     Side::here,
     {"free memory, or ask for less (`nvidia-smi` tells who has it)", "", "", ""}},
    {"FM-MEMORY-004",
     "the memory was created for the kind of handle that is asked for",
     ErrorKind::unsupported,
     Side::here,
     {"use another handle kind; of imported memory send the original handle on", "", "", ""}},
    {"FM-MEMORY-005",
     "an own handle can be imported",
     ErrorKind::driver,
     Side::here,
     {"", "look for an Xid in `dmesg`", "", ""}},
    {"FM-MEMORY-006",
     "addresses can be reserved",
     ErrorKind::driver,
     Side::here,
     {"unmap what is not needed, ask for a smaller alignment, or raise `ulimit -v`", "", "", ""}},
    {"FM-MEMORY-007",
     "memory can be mapped",
     ErrorKind::driver,
     Side::here,
     {"", "look for an Xid in `dmesg`", "", ""}},
    {"FM-MEMORY-008",
     "those who are to have access get it",
     ErrorKind::driver,
     Side::here,
     {"ask for access by the memory's own device, and name devices that this process sees (CUDA_VISIBLE_DEVICES)", "",
      "", ""}},
    {"FM-MEMORY-009",
     "what a GPU writes through an import arrives",
     ErrorKind::driver,
     Side::here,
     {"", "look for an Xid in `dmesg`; test the GPU", "", ""}},
    {"FM-MEMORY-010",
     "memory can be given back",
     ErrorKind::driver,
     Side::here,
     {"let the buffer alone take down what it made; who keeps its handle has to release it", "", "", ""}},
    {"FM-MEMORY-011",
     "the GPU gets to new work in time",
     ErrorKind::timed_out,
     Side::here,
     {"look for a kernel that never ends (`nvidia-smi`)", "", "", ""}},

    // --- two sides ---
    {"FM-PEER-001",
     "the exporter lives and has the memory",
     ErrorKind::peer_gone,
     Side::there,
     {"ask the exporter for a new handle, and look at its log", "", "", ""}},
    {"FM-PEER-002",
     "both sides are in one NVLink domain and clique",
     ErrorKind::foreign_domain,
     Side::between,
     {"run both in one rack and partition", "look at the rack's NVLink partitions (NMX): both GPUs have to be in one",
      "", "put both into one ComputeDomain, and on nodes with one value of the label nvidia.com/gpu.clique"}},
    {"FM-PEER-003",
     "both sides' nodes are in one IMEX domain",
     ErrorKind::foreign_domain,
     Side::unknown,
     {"", "/etc/nvidia-imex/nodes_config.cfg has to list both nodes, on each: then `systemctl restart nvidia-imex`", "",
      "use one ComputeDomain for both pods"}},
    {"FM-PEER-004",
     "this process sees the exporter's GPU",
     ErrorKind::unsupported,
     Side::here,
     {"make all GPUs of the node visible to all its processes (CUDA_VISIBLE_DEVICES)", "",
      "hand all GPUs into each container: `docker run --gpus all`", "run the node's processes in one pod"}},
    {"FM-PEER-005",
     "the bytes are what a peer of this library sends",
     ErrorKind::bad_blob,
     Side::there,
     {"look at what carries them, and at the versions of both sides", "", "", ""}},
    {"FM-PEER-006",
     "the peer has fabric memory to export",
     ErrorKind::unsupported,
     Side::there,
     {"run fabricmem-doctor on the peer's side", "", "", ""}},
    {"FM-PEER-007",
     "the peer answers in time",
     ErrorKind::timed_out,
     Side::unknown,
     {"look at the peer's log, and whether what is sent to it arrives", "", "", ""}},
    {"FM-PEER-008",
     "the peer's memory holds what the peer wrote",
     ErrorKind::driver,
     Side::unknown,
     {"", "look for an Xid in `dmesg` of both nodes; test the NVLinks (`nvidia-smi nvlink -e`)", "", ""}},
    {"FM-PEER-009",
     "the peer can import this process's memory",
     ErrorKind::driver,
     Side::unknown,
     {"look at the peer's own report: it names the cause", "", "", ""}},

    // --- what is looked at beside ---
    {"FM-NVML-001",
     "NVML can be loaded, and answers",
     ErrorKind::system,
     Side::here,
     {"", "install the NVIDIA driver's libnvidia-ml.so.1", "start it with NVIDIA_DRIVER_CAPABILITIES=compute,utility",
      "set NVIDIA_DRIVER_CAPABILITIES=compute,utility in the pod"}},
    {"FM-NVML-002",
     "CUDA sees the GPUs that NVML sees",
     ErrorKind::unsupported,
     Side::here,
     {"unset CUDA_VISIBLE_DEVICES, unless they are meant to be hidden", "", "", ""}},
};

}  // namespace

std::string_view to_string(Side side) noexcept {
    switch (side) {
        case Side::none: return "none";
        case Side::here: return "here";
        case Side::there: return "there";
        case Side::between: return "between";
        case Side::unknown: return "unknown";
    }
    return "unknown";
}

std::span<const Check> all_checks() noexcept { return kChecks; }

const Check* find_check(std::string_view id) noexcept {
    const auto* const found =
        std::find_if(std::begin(kChecks), std::end(kChecks), [&](const Check& check) { return check.id == id; });
    return found == std::end(kChecks) ? nullptr : found;
}

Side side_of(const Error& error) noexcept {
    const Check* const check = find_check(error.details().check);
    return check == nullptr ? Side::unknown : check->side;
}

std::string detail::in_words(const Cures& cures) {
    std::string text;
    const auto add = [&](std::string_view who, std::string_view what) {
        if (what.empty()) return;
        if (!text.empty()) text += "; ";
        text.append(who).append(what);
    };
    add("", cures.user);
    add("as administrator: ", cures.bare_metal);
    add("in a container: ", cures.container);
    add("in Kubernetes: ", cures.kubernetes);
    return text;
}

std::string detail::cure_of(std::string_view id) {
    const Check* const check = find_check(id);
    return check == nullptr ? std::string() : in_words(check->cures);
}

}  // namespace fabricmem
