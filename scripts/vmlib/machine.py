# SPDX-License-Identifier: GPL-2.0
"""The machine: a QEMU command line and one boot of it, watched until it ends.

Always TCG: a /dev/kvm may exist and still not run these kernels. The guest's three outputs go to
files, written by QEMU itself, so that what was said before a SIGKILL is not lost with the killer.
"""
import os
import re
import signal
import subprocess
import tempfile
import time

from vmlib import autopsy
from vmlib.initramfs import BUILD, GuestError

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
# Without CMPXCHG16B: QEMU 7.2 computes the flags behind it from a stale mode, so an operand of an earlier
# instruction may come out as EFLAGS. The kernel's allocator uses it all the time, and an interrupt right
# behind it then returns with TF, DF or IF as chance has it: debug exceptions, memory written backwards.
# --icount adds: with ERMS the machine-check-safe copy is `rep movsb`, which counts once per byte.
CPU = "max,cx16=off"
POLL = 0.02  # seconds between two looks at the guest's output; bounds the delay of a power cut


def size_bytes(text):
    """'640M' -> bytes; None when the text is no size."""
    m = re.fullmatch(r"(\d+)([KMG]?)", text)
    return int(m.group(1)) * UNITS[m.group(2)] if m else None


def make_file(path, size):
    """A sparse file of `size` bytes; an existing one keeps its content."""
    with open(path, "ab") as f:
        if os.fstat(f.fileno()).st_size < size:
            f.truncate(size)


