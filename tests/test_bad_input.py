"""Whatever is wrong with the input: one clear line, the right exit code, no traceback, no partial
file, and the rest of the batch goes on."""

import ctypes
import hashlib
import json
import os
import pickle
import resource
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from conftest import music

from separator.zoo import downloads

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions and limits")

RATE = 44100
SEPARATE = ["separate", "-m", "tiny", "--stems", "vocals,bass", "-o", "out"]


def without_privileges() -> None:
    """Let permissions hold for root too, in a child process."""
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None)
        for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
            libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP


def run(*words: str, before=without_privileges) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "separator", *SEPARATE, *words],
        capture_output=True,
        text=True,
        errors="surrogateescape",
        preexec_fn=before,
        timeout=600,
    )


def write(name: str, signal: np.ndarray, rate: int = RATE, subtype: str | None = None) -> None:
    soundfile.write(name, signal.T, rate, subtype=subtype)


def outputs() -> list[str]:
    """Return all files in the output folder, hidden ones too."""
    return sorted(str(path.relative_to("out")) for path in Path("out").rglob("*") if path.is_file())


def one_line(text: str, reason: str) -> None:
    assert reason in text
    assert text.count("\n") == 1
    assert "Traceback" not in text


def make_broken() -> dict[str, str]:
    """Write inputs that can't be separated; return the reason that each must be given."""
    signal = music(0.1)
    Path("empty.wav").touch()
    Path("text.wav").write_text("These are words.\n" * 50)
    write("no_samples.wav", signal[:, :0])
    for name, value in (("nan", np.nan), ("infinite", -np.inf)):
        spoiled = signal.copy()
        spoiled[1, 2205] = value
        write(f"{name}.wav", spoiled, subtype="FLOAT")
    Path("folder").mkdir()
    Path("folder", "readme.txt").touch()
    write("unreadable.wav", signal)
    Path("unreadable.wav").chmod(0)
    os.mkfifo("pipe.wav")
    Path("dangling.wav").symlink_to("nowhere.wav")
    Path("random.mp3").write_bytes(np.random.default_rng(0).bytes(5000))
    write("taken.wav", signal)
    Path("out").mkdir()
    Path("out", "taken").touch()  # a file where a folder has to be
    return {
        "empty.wav": "is empty",
        "text.wav": "can't be decoded",
        "no_samples.wav": "holds no audio",
        "nan.wav": "NaN at 0.050 s",
        "infinite.wav": "infinite at 0.050 s",
        "folder": "holds no audio",
        "unreadable.wav": "permission denied",
        "pipe.wav": "not a regular file",
        "dangling.wav": "no such file",
        "missing.wav": "no such file",
        "random.mp3": "can't be decoded",
        "taken.wav": "can't be written",
    }


def make_odd() -> list[str]:
    """Write inputs that look odd and can be separated all the same."""
    write("one_sample.wav", music(1)[:, :1])
    write("tenth.wav", music(0.1))
    write("silence.wav", np.zeros((2, 8000), np.float32))
    write("loud.wav", music(0.2) * 8, subtype="FLOAT")
    write("rate_8k.wav", music(0.2, 8000), 8000)
    write("rate_192k.wav", music(0.1, 192000), 192000)
    for channels in range(1, 9):
        write(f"channels_{channels}.wav", music(0.1, channels=channels))
    name = os.fsdecode(b"not utf-8 \xef.wav")
    soundfile.write(os.fsencode(name), music(0.1).T, RATE, format="WAV")
    names = ["one_sample", "tenth", "silence", "loud", "rate_8k", "rate_192k"]
    return [*(f"{name}.wav" for name in names), *(f"channels_{n}.wav" for n in range(1, 9)), name]


def make_truncated() -> list[str]:
    """Write the first half of some files."""
    for name in ("cut.wav", "cut.flac", "cut.mp3"):
        write(name, music(2.0))
        path = Path(name)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return ["cut.wav", "cut.flac", "cut.mp3"]


