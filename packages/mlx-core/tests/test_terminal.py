"""Commands: exit statuses, options and progress."""

import argparse
import io
import json
import subprocess
import sys

import pytest

from mlx_core import cli, terminal
from mlx_core.errors import InputError


@pytest.mark.parametrize(
    ("outcome", "status", "message"),
    [
        (None, 0, ""),
        (InputError("no prompt"), 1, "error: no prompt"),
        (OSError("disk full"), 1, "error: disk full"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_a_command_has_an_exit_status_for_each_end(outcome, status, message, capsys):
    def run(args):
        if outcome is not None:
            raise outcome
        assert args.json
        return 0

    parser = argparse.ArgumentParser()
    terminal.add_json_option(parser)
    parser.set_defaults(run=run)
    assert terminal.run_command(parser, ["--json"]) == status
    assert capsys.readouterr().err.strip() == message


def test_other_errors_are_not_hidden():
    parser = argparse.ArgumentParser()
    parser.set_defaults(run=lambda args: {}["x"])
    with pytest.raises(KeyError):
        terminal.run_command(parser, [])


def test_progress_is_for_terminals_and_long_tasks(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for stream, minimum, shown in ((Terminal(), 10, True), (Terminal(), 100, False), (io.StringIO(), 10, False)):
        monkeypatch.setattr(sys, "stderr", stream)
        terminal.progress("tokens", minimum)(50, 100)
        assert ("50 of 100 tokens" in stream.getvalue()) is shown


@pytest.mark.parametrize(
    ("command", "groups"),
    [
        ("generate", ["model", "sampling", "prompt", "KV cache", "speculative decoding"]),
        ("chat", ["model", "sampling", "prompt", "KV cache"]),
        ("bench", ["model"]),
        ("perplexity", ["model", "KV cache"]),
    ],
)
def test_options_stand_in_their_groups(command, groups, capsys):
    with pytest.raises(SystemExit):
        cli.main(cli.Family("x-mlx", "Run X.", None), [command, "--help"])
    text = capsys.readouterr().out
    titles = [line for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]
    found = [title.rstrip(":").partition(" (")[0] for title in titles]
    assert [title for title in found if title not in ("options", "positional arguments")] == groups
    if command == "generate":
        assert text.index("speculative decoding") < text.index("  --draft-model") < text.index("  --draft-tokens")


def test_the_report_is_json_on_demand():
    command = [sys.executable, "-m", "mlx_core", "--json"]
    report = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert report["backend"] in ("metal", "cuda", "cpu")
