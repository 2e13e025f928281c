"""The policy's file: what it can say, and that whatever is wrong is told with its place and what would be right."""

from __future__ import annotations

import hashlib

import pytest

from mapd.access.policy import file
from mapd.access.policy.file import FILE_BYTES, PATTERNS, PRINCIPALS, RULES, PolicyError, parse
from mapd.access.policy.glob import CHARACTERS
from mapd.access.policy.lines import tables
from mapd.access.policy.model import ADMIN_QUOTAS, DEFAULT_QUOTAS, Effect, Member, Quotas
from mapd.access.policy.rules import PREFIX_BYTES, PREFIXES
from mapd_api.ops import Verb
from mapd_api.uapi import MapType

WEB = "[principals.web]\n"
RULE = '[[rules]]\nwho = ["web"]\n'


def faults(text: str | bytes) -> tuple[str, ...]:
    with pytest.raises(PolicyError) as caught:
        parse(text, "p.toml")
    return caught.value.faults


def fault(text: str | bytes) -> str:
    (only,) = faults(text)
    return only


def test_an_empty_file_knows_the_admin_alone() -> None:
    found = parse("", "p.toml")
    assert dict(found.members) == {"admin": Member(name="admin", namespace="admin", quotas=ADMIN_QUOTAS)}
    assert (found.rules, found.contact) == ((), "")


def test_everything_can_be_said() -> None:
    text = """
        contact = " ops@example.org "
        [quotas]
        maps = 7
        map_bytes = "2MiB"
        [principals.admin]
        users = ["root"]
        [principals.web]
        namespace = "shop"
        users = ["alice", "1000", 1001]
        groups = ["staff"]
        tls = ["spiffe://corp/ns/web", "Web.Example.org", "https://example.org/web"]
        [principals.box]
        grant = "mount"
        [principals.box.quotas]
        maps = "unlimited"
        ops_per_second = 1000
        [[rules]]
        name = "reads"
        who = ["web", "box"]
        role = "viewer"
        names = ["shop/*"]
        pins = ["/sys/fs/bpf/**"]
        types = ["percpu_*", "hash"]
        owners = ["self", "db"]
        key_prefixes = ["0a00", "0A 01"]
        [[rules]]
        effect = "deny"
        who = ["*"]
        verbs = ["write", "delete"]
        every_map = true
    """
    found = parse(text, "p.toml")
    assert found.contact == "ops@example.org"
    web, box = found.members["web"], found.members["box"]
    assert (web.namespace, web.users, web.groups, web.mount) == (
        "shop",
        ("alice", 1000, 1001),
        ("staff",),
        False,
    )
    assert web.tls == ("spiffe://corp/ns/web", "web.example.org", "https://example.org/web")
    assert (web.quotas.maps, web.quotas.map_bytes, web.quotas.dumps) == (7, 2 << 20, DEFAULT_QUOTAS.dumps)
    assert (box.mount, box.namespace) == (True, "box")
    assert (box.quotas.maps, box.quotas.map_bytes) == (None, 2 << 20)
    assert (box.quotas.ops_per_second, box.quotas.burst) == (1000, 1000)
    assert found.members["admin"].quotas == ADMIN_QUOTAS
    first, second = found.rules
    assert (first.name, first.role, first.effect) == ("reads", "viewer", Effect.ALLOW)
    assert first.who == {"web", "box"}
    assert first.verbs == {Verb.LIST, Verb.READ}  # watching takes every key, and only some are given
    assert first.prefixes == (b"\x0a\0", b"\x0a\1")
    assert first.selector.owners == frozenset({"self", "db"})
    assert first.selector.types == frozenset(
        {
            MapType.HASH,
            MapType.PERCPU_HASH,
            MapType.PERCPU_ARRAY,
            MapType.PERCPU_CGROUP_STORAGE,
        }
    )
    assert second.verbs == {Verb.WRITE, Verb.DELETE}
    assert (second.effect, second.prefixes) == (Effect.DENY, ())
    assert second.selector.every_map
    assert [rule.label for rule in found.rules] == ['rule 1 "reads" (line 18)', "rule 2 (line 27)"]