@pytest.fixture
def batch(cli):
    """One run over everything; `cli` sets the folder and the model."""
    broken, odd, truncated = make_broken(), make_odd(), make_truncated()
    write("last.wav", music(0.1))
    done = run(*broken, *odd, *truncated, "last.wav", "--report", "report.json")
    files = json.loads(Path("report.json").read_text())["files"]
    return broken, odd, truncated, done, {entry["source"]: entry for entry in files}


@pytest.mark.slow
def test_a_batch_of_bad_inputs(batch):
    broken, odd, truncated, done, report = batch
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    lines = done.stderr.splitlines()
    for source, reason in broken.items():
        (line,) = [line for line in lines if f"] {source}: " in line]
        assert ": failed: " in line
        assert reason in line
        assert report[source]["status"] == "failed"
        assert "details" not in report[source], "the error was not foreseen"
    for source in odd:
        assert report[source]["status"] == "done"
        assert report[source]["truncated"] is None
        expected = soundfile.info(os.fsencode(source))
        for path in report[source]["outputs"].values():
            written = soundfile.info(os.fsencode(path))
            assert (written.samplerate, written.frames, written.channels) == (
                expected.samplerate, expected.frames, expected.channels,
            ), source  # fmt: skip
    for source in truncated:
        assert report[source]["status"] == "done"
        assert "of 2.0 s" in report[source]["truncated"]
        (warning,) = [line for line in lines if f"] {source}: warning: " in line]
        assert report[source]["truncated"] in warning
        assert 0.5 < report[source]["duration"] < 1.5
    assert report["last.wav"]["status"] == "done"
    finished = len(odd) + len(truncated) + 1
    head, *failures = lines[-1 - len(broken) :]
    assert head.startswith(f"{finished} done, {len(broken)} failed in ")
    assert [line.split(": ")[1] for line in failures] == list(broken)  # once more, at the end
    assert len(outputs()) == 2 * finished + 1  # and the file that was in the way
    assert not [path for path in outputs() if Path(path).name.startswith(".")]


@pytest.mark.slow
def test_an_output_folder_that_cannot_be_written(cli):
    write("song.wav", music(0.1))
    Path("out").mkdir(mode=0o500)
    done = run("song.wav")
    assert done.returncode == 2
    one_line(done.stderr, "The folder 'out' can't be written to")


def small_and_big() -> None:
    write("a small.wav", music(0.05))
    write("big.wav", music(3.0))
    write("small.wav", music(0.05))


