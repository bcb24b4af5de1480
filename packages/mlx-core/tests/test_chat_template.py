"""Chat templates: transformers' text, the sandbox, and what is refused."""

import datetime
import json
import random
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from mlx_core import TokenizerError
from mlx_core.text import chat_template, template_sandbox
from mlx_core.text.chat_template import choose_template, render_chat

pytestmark = pytest.mark.text

GOLDENS = Path(__file__).parent / "goldens" / "tokenizer"
CHATS = json.loads((GOLDENS / "chats.json").read_text(encoding="utf-8"))
HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture
def frozen_clock(monkeypatch):
    class Frozen(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls.fromisoformat(CHATS["now"])

    monkeypatch.setattr(template_sandbox, "datetime", Frozen)


@pytest.mark.parametrize("template", CHATS["rendered"])
@pytest.mark.parametrize("chat", CHATS["chats"])
def test_the_text_is_that_of_transformers(template, chat, frozen_clock):
    source = (GOLDENS / "templates" / f"{template}.jinja").read_text(encoding="utf-8")
    expected = CHATS["rendered"][template][chat]
    options = {**CHATS["chats"][chat], "bos_token": "<bos>", "eos_token": "<eos>"}
    if expected is None:
        with pytest.raises(TokenizerError):
            render_chat(source, **options)
    else:
        assert render_chat(source, **options) == expected


def test_the_callers_messages_stay_as_they_are():
    messages = [{"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]}]
    source = "{{ messages[0].content is defined }}{% set messages = [] %}"
    assert render_chat(source, messages) == "False"
    assert messages == [{"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]}]


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ '<é>&' | tojson }} {{ 'é' | tojson(ensure_ascii=true) }}", '"<é>&" "\\u00e9"'),
        ("{{ {'b': 1, 'a': [2]} | tojson(indent=1) }}", '{\n "b": 1,\n "a": [\n  2\n ]\n}'),
        ("{{ {'b': 1, 'a': 2} | tojson(separators=(',', ':'), sort_keys=true) }}", '{"a":2,"b":1}'),
        ("{% for i in [0, 1, 2] %}{% if i == 1 %}{% continue %}{% endif %}{{ i }}{% endfor %}", "02"),
        ("{% for i in [0, 1, 2] %}{% if i == 1 %}{% break %}{% endif %}{{ i }}{% endfor %}", "0"),
        ("{% for i in 'abc' %}{{ loop.index }}/{{ loop.length }}{{ '.' if loop.last }}{% endfor %}", "1/32/33/3."),
        ("{% for k in {'x': 1} %}{{ k }}{% else %}none{% endfor %}{% for k in nothing %}{% else %}none{% endfor %}", "xnone"),
        ("{% for a, b in [(1, 2), (3, 4)] if a > 1 %}{{ a }}{{ b }}{% endfor %}", "34"),
        ("a{% generation %}b{% set x = 1 %}{% endgeneration %}{{ x }}", "ab"),
        ("{{ 1 ~ none ~ 'x' ~ nothing }}", "1Nonex"),
        ("{{ 'a-b'.replace('-', '+') }}{{ '-'.join(['a', 'b']) }}{{ 'aaa' | replace('a', 'b', 2) }}", "a+ba-bbba"),
        ("{{ [{'n': 1}, {'n': 2}] | join('/', attribute='n') }}{{ [1, 2] | join }}{{ nothing | join }}", "1/212"),
        ("{{ 'a\nb\n\nc' | indent }}|{{ 'a\nb' | indent('> ', first=true) }}", "a\n    b\n\n    c|> a\n> b"),
        ("{{ '%05.1f|%s' | format(2.25, 'x') }}{{ '%d%%' % 5 }}{{ '{:>4}{{}}'.format('x') }}", "002.2|x5%   x{}"),
        ("  {% if true %}\n  x\n  {% endif %}\n", "  x\n"),
        ("{{ add_generation_prompt }}{{ tools }}{{ documents }}", "TrueNoneNone"),
        ("{{ ('x' | safe).upper() }}{{ ['a', 'b'] | map('upper') | join('/') }}", "XA/B"),
        ("{{ [1, 2] | sum }}{{ 2.7 | round | int }}", "33"),
        ("{% if [] | select %}a lazy filter is true{% endif %}", "a lazy filter is true"),
        ("{{ 'a b'.rsplit(' ', 1) }}{{ ' a '.strip() }}{{ 'xay' | trim('xy') }}", "['a', 'b']aa"),
        ("{{ {'a': 1}.items() | list }}", "[('a', 1)]"),
        ("{{ [1, 2, 3][1:] }}{{ {'a': 'b'}['a'] }}{{ 1 < 2 < 3 }}{{ 'é' in 'né' }}", "[2, 3]bTrueTrue"),
        ("{{ '{} {b}'.format(1, b=2) }}{{ '%s%%' | format('x') }}{{ '%(a)s' | format(a=1) }}", "1 2x%1"),
        ("{% macro m(a) %}{{ a }}{{ varargs }}{% endmacro %}{{ m(1, 2) }}", "1(2,)"),
        ("{% macro m(a) %}{{ a }}{{ caller() }}{% endmacro %}{% call m(3) %}c{% endcall %}", "3c"),
        ("{% filter upper %}a{% endfilter %}{% set x | trim %} b {% endset %}{{ x }}", "Ab"),
        ("{% set ns = namespace(a=1) %}{% for i in range(3) %}{% set ns.a = ns.a + i %}{% endfor %}{{ ns.a }}", "4"),
    ],
)  # fmt: skip
def test_the_language(source, text):
    assert render_chat(source, HELLO) == text


def test_variables_reach_the_template_but_take_no_reserved_name():
    source = "{{ bos_token }}{{ enable_thinking }}{{ messages | length }}"
    assert render_chat(source, HELLO, bos_token="<s>", enable_thinking=False) == "<s>False1"


@pytest.mark.parametrize(
    ("templates", "wanted", "tools", "chosen"),
    [
        ({"default": "D"}, None, False, "D"),
        ({"default": "D"}, None, True, "D"),
        ({"default": "D", "tool_use": "T"}, None, True, "T"),
        ({"default": "D", "tool_use": "T"}, None, False, "D"),
        ({"default": "D", "rag": "R"}, "rag", False, "R"),
        ({"default": "D", "tool_use": "T"}, "default", True, "D"),
        ({"default": "D"}, "{{ x }}", False, "{{ x }}"),
        ({}, "{{ x }}", True, "{{ x }}"),
    ],
)
def test_a_template_is_chosen_by_name(templates, wanted, tools, chosen):
    assert choose_template(templates, wanted, tools=tools) == chosen


@pytest.mark.parametrize(("templates", "message"), [({}, "no chat template"), ({"rag": "", "x": ""}, "one of rag, x")])
def test_without_a_default_it_has_to_be_named(templates, message):
    with pytest.raises(TokenizerError, match=message):
        choose_template(templates, None, tools=False)


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ("Hello", "messages must be a list, found str"),
        ({"role": "user"}, "messages must be a list, found dict"),
        (None, "messages must be a list, found NoneType"),
        ([], "no messages"),
        (["Hello"], r"messages\[0\] must be a dictionary, found str"),
        ([HELLO], r"messages\[0\] must be a dictionary, found list"),
        ([*HELLO, {"content": "x"}], r"messages\[1\] has no role"),
        ([{"role": None, "content": "x"}], r"messages\[0\] has no role"),
        ([{"role": "user", "content": object()}], r"messages\[0\]\['content'\] is a object"),
        ([{"role": "user", "content": [{"image": b"x"}]}], r"\['content'\]\[0\]\['image'\] is a bytes"),
    ],
)
def test_messages_of_another_form_are_refused(messages, message):
    with pytest.raises(TokenizerError, match=message):
        render_chat("{{ messages }}", messages)


