"""Answers of macOS' kernel, laid out as in Apple's headers (xnu, proc_info.h), for tests of `uvtokend.darwin`.

`Kernel` reports the real processes of this machine, so that the macOS code can be run on Linux.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
import struct
from pathlib import Path

READ, WRITE, APPEND, EVENT_ONLY = 1, 2, 8, 0x8000
DEVICE, INODE = 0x1000004, 9_876_543_210


class FileInfo(ctypes.Structure):
    """struct proc_fileinfo."""

    _fields_ = (
        ("fi_openflags", ctypes.c_uint32),
        ("fi_status", ctypes.c_uint32),
        ("fi_offset", ctypes.c_int64),
        ("fi_type", ctypes.c_int32),
        ("fi_guardflags", ctypes.c_uint32),
    )


class Stat(ctypes.Structure):
    """struct vinfo_stat."""

    _fields_ = (
        ("vst_dev", ctypes.c_uint32),
        ("vst_mode", ctypes.c_uint16),
        ("vst_nlink", ctypes.c_uint16),
        ("vst_ino", ctypes.c_uint64),
        ("vst_uid", ctypes.c_uint32),
        ("vst_gid", ctypes.c_uint32),
        ("times", ctypes.c_int64 * 8),
        ("vst_size", ctypes.c_int64),
        ("vst_blocks", ctypes.c_int64),
        ("rest", ctypes.c_uint32 * 4),
        ("vst_qspare", ctypes.c_int64 * 2),
    )


class VnodeFile(ctypes.Structure):
    """struct vnode_fdinfo."""

    _fields_ = (
        ("pfi", FileInfo),
        ("vi_stat", Stat),
        ("vi_type", ctypes.c_int),
        ("vi_pad", ctypes.c_int),
        ("vi_fsid", ctypes.c_int32 * 2),
    )


class Usage(ctypes.Structure):
    """struct rusage_info_v0 (bsd/sys/resource.h)."""

    _fields_ = (
        ("ri_uuid", ctypes.c_uint8 * 16),
        ("ri_user_time", ctypes.c_uint64),
        ("ri_system_time", ctypes.c_uint64),
        ("ri_pkg_idle_wkups", ctypes.c_uint64),
        ("ri_interrupt_wkups", ctypes.c_uint64),
        ("ri_pageins", ctypes.c_uint64),
        ("ri_wired_size", ctypes.c_uint64),
        ("ri_resident_size", ctypes.c_uint64),
        ("ri_phys_footprint", ctypes.c_uint64),
        ("ri_proc_start_abstime", ctypes.c_uint64),
        ("ri_proc_exit_abstime", ctypes.c_uint64),
    )


def opened(flags: int, inode: int = INODE, device: int = DEVICE, offset: int = 42) -> bytes:
    """Return the kernel's description of an open file."""
    return bytes(VnodeFile(FileInfo(flags, 0, offset, 1, 0), Stat(device & 0xFFFFFFFF, 0o100600, 1, inode)))


class Kernel:
    """The calls of macOS' kernel, answered from proc(5)."""

    def list_pids_by_path(self, path: bytes, size: int) -> tuple[int, bytes, int]:
        """Return the processes that have a file open, as ``proc_listpidspath`` does."""
        wanted = os.stat(path)
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
        holders = [pid for pid in pids if any(_same(pid, number, wanted) for number in _numbers(pid))]
        buffer = b"".join(struct.pack("=i", pid) for pid in holders)[:size]
        return len(buffer), buffer.ljust(size, b"\0"), 0

    def pid_info(self, pid: int, flavor: int, size: int) -> tuple[int, bytes, int]:
        """Return a process's descriptors, as ``proc_pidinfo`` with ``PROC_PIDLISTFDS`` does."""
        assert flavor == 1
        buffer = b"".join(struct.pack("=iI", number, 1) for number in _numbers(pid))[:size]
        return len(buffer), buffer.ljust(size, b"\0"), 0

    def descriptor_info(self, pid: int, descriptor: int, flavor: int, size: int) -> tuple[int, bytes, int]:
        """Return one descriptor, as ``proc_pidfdinfo`` with ``PROC_PIDFDVNODEINFO`` does."""
        assert (flavor, size) == (1, ctypes.sizeof(VnodeFile))
        with contextlib.suppress(OSError):
            status = os.stat(f"/proc/{pid}/fd/{descriptor}")
            text = Path(f"/proc/{pid}/fdinfo/{descriptor}").read_text()
            fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
            flags = int(fields["flags"], 8)
            access = {os.O_RDONLY: READ, os.O_WRONLY: WRITE}.get(flags & os.O_ACCMODE, READ | WRITE)
            access |= APPEND if flags & os.O_APPEND else 0
            if stat.S_ISREG(status.st_mode):
                buffer = opened(access, status.st_ino, status.st_dev, int(fields["pos"]))
                return len(buffer), buffer, 0
        return 0, b"\0" * size, errno.EBADF

    def name(self, pid: int) -> bytes:
        """Return the name of a process."""
        return Path(f"/proc/{pid}/comm").read_bytes().strip()

    def system_value(self, name: bytes, size: int) -> tuple[int, bytes, int]:
        """Return the boot session, the only value that is known."""
        assert (name, size) == (b"kern.bootsessionuuid", 64)
        return 0, b"0A1B2C3D-0000-4000-8000-000000000000\0", 0

    def copy_file(self, source: int, target: int, flags: int) -> tuple[int, int]:
        """Fail, as on a file system without attributes."""
        assert min(source, target, flags) > 0
        return -1, errno.ENOTSUP

    def usage(self, pid: int, flavor: int, size: int) -> tuple[int, bytes, int]:
        """Return the memory of a process, as ``proc_pid_rusage`` with ``RUSAGE_INFO_V0`` does."""
        assert (flavor, size) == (0, ctypes.sizeof(Usage))
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return 0, bytes(Usage(ri_phys_footprint=pages * os.sysconf("SC_PAGE_SIZE"))), 0

    def allow_keychain_dialogs(self, allowed: bool) -> int:
        """Accept the setting."""
        assert not allowed
        return 0


def _numbers(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(name) for name in os.listdir(f"/proc/{pid}/fd")]
    return []


def _same(pid: int, number: int, wanted: os.stat_result) -> bool:
    with contextlib.suppress(OSError):
        return os.path.samestat(os.stat(f"/proc/{pid}/fd/{number}"), wanted)
    return False
