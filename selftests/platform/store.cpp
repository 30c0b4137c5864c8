// SPDX-License-Identifier: GPL-2.0
// selftests/platform/store.cpp - memory that stands for a device: a file descriptor, so that it can
// be mapped several times and takes only the space that was written.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <tuple>
#include <unistd.h>
#include "selftests/platform/internal.hpp"

namespace pcache::selftest
{

namespace
{

constexpr u64 page = 4096;

[[noreturn]] void die(const char *what)
{
    perror(what);
    abort();
}

u64 up(u64 v)
{
    return (v + page - 1) & ~(page - 1);
}

// Zero pages stay holes.
void copy_sparse(u8 *to, const u8 *from, u64 bytes)
{
    static const u8 zeros[page] = {};
    for (u64 at = 0; at < bytes; at += page) {
        u64 n = bytes - at < page ? bytes - at : page;
        if (memcmp(from + at, zeros, n))
            memcpy(to + at, from + at, n);
    }
}

} // namespace

u8 *map_guarded(int fd, u64 offset, u64 bytes)
{
    u64 skew = offset % page, span = up(skew + bytes);
    void *room = mmap(nullptr, span + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (room == MAP_FAILED)
        return nullptr;
    u8 *at = static_cast<u8 *>(room) + page;
    if (mmap(at, span, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd,
             static_cast<off_t>(offset - skew)) == MAP_FAILED)
        die("mmap");
    return at + skew;
}

void unmap_guarded(u8 *at, u64 bytes)
{
    u64 skew = reinterpret_cast<u64>(at) % page;
    munmap(at - skew - page, up(skew + bytes) + 2 * page);
}

Store::Store(u64 bytes) : bytes_(bytes)
{
    fd_ = memfd_create("pcache-test", MFD_CLOEXEC);
    if (fd_ < 0 || ftruncate(fd_, static_cast<off_t>(bytes)))
        die("memfd");
    base_ = map_guarded(fd_, 0, bytes);
    if (!base_)
        die("mmap");
}

Store::Store(const std::string &file)
{
    fd_ = ::open(file.c_str(), O_RDWR | O_CLOEXEC);
    struct stat st;
    if (fd_ < 0 || fstat(fd_, &st))
        die(file.c_str());
    bytes_ = static_cast<u64>(st.st_size);
    base_ = map_guarded(fd_, 0, bytes_);
    if (!base_)
        die("mmap");
}

Store::~Store()
{
    unmap_guarded(base_, bytes_);
    close(fd_);
}

// The host's kernel copies.
void Store::look(u64 from, void *to, usize n) const
{
    for (usize done = 0; done < n;) {
        const ssize_t some =
            pread(fd_, static_cast<u8 *>(to) + done, n - done, static_cast<off_t>(from + done));
        if (some <= 0)
            die("pread");
        done += static_cast<usize>(some);
    }
}

// The next [first, second) at or behind `at` that is no hole; second is 0 when there is none.
std::pair<u64, u64> Store::stretch(u64 at) const
{
    const off_t data = lseek(fd_, static_cast<off_t>(at), SEEK_DATA);
    if (data < 0)
        return {0, 0}; // ENXIO: only a hole is left
    return {static_cast<u64>(data), static_cast<u64>(lseek(fd_, data, SEEK_HOLE))};
}

Image Store::image() const
{
    Image image(bytes_);
    for (auto [at, end] = stretch(0); end; std::tie(at, end) = stretch(end))
        look(at, image.data() + at, end - at);
    return image;
}

u64 Store::find(const void *what, usize n, u64 from, u64 step) const
{
    Image some;
    for (auto [at, end] = stretch(from); end; std::tie(at, end) = stretch(end)) {
        at = from + (at - from + step - 1) / step * step; // stretches are pages, and so is `from`
        some.resize(end - at);
        look(at, some.data(), some.size());
        for (u64 i = 0; i + n <= some.size(); i += step)
            if (!std::memcmp(&some[i], what, n))
                return at + i;
    }
    return bytes_;
}

void Store::load(const Image &image)
{
    if (image.size() != bytes_)
        broken("an image of another size than the device");
    // Back to holes first, then only what is not zero.
    if (ftruncate(fd_, 0) || ftruncate(fd_, static_cast<off_t>(bytes_)))
        die("ftruncate");
    copy_sparse(base_, image.data(), bytes_);
}

bool Store::load_file(const std::string &file)
{
    int fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0)
        return false;
    if (fstat(fd, &st) || static_cast<u64>(st.st_size) > bytes_) {
        close(fd);
        return false;
    }
    u64 size = static_cast<u64>(st.st_size);
    void *from = size ? mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0) : nullptr;
    close(fd);
    if (from == MAP_FAILED)
        return false;
    if (from) {
        copy_sparse(base_, static_cast<u8 *>(from), size);
        munmap(from, size);
    }
    return true;
}

} // namespace pcache::selftest