def test_data_without_end_is_refused():
    loop = []
    loop.append(loop)
    with pytest.raises(TokenizerError, match="nested too deeply"):
        render_chat("{{ messages }}", [{"role": "user", "content": loop}])


@pytest.mark.parametrize(
    ("tools", "message"),
    [
        (len, "tools must be a list"),
        ([len], r"tools\[0\] must be a dictionary, found builtin_function"),
        ([{"function": len}], r"tools\[0\]\['function'\] is a builtin_function"),
        ("add", "tools must be a list, found str"),
    ],
)
def test_tools_are_schemas(tools, message):
    with pytest.raises(TokenizerError, match=message):
        render_chat("{{ tools }}", HELLO, tools=tools)


def test_variables_are_plain_data():
    with pytest.raises(TokenizerError, match="clock is a builtin_function"):
        render_chat("{{ clock() }}", HELLO, clock=len)


class Text(str):
    secret = "shown"


def test_subclasses_come_as_what_they_stand_for():
    source = "{{ messages[0].content }}{{ messages[0].content.secret }}"
    assert render_chat(source, [{"role": "user", "content": Text("x")}]) == "x"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{% if %}", "isn't valid Jinja at line 1"),
        ("a\n{% for x in y %}", "isn't valid Jinja at line 2"),
        ("{{ 'x' | no_such_filter }}", "isn't valid Jinja"),
        ("{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}", "isn't valid Jinja"),
        ("{% if 1 %}" * 3000 + "{% endif %}" * 3000, "isn't valid Jinja"),
        ("{% for x in [1] %}" * 60 + "{% endfor %}" * 60, "isn't valid Jinja"),
        ("x" * 300_000, "300,000 characters"),
        ("{{ raise_exception('roles must alternate') }}", "refuses these messages: roles must alternate"),
        ("{{ messages[7].role }}", "can't render"),
        ("{{ nothing.role.name }}", "can't render"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ none + 'x' }}", "TypeError"),
        ("{{ nothing | tojson }}", "TypeError"),
        ("{% include 'other' %}", "can't render"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
        ("{% for i in range(1000000) %}{% endfor %}", "Range too big"),
    ],
)
def test_templates_that_fail(source, message):
    with pytest.raises(TokenizerError, match=re.escape(message)):
        render_chat(source, HELLO)


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.__class__ }}",
        "{{ messages['__class__'] }}",
        "{{ messages | attr('__class__') }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ raise_exception.__globals__ }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ self.__dict__ }}",
        "{{ '{0.__class__}'.format(messages) }}",
        "{{ (messages | map('upper')).gi_frame }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update(role='system') }}",
        "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
        "{{ namespace(__html__=1) }}",
        "{{ namespace({'_x': 1}) }}",
    ],
)
def test_the_sandbox_holds(source):
    with pytest.raises(TokenizerError, match="was stopped"):
        render_chat(source, HELLO)


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'a' * 100000000000 }}",
        "{{ 100000000000 * 'a' }}",
        "{{ ([0] * 100000000000) | length }}",
        "{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] | join %}{% endfor %}",
        "{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set ns.x = ns.x.join(['', '', '']) %}{% endfor %}",
        "{% set n = namespace(x='a') %}{% for i in range(60) %}{% set x %}{{ n.x }}{{ n.x }}{% endset %}"
        "{% set n.x = x %}{% endfor %}",
        "{% macro f(x, n) %}{{ f(x ~ x, n - 1) if n else x }}{% endmacro %}{{ f('a', 60) }}",
        "{% for i in range(99999) %}{{ 'a' * 1000 }}{% endfor %}",
        "{{ ('a' * 1000000) | replace('a', 'b' * 1000000) }}",
        "{{ ('a' * 1000000).replace('a', 'b' * 1000000) }}",
        "{{ ('a\n' * 1000000) | indent(1000000) }}",
        "{{ 'a\nb' | indent(100000000000) }}",
        "{{ 9 ** 99999999 }}",
        "{{ 2 ** 250 * 2 ** 250 * 2 ** 250 * 2 ** 250 * 2 ** 250 }}",
        "{{ '%100000000000d' % 1 }}",
        "{{ '%*d' % (100000000000, 1) }}",
        "{{ '%100000000000d' | format(1) }}",
        "{{ '{:100000000000}'.format(1) }}",
        "{{ '{:{w}}'.format(1, w=100000000000) }}",
        "{{ strftime_now('%100000000000d') }}",
        "{{ [1] | tojson(indent=100000000000) }}",
        "{{ 'a'.ljust(100000000000) }}",
        "{{ 'a'.translate({97: 'b'}) }}",
        "{% set n = namespace(x='a') %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}",
        "{% set n = namespace(x='a') %}{% for i in range(60) %}{% set n.x = (n.x, n.x) %}{% endfor %}{{ n.x }}",
        "{% set n = namespace(x='a') %}{% for i in range(60) %}{% set n.x = {'a': n.x, 'b': n.x} %}{% endfor %}{{ n.x }}",
        "{% set n = namespace(x='a') %}{% for i in range(60) %}{% set n.x = dict(a=n.x, b=n.x) %}{% endfor %}{{ n.x }}",
        "{% set n = namespace(x='a') %}{% for i in range(60) %}{% set n.x = [n.x] * 2 %}{% endfor %}{{ n.x }}",
        "{% set n = namespace(x='a') %}{% for i in range(60) %}{% set n.x = [n.x] + [n.x] %}{% endfor %}{{ n.x }}",
        "{% set n = namespace(x=['a']) %}{% for i in range(60) %}{% set n.x = [n.x[:], n.x[:]] %}{% endfor %}",
        "{% set n = namespace(x={}) %}{% for i in range(60) %}{% set n.x = {1: n.x.items(), 2: n.x.items()} %}{% endfor %}",
        "{% set n = namespace(x='a') %}{% macro f() %}{% set n.x = varargs %}{% endmacro %}"
        "{% for i in range(60) %}{{ f(n.x, n.x) }}{% endfor %}",
        "{{ ['a' * 1000000] * 1000 }}",
        "{{ {}.fromkeys(range(1000), 'a' * 1000000) }}",
        "{{ range(1000) | map(attribute='x', default='a' * 1000000) | list }}",
        "{{ ('%(a)s' * 1000) % {'a': 'b' * 1000000} }}",
        "{{ ('%(a)s' * 1000) | format(a='b' * 1000000) }}",
        "{{ ('{0}' * 1000).format('b' * 1000000) }}",
        "{{ " + "[" * 20 + "range(9999) | list" + "]" * 20 + " | tojson(indent=100) }}",
        "{% set a = 'a' * 10000000 %}{{ [" + "a[1:], " * 500 + "] | length }}",
        "{% set a = 'a' * 10000000 %}{{ [" + "a ~ 1, " * 500 + "] | length }}",
        "{% set a = 'a' * 10000000 %}{{ [" + "a | upper, " * 500 + "] | length }}",
        "{% set a = 'a' * 10000000 %}{{ [" + "a.upper(), " * 500 + "] | length }}",
        "{{ [" + "'a' * 10000000, " * 500 + "] | length }}",
        "{{ 'a' | indent(10000000, true) }}" * 500,  # constants, which Jinja would compute while it compiles
        "{{ 'a'.encode().ljust(100000000000) }}",
        "{{ (5).to_bytes(100000000000, 'big') }}",
        "{{ 1 | round(99999999, 'ceil') }}",
        "{{ (('a' * 1000000) | safe).replace('a', 'b' * 10000) }}",
        "{{ '%(a)99999999999d' % {'a': 1} }}",
        "{{ '%(a(b)c)99999999999d' % {'a(b)c': 1} }}",
        "{{ ('%99d' * 100000) % ([1] * 100000) }}",
        "{{ ('{a}' * 1000000).format_map({'a': 'b' * 1000000}) }}",
        "{{ ('a' * 4000000).rfind('b' ~ 'a' * 2000000) }}",
        "{{ ('a' * 2000000).strip('b' * 2000000 ~ 'a') }}",
        "{{ ('a' * 2000000) | trim('b' * 2000000 ~ 'a') }}",
        "{{ ('a' * 4000000) | list | length }}",
        "{{ ('a' * 4000000) | map('upper') | list | length }}",
        "{{ ([[0]] * 60000) | sum(start=[]) }}",
        "{{ range(99999) | list | tojson(separators=('a' * 1000000, ':')) }}",
        "{{ [1] | tojson(indent='a' * 1000000) }}",
        "{{ strftime_now('%99d' * 100000) }}",
        "{% set a = ['a' * 4000000] %}{% set x %}" + "{{ a }}" * 500 + "{% endset %}",
        "{% set n = namespace(x=(1,)) %}{% for i in range(99999) %}{% set n.x = (n.x,) %}{% endfor %}{{ {n.x: 1} }}",
    ],
)  # fmt: skip
def test_templates_that_would_fill_the_memory_are_stopped(source, monkeypatch):
    monkeypatch.setattr(template_sandbox, "MAX_CHARACTERS", 2**22)  # a quarter of them, and of the tests' time
    monkeypatch.setattr(template_sandbox, "MAX_MADE", 2**26)
    with pytest.raises(TokenizerError, match=r"was stopped: it (makes|computes|formats|indents|reaches)"):
        render_chat(source, HELLO)


