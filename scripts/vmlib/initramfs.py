# SPDX-License-Identifier: GPL-2.0
"""The guest's initramfs: a base per kernel, cached by content, and a small overlay per boot.

The base holds busybox, the real tools, their libraries and the kernel modules with all they depend
on; it changes rarely and costs seconds, so it lies compressed in build/guest/base/ under the hash of
what is in it. The overlay holds init, the tests, dm-pcache.ko and the settings of one boot; it is
made anew each time and costs milliseconds. The kernel unpacks the two one after the other.

Invariants: a base appears under its name only when it is complete; two runners may build the same
base at once, and the last rename wins with equal content.
"""
import hashlib
import os
import shutil
import subprocess
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(ROOT, "build")

# Name in the guest -> names by which the host may have it.
TOOLS = {
    "dmsetup": [], "fio": [], "dd": [], "ndctl": [], "kmod": [], "cmp": [], "sfdisk": [],
    "mkfs.ext4": ["mke2fs"], "fsck.ext4": ["e2fsck"], "sha256sum": [], "stat": [], "cp": [],
    "truncate": [], "sync": [], "timeout": [], "losetup": [],
}
KMOD_NAMES = ("modprobe", "insmod", "rmmod", "modinfo", "lsmod", "depmod")

# Loaded at boot; a kernel that has one of them built in, or not at all, does without.
BOOT_MODULES = ["virtio_pci", "virtio_blk", "virtio_console", "nfit", "nd_pmem", "nd_e820", "virtio_pmem", "dm_mod",
                "ext4", "libcrc32c", "crc32c_generic", "crc32c_intel"]
# There for tests that ask for them.
SPARE_MODULES = ["dm_flakey", "dm_writecache", "dm_delay", "dm_snapshot", "dm_log_writes", "dm_crypt",
                 "brd", "null_blk", "scsi_debug", "loop", "virtio_scsi"]


class GuestError(Exception):
    """Something the runner cannot do, as one sentence."""


class Kernel:
    """A kernel under build/kernels/, fetched when it is not there yet."""

    def __init__(self, series):
        link = os.path.join(BUILD, "kernels", series)
        if not os.path.exists(os.path.join(link, "stamp")):
            if subprocess.run([os.path.join(ROOT, "scripts/fetch-kernels"), series]).returncode:
                raise GuestError(f"no kernel {series}")
        self.series = series
        self.release = os.path.basename(os.path.realpath(link))
        self.root = os.path.realpath(link)
        self.image = os.path.join(self.root, "boot", "vmlinuz-" + self.release)
        self._must_have([self.image, os.path.join(self.root, "lib/modules", self.release, "modules.dep")])

    def module_files(self, names):
        """Paths of the named modules and of all they depend on; names unknown here are left out."""
        files = []
        for name in names:
            # -C /dev/null: the ndctl package ships an install rule for libnvdimm that breaks this.
            out = subprocess.run(["/sbin/modprobe", "-C", "/dev/null", "-d", self.root, "-S", self.release,
                                  "--show-depends", name], capture_output=True, text=True)
            for line in out.stdout.splitlines():
                word = line.split()
                if word and word[0] == "insmod" and word[1] not in files:
                    files.append(word[1])
        self._must_have(files)
        return files

    def _must_have(self, files):
        missing = [path for path in files if not os.path.exists(path)]
        if missing:
            raise GuestError(f"{missing[0]} is missing: remove {self.root} and run scripts/fetch-kernels")


def _which(name):
    path = shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")
    if path is None:
        raise GuestError(f"{name} is not installed; run scripts/install-deps")
    return os.path.realpath(path)


def _libraries(program):
    """Shared objects that a program needs, the loader included."""
    out = subprocess.run(["ldd", program], capture_output=True, text=True).stdout
    return [w for line in out.splitlines() for w in line.split() if w.startswith("/")]


def tool(name):
    """{path in the guest: path on the host} of one program more, for a test that names it."""
    path = _which(name)
    return {"/usr/sbin/" + name: path, **{lib: os.path.realpath(lib) for lib in _libraries(path)}}


