"""The docs say what the code does: every command, option, link and test that they name is there.

Run as a program, it writes docs/cli.md from the commands' own help.
"""

import re
import shlex
from pathlib import Path

import click
import pytest
from alexnet_dali.tools.bench.cli import bench
from alexnet_dali.tools.demo.cli import demo
from alexnet_dali.tools.evaluate import evaluate_runs
from alexnet_dali.tools.figures.cli import figures
from alexnet_dali.tools.prep.cli import prep
from alexnet_dali.tools.train.cli import train
from alexnet_dali.tools.weights import weights

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = {
    "alexnet-prep": prep,
    "alexnet-train": train,
    "alexnet-eval": evaluate_runs,
    "alexnet-bench": bench,
    "alexnet-weights": weights,
    "alexnet-figures": figures,
    "alexnet-demo": demo,
}


def all_commands() -> list[tuple[str, click.Command]]:
    """Every command and sub-command under the name that a user types."""
    commands: list[tuple[str, click.Command]] = []
    for name, command in COMMANDS.items():
        commands.append((name, command))
        if isinstance(command, click.Group):
            context = click.Context(command)
            for each in command.list_commands(context):
                found = command.get_command(context, each)
                assert found is not None, each
                commands.append((f"{name} {each}", found))
    return commands


def cli_page() -> str:
    """docs/cli.md: each command's help as a terminal of 100 columns shows it."""
    parts = ["# Commands\n\nWritten from `--help` by `make docs`; a test compares the two.\n"]
    for name, command in all_commands():
        settings = COMMANDS[name.split()[0]].context_settings | {"terminal_width": 100}
        with click.Context(command, info_name=name, **settings) as context:
            parts.append(f"## {name}\n\n```\n{command.get_help(context)}\n```\n")
    return "\n".join(parts)


def test_the_page_of_commands_is_their_help():
    page = (ROOT / "docs" / "cli.md").read_text()
    assert page == cli_page(), "docs/cli.md is not what --help says: run `make docs`"


@pytest.mark.parametrize(("name", "command"), all_commands())
def test_every_command_has_a_help_with_an_example(name, command):
    assert "Example" in (command.help or ""), f"{name} --help shows no example"
    assert command.context_settings["help_option_names"] == ["-h", "--help"]  # its own, in whatever order tests run
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden and parameter.name not in ("version", "help"):
            assert parameter.help, f"{name} --{parameter.name} is not explained"


def typed_commands() -> list[tuple[str, str]]:
    """Every line of a code block on our pages that begins with one of our commands."""
    lines = []
    for page in PAGES:
        if page.name == "cli.md":
            continue
        for block in re.findall(r"```\w*\n(.*?)```", page.read_text(), re.S):
            for line in block.splitlines():
                for part in line.split(" && "):
                    if part.startswith(tuple(COMMANDS)):
                        lines.append((page.name, part))
    return lines


@pytest.mark.parametrize(("page", "line"), typed_commands())
def test_commands_on_the_pages_are_accepted(page, line):
    name, *arguments = shlex.split(line, comments=True)
    command = COMMANDS[name]
    if isinstance(command, click.Group):
        found = command.get_command(click.Context(command), arguments[0])
        assert found is not None, f"{page}: {line}"
        command, arguments = found, arguments[1:]
    command.make_context(name, arguments)  # a wrong option or a missing argument raises


def test_pages_name_commands():
    assert len(typed_commands()) >= 4  # the two tests above look at something


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_make_targets_on_the_readme_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"`?make ([a-z]+)", "\n".join(re.findall(r"```\n(.*?)```", PAGES[0].read_text(), re.S))))
    assert {"run", "test"} <= named <= targets


@pytest.mark.parametrize(("name", "least"), [("paper.md", 40), ("reliability.md", 30), ("", 70)])
def test_tests_named_on_pages_exist(name, least):
    pages = [page for page in PAGES if name in page.name]
    named = [found for page in pages for found in re.findall(r"`(test_\w+)::(\w+)`", page.read_text())]
    assert len(named) >= least
    missing = []
    for file, test in named:
        paths = list((ROOT / "tests").rglob(f"{file}.py"))
        if len(paths) != 1 or not re.search(rf"^    ?.*def {test}\b|^def {test}\b", paths[0].read_text(), re.M):
            missing.append(f"{file}::{test}")
    assert not missing


def test_the_code_on_the_readme_runs(shards, tmp_path, monkeypatch, capsys):
    (tmp_path / "out").symlink_to(shards.root)
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", PAGES[0].read_text(), re.S)
    exec(compile(block, "README.md", "exec"), {})
    assert "3, 224, 224" in capsys.readouterr().out


def test_the_record_on_the_format_page_is_what_the_code_writes():
    from alexnet_dali.pipeline.shards import datum

    page = (ROOT / "docs" / "shard-format.md").read_text()
    rows = re.findall(r"^((?:[0-9a-f]{2} )+) +\w+", page, re.M)
    written = datum.encode(bytes(range(12)), height=2, width=2, label=300, encoded=False)
    assert bytes.fromhex("".join(rows)) == written


if __name__ == "__main__":
    (ROOT / "docs" / "cli.md").write_text(cli_page())
