"""docs/how-to/types.md and object-files.md: what they show runs, and prints what they say."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
from collections.abc import Generator
from typing import Any

import pytest

from mapd_client import Incompatible, connect
from tests.repo.sources import ROOT
from tests.support.daemon import DaemonProcess, daemon_process, private_place
from tests.unit.mapd_client.test_cli import Mapctl, mapctl

__all__ = ["mapctl"]

TEXT = (ROOT / "docs" / "how-to" / "types.md").read_text()


@pytest.fixture(scope="module")
def served() -> Generator[DaemonProcess]:
    """One daemon for all of them."""
    with private_place() as place, daemon_process(place) as found:
        yield found


async def _run(program: str, names: dict[str, Any]) -> None:
    code = compile(program, "types.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    result = eval(code, names)  # noqa: S307 - our own page
    if inspect.isawaitable(result):
        await result


async def test_every_program_and_every_command_runs(
    served: DaemonProcess, mapctl: Mapctl, capsys: pytest.CaptureFixture[str]
) -> None:
    programs = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    commands = re.findall(r"^mapctl (.*)$", TEXT, re.MULTILINE)
    assert (len(programs), len(commands)) == (5, 6)
    async with connect(str(served.place.socket)) as client:
        names: dict[str, Any] = {"client": client, "__name__": "guide"}
        for program in programs:
            await _run(program, names)
        out = capsys.readouterr().out
        assert "Stats(packets=1, bytes=1500)" in out
        assert "Stats(packets=11, bytes=1500)" in out  # what the page adds to the field
        said: list[str] = []
        for command in commands:
            done = await mapctl("--address", str(served.place.socket), *shlex.split(command))
            assert (done.code, done.err) == (0, ""), command
            said.append(done.out)
        assert '"packets":0' in said[-2]
        assert (await names["flows"].count()).entries == 0
        await names["flows"].aclose()


async def test_the_line_of_a_mismatch_is_as_the_page_says(served: DaemonProcess) -> None:
    first, *_ = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    async with connect(str(served.place.socket)) as client:
        names: dict[str, Any] = {"client": client, "__name__": "guide"}
        await _run(first.replace('"flows"', '"narrow"'), names)
        await _run(
            "from mapd_client import U32\n@dataclass\nclass Less:\n"
            "    packets: Annotated[int, U32]\n    pad: Annotated[int, U32]\n    bytes: Annotated[int, U64]\n",
            names,
        )
        with pytest.raises(Incompatible) as refused:
            await names["flows"].typed(key=names["Flow"], value=names["Less"])
        await names["flows"].aclose()
    assert "value.packets: wanted u32 at 0, is u64 at 0" in str(refused.value)
    assert "value.packets: wanted u32 at 0, is u64 at 0" in TEXT


async def test_the_program_for_object_files_runs(
    served: DaemonProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    (program,) = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs/how-to/object-files.md").read_text(), re.DOTALL
    )
    path = ROOT / "tests/unit/mapd_client/elf/fixtures/samples16.little.o"
    async with connect(str(served.place.socket)) as client:
        names: dict[str, Any] = {"client": client, "__name__": "guide"}
        await _run(program.replace('"prog.o"', repr(str(path))), names)

    rule, *maps = capsys.readouterr().out.splitlines()
    assert rule.startswith("samples, because ")
    assert maps
    assert all(str(served.place.names) in line for line in maps)
