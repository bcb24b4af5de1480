"""Changes of files that are programs: the pickles in torch's checkpoints, and chat templates."""

from __future__ import annotations

import io
import pickletools
import re
import zipfile
from random import Random

from .mutations import damage

CANARY = "canary"  # the file that hostile programs try to make

# --- pickles

HOSTILE_PICKLES = (
    b"cos\nsystem\nX\x0c\0\0\0touch canary\x85R",
    b"cposix\nsystem\nX\x0c\0\0\0touch canary\x85R",
    b"cbuiltins\neval\nX\x1d\0\0\0__import__('os').abort() or 12\x85R",
    b"\x8c\x08builtins\x8c\x04exec\x93\x8c\x04pass\x85R",
    b"cbuiltins\ngetattr\ncbuiltins\nobject\nX\x0e\0\0\0__subclasses__\x86R)R",
    b"ccollections\nOrderedDict\n)R}X\x09\0\0\0__class__cos\nsystem\nsb",
    b"cargparse\nNamespace\n)R}X\x08\0\0\0__dict__}sb",
    b"cnumpy\ndtype\nX\x02\0\0\0O8\x89\x88\x87R",
    b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85C\x01b\x87R",
    b"(i__main__\nx\n",
    b"]" + b"(2l" * 3,
    b"](" + b"h\0" * 200 + b"e",
    b"\x85" * 5000,
    b"]" * 3000 + b"a" * 2999,
    b"2" * 500,
    b"((((" * 500,
    b"\x8a\xff" + b"\xff" * 255,
    b"\x8b\xff\xff\xff\x7f",
    b"X\xff\xff\xff\xff",
    b"\x8d" + b"\xff" * 8,
    b"r\xff\xff\xff\x7f",
    b"j\xff\xff\xff\x7f",
    b"\x80\xff",
    b"\x95" + b"\xff" * 8,
    b"\x82\x01",
    b"Px\n",
    b"V\\u0000\n",
    b"F1e999\n",
    b"I" + b"9" * 400 + b"\n",
    b"Q",
    b"R",
    b"b",
    b"}",
    b"0",
    b".",
)


def _opcodes(data: bytes) -> list[bytes]:
    """A pickle's instructions."""
    starts = [position for _, _, position in pickletools.genops(data)]
    return [data[start:end] for start, end in zip(starts, [*starts[1:], len(data)], strict=True) if start is not None]


def _pickle(data: bytes, rng: Random) -> bytes:
    """A pickle with instructions removed, doubled, moved, replaced or added, or their operands changed."""
    parts = _opcodes(data)
    for _ in range(rng.choice((1, 1, 2, 3, 6))):
        if not parts:
            break
        at, other = rng.randrange(len(parts)), rng.randrange(len(parts))
        match rng.randrange(8):
            case 0:
                del parts[at]
            case 1:
                parts.insert(at, parts[other])
            case 2:
                parts[at], parts[other] = parts[other], parts[at]
            case 3:
                parts[at] = rng.choice(HOSTILE_PICKLES)
            case 4:
                parts.insert(at, rng.choice(HOSTILE_PICKLES))
            case 5 if len(parts[at]) > 1:  # the operand
                parts[at] = parts[at][:1] + damage(parts[at][1:], rng, times=1)
            case 6:  # a number for another
                parts[at] = rng.choice(
                    (
                        b"K\0",
                        b"K\xff",
                        b"J\xff\xff\xff\xff",
                        b"J\xff\xff\xff\x7f",
                        b"\x8a\x09" + b"\xff" * 8 + b"\0",
                        b"\x88",
                        b"N",
                        b"G\x7f\xf8\0\0\0\0\0\0",
                    )
                )
            case _:
                parts[at:at] = parts[other : other + rng.randint(1, 20)]
    return b"".join(parts)