def test_the_version_is_of_the_content_alone() -> None:
    content = b"# nothing\n"
    assert parse(content, "a").version == hashlib.sha256(content).hexdigest()[:12]
    assert parse(content, "a").version == parse(content, "b").version
    assert parse(content, "a").version != parse(b"# nothing else\n", "a").version


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "contct = 'a'",
            "p.toml: unknown key 'contct' (did you mean 'contact'?); here may be contact, quotas, principals, rules",
        ),
        ("contact = 5", "p.toml: contact: Expected `str`, got `int`, found 5"),
        ("rules = 5", "p.toml: rules: Expected `array`, got `int`, found 5"),
        ("rules = [5]", "p.toml: rules[0]: Expected `object`, got `int`, found 5"),
        ("principals = []", "p.toml: principals: Expected `object`, got `array`, found []"),
        ("[principals]\nweb = 5", "p.toml: principals[...]: Expected `object`, got `int`"),
        (
            "[quotas]\nmap = 1",
            "p.toml:1: [quotas]: unknown key 'map' (did you mean 'maps'?); here may be maps, ",
        ),
        (WEB + "user = ['a']", "p.toml:1: [principals.web]: unknown key 'user' (did you mean 'users'?)"),
        (WEB + "users = 'a'", "p.toml:1: [principals.web]: users: Expected `array`, got `str`, found 'a'"),
        (WEB + "users = [true]", "users[0]: Expected `int | str`, got `bool`, found True"),
        (WEB + "users = [-1]", "users: -1: a number is from 0 to 4294967294"),
        (WEB + "groups = [4294967295]", "groups: 4294967295: a number is from 0 to 4294967294"),
        (WEB + "users = ['']", "users[0]: Expected `str` of length >= 1, found ''"),
        (WEB + "namespace = 'A b'", "namespace: 'A b' must be 1 to 63 of a-z, 0-9, '_', '-'"),
        (WEB + "namespace = 'self'", "namespace: 'self' means the namespace of whoever asks; take another"),
        ("[principals.'a/b']", "[principals.a/b]: the name 'a/b' must be 1 to 63 of a-z"),
        ("[principals.'..']", "[principals...]: the name '..' must be 1 to 63 of a-z"),
        (
            WEB + "grant = 'mounted'",
            "grant: 'mounted' is none; it is 'acl' (who is in users and groups) or 'mount'",
        ),
        (WEB + "grant = 'mount'\nusers = [5]", "grant: 'mount' admits whoever reaches the socket"),
        ("[principals.admin]\ngrant = 'mount'", "grant: the admin's socket is not given away by a mount"),
        (WEB + "tls = ['*.example.org']", "tls: '*.example.org' is neither a SPIFFE id, a URI"),
        (WEB + "tls = ['spiffe://a b']", "tls: 'spiffe://a b' is no URI"),
        (WEB + "quotas = {maps = 0}", "[principals.web]: quotas.maps: Expected `int` >= 1, found 0"),
        (WEB + "quotas = {maps = '5'}", "quotas.maps: '5'; here may be a number from 1 or 'unlimited'"),
        (
            WEB + "quotas = {map_bytes = '5MB'}",
            "quotas.map_bytes: '5MB'; here may be a number from 1, a size as '256MiB'",
        ),
        (WEB + "quotas = {map_bytes = '0MiB'}", "quotas.map_bytes: '0MiB'; here may be a number from 1"),
        (
            WEB + "quotas = {map_bytes = 1.5}",
            "quotas.map_bytes: Expected `int | str | null`, got `float`, found 1.5",
        ),
        (WEB + "quotas = {burst = 5}", "quotas.burst: 5 without ops_per_second, which it is a part of"),
        (WEB + "quotas = {bytes = 5}", "quotas: unknown key 'bytes'"),
    ],
)
def test_a_wrong_principal_is_told_with_its_line_and_key(text: str, said: str) -> None:
    assert said in fault(text)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (
            "",
            "neither role nor verbs; give one: role is viewer, operator, owner, admin; verbs are list, read, ",
        ),
        ("role = 'viewer'\nverbs = ['read']", "both role and verbs; give one"),
        (
            "role = 'view'",
            "role: 'view' (did you mean 'viewer'?) is none; roles are viewer, operator, owner, admin",
        ),
        (
            "verbs = ['raed']",
            "verbs: 'raed' (did you mean 'read'?) is none; verbs are list, read, write, delete, ",
        ),
        ("verbs = []", "verbs: none is named; verbs are list"),
        ("verbs = 'read'", "verbs: Expected `array | null`, got `str`, found 'read'"),
        ("role = 'viewer'", "no maps are named; give names, pins, types or owners, or every_map = true"),
        (
            "role = 'viewer'\nevery_map = true\nnames = ['a/b']\ntypes = ['hash']",
            "every_map together with names, types",
        ),
        ("role = 'viewer'\nevery_map = false", "no maps are named"),
        ("role = 'viewer'\nnames = []", "names: an empty list matches no map; leave it out, or name some"),
        (
            "role = 'viewer'\nnames = ['flows']",
            "names: 'flows': names are 'namespace/name', as in 'web/*' or '*/flows'",
        ),
        ("role = 'viewer'\nnames = ['**/a']", "names: '**/a': names are 'namespace/name'"),
        ("role = 'viewer'\nnames = ['Web/a']", "names: 'Web/a': no name has a part 'Web'"),
        ("role = 'viewer'\nnames = ['web/[a']", "names: 'web/[a': '[' without its ']'"),
        (
            "role = 'viewer'\npins = ['a']",
            "pins: 'a': a pin is an absolute path, as in '/sys/fs/bpf/tc/globals/*'",
        ),
        ("role = 'viewer'\npins = ['/a/../b']", "pins: '/a/../b': a part is empty, '.' or '..'"),
        ("role = 'viewer'\npins = ['/a//b']", "pins: '/a//b': a part is empty"),
        ("role = 'viewer'\npins = ['/a/b**']", "pins: '/a/b**': '**' stands for whole parts of a path"),
        (
            "role = 'viewer'\ntypes = ['hsh']",
            "types: no map type is 'hsh' (did you mean 'hash'?); types are hash, array, ",
        ),
        ("role = 'viewer'\ntypes = ['unspec']", "types: no map type is 'unspec'"),
        ("role = 'viewer'\nowners = ['A']", "owners: 'A': a namespace must be 1 to 63 of a-z"),
        ("role = 'viewer'\nids = [5]", "unknown key 'ids'"),
        ("effect = 'refuse'", "effect: 'refuse' is none; it is 'allow' or 'deny'"),
        ("role = 'viewer'\nevery_map = 1", "every_map: Expected `bool`, got `int`, found 1"),
        (
            "role = 'viewer'\nevery_map = true\nkey_prefixes = []",
            "key_prefixes: an empty list matches no key",
        ),
        (
            "role = 'viewer'\nevery_map = true\nkey_prefixes = ['']",
            "key_prefixes: an empty prefix is every key",
        ),
        (
            "role = 'viewer'\nevery_map = true\nkey_prefixes = ['0a0']",
            "key_prefixes: '0a0' is not hexadecimal, two digits a byte",
        ),
        (
            "verbs = ['watch']\nevery_map = true\nkey_prefixes = ['0a']",
            "verbs: watch cannot be given for some keys alone; with key_prefixes go list, read, write, delete",
        ),
        (
            "effect = 'deny'\nverbs = ['list']\nevery_map = true\nkey_prefixes = ['0a']",
            "verbs: list cannot be taken for some keys alone; with key_prefixes go read, write, delete",
        ),
        (
            f"role = 'viewer'\nevery_map = true\nkey_prefixes = ['{'00' * (PREFIX_BYTES + 1)}']",
            f"one of {PREFIX_BYTES + 1} bytes; at most {PREFIX_BYTES}",
        ),
        (
            f"role = 'viewer'\nevery_map = true\nkey_prefixes = {['00'] * (PREFIXES + 1)}",
            f"{PREFIXES + 1} of them; a rule has at most {PREFIXES}",
        ),
        ("role = 'viewer'\nnames = ['a/***']", "names: 'a/***': '**' stands for whole parts"),
        (
            f"role = 'viewer'\npins = ['/{'a*' * CHARACTERS}']",
            f"a pattern of {2 * CHARACTERS + 1} characters; at most {CHARACTERS}",
        ),
    ],
)
def test_a_wrong_rule_is_told_with_its_line_and_key(rule: str, said: str) -> None:
    found = fault(f"{WEB}\n{RULE}{rule}")
    assert found.startswith("p.toml:3: [[rules]] 1: ")
    assert said in found


