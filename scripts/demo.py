"""``./dev demo``: a daemon, a client without rights, and everything that first light promises, for real.

Runs in a mount namespace, a bpffs and a folder of its own; nothing is left, however it ends. Where bpf(2) is
refused it says so, and shows what can be shown with maps in memory (``demo_memory``).
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Final, NoReturn

SOURCE: Final = Path(__file__).resolve().parents[1] / "src"
HERE: Final = Path(__file__).resolve().parent
NOBODY: Final = 65_534
AUDITOR: Final = 65_533
POLICY: Final = f"""\
contact = "ops@example.org"
[principals.admin]
users = [{NOBODY}]
[principals.auditor]
users = [{AUDITOR}]
[[rules]]
name = "auditors-read-counters"
who = ["auditor"]
role = "viewer"
names = ["admin/array"]
"""
ENTRIES: Final = 1_000_000
START_S: Final = 20.0
ARRAY: Final = 2
"""BPF_MAP_TYPE_ARRAY."""
TIED: Final = ("setpriv", "--pdeathsig", "KILL")
"""Children end with the demo, even if it is killed; Ctrl-C reaches the demo alone, which ends them in order."""

sys.path.insert(0, str(SOURCE))


class Failed(Exception):
    """The demo could not show something; the message says what."""


def say(text: str = "") -> None:
    """One line, at once."""
    print(text, flush=True)


def step(number: int, title: str) -> None:
    """A heading."""
    say(f"\n{number}  {title}")


def main() -> int:
    """Exit status: 0 if everything was shown."""
    if (why := obstacle()) is not None:
        return in_memory(why)
    if "--in-namespace" not in sys.argv:
        enter_namespace()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        with private_folder() as folder:
            maps = run(folder)
        check_gone(maps, folder)
    except KeyboardInterrupt:
        say("\ninterrupted; daemon, maps and folders are gone")
        return 130
    except (Failed, OSError, subprocess.SubprocessError) as error:
        say(f"\nthe demo failed: {error}")
        return 1
    return 0


def obstacle() -> str | None:
    """Why real maps cannot be made here; None if they can."""
    from mapd.bpf import CreateMap, LinuxKernel, describe, effective_capabilities

    try:
        LinuxKernel().control(CreateMap(map_type=ARRAY, key_size=4, value_size=4, max_entries=1)).close()
    except OSError as error:
        return f"bpf(2) is refused to uid {os.geteuid()}: {describe(error.errno or 0)}"
    if os.geteuid() != 0 or "CAP_SYS_ADMIN" not in effective_capabilities():
        return f"uid {os.geteuid()} may not mount a private bpffs: that takes root with CAP_SYS_ADMIN"
    return None


def in_memory(why: str) -> int:
    """The demo that needs no rights; its exit status."""
    sys.path.insert(0, str(HERE.parent))
    from scripts import demo_memory

    try:
        return demo_memory.run(why)
    except KeyboardInterrupt:
        say("\ninterrupted; daemon, maps and folders are gone")
        return 130


def _interrupt(number: int, frame: object) -> NoReturn:
    del number, frame
    raise KeyboardInterrupt


def enter_namespace() -> None:
    """Go on in a mount namespace of our own: what is mounted there goes with the last process in it."""
    unshare = shutil.which("unshare")
    if unshare is None:
        say(
            "unshare is missing (Debian package util-linux): the bpffs is mounted in the host's namespace meanwhile"
        )
        return
    command = [unshare, "--mount", "--propagation", "private", sys.executable, __file__, "--in-namespace"]
    os.execv(unshare, command)  # noqa: S606 - this very program, in another namespace


@contextlib.contextmanager
def private_folder() -> Generator[Path]:
    """A folder that every uid may enter, with a bpffs in it."""
    with tempfile.TemporaryDirectory(prefix="mapd-demo-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        bpffs = folder / "bpffs"
        bpffs.mkdir()
        subprocess.run(["mount", "-t", "bpf", "-o", "mode=0755", "mapd-demo", bpffs], check=True)
        try:
            yield folder
        finally:
            subprocess.run(["umount", "--lazy", bpffs], check=True)


def run(folder: Path) -> set[int]:
    """The whole demo, in one folder; the ids of its maps."""
    sources = stage_client(folder)
    say("mapd demo: eBPF maps of this kernel, served to a process without any rights")
    say(f"  place    {folder}, with a bpffs in a mount namespace of its own; removed at the end")
    say(f"  python   {sys.executable}")
    say(f"           (the client runs it as uid {NOBODY}, so it must lie where every uid may go)")
    with daemon(folder) as (process, log), writer(folder) as foreign:
        client = start_client(folder, sources)
        try:
            for line in iter(client.stdout.readline, "") if client.stdout else ():
                answer_client(line, client, foreign, folder)
            if client.wait(30) != 0:
                raise Failed(
                    f"the client ended with status {client.returncode}; the daemon said:\n{log.read_text()}"
                )
        finally:
            client.kill()
            client.wait()
        audit(folder, sources)
        stop_daemon(process, log)
        return pinned_maps(folder)


def check_gone(maps: set[int], folder: Path) -> None:
    """Named maps outlive the daemon by design; with the bpffs they must go."""
    from mapd.bpf import LinuxKernel, OpenId

    deadline = time.monotonic() + START_S
    for number in maps:
        with contextlib.suppress(OSError):
            while time.monotonic() < deadline:  # the kernel frees a map some time after its last holder
                LinuxKernel().control(OpenId(map_id=number, read_only=True)).close()
            raise Failed(f"map {number} is still there")
    say(f"     left behind: nothing; {len(maps)} maps, the mount and {folder} are gone")
    say(
        "\nShown: six map types created, written, read, iterated and emptied over gRPC by uid 65534 without any\n"
        f"capability; maps shared with other processes and a BPF program; {ENTRIES:,} entries streamed, and bpftool\n"
        "agreeing with every byte of them; a second user held to what the policy gives it. Next: ./dev test, README.md"
    )


def stage_client(folder: Path) -> Path:
    """The client's two packages where every uid can read them: all the code that it needs."""
    closed = [
        str(path)
        for path in (Path(sys.executable), *Path(sys.executable).parents)
        if not path.stat().st_mode & 1
    ]
    if closed:
        raise Failed(
            f"uid {NOBODY} cannot run {sys.executable}: {closed[-1]} is closed to it; "
            "PYTHON=/usr/bin/python3 ./dev demo chooses another interpreter"
        )
    sources = folder / "client"
    for package in ("mapd_client", "mapd_api"):
        shutil.copytree(SOURCE / package, sources / package, ignore=shutil.ignore_patterns("__pycache__"))
    for script in ("demo_client.py", "demo_auditor.py"):
        shutil.copy(HERE / script, sources)
    (sources / "scripts").mkdir()
    for module in ("__init__.py", "demo_typed.py"):
        shutil.copy(HERE / module, sources / "scripts")
    for path in (sources, *sources.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return sources


def environment(sources: Path) -> Mapping[str, str]:
    """What a child needs, and nothing that would change what it does."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TERM") if name in os.environ}
    return {**kept, "PYTHONPATH": str(sources), "PYTHONDONTWRITEBYTECODE": "1"}


@contextlib.contextmanager
def daemon(folder: Path) -> Generator[tuple[subprocess.Popen[bytes], Path]]:
    """``mapd serve``, ready."""
    config = folder / "mapd.toml"
    config.write_text(
        f"[daemon]\nruntime_dir = '{folder}/run'\nbpffs = '{folder}/bpffs'\npin_roots = ['{folder}/bpffs']\n"
        f"state_dir = '{folder}/state'\nlog_format = 'console'\npolicy = '{folder}/policy.toml'\n"
    )
    (folder / "policy.toml").write_text(POLICY)
    log = folder / "daemon.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [*TIED, sys.executable, "-m", "mapd", "serve", "--config", config],
            env=environment(SOURCE),
            stdin=subprocess.DEVNULL,
            stderr=stream,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + START_S
        while "] ready" not in log.read_text():
            if process.poll() is not None or time.monotonic() > deadline:
                raise Failed(f"the daemon did not start:\n{log.read_text()}")
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.02)
        step(1, f"The daemon: mapd serve, pid {process.pid}, root; its banner")
        for line in itertools.takewhile(lambda line: "] ready" not in line, log.read_text().splitlines()):
            say(f"     {line}")
        yield process, log
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


@contextlib.contextmanager
def writer(folder: Path) -> Generator[subprocess.Popen[str]]:
    """Another process with a map of its own, which a BPF program writes."""
    process = subprocess.Popen(
        [*TIED, sys.executable, HERE / "demo_writer.py", f"{folder}/bpffs/packets"],
        env=environment(SOURCE),
        start_new_session=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        if process.stdout.readline().strip() != "ready":
            raise Failed("the writing process did not start")
        yield process
    finally:
        process.stdin.close()  # its signal to end
        process.stdout.close()
        process.wait(10)


def start_client(folder: Path, sources: Path) -> subprocess.Popen[str]:
    """The client, with nobody's uid and gid and no group: no capability survives that."""
    return subprocess.Popen(
        [
            sys.executable,
            sources / "demo_client.py",
            f"{folder}/run/admin/mapd.sock",
            f"{folder}/bpffs",
            str(ENTRIES),
        ],
        env={
            **environment(sources),
            "HOME": "/nonexistent",
            "COLUMNS": str(shutil.get_terminal_size().columns),
        },
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        cwd="/",
        start_new_session=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def answer_client(
    line: str, client: subprocess.Popen[str], foreign: subprocess.Popen[str], folder: Path
) -> None:
    """Print what the client says; do what only another process can, where it asks for that."""
    asked, _, rest = line.rstrip("\n").partition(" ")
    match asked:
        case "@count":  # is the BPF program's process still writing? its own count of runs
            assert foreign.stdin is not None
            assert foreign.stdout is not None
            foreign.stdin.write("count\n")
            foreign.stdin.flush()
            tell(client, foreign.stdout.readline().strip())
        case "@open":  # another process opens a map of mapd by its pin, and writes it
            name, key, value = rest.split()
            write_by_pin(f"{folder}/bpffs/mapd/admin/{name}", bytes.fromhex(key), bytes.fromhex(value))
            tell(client, "written")
        case "@bpftool":
            tell(client, bpftool_digest(f"{folder}/bpffs/mapd/admin/{rest}"))
        case "@pretty":
            tell(client, pretty(f"{folder}/bpffs/mapd/admin/{rest}"))
        case "@progress":
            if sys.stdout.isatty():
                print(f"\r     {rest}", end="", flush=True)
        case _:
            say(line.rstrip("\n"))


def tell(client: subprocess.Popen[str], answer: str) -> None:
    """A line for the client."""
    assert client.stdin is not None
    client.stdin.write(answer + "\n")
    client.stdin.flush()


def write_by_pin(path: str, key: bytes, value: bytes) -> None:
    """What any loader does with MapInfo.pin_path: open the pin, use the map."""
    bpftool = shutil.which("bpftool")
    if bpftool is None:
        raise Failed("bpftool is missing; as root: apt-get install bpftool")
    arguments = [f"0x{byte:02x}" for byte in key], [f"0x{byte:02x}" for byte in value]
    subprocess.run(
        [bpftool, "map", "update", "pinned", path, "key", *arguments[0], "value", *arguments[1]], check=True
    )


def pretty(path: str) -> str:
    """What bpftool prints of a map with types, in one line."""
    said = subprocess.run(
        ["bpftool", "map", "dump", "pinned", path], check=True, capture_output=True, text=True
    ).stdout
    return " ".join(said.split())


def bpftool_digest(path: str) -> str:
    """Entries, seconds and a digest of what bpftool reads: "count seconds sha256"."""
    began = time.monotonic()
    dumped = subprocess.run(
        ["bpftool", "-j", "map", "dump", "pinned", path], check=True, capture_output=True
    ).stdout
    seconds = time.monotonic() - began
    rows = sorted(
        bytes.fromhex("".join(entry["key"] + entry["value"]).replace("0x", ""))
        for entry in json.loads(dumped)
    )
    return f"{len(rows)} {seconds:.2f} {hashlib.sha256(b''.join(rows)).hexdigest()}"


def audit(folder: Path, sources: Path) -> None:
    """Another user, whom the policy lets read one map."""
    step(8, f"Rights: uid {AUDITOR} has a socket of its own, and the policy says")
    for line in POLICY.splitlines()[-5:]:
        say(f"       {line}")
    result = subprocess.run(
        [
            sys.executable,
            sources / "demo_auditor.py",
            f"{folder}/run/auditor/mapd.sock",
            "admin/array",
            "admin/hash",
        ],
        env={**environment(sources), "HOME": "/nonexistent"},
        user=AUDITOR,
        group=AUDITOR,
        extra_groups=[],
        cwd="/",
        capture_output=True,
        text=True,
        timeout=START_S,
        check=False,
    )
    say(result.stdout.rstrip("\n"))
    if result.returncode != 0:
        raise Failed(f"the auditor ended with status {result.returncode}: {result.stderr}")


def stop_daemon(process: subprocess.Popen[bytes], log: Path) -> None:
    """SIGTERM, and what comes of it."""
    step(9, "The end: SIGTERM to the daemon")
    before = log.read_text()
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    status = process.wait(10)
    for line in log.read_text()[len(before) :].splitlines():
        say(f"     {line}")
    if status != 0:
        raise Failed(f"the daemon ended with status {status}")
    say(f"     exit status 0 after {time.monotonic() - began:.2f} s")


def pinned_maps(folder: Path) -> set[int]:
    """Ids of all maps pinned in the demo's bpffs."""
    from mapd.bpf import LinuxKernel, ListPins, OpenPin

    kernel, root, found = LinuxKernel(), f"{folder}/bpffs", set[int]()
    for path in kernel.control(ListPins(root=root)).paths:
        with kernel.control(OpenPin(root=root, path=path)) as owned, owned.lease() as map_fd:
            found.add(kernel.info(map_fd).id)
    return found


if __name__ == "__main__":
    sys.exit(main())