def test_all_that_a_template_may_keep_is_bounded_together(monkeypatch):
    monkeypatch.setattr(template_sandbox, "MAX_MADE", 2**20)
    source = "{% set a = range(9999) | list %}{% set b = range(9999) | list %}"
    assert render_chat(source, HELLO) == ""
    with pytest.raises(TokenizerError, match="1,048,576 characters in all"):
        render_chat(
            source
            + "{% set c = a[:] %}{% set d = (a, b) + (a[1:], b[1:]) %}{% set e = a[2:] %}{% set f = 'a' * 262144 %}",
            HELLO,
        )


def test_a_prompt_is_bounded_in_bytes(monkeypatch):
    monkeypatch.setattr(template_sandbox, "MAX_PROMPT_BYTES", 3000)
    assert render_chat("{{ 'é' * 1500 }}", HELLO) == "é" * 1500
    with pytest.raises(TokenizerError, match="a prompt of more than 3,000 bytes"):
        render_chat("{{ 'é' * 1500 }}a", HELLO)


def test_long_chats_fit_into_the_bounds():
    """Lists of messages are made and passed on as templates do it, and count for no more than they are."""
    source = (
        "{% macro show(m, all) %}{{ m.content }}{{ all | length }}{% endmacro %}{% set n = namespace(x=[]) %}"
        "{% for m in messages %}{% set n.x = n.x + [m] %}{{ show(m, messages) }}{% endfor %}{{ n.x | length }}"
    )
    chat = [{"role": "user", "content": "a" * 1000}] * 1000
    assert len(render_chat(source, chat)) == 1_000_000 + 4 * 1001