@pytest.mark.parametrize(
    ("who", "said"),
    [
        ("[]", "who: nobody is named; name principals, or '*' for all of them"),
        (
            "['wep']",
            "who: no principal 'wep' (did you mean 'web'?); add [principals.wep], or name one of ['web']",
        ),
        ("['admin']", "who: 'admin' may do everything, and no rule changes that; leave it out"),
        ("['w*']", "who: no principal 'w*'"),
    ],
)
def test_a_rule_about_nobody_is_refused(who: str, said: str) -> None:
    assert said in fault(f"{WEB}[[rules]]\nwho = {who}\nrole = 'viewer'\nevery_map = true")


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ("users = ['a', 5]", "users = ['5']", "user 5 is [principals.web]'s already (line 1)"),
        ("users = ['a']", "users = ['b', 'a']", "user a is [principals.web]'s already (line 1)"),
        (
            "tls = ['spiffe://a/b']",
            "tls = ['spiffe://a/b']",
            "TLS identity spiffe://a/b is [principals.web]'s already",
        ),
        (
            "tls = ['a.example.org']",
            "tls = ['A.example.org']",
            "TLS identity a.example.org is [principals.web]'s",
        ),
    ],
)
def test_nobody_is_two_principals(one: str, other: str, said: str) -> None:
    found = fault(f"{WEB}{one}\n[principals.db]\n{other}")
    assert found.startswith("p.toml:3: [principals.db]: ")
    assert said in found


