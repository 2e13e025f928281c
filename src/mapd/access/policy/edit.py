"""Changing the policy's file: a rule more at its end. What is there stays, byte for byte, comments and all."""

from __future__ import annotations

import difflib
import fcntl
import json
import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mapd.access.policy import holder, roles
from mapd.access.policy.check import selector_covers
from mapd.access.policy.file import PolicyError, parse
from mapd.access.policy.model import Effect, Policy, Rule
from mapd.access.policy.tables import meant
from mapd.access.principal import ADMIN


class EditError(Exception):
    """Nothing was changed; the message says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """A change that was checked and not made yet.

    Attributes:
        before, after: the file's content.
        notes: what the one who makes it should know, a line each.
    """

    policy: Policy
    before: bytes
    after: bytes
    notes: tuple[str, ...] = ()

    @property
    def changes(self) -> bool:
        """Whether there is anything to do."""
        return self.before != self.after

    def diff(self) -> str:
        """What ``diff -u`` would show."""
        name = self.policy.source
        before, after = (text.decode().splitlines(keepends=True) for text in (self.before, self.after))
        lines = difflib.unified_diff(before, after, name, name)
        return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)


def selector_line(selector: str) -> str:
    """What ``mapd policy allow`` calls a selector, as a line of a rule.

    ``web/*`` is a name, ``/sys/fs/bpf/x/*`` a pin, ``type:hash`` and ``owner:self`` say so, ``every-map`` is all.
    """
    if selector == "every-map":
        return "every_map = true"
    for key in ("type", "owner", "name", "pin"):
        if selector.startswith(f"{key}:"):
            return f"{key}s = [{_quoted(selector.removeprefix(f'{key}:'))}]"
    return f"{'pins' if selector.startswith('/') else 'names'} = [{_quoted(selector)}]"


def _quoted(text: str) -> str:
    """A TOML string. JSON's is one, but for DEL, which TOML wants escaped."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def allow(
    content: bytes, source: str, principal: str, role: str, selector: str, prefixes: tuple[str, ...] = ()
) -> Edit:
    """A policy with a rule more, read and checked again as a whole.

    Raises:
        PolicyError: the file is wrong as it is.
        EditError: the rule would be wrong, or would change nothing that anybody may do.
    """
    old = parse(content, source)
    if principal == ADMIN:
        raise EditError(f"{ADMIN} may do everything already")
    if principal not in old.members:
        known = sorted(set(old.members) - {ADMIN})
        raise EditError(
            f"{source} has no principal {principal!r}{meant(principal, known)}; add [principals.{principal}] with its "
            f"users first{'; there are ' + ', '.join(known) if known else ''}"
        )
    block = [f"who = [{_quoted(principal)}]", f"role = {_quoted(role)}", selector_line(selector)]
    if prefixes:
        block.append(f"key_prefixes = [{', '.join(map(_quoted, prefixes))}]")
    try:
        text = "\n".join(("[[rules]]", *block, "")).encode()
    except UnicodeEncodeError:
        raise EditError(f"{selector!r} is no text, and TOML holds nothing else") from None
    gap = b"" if not content else b"\n" if content.endswith(b"\n") else b"\n\n"
    new = _checked(old, content + gap + text, source)
    rule = new.rules[-1]
    for other in old.rules:
        if other.says() == rule.says():
            return Edit(policy=old, before=content, after=content, notes=(f"{other.label} says so already",))
    return Edit(policy=new, before=content, after=content + gap + text, notes=_denials(old, rule))


def _checked(old: Policy, content: bytes, source: str) -> Policy:
    """The policy with the rule at its end."""
    try:
        new = parse(content, source)
    except PolicyError as error:
        if "not TOML" in str(error):
            raise EditError(
                f"{source}: its rules are one array, 'rules = [...]', to which nothing can be added line by line; "
                "write each as a table [[rules]]"
            ) from None
        raise EditError(f"the rule would be wrong: {error}") from None
    before, after = ([(rule.name, rule.says()) for rule in rules] for rules in (old.rules, new.rules[:-1]))
    if before != after or new.members != old.members or new.contact != old.contact:
        raise EditError(f"{source}: the line would change more than it says; add the rule with an editor")
    return new


def _denials(policy: Policy, rule: Rule) -> tuple[str, ...]:
    """Rules that take all or some of it back."""
    (principal,) = rule.who
    left = rule.verbs
    notes: list[str] = []
    for other in policy.rules_of(principal):
        if (
            other.effect is Effect.DENY
            and other.verbs & rule.verbs
            and selector_covers(other.selector, rule.selector)
        ):
            taken = roles.names(other.verbs & rule.verbs)
            notes.append(
                f"{other.label} denies {taken}{' for some keys' if other.prefixes else ''} all the same"
            )
            left = left if other.prefixes else left - other.verbs
    if not left:
        raise EditError(f"nothing would be gained: {'; '.join(notes)}; change that rule first")
    return tuple(notes)


def write(path: Path, edit: Edit) -> None:
    """Put a change in force, in one step: whoever reads the file sees the old or the new.

    Raises:
        EditError: it was changed meanwhile, or cannot be written; the old one is as it was.
        PolicyError: it cannot be read any more.
    """
    path = path.resolve()  # a link stays one, to the same place
    try:
        with path.open("rb") as old:
            fcntl.flock(old, fcntl.LOCK_EX)
            if holder.read(path) != edit.before:
                raise EditError(f"{path}: somebody has changed it meanwhile; look at it, and try again")
            _replace(path, edit.after, os.fstat(old.fileno()))
    except OSError as error:
        raise EditError(f"{path}: {error.strerror}; run this as a user who may write its folder") from error


def _replace(path: Path, content: bytes, like: os.stat_result) -> None:
    fd, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    new = Path(name)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            os.fchown(fd, like.st_uid, like.st_gid)
            os.fchmod(fd, like.st_mode & 0o7777)
            file.flush()
            os.fsync(fd)
        new.rename(path)
    except BaseException:
        with suppress(FileNotFoundError):
            new.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