@pytest.mark.slow
def test_a_full_disk_costs_only_what_does_not_fit(cli):
    """A limit on the size of files stands for the disk's."""
    small_and_big()
    limit = 200_000
    done = run(
        "a small.wav", "big.wav", "small.wav",
        before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip
    assert done.returncode == 1
    failure, again = [line for line in done.stderr.splitlines() if "failed: " in line]
    assert failure.removeprefix("[2/3] big.wav: ") == again.replace("big.wav: ", "", 1)
    assert "can't be written: file too large. Free some space" in failure
    assert "2 done, 1 failed" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(outputs()) == 4


@pytest.mark.slow
def test_a_disk_that_is_really_full(cli):
    small_and_big()
    Path("out").mkdir()
    script = f"""mount -t tmpfs -o size=600k tmpfs out || exit 77
        {sys.executable} -m separator {" ".join(SEPARATE)} 'a small.wav' big.wav small.wav
        echo "ended $?"; find out -type f | wc -l"""
    try:
        done = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("unshare is not installed")
    if done.returncode:
        pytest.skip("mounting is not allowed here")
    assert "no space left on device" in done.stderr
    assert "2 done, 1 failed" in done.stderr
    assert done.stdout.split()[-3:] == ["ended", "1", "4"]


class Evil:
    """Make a mark in the current folder where it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("ran",)


def card(tiny_models: Path, **weights) -> str:
    """Write the card `model` of other weights; return its path."""
    data = yaml.safe_load((tiny_models / "tiny.yaml").read_text())
    original = tiny_models / data["weights"]["file"]
    data |= {"name": "model", "weights": {**data["weights"], "file": str(original), **weights}}
    data["weights"] = {key: value for key, value in data["weights"].items() if value is not None}
    Path("model.yaml").write_text(yaml.safe_dump(data))
    return "model.yaml"


def described(content: bytes, **others) -> dict:
    """Write weights; return what a card says of them."""
    Path("weights.bin").write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    return {"file": "weights.bin", "sha256": sha256, "bytes": len(content), **others}


def refuse(cli, model: str, reason: str) -> None:
    write("song.wav", music(0.1))
    result = cli("separate", "song.wav", "-o", "out", "-m", model, code=1)
    one_line(result.stderr, reason)
    assert result.stdout == ""
    assert outputs() == []


def test_a_hostile_checkpoint_is_never_run(cli, tiny_models):
    evil = pickle.dumps({"state_dict": Evil()})
    refuse(cli, card(tiny_models, **described(evil, format="msst")), "weights.bin")
    Path("config.yaml").write_text("training: {instruments: [a, b]}\nmodel: {}\naudio: {}\n")
    Path("evil.ckpt").write_bytes(evil)
    one_line(cli("models", "add", "evil.ckpt", "config.yaml", code=1).stderr, "evil.ckpt")
    assert not Path("ran").exists()
    pickle.loads(evil)
    assert Path("ran").exists(), "the mark works"


def test_a_hostile_config_is_never_run(cli):
    Path("config.yaml").write_text("model: !!python/object/apply:os.mkdir [ran]\n")
    Path("a.ckpt").write_bytes(b"")
    assert cli("models", "add", "a.ckpt", "config.yaml", code=2).stderr.count("\n") == 1
    assert not Path("ran").exists()


@pytest.mark.parametrize("format", ["safetensors", "msst"])
def test_a_corrupt_checkpoint_is_named(cli, tiny_models, format):
    whole = (tiny_models / "tiny.safetensors").read_bytes()
    refuse(
        cli, card(tiny_models, **described(whole[: len(whole) // 2], format=format)), "weights.bin"
    )


def test_weights_of_another_model_are_named(cli, tiny_models):
    refuse(cli, card(tiny_models, sha256="0" * 64), "expected sha256 " + "0" * 64)
    refuse(cli, card(tiny_models, file="nowhere.bin"), "there is no file 'nowhere.bin'")


@pytest.fixture
def server(tiny_models):
    """A server that gives the weights of `tiny`, of which `server.limit` bytes arrive."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = (tiny_models / "tiny.safetensors").read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: self.server.limit])

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.limit = None
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_a_download_that_is_cut_can_be_resumed(cli, tiny_models, server, monkeypatch):
    monkeypatch.setattr(downloads, "WAIT", 0)
    address = f"http://127.0.0.1:{server.server_port}/weights.safetensors"
    model = card(tiny_models, file=None, urls=[address])
    server.limit = 1000
    told = cli("models", "download", model, code=1).stderr.splitlines()
    assert "licence of the weights: MIT" in told[1]
    assert "run again to resume" in told[2]
    assert len(told) == 3
    write("song.wav", music(0.1))
    offline = cli("separate", "song.wav", "-o", "out", "-m", model, "--offline", code=1)
    one_line(offline.stderr, "downloads are off")
    server.limit = None
    cli("separate", "song.wav", "-o", "out", "-m", model, "--stems", "bass")
    assert outputs() == ["song/bass.wav"]
    cached = [path.suffix for path in Path(".cache").iterdir() if path.suffix != ".lock"]
    assert sorted(cached) == ["", ".safetensors"]  # the folder of verified hashes, the weights


def test_a_download_of_the_wrong_bytes_is_removed(cli, tiny_models, server, monkeypatch):
    monkeypatch.setattr(downloads, "WAIT", 0)
    address = f"http://127.0.0.1:{server.server_port}/weights.safetensors"
    model = card(tiny_models, file=None, urls=[address], sha256="0" * 64)
    write("song.wav", music(0.1))
    told = cli("separate", "song.wav", "-o", "out", "-m", model, code=1).stderr
    assert "expected sha256 " + "0" * 64 in told.splitlines()[-1]
    assert outputs() == []
    assert not list(Path(".cache").glob("*.part"))
    assert not list(Path(".cache").glob("*.safetensors"))
