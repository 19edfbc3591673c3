"""Every call into macOS that Python does not offer. Read in Apple's sources, not run on a Mac.

The functions take the system as a `Kernel`, so that recorded bytes and error numbers can replace it. Sources: xnu
(bsd/sys/proc_info.h, libsyscall/wrappers/libproc/libproc.h, bsd/kern/proc_info.c, bsd/kern/uipc_usrreq.c,
bsd/sys/sysctl.h, bsd/sys/resource.h, osfmk/vm/vm_map.c), copyfile (copyfile.h), Security (SecKeychain.h), fcntl(2).
"""

from __future__ import annotations

import errno
import os
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Protocol

#: proc_info.h: ``PROC_ALL_PIDS``; libproc.h: ``PROC_LISTPIDSPATH_EXCLUDE_EVTONLY``, which leaves out watchers.
_ALL_PIDS, _EXCLUDE_EVENT_ONLY = 1, 2
#: proc_info.h: the flavors ``PROC_PIDLISTFDS`` and ``PROC_PIDFDVNODEINFO``, and the type ``PROX_FDTYPE_VNODE``.
_LIST_DESCRIPTORS, _VNODE_INFO, _VNODE = 1, 1, 1
#: struct proc_fdinfo: descriptor and type.
_DESCRIPTOR = struct.Struct("=iI")
#: struct vnode_fdinfo as far as it is used: fi_openflags, fi_status, fi_offset, fi_type, fi_guardflags; then of struct
#: vinfo_stat: vst_dev, vst_mode, vst_nlink, vst_ino.
_VNODE_FILE = struct.Struct("=IIqiIIHHQ")
#: sizeof(struct vnode_fdinfo): proc_fileinfo 24, vinfo_stat 136, vi_type and vi_pad 8, fsid_t 8.
_VNODE_SIZE = 176
#: bsd/sys/fcntl.h: FWRITE and FAPPEND, as ``fi_openflags`` has them (fill_fileinfo in bsd/kern/proc_info.c).
_OPEN_FOR_WRITING, _APPENDS = 2, 8
#: copyfile.h: ``COPYFILE_ACL | COPYFILE_XATTR``.
_ATTRIBUTES = 1 | 4
#: bsd/sys/fcntl.h; Python's fcntl module names it on macOS only.
F_FULLFSYNC = 51
#: bsd/sys/fcntl.h, and the largest path that it answers, MAXPATHLEN of bsd/sys/param.h.
F_GETPATH, _PATH_MAX = 50, 1024
#: bsd/sys/resource.h: RUSAGE_INFO_V0, sizeof(struct rusage_info_v0), and where ri_phys_footprint is in it, after a
#: uuid of 16 bytes and seven numbers of 8.
_RUSAGE_V0, _RUSAGE_SIZE, _FOOTPRINT_AT, _FOOTPRINT = 0, 96, 72, struct.Struct("=Q")
#: Security, base/SecBase.h: errSecInteractionNotAllowed, errSecAuthFailed.
_ASKS_THE_USER = frozenset({-25308, -25293})
#: A list of process ids grows while it is asked for; beyond this it is not the netrc that is the problem.
_MOST = 1 << 16


class Kernel(Protocol):
    """The calls, each as thin as it can be: what C returns, with the error number beside it."""

    def list_pids_by_path(self, path: bytes, size: int) -> tuple[int, bytes, int]:
        """Call ``proc_listpidspath``; return its result, the buffer and errno."""

    def pid_info(self, pid: int, flavor: int, size: int) -> tuple[int, bytes, int]:
        """Call ``proc_pidinfo``; return its result, the buffer and errno."""

    def descriptor_info(self, pid: int, descriptor: int, flavor: int, size: int) -> tuple[int, bytes, int]:
        """Call ``proc_pidfdinfo``; return its result, the buffer and errno."""

    def name(self, pid: int) -> bytes:
        """Call ``proc_name``; return the name, empty if there is none."""

    def system_value(self, name: bytes, size: int) -> tuple[int, bytes, int]:
        """Call ``sysctlbyname``; return its result, the value and errno."""

    def copy_file(self, source: int, target: int, flags: int) -> tuple[int, int]:
        """Call ``fcopyfile``; return its result and errno."""

    def usage(self, pid: int, flavor: int, size: int) -> tuple[int, bytes, int]:
        """Call ``proc_pid_rusage``; return its result, the buffer and errno."""

    def allow_keychain_dialogs(self, allowed: bool) -> int:
        """Call ``SecKeychainSetUserInteractionAllowed``; return its ``OSStatus``."""


@dataclass(frozen=True, slots=True)
class Writer:
    """A process that has a file open for writing.

    Args:
        pid: Its process id.
        name: Its program's name, empty if the system does not say.
        appends: It opened the file with ``O_APPEND``.
        position: Where its next write lands otherwise, in bytes from the start.
    """

    pid: int
    name: str
    appends: bool
    position: int