def test_a_group_may_be_in_two_principals() -> None:
    """Who is in a group is the host's matter, and people are in several."""
    assert len(parse("[principals.a]\ngroups = [5]\n[principals.b]\ngroups = [5]", "p").members) == 3


def test_two_rules_do_not_have_one_name() -> None:
    rule = "name = 'x'\nrole = 'viewer'\nevery_map = true\n"
    assert (
        fault(f"{WEB}{RULE}{rule}{RULE}{rule}")
        == "p.toml:7: [[rules]] 2 'x': name: rule 1 has it too; a name is for one"
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            "[principals.a]\n[principals.a]",
            "p.toml: not TOML: Cannot declare ('principals', 'a') twice (at line 2, ",
        ),
        ("who = ", "p.toml: not TOML: Invalid value (at "),
        ("\n\n[rules\n", "(at line 3, column "),
        (b"a = '\xff'", "p.toml: not UTF-8, as TOML must be (invalid start byte at byte 5)"),
        ("a = " + "[" * 100_000, "p.toml: arrays or tables too deep in one another"),
        ("a = " + "{a = " * 100_000, "p.toml: arrays or tables too deep in one another"),
        ("a = " + "9" * 100_000, "p.toml: not TOML: Exceeds the limit"),
        (b"#" * (FILE_BYTES + 1), f"p.toml: {FILE_BYTES + 1} bytes; a policy has at most {FILE_BYTES}"),
    ],
    ids=["twice", "no value", "open", "no text", "deep arrays", "deep tables", "long number", "large"],
)
def test_what_is_no_toml_is_refused_with_its_line(content: str | bytes, said: str) -> None:
    assert said in fault(content)


def test_all_faults_are_told_at_once_up_to_a_number() -> None:
    text = "\n".join(f"[principals.p{i}]\nx = 1" for i in range(file.FAULTS + 3))
    found = faults(text)
    assert len(found) == file.FAULTS + 1
    assert found[4].startswith("p.toml:9: [principals.p4]: unknown key 'x'")
    assert found[-1] == "p.toml: 3 more"


def test_a_rule_about_a_principal_with_a_fault_of_its_own_is_not_blamed() -> None:
    assert "unknown key 'x'" in fault(f"{WEB}x = 1\n{RULE}role = 'viewer'\nevery_map = true")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "\n".join(f"[principals.p{i}]" for i in range(PRINCIPALS + 1)),
            f"{PRINCIPALS + 1} principals; at most {PRINCIPALS}",
        ),
        (
            WEB + f"{RULE}role = 'viewer'\nevery_map = true\n" * (RULES + 1),
            f"{RULES + 1} rules; at most {RULES}",
        ),
        (
            WEB + (RULE + f"role = 'viewer'\nnames = {[f'a/{i}*' for i in range(PATTERNS + 1)]}"),
            f"{PATTERNS + 1} patterns with wildcards up to here; a file has at most {PATTERNS}",
        ),
    ],
    ids=["principals", "rules", "patterns"],
)
def test_a_file_has_so_much_and_no_more(text: str, said: str) -> None:
    assert said in fault(text)


def test_a_long_value_is_cut_in_the_message() -> None:
    assert len(fault(f"{WEB}namespace = '{'x' * 100_000}'")) < 300


def test_the_limits_without_a_word_are_the_documented_ones() -> None:
    documented = Quotas(maps=64, map_bytes=256 << 20, handles=1_024, streams=64, dumps=2, connections=32)
    assert documented == DEFAULT_QUOTAS


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "[a]\n[a.b]\n\n[[rules]]\n  [[ rules ]] # x\n",
            {("a",): 1, ("a", "b"): 2, ("rules", 0): 4, ("rules", 1): 5},
        ),
        ("x = '''\n[[rules]]\n'''\n[[rules]]", {("rules", 0): 4}),
        ('x = """\n[[rules]]\\"""\n[[rules]]\n""""\n[[rules]]', {("rules", 0): 5}),
        ("# '''\n[[rules]] # '''\n[[rules]]", {("rules", 0): 2, ("rules", 1): 3}),
        ("x = \"'''\"\n[[rules]]\r\n", {("rules", 0): 2}),
        ("x = [\n  [1, 2],\n]\n[y]", {("y",): 4}),
        (
            "[principals.'a']\n[principals.\"b\".quotas]",
            {("principals", "a"): 1, ("principals", "b", "quotas"): 2},
        ),
    ],
)
def test_lines_are_those_of_headers_and_not_of_what_looks_like_one(
    text: str, found: dict[tuple[str | int, ...], int]
) -> None:
    assert dict(tables(text)) == found
