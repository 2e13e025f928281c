"""Syscall numbers of what a locked-in process has no use for, on x86_64 and aarch64.

Source: arch/x86/entry/syscalls/syscall_64.tbl; include/uapi/asm-generic/unistd.h. A test compares them with the headers
of the host. None: the architecture has no such call.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

Numbers = tuple[int | None, int | None]

BPF: Final[Numbers] = (321, 280)
CLONE: Final[Numbers] = (56, 220)
CLONE3: Final[Numbers] = (435, 435)
SOCKET: Final[Numbers] = (41, 198)
SOCKETPAIR: Final[Numbers] = (53, 199)
PRCTL: Final[Numbers] = (157, 167)
IOCTL: Final[Numbers] = (16, 29)
PRLIMIT64: Final[Numbers] = (302, 261)
SENDTO: Final[Numbers] = (44, 206)
SENDMSG: Final[Numbers] = (46, 211)
SENDMMSG: Final[Numbers] = (307, 269)

DENIED: Final[Mapping[str, Numbers]] = MappingProxyType(
    {
        # Other programs, and other processes.
        "execve": (59, 221),
        "execveat": (322, 281),
        "fork": (57, None),
        "vfork": (58, None),
        "ptrace": (101, 117),
        "process_vm_readv": (310, 270),
        "process_vm_writev": (311, 271),
        "process_madvise": (440, 440),
        "process_mrelease": (448, 448),
        "kcmp": (312, 272),
        "pidfd_getfd": (438, 438),
        # The view of the file system.
        "mount": (165, 40),
        "umount2": (166, 39),
        "move_mount": (429, 429),
        "open_tree": (428, 428),
        "open_tree_attr": (467, 467),
        "fsopen": (430, 430),
        "fsconfig": (431, 431),
        "fsmount": (432, 432),
        "fspick": (433, 433),
        "mount_setattr": (442, 442),
        "pivot_root": (155, 41),
        "chroot": (161, 51),
        "swapon": (167, 224),
        "swapoff": (168, 225),
        "quotactl": (179, 60),
        "quotactl_fd": (443, 443),
        "open_by_handle_at": (304, 265),
        "name_to_handle_at": (303, 264),
        "mknod": (133, None),
        "mknodat": (259, 33),
        "fanotify_init": (300, 262),
        "fanotify_mark": (301, 263),
        # Namespaces.
        "unshare": (272, 97),
        "setns": (308, 268),
        # The kernel's own code, keys, clocks and names.
        "kexec_load": (246, 104),
        "kexec_file_load": (320, 294),
        "init_module": (175, 105),
        "finit_module": (313, 273),
        "delete_module": (176, 106),
        "add_key": (248, 217),
        "request_key": (249, 218),
        "keyctl": (250, 219),
        "reboot": (169, 142),
        "sethostname": (170, 161),
        "setdomainname": (171, 162),
        "acct": (163, 89),
        "syslog": (103, 116),
        "settimeofday": (164, 170),
        "clock_settime": (227, 112),
        "clock_adjtime": (305, 266),
        "adjtimex": (159, 171),
        "iopl": (172, None),
        "ioperm": (173, None),
        "modify_ldt": (154, None),
        "vhangup": (153, 58),
        "personality": (135, 92),
        "lsm_set_self_attr": (460, 460),
        # Parts of the kernel with a long list of faults.
        "perf_event_open": (298, 241),
        "userfaultfd": (323, 282),
        "io_uring_setup": (425, 425),
        "io_uring_enter": (426, 426),
        "io_uring_register": (427, 427),
        "io_setup": (206, 0),
        "io_submit": (209, 2),
        "memfd_secret": (447, 447),
        "remap_file_pages": (216, 234),
        "vmsplice": (278, 75),
        "migrate_pages": (256, 238),
        "move_pages": (279, 239),
        # Another user, and more rights.
        "setuid": (105, 146),
        "setgid": (106, 144),
        "setreuid": (113, 145),
        "setregid": (114, 143),
        "setresuid": (117, 147),
        "setresgid": (119, 149),
        "setgroups": (116, 159),
        "setfsuid": (122, 151),
        "setfsgid": (123, 152),
        "capset": (126, 91),
        # Message queues, semaphores and shared memory of other processes; with an id at hand nothing asks for a key.
        "shmget": (29, 194),
        "shmat": (30, 196),
        "shmctl": (31, 195),
        "msgget": (68, 186),
        "msgsnd": (69, 189),
        "msgrcv": (70, 188),
        "msgctl": (71, 187),
        "semget": (64, 190),
        "semop": (65, 193),
        "semctl": (66, 191),
        "semtimedop": (220, 192),
        "mq_open": (240, 180),
        "mq_unlink": (241, 181),
    }
)