def writers(path: str, device: int, inode: int, kernel: Kernel | None = None) -> tuple[Writer, ...]:
    """Return the processes that have a file open for writing, this one too, as far as this user may see them.

    Args:
        path: The file.
        device: Its ``st_dev``.
        inode: Its ``st_ino``.
        kernel: The system; None for the real one.

    Raises:
        OSError: The system does not tell.
    """
    system = kernel or native()
    each = (_writer(pid, device, inode, system) for pid in _pids(path, system))
    return tuple(writer for writer in each if writer is not None)


def boot_session(kernel: Kernel | None = None) -> str:
    """Return an identifier that is new after each boot; empty if the system does not tell.

    Args:
        kernel: The system; None for the real one.
    """
    result, value, _ = (kernel or native()).system_value(b"kern.bootsessionuuid", 64)
    return value.partition(b"\0")[0].decode(errors="replace") if result == 0 else ""


def copy_attributes(source: int, target: int, kernel: Kernel | None = None) -> bool:
    """Copy access control list and extended attributes between open files; return whether that worked.

    Args:
        source: An open file descriptor.
        target: An open file descriptor.
        kernel: The system; None for the real one.
    """
    result, _ = (kernel or native()).copy_file(source, target, _ATTRIBUTES)
    return result == 0


def memory(kernel: Kernel | None = None) -> int:
    """Return the bytes of memory that this process fills, compressed ones too; 0 if the system does not tell.

    Source: bsd/sys/resource.h, ``ri_phys_footprint`` of struct rusage_info_v0.

    Args:
        kernel: The system; None for the real one.
    """
    result, buffer, _ = (kernel or native()).usage(os.getpid(), _RUSAGE_V0, _RUSAGE_SIZE)
    return int(_FOOTPRINT.unpack_from(buffer, _FOOTPRINT_AT)[0]) if result == 0 else 0


def watch_memory(limit: int, exceeded: Callable[[], object], pause: float, kernel: Kernel | None = None) -> None:
    """Call back when this process fills more memory than it may; return at once if the system does not tell.

    ``RLIMIT_DATA`` does not bound it on macOS: the kernel compares the limit with the size of the whole map, which is
    hundreds of GiB at the start, and refuses a lower limit with EINVAL (osfmk/vm/vm_map.c, vm_map_set_data_limit).

    Args:
        limit: In bytes.
        exceeded: Called once.
        pause: Seconds between two looks.
        kernel: The system; None for the real one.
    """
    clock = threading.Event()
    while 0 < (filled := memory(kernel)) <= limit:
        clock.wait(pause)
    if filled:
        exceeded()


def forbid_keychain_dialogs(kernel: Kernel | None = None) -> bool:
    """Let the Keychain fail where it would ask the user; return whether it will.

    Source: Security, OSX/libsecurity_keychain/lib, SecKeychain.h and Globals.cpp (itemCredentials). It holds for the
    whole process. An entry that needs an answer then fails with errSecInteractionNotAllowed or errSecAuthFailed.

    Args:
        kernel: The system; None for the real one.
    """
    return (kernel or native()).allow_keychain_dialogs(False) == 0


def keychain_refusal(error: BaseException) -> int:
    """Return the ``OSStatus`` with which the Keychain asks for the user; 0 for any other error.

    The keyring library raises its own error from one whose first argument is the status (keyring, backends/macOS).

    Args:
        error: What the keyring library raised.
    """
    status = error.__cause__.args[0] if error.__cause__ is not None and error.__cause__.args else 0
    return status if status in _ASKS_THE_USER else 0


def _pids(path: str, system: Kernel) -> tuple[int, ...]:
    """Return the processes that have the file open at all. The buffer grows until it is larger than the answer."""
    size = 1 << 10
    while True:
        result, buffer, number = system.list_pids_by_path(os.fsencode(path), size)
        if result < 0:
            raise OSError(number, os.strerror(number), path)
        if result < size or size >= _MOST:
            return tuple(pid for (pid,) in struct.iter_unpack("=i", buffer[: result - result % 4]) if pid > 0)
        size *= 2


def _files(pid: int, system: Kernel) -> Iterator[int]:
    """Yield the descriptors of a process that are files; none if it ended or is not ours to see."""
    size = 1 << 12
    while True:
        result, buffer, _ = system.pid_info(pid, _LIST_DESCRIPTORS, size)
        if result < size or size >= _MOST:
            break
        size *= 2
    whole = max(0, result - result % _DESCRIPTOR.size)
    for descriptor, kind in _DESCRIPTOR.iter_unpack(buffer[:whole]):
        if kind == _VNODE:
            yield descriptor