def copy_file(original, path):
    """A sparse, writable copy at `path`, which is returned. The original is only read.

    Not QEMU's snapshot=on: a disk with such an overlay stood still once, and a raw file is what all other
    disks of the tests are. A copy also keeps what was written over the boots of a run.
    """
    if os.path.exists(path):
        if os.path.samefile(original, path):
            raise GuestError(f"{original} is the file that its copy would replace")
        os.unlink(path)
    done = subprocess.run(["cp", "--sparse=always", "--reflink=auto", "--no-preserve=mode", "--", original, path],
                          stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise GuestError(done.stderr.strip())
    return path


class Memory:
    """Persistent memory of a guest: none, memmap[:SIZE] or nvdimm[:FILE[:SIZE]].

    memmap content goes with the guest; an NVDIMM's stays in its file, first byte of the device at 2 MiB.
    A file without a name is fresh for each run and is deleted with the run's folder.
    """

    def __init__(self, spec, folder):
        kind, _, rest = spec.partition(":")
        self.kind, self.file = kind, None
        if kind == "memmap":
            self.size = size_bytes(rest or "1G")
        elif kind == "nvdimm":
            name, _, size = rest.rpartition(":") if rest.count(":") else (rest, "", "")
            self.size = size_bytes(size or "640M")
            self.file = name or os.path.join(folder, "nvdimm.img")
            if not name and os.path.exists(self.file):
                os.unlink(self.file)
        elif kind == "none":
            self.size = 0
        else:
            raise GuestError(f"--memory {spec}: it is none, memmap[:SIZE] or nvdimm[:FILE[:SIZE]]")
        if self.size is None:
            raise GuestError(f"--memory {spec}: not a size")
        if self.file:
            make_file(self.file, self.size)
            self.size = os.path.getsize(self.file)

    def arguments(self, ram):
        """(QEMU arguments, words for the kernel's command line)."""
        if self.kind == "memmap":
            # All above 4 GiB is the pmem; what QEMU keeps below stays clear of it and of the initrd.
            low = min(ram, 3 << 30)
            return (["-machine", f"pc,max-ram-below-4g={low}", "-m", f"{(low + self.size) >> 20}M,slots=2,maxmem={(low + self.size + (4 << 30)) >> 20}M"],
                    [f"memmap={self.size >> 20}M!4G"])
        if self.kind == "nvdimm":
            return (["-machine", "pc,nvdimm=on", "-m", f"{ram >> 20}M,slots=2,maxmem={(ram + self.size + (1 << 30)) >> 20}M",
                     "-object", f"memory-backend-file,id=m1,share=on,mem-path={self.file},size={self.size}",
                     "-device", "nvdimm,id=nv1,memdev=m1"], [])
        return (["-machine", "pc", "-m", f"{ram >> 20}M"], [])


class Disk:
    """A virtio disk: FILE or SIZE, then ,key=value: serial, iops, block (logical block size), ro, snapshot.

    serial: the name by which the test finds it (default disk0, disk1, ...). snapshot=1: the guest
    writes to a copy of FILE that lasts for the run, over all its boots. ro=1: read-only.
    segments=N: its requests have at most N segments (2 less than a power of two).
    In place of FILE, twin=SERIAL: that disk once more, by a way on which every FLUSH fails.
    """

    def __init__(self, spec, index, folder, others=()):
        first, *rest = spec.split(",")
        opts = dict(r.partition("=")[::2] for r in rest)
        unknown = set(opts) - {"serial", "iops", "block", "segments", "ro", "snapshot"}
        if unknown:
            raise GuestError(f"--disk {spec}: unknown {', '.join(sorted(unknown))}")
        self.index, self.opts = index, opts
        self.serial = opts.get("serial", f"disk{index}")
        size = size_bytes(first)
        self.twins = first.startswith("twin=")
        if self.twins:
            first = next((d.file for d in others if "twin=" + d.serial == first), first)
        if size is None:
            self.file = first
            if not os.path.exists(first):
                raise GuestError(f"--disk {spec}: no such file, and not a size")
            if self.asked("snapshot"):
                self.file = copy_file(first, os.path.join(folder, f"{self.serial}.copy.img"))
        else:
            self.file = os.path.join(folder, f"{self.serial}.img")
            if os.path.exists(self.file):
                os.unlink(self.file)
            make_file(self.file, size)

    def asked(self, option):
        return self.opts.get(option, "0") not in ("0", "")

    def arguments(self):
        file = f"file={self.file}"
        if self.twins:
            file = f"file.driver=blkdebug,file.image.driver=file,file.image.filename={self.file},file.image.locking=off," \
                "file.inject-error.0.event=none,file.inject-error.0.iotype=flush,file.inject-error.0.errno=5"
        drive = f"{file},if=none,id=d{self.index},format=raw,cache=writeback"
        device = f"virtio-blk-pci,drive=d{self.index},serial={self.serial}"
        if "iops" in self.opts:
            drive += f",throttling.iops-total={self.opts['iops']}"
        if self.asked("ro"):
            drive += ",readonly=on"
        if "block" in self.opts:
            device += f",logical_block_size={self.opts['block']},physical_block_size={self.opts['block']}"
        if "segments" in self.opts:  # a request has two descriptors more
            device += f",queue-size={int(self.opts['segments']) + 2},seg-max-adjust=on"
        return ["-drive", drive, "-device", device]


class Streams:
    """The guest's outputs "kernel" and "test", read as whole lines and shown to the watcher."""

    def __init__(self, machine, watcher):
        self.watcher = watcher
        self.files = {name: open(machine.path(name), "rb") for name in ("kernel", "test")}
        self.left = dict.fromkeys(self.files, b"")

    def read(self, ended):
        """What the watcher wanted at the lines that came since; with `ended` an unfinished line counts."""
        wanted = []
        for name, f in self.files.items():
            *lines, self.left[name] = (self.left[name] + f.read()).split(b"\n")
            if ended and self.left[name]:
                lines.append(self.left[name])
            wanted += [self.watcher(name, line.decode(errors="replace").rstrip("\r")) for line in lines]
        return [want for want in wanted if want]


class Machine:
    """One configured guest; boot() may be called again and again over the same files."""

    def __init__(self, kernel, memory, disks, folder, cpus, ram, icount, append, journal, virtio_pmem=0,
                 possible_cpus=0):
        self.kernel, self.memory, self.disks, self.folder = kernel, memory, disks, folder
        self.cpus, self.ram, self.icount, self.append, self.journal = cpus, ram, icount, append, journal
        self.virtio_pmem, self.possible_cpus = virtio_pmem, possible_cpus

    def command(self, initrd, shell=False, monitor=None):
        args, words = self.memory.arguments(self.ram)
        cmd = ["qemu-system-x86_64", "-nodefaults", "-display", "none", "-no-reboot",
               "-cpu", CPU + (",erms=off,fsrm=off" if self.icount else ""), *args,
               "-kernel", self.kernel.image, "-initrd", initrd]
        if self.icount:
            cmd += ["-accel", "tcg", "-icount", "shift=0,sleep=off", "-smp", "1"]
        else:
            # Room for a second CPU even where one is asked for: QEMU 7.2 leaves the guest's memory barriers out
            # when there can only be one, though its disks run in another thread. Then virtio's "want an
            # interrupt from here on" and its look whether there is something already change places, and a
            # completion is never heard of (QEMU's c914d46d0a64, in 8.1, keeps the barriers). With icount
            # nothing helps; the tests that use it have their disks in the guest.
            present = max(self.cpus, self.possible_cpus)
            cmd += ["-accel", "tcg,thread=multi", "-smp", f"{present},maxcpus={max(present, 2)}"]
        for disk in self.disks:
            cmd += disk.arguments()
        if self.virtio_pmem:  # asynchronous: its stores need a flush by the host
            cmd += ["-object", f"memory-backend-ram,id=vp,size={self.virtio_pmem}",
                    "-device", "virtio-pmem-pci,memdev=vp,id=vp1"]
        if shell:
            cmd += ["-serial", "mon:stdio"]
        else:
            cmd += ["-monitor", f"unix:{monitor},server=on,wait=off"]
            for name in ("kernel", "test"):
                cmd += ["-chardev", f"file,id={name},path={self.path(name)}", "-serial", f"chardev:{name}"]
        if self.journal:
            # append: a journal goes on over the boots of one test. A debug console, since QEMU writes
            # a byte to the file before the guest's instruction ends: what was told is never lost in
            # a queue when QEMU is killed (virtio's and the serial port's drivers return earlier).
            cmd += ["-chardev", f"file,id=journal,path={self.journal},append=on",
                    "-device", "isa-debugcon,iobase=0x402,chardev=journal"]
        line = ["console=ttyS0", "quiet", "panic=-1", "oops=panic", "nokaslr", "mitigations=off",
                "rcupdate.rcu_cpu_stall_timeout=120",
                # The init script starts the others once the drivers of the memory are loaded: they patch the
                # kernel's text (static keys), and in QEMU 7.2 a CPU that runs there meanwhile may still see the
                # breakpoint when its handler has gone: "Oops: int3", once in a few hundred boots.
                "maxcpus=1", *autopsy.KERNEL_WORDS, *words, *self.append]
        return cmd + ["-append", " ".join(line)]

    def path(self, name):
        return os.path.join(self.folder, name + ".out")

    def shell(self, initrd):
        return subprocess.run(self.command(initrd, shell=True)).returncode

    def boot(self, initrd, deadline, watcher):
        """Runs the guest until it ends, `deadline` (time.monotonic) passes, or the watcher has it cut.

        watcher(stream, line) is called with each whole line of the streams "kernel" and "test" and
        returns None, or what to do: ("cut", lines, delay_s): SIGKILL after that many more lines in
        the journal and that many seconds. Returns "ended", "cut" or "timeout"; behind a timeout the
        watcher has seen what autopsy.py found, as lines of the stream "autopsy", and the kernel's traces.
        """
        for name in ("kernel", "test"):
            open(self.path(name), "wb").close()
        # The socket's name must be short, so it is not in the run's folder.
        with tempfile.TemporaryFile() as err, tempfile.TemporaryDirectory() as sockets:
            monitor = os.path.join(sockets, "monitor")
            qemu = subprocess.Popen(self.command(initrd, monitor=monitor), stdin=subprocess.DEVNULL,
                                    stdout=err, stderr=err, start_new_session=True)
            try:
                return self._watch(qemu, deadline, watcher, monitor)
            finally:
                if qemu.poll() is None:
                    qemu.send_signal(signal.SIGKILL)
                qemu.wait()
                if qemu.returncode not in (0, -signal.SIGKILL):
                    err.seek(0)
                    watcher("kernel", "qemu: " + err.read().decode(errors="replace").strip())

    def _watch(self, qemu, deadline, watcher, monitor):
        streams = Streams(self, watcher)
        cut = None
        while True:
            ended = qemu.poll() is not None
            for want in streams.read(ended):
                cut = {"lines": self.journal_lines() + want[1], "delay": want[2], "at": None}
            if ended:
                return "ended"
            now = time.monotonic()
            if cut and cut["at"] is None and self.journal_lines() >= cut["lines"]:
                cut["at"] = now + cut["delay"]
            if cut and cut["at"] is not None and now >= cut["at"]:
                return "cut"
            if now > deadline:
                self._autopsy(qemu, watcher, monitor, streams)
                return "timeout"
            time.sleep(POLL)

    def _autopsy(self, qemu, watcher, monitor, streams):
        """Shows the watcher what autopsy.look() finds, and what the kernel prints of the NMI."""
        for line in autopsy.look(monitor):
            watcher("autopsy", line)
        end = time.monotonic() + autopsy.NMI_WAIT
        while qemu.poll() is None and time.monotonic() < end:
            streams.read(False)
            time.sleep(POLL)
        streams.read(True)

    def journal_lines(self):
        if not self.journal or not os.path.exists(self.journal):
            return 0
        with open(self.journal, "rb") as f:
            return f.read().count(b"\n")


def run_folder(name):
    """Folder of one run's files: build/guest/NAME/."""
    path = os.path.join(BUILD, "guest", name)
    os.makedirs(path, exist_ok=True)
    return path
