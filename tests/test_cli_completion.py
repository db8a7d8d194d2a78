# SPDX-License-Identifier: MIT
"""crnn completion: what bash, zsh and fish complete with the scripts; shells that are not installed are skipped."""

import shutil
import subprocess

import pytest

from crnn import cli
from crnn.cli.command import SUBCOMMANDS, all_parsers
from crnn.nn.cells import CELLS

pytestmark = pytest.mark.thread_unsafe  # standard output and error are the process's

SHELLS = ("bash", "zsh", "fish")
NAMES = [each.name for each in SUBCOMMANDS]


@pytest.fixture
def script(tmp_path, capsys):
    def write(shell):
        assert cli.main(["completion", shell]) == 0
        path = tmp_path / f"crnn.{shell}"
        path.write_text(capsys.readouterr().out, encoding="utf-8")
        return path

    return write


def shell_output(shell, *words):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    done = subprocess.run([shell, *map(str, words)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def bash_completes(script, *typed):
    words = " ".join(f"'{word}'" for word in typed)
    program = f"source '{script}'; COMP_WORDS=(crnn {words}); COMP_CWORD={len(typed)}; _crnn"
    program += '; echo "${COMPREPLY[@]}"'
    return shell_output("bash", "--norc", "-c", program).split()


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_can_read_its_script(script, shell):
    assert shell_output(shell, "-n", script(shell)) == ""


def test_bash_completes_subcommands_options_and_choices(script):
    path = script("bash")
    assert bash_completes(path, "") == [*NAMES, "--help", "--version"]
    assert bash_completes(path, "s") == ["sample", "score"]
    assert bash_completes(path, "train", "text.txt", "--cell", "") == list(CELLS)
    assert bash_completes(path, "train", "--cell", "=") == list(CELLS)  # bash takes the word apart
    assert bash_completes(path, "train", "--cell", "=", "l") == [cell for cell in CELLS if cell.startswith("l")]
    assert bash_completes(path, "train", "--res") == ["--resume", "--restart"]
    assert bash_completes(path, "completion", "f") == ["fish"]
    assert bash_completes(path, "train", "some") == []  # bash completes names of files then


def test_bash_has_the_function_registered(script):
    program = f"source '{script('bash')}'; complete -p crnn"
    assert shell_output("bash", "--norc", "-c", program) == "complete -o default -F _crnn crnn\n"


@pytest.mark.parametrize("name", NAMES)
def test_bash_completes_all_options_of_every_subcommand(script, name):
    options = {option for action in all_parsers()[name]._actions for option in action.option_strings}
    assert set(bash_completes(script("bash"), name, "-")) >= options


def test_fish_completes_subcommands_options_and_choices(script):
    path = script("fish")

    def completes(line):
        out = shell_output("fish", "--no-config", "-c", f"source '{path}'; complete -C '{line}'")
        return [each.split("\t")[0] for each in out.splitlines()]

    assert set(completes("crnn s")) == {"sample", "score"}
    assert set(completes("crnn train --cell ")) == set(CELLS)
    assert set(completes("crnn train --res")) == {"--resume", "--restart"}
    assert "--samples" not in completes("crnn train --s")


def test_zsh_gets_every_option_with_its_help(script):
    program = (
        "autoload -U compinit; compinit -D; source $1; _arguments() { print -l -- $@ }; "
        "_describe() { print -l $commands }; words=(crnn ''); CURRENT=2; _crnn; words=(crnn train ''); CURRENT=3; _crnn"
    )
    lines = shell_output("zsh", "-f", "-c", program, "zsh", script("zsh")).splitlines()
    assert [line.split(":")[0] for line in lines[: len(NAMES)]] == NAMES
    specs = lines[len(NAMES) :]
    assert f"--cell[kind of recurrent cell (default: lstm)]:value:({' '.join(CELLS)})" in specs
    options = {option for action in all_parsers()["train"]._actions for option in action.option_strings}
    assert {spec.split("[")[0] for spec in specs if spec.startswith("-")} >= options
    assert any(spec.startswith("--log[") and spec.endswith(":value:_files") for spec in specs)


def test_another_shell_is_refused(capsys):
    with pytest.raises(SystemExit):
        cli.main(["completion", "tcsh"])
    assert "invalid choice: 'tcsh'" in capsys.readouterr().err