def torch_file(data: bytes, rng: Random) -> bytes:
    """A checkpoint of torch, in either layout: its pickles, the archive around them or its bytes changed."""
    if data[:4] != b"PK\3\4":
        if rng.random() < 0.3:
            return damage(data, rng, near=2000)
        # magic number, protocol, system, object, keys; then the storages
        ends = [match.end() for match in re.finditer(rb"\.(?=\x80\x02)", data)]
        start = rng.choice([0, *ends])
        try:
            return (
                data[:start]
                + _pickle(_first_pickle(data[start:]), rng)
                + data[start + len(_first_pickle(data[start:])) :]
            )
        except Exception:  # what looked like a pickle's start was none
            return damage(data, rng)
    if rng.random() < 0.25:
        tail = rng.random() < 0.5  # the archive's directory stands at the end
        return damage(data[::-1], rng, near=900)[::-1] if tail else damage(data, rng)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = {info.filename: archive.read(info) for info in archive.infolist()}
    main = next(name for name in entries if name.endswith("data.pkl"))
    if rng.random() < 0.8:
        entries[main] = _pickle(entries[main], rng) if rng.random() < 0.9 else damage(entries[main], rng)
    if rng.random() < 0.3:
        name = rng.choice(list(entries))
        content = entries.pop(name)
        match rng.randrange(5):
            case 0:
                entries[name] = content[: rng.randint(0, len(content))]
            case 1:
                entries[name + "x"] = content
            case 2:
                entries[rng.choice(("../x", "/etc/passwd", "a/b/../data.pkl", "x/", "x/data.pkl"))] = content
            case 3:
                entries[name] = rng.choice((b"big", b"little", b"middle", b""))
    out = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if rng.random() < 0.05 else zipfile.ZIP_STORED
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return out.getvalue()


def _first_pickle(data: bytes) -> bytes:
    for opcode, _, position in pickletools.genops(data):
        if opcode.name == "STOP" and position is not None:
            return data[: position + 1]
    return data


# --- Chat templates