def _base_content(kernel, extra):
    """{path in the guest: path on the host} of the base."""
    # Scripts run in dash: busybox's own shell prefers its applets to the real tools of the same name.
    content = {"/bin/busybox": _which("busybox"), "/bin/dash": _which("dash"), "/bin/sh": _which("dash"),
               "/bin/bash": _which("bash")}
    for program in ("dash", "bash"):
        for lib in _libraries(_which(program)):
            content[lib] = os.path.realpath(lib)
    for name, aliases in TOOLS.items():
        path = _which(name)
        content["/usr/sbin/" + name] = path
        for lib in _libraries(path):
            content[lib] = os.path.realpath(lib)
        for alias in aliases:
            content["/usr/sbin/" + alias] = path
    if os.path.exists("/etc/mke2fs.conf"):
        content["/etc/mke2fs.conf"] = "/etc/mke2fs.conf"
    names = [n for n in BOOT_MODULES + SPARE_MODULES + sorted(extra)]
    for path in kernel.module_files(names):
        content["/lib/modules/" + os.path.relpath(path, os.path.join(kernel.root, "lib/modules"))] = path
    for name in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
        path = os.path.join(kernel.root, "lib/modules", kernel.release, name)
        if os.path.exists(path):
            content[f"/lib/modules/{kernel.release}/{name}"] = path
    return content


def _key(content, release):
    """Hash of names, sizes and times: equal keys mean equal content."""
    h = hashlib.sha256(release.encode())
    with open(__file__, "rb") as f:
        h.update(f.read())
    for guest, host in sorted(content.items()):
        st = os.stat(host)
        h.update(f"{guest} {host} {st.st_size} {st.st_mtime_ns}\n".encode())
    return h.hexdigest()[:16]


def _cpio(folder, out, compress):
    pack = "find . -print0 | sort -z | cpio --quiet -0 -o -H newc -R 0:0"
    if compress:
        pack += " | zstd -q -1 -T0"
    subprocess.run(["bash", "-o", "pipefail", "-c", pack + ' > "$1"', "pack", os.path.abspath(out)],
                   cwd=folder, check=True)


def _busybox_links(folder, busybox):
    names = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for name in names:
        path = os.path.join(folder, "bin", name)
        if not os.path.lexists(path):
            os.symlink("busybox", path)


def base(kernel, extra=()):
    """Path of the compressed base for a kernel; built if there is none with this content."""
    content = _base_content(kernel, extra)
    store = os.path.join(BUILD, "guest", "base")
    os.makedirs(store, exist_ok=True)
    path = os.path.join(store, f"{kernel.series}-{_key(content, kernel.release)}.cpio.zst")
    if os.path.exists(path):
        return path
    with tempfile.TemporaryDirectory(dir=store) as tmp:
        root = os.path.join(tmp, "root")
        for guest, host in content.items():
            dest = root + guest
            os.makedirs(os.path.dirname(dest), exist_ok=True)
            shutil.copy(host, dest)
        for name in ("proc", "sys", "dev", "tmp", "run", "mnt", "etc", "root"):
            os.makedirs(os.path.join(root, name), exist_ok=True)
        if not os.path.lexists(os.path.join(root, "etc/mtab")):
            os.symlink("/proc/self/mounts", os.path.join(root, "etc/mtab"))
        for name in KMOD_NAMES:
            os.symlink("kmod", os.path.join(root, "usr/sbin", name))
        _busybox_links(root, content["/bin/busybox"])
        subprocess.run(["/sbin/depmod", "-b", root, kernel.release], check=True)
        _cpio(root, os.path.join(tmp, "base"), True)
        os.rename(os.path.join(tmp, "base"), path)
    return path


def module_depends(ko):
    """Names of the modules that a module file depends on."""
    out = subprocess.run(["/sbin/modinfo", "-F", "depends", ko], capture_output=True, text=True)
    return [n for n in out.stdout.strip().split(",") if n]


def overlay(folder, out, module, script, env, files):
    """Packs what one boot needs into the file `out`.

    folder: a fresh staging folder. module: dm-pcache.ko or None. script: the test, or None for a
    shell. env: {name: value} for the test. files: {path in the guest: path on the host}.
    """
    vm = os.path.join(ROOT, "selftests", "vm")
    test = os.path.join(folder, "test")
    os.makedirs(test)
    shutil.copy(os.path.join(vm, "init"), os.path.join(folder, "init"))
    os.chmod(os.path.join(folder, "init"), 0o755)
    for name in sorted(os.listdir(vm)):
        if name.endswith(".sh"):
            shutil.copy(os.path.join(vm, name), test)
    if script:
        shutil.copy(script, os.path.join(test, "run"))
    if module:
        shutil.copy(module, os.path.join(test, "dm-pcache.ko"))
    for guest, host in files.items():
        dest = folder + guest
        os.makedirs(os.path.dirname(dest), exist_ok=True)
        shutil.copy(host, dest)
    with open(os.path.join(test, "boot-modules"), "w") as f:
        f.write("\n".join(BOOT_MODULES) + "\n")
    with open(os.path.join(test, "env"), "w") as f:
        for name, value in env.items():
            quoted = value.replace("'", "'\\''")
            f.write(f"export {name}='{quoted}'\n")
    _cpio(folder, out, False)