def _writer(pid: int, device: int, inode: int, system: Kernel) -> Writer | None:
    for descriptor in _files(pid, system):
        result, buffer, _ = system.descriptor_info(pid, descriptor, _VNODE_INFO, _VNODE_SIZE)
        if result < _VNODE_FILE.size:
            continue  # it was closed meanwhile
        flags, _, position, _, _, its_device, _, _, its_inode = _VNODE_FILE.unpack_from(buffer)
        if (its_device, its_inode) == (device & 0xFFFFFFFF, inode) and flags & _OPEN_FOR_WRITING:
            return Writer(pid, system.name(pid).decode(errors="replace"), bool(flags & _APPENDS), position)
    return None


@cache
def native() -> Kernel:
    """Return the real system. ctypes is loaded by the first use: it costs 0.6 MiB."""
    import ctypes  # noqa: PLC0415 - see above

    library = ctypes.CDLL(None, use_errno=True)

    class Native:
        def list_pids_by_path(self, path: bytes, size: int) -> tuple[int, bytes, int]:
            buffer = ctypes.create_string_buffer(size)
            flags = ctypes.c_uint32(_EXCLUDE_EVENT_ONLY)
            result = library.proc_listpidspath(
                ctypes.c_uint32(_ALL_PIDS), ctypes.c_uint32(0), path, flags, buffer, size
            )
            return result, buffer.raw, ctypes.get_errno()

        def pid_info(self, pid: int, flavor: int, size: int) -> tuple[int, bytes, int]:
            buffer = ctypes.create_string_buffer(size)
            result = library.proc_pidinfo(pid, flavor, ctypes.c_uint64(0), buffer, size)
            return result, buffer.raw, ctypes.get_errno()

        def descriptor_info(self, pid: int, descriptor: int, flavor: int, size: int) -> tuple[int, bytes, int]:
            buffer = ctypes.create_string_buffer(size)
            result = library.proc_pidfdinfo(pid, descriptor, flavor, buffer, size)
            return result, buffer.raw, ctypes.get_errno()

        def name(self, pid: int) -> bytes:
            buffer = ctypes.create_string_buffer(256)
            library.proc_name(pid, buffer, ctypes.c_uint32(256))
            return buffer.value

        def system_value(self, name: bytes, size: int) -> tuple[int, bytes, int]:
            buffer, length = ctypes.create_string_buffer(size), ctypes.c_size_t(size)
            result = library.sysctlbyname(name, buffer, ctypes.byref(length), None, ctypes.c_size_t(0))
            return result, buffer.raw[: length.value], ctypes.get_errno()

        def copy_file(self, source: int, target: int, flags: int) -> tuple[int, int]:
            result = library.fcopyfile(source, target, None, ctypes.c_uint32(flags))
            return result, ctypes.get_errno()

        def usage(self, pid: int, flavor: int, size: int) -> tuple[int, bytes, int]:
            buffer = ctypes.create_string_buffer(size)
            result = library.proc_pid_rusage(pid, flavor, buffer)
            return result, buffer.raw, ctypes.get_errno()

        def allow_keychain_dialogs(self, allowed: bool) -> int:
            security = ctypes.CDLL("/System/Library/Frameworks/Security.framework/Security")
            return int(security.SecKeychainSetUserInteractionAllowed(ctypes.c_ubyte(allowed)))

    return Native()


def known_path(path: str) -> str:
    """Return a path in the case in which its volume knows it, which most volumes of macOS do not distinguish.

    Args:
        path: An absolute path without symbolic links; what does not exist of it stays as it is.
    """
    import fcntl  # noqa: PLC0415 - macOS only

    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        parent, name = os.path.split(path)
        return path if parent == path else os.path.join(known_path(parent), name)
    try:
        return os.fsdecode(fcntl.fcntl(file, F_GETPATH, bytes(_PATH_MAX)).partition(b"\0")[0]) or path
    except OSError:
        return path
    finally:
        os.close(file)


def private_place(path: str, home: str) -> str | None:
    """Return the place that macOS lets programs use only if the user agrees, and that a file is in; None elsewhere.

    Source: Apple Platform Security, "Controlling app access to files in macOS". The question may keep ``open`` waiting.

    Args:
        path: The file, with symbolic links resolved.
        home: The user's home directory.
    """
    places = [os.path.join(home, name) for name in ("Desktop", "Documents", "Downloads", "Library/Mobile Documents")]
    return next((place for place in (*places, "/Volumes") if path.startswith(f"{place}/")), None)


def full_sync(file: int) -> None:
    """Write a file to the medium itself: fsync(2) on macOS reaches the drive's cache only.

    Args:
        file: An open file descriptor.

    Raises:
        OSError: It cannot be written.
    """
    import fcntl  # noqa: PLC0415 - macOS only

    try:
        fcntl.fcntl(file, F_FULLFSYNC)
    except OSError as error:
        if error.errno not in {errno.ENOTSUP, errno.EINVAL, errno.ENOTTY, errno.EOPNOTSUPP}:
            raise
        os.fsync(file)  # a network or foreign file system