FRAGMENTS = (
    *(
        "{{",
        "}}",
        "{%",
        "%}",
        "{#",
        "'",
        "|",
        "(",
        ")",
        "[",
        "]",
        "~",
        " * ",
        " ** ",
        ".",
        "\0",
        "\u2028",
        "{% raw %}",
        "-%}",
    ),
    "{% for m in messages %}{{ m.content }}{% endfor %}",
    "{% for i in range(10 ** 9) %}{{ i }}{% endfor %}",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{{ range(10 ** 9) | list }}",
    "{{ 'a' * 10 ** 9 }}",
    "{{ [0] * 10 ** 9 }}",
    "{{ 9 ** 9 ** 9 }}",
    "{{ '%999999999d' | format(1) }}",
    "{{ '{:999999999}'.format(1) }}",
    "{{ '{0.__class__.__mro__}'.format(messages) }}",
    "{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}",
    "{% set ns = namespace(x=[]) %}{% for i in range(99) %}{% set ns.x = ns.x + [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
    "{% set ns = namespace(x='x') %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
    "{% set ns = namespace(x='x') %}{% for i in range(60) %}{% set ns.x = (ns.x, ns.x) %}{% endfor %}{{ {ns.x: 1} }}",
    "{% set ns = namespace(x='x') %}{% for i in range(60) %}{% set ns.x = dict(a=ns.x, b=ns.x) %}"
    "{% endfor %}{{ ns.x | tojson }}",
    "{% set ns = namespace(x=namespace()) %}{% for i in range(60) %}{% set ns.x = namespace(a=ns.x, b=ns.x) %}"
    "{% endfor %}{{ ns.x }}",
    "{% set ns = namespace(x='x') %}{% macro f() %}{% set ns.x = varargs %}"
    "{% endmacro %}{% for i in range(60) %}{{ f(ns.x, ns.x) }}{% endfor %}{{ ns.x }}",
    "{% set ns = namespace(x={}) %}{% for i in range(60) %}{% set ns.x = {'a': ns.x.items(), 'b': ns.x.items()} %}"
    "{% endfor %}{{ ns.x }}",
    "{{ ['a' * 9999999] * 9999 }}",
    "{{ ('%(a)s' * 99999) % {'a': 'b' * 9999999} }}",
    "{{ ('%(a)s' * 99999) | format(a='b' * 9999999) }}",
    "{{ ('{0}' * 99999).format('b' * 9999999) }}",
    "{% set a = 'b' * 9999999 %}{{ [" + "a[1:], " * 1000 + "] | length }}",
    "{% set a = 'b' * 9999999 %}{{ [" + "a ~ 1, " * 1000 + "] | length }}",
    "{% set a = 'b' * 9999999 %}{{ [" + "a | upper, " * 1000 + "] | length }}",
    "{{ {}.fromkeys(range(99999), 'b' * 9999999) }}",
    "{{ range(99999) | map('default', 'b' * 9999999, true) | list }}",
    "{{ [" + "'a' * 9999999, " * 500 + "] | join }}",
    "{{ " + "[" * 90 + "range(99999) | list" + "]" * 90 + " | tojson(indent=100) }}",
    "{{ 'aa' | indent(9999999, true) }}" * 2000,
    "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "{{ ().__class__.__base__.__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.system('touch canary') }}",
    "{{ joiner.__init__.__globals__['os'].popen('touch canary').read() }}",
    "{{ self._TemplateReference__context }}",
    "{{ self.__init__.__globals__ }}",
    "{{ messages | map(attribute='__class__') | list }}",
    "{{ raise_exception.__globals__ }}",
    "{{ strftime_now('%Y' * 99999) }}",
    "{{ raise_exception('no') }}",
    "{{ messages | tojson(indent=99999) }}",
    "{{ messages.append(1) }}",
    "{{ messages | sum(attribute='content', start='') }}",
    "{{ 'a' | replace('', 'bbbbbbbb') | replace('', 'c' * 9999) }}",
    "{{ ('a,' * 99999).split(',') | join('b' * 999) }}",
    "{{ messages | groupby('role') }}",
    "{{ 'a'.encode().ljust(10 ** 9) }}",
    "{{ 1 | round(99999999, 'ceil') }}",
    "{{ ('%(a)9999d' * 99999) % {'a': 1} }}",
    "{{ ('a' * 9999999).strip('b' * 9999999 ~ 'a') }}",
    "{{ range(99999) | select('in', range(99999) | list) | list }}",
    "{% set x %}" + "{{ ['a' * 9999999] }}" * 100 + "{% endset %}",
    "{% for i in [0, 1] recursive %}{% if not i %}{{ loop(range(2, 99999)) }}{% endif %}{% endfor %}",
    "{% set ns = namespace(x=()) %}{% for i in range(99999) %}{% set ns.x = (ns.x,) %}{% endfor %}{{ {ns.x: 1} }}",
    "{{ 'aaaa' | indent(99999999) }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}{{ os }}",
    "{% extends 'x' %}",
    "{% block a %}{{ self.a() }}{% endblock %}",
    "{{ ['x'] | map('indent', 10 ** 9) | list }}",
    "{{ dict(a=messages) | xmlattr }}",
    "{{ 1e999 }}{{ 1 / 0 }}{{ -7 // 0.0 }}",
    "{{ '" + "9" * 5000 + "' | int }}",
    "{{ " + "(" * 300 + ")" * 300 + " }}",
    "{{ " + "-" * 3000 + "1 }}",
    "{{ " + "not " * 3000 + "1 }}",
    "{{ x" + "[0]" * 3000 + " }}",
    "{% if 1 %}" * 150,
    "{{ " + "9" * 5000 + " }}",
)


def template(text: str, rng: Random) -> str:
    """A chat template with fragments put in, cut out, doubled or swapped."""
    for _ in range(rng.choice((1, 1, 2, 3, 6))):
        at = rng.randint(0, len(text))
        if rng.random() < 0.5:  # between statements, where a fragment means what it says
            ends = [match.end() for match in re.finditer(r"[%}]}", text)]
            at = rng.choice(ends) if ends else at
        match rng.randrange(5):
            case 0 | 1:
                text = text[:at] + rng.choice(FRAGMENTS) + text[at:]
            case 2:
                text = text[:at] + text[at + rng.choice((1, 2, 8, 64)) :]
            case 3:
                start = rng.randint(0, len(text))
                text = text[:at] + text[start : start + rng.choice((4, 32, 256))] + text[at:]
            case _:
                words = re.findall(r"\w+", text)
                if words:
                    text = text.replace(rng.choice(words), rng.choice(words), rng.choice((1, -1)))
    return text