@pytest.mark.parametrize("value", ["n", "[n, n]"])
def test_namespaces_do_not_write_what_they_hold(value):
    assert "<Namespace>" in render_chat(f"{{% set n = namespace() %}}{{% set n.x = n %}}{{{{ {value} }}}}", HELLO)


@pytest.mark.parametrize("name", ["center", "wordwrap", "batch", "slice", "random"])
def test_filters_that_no_chat_needs_are_gone(name):
    with pytest.raises(TokenizerError, match=f"No filter named '{name}'"):
        render_chat(f"{{{{ 'a' | {name}(5) }}}}", HELLO)


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in [1] %}{% endfor %}",
        "{% for i in [1] %}{% set x = loop.last %}{% endfor %}",
        "{% for i in 'a' if i == 'b' %}{% endfor %}",
        "{% macro f() %}{% endmacro %}{% set x = f() %}",
        "{% set x = 'a'.upper() %}",
        "{% set x = messages | length %}",
        "{% set x = 'a' + 'b' %}",
        "{% set x = 2 * 2 %}",
        "{% set x = 2 % 2 %}",
        "{% set x = 2 ** 2 %}",
        "{% set x = 'a' ~ messages %}",
        "{% set x %}{{ messages }}{% endset %}",
        "{% set x %}{{ 1 }}{% endset %}",
        "{% set x = messages == tools %}",
        "{% set x = messages is mapping %}",
        "{% set x = messages[0] %}",
        "{% set x = messages[:] %}",
        "{% set x = [] %}",
        "{% set x = {'a': 1} %}",
    ],
)
def test_a_rendering_ends_when_its_time_is_up(source, monkeypatch):
    monkeypatch.setattr(template_sandbox, "MAX_SECONDS", -1.0)  # is up before the first step
    with pytest.raises(TokenizerError, match="takes longer"):
        render_chat(source, HELLO)


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in [0, 1] recursive %}{% if not i %}{{ loop(range(2, 9999)) }}{% endif %}{% endfor %}",
        "{% set x = range(9999) | select('in', []) | list %}",
        "{% set x = range(9999) | map('string') | list %}",
        "{% set x = range(9999) | select | list %}",
        "{% for i in range(9999) | select %}{% endfor %}",
    ],
)
def test_each_step_looks_at_the_clock(source, monkeypatch):
    """Of a clock that goes on by a second whenever it is looked at, 1,000 s are enough for little else."""
    seconds = iter(range(10**6))
    monkeypatch.setattr(template_sandbox, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    monkeypatch.setattr(template_sandbox, "MAX_SECONDS", 1000)
    assert render_chat("{% for i in range(900) %}{% endfor %}", HELLO) == ""
    with pytest.raises(TokenizerError, match="takes longer"):
        render_chat(source, HELLO)


def test_a_rendering_is_bounded_in_any_thread(monkeypatch):
    monkeypatch.setattr(template_sandbox, "MAX_SECONDS", 0.05)
    endless = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    with ThreadPoolExecutor(4) as threads:
        renderings = [threads.submit(render_chat, endless, HELLO) for _ in range(4)]
        assert render_chat("{{ messages[0].content }}", HELLO) == "Hello"
        assert all("takes longer" in str(rendering.exception()) for rendering in renderings)


def test_a_template_is_compiled_once(monkeypatch):
    compiled = []
    original = template_sandbox.compile_template
    monkeypatch.setattr(template_sandbox, "compile_template", lambda s: compiled.append(s) or original(s))
    source = "{{ messages[0].content }} of test_a_template_is_compiled_once"
    for _ in range(3):
        render_chat(source, HELLO)
    assert compiled == [source]
    assert chat_template._compiled.cache_info().maxsize is not None


def test_the_global_random_state_is_left_alone():
    state = random.getstate()
    for source in ("{{ lipsum() }}", "{{ [1, 2] | random }}", "{{ messages }}"):
        try:
            render_chat(source, HELLO)
        except TokenizerError:
            continue
    assert random.getstate() == state


def test_importing_and_encoding_load_no_jinja():
    code = (
        "import sys; from mlx_core.testing import byte_tokenizer; import mlx_core.text.chat_template;"
        "t = byte_tokenizer(chat_template='{{ messages[0].content }}'); t.encode('x');"
        "heavy = {'jinja2', 'transformers', 'huggingface_hub', 'torch'}; assert not heavy & set(sys.modules), sys.modules;"
        "t.encode_chat([{'role': 'user', 'content': 'x'}]); assert 'jinja2' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
