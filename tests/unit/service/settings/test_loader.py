import os
import threading
from pathlib import Path

import pytest

from convvae_service.errors import StartupError
from convvae_service.settings.loader import load_settings
from convvae_service.settings.precision_policy import PrecisionPolicies
from convvae_service.settings.serve import ServeSettings
from convvae_service.settings.version_policy import VersionPolicies, VersionPolicy

MODELS = ["--models", "models"]


@pytest.fixture(autouse=True)
def no_settings_around(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("CONVVAE_SERVE_")]:
        monkeypatch.delenv(name)


def test_flags_beat_environment_beats_file_beats_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each source overrides the ones after it, key by key."""
    file = tmp_path / "serve.toml"
    file.write_text('models = "from-file"\nlanes = 2\nthreads = 2\nmax_batch_rows = 2\n')
    monkeypatch.setenv("CONVVAE_SERVE_LANES", "3")
    monkeypatch.setenv("CONVVAE_SERVE_THREADS", "3")
    settings = load_settings(["--config", str(file), "--lanes", "4"])
    assert settings.models == Path("from-file")
    assert (settings.lanes, settings.threads, settings.max_batch_rows) == (4, 3, 2)
    assert settings.max_rows_per_call == 1024


def test_config_can_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`CONVVAE_SERVE_CONFIG` names the file if there is no flag."""
    file = tmp_path / "serve.toml"
    file.write_text('models = "m"\nserve = ["a=1", "b=2"]\n')
    monkeypatch.setenv("CONVVAE_SERVE_CONFIG", str(file))
    settings = load_settings([])
    assert settings.pinned_versions == {"a": 1, "b": 2}


def test_serve_is_repeated_as_a_flag_and_comma_separated_in_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both forms give the same mapping."""
    flags = load_settings([*MODELS, "--serve", "a=1", "--serve", "b=20"])
    monkeypatch.setenv("CONVVAE_SERVE_SERVE", "a=1, b=20")
    assert flags.pinned_versions == load_settings(MODELS).pinned_versions == {"a": 1, "b": 20}


def test_versions_are_repeated_as_a_flag_and_comma_separated_in_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Flags, environment and file give the same policies, and the default is the latest version."""
    assert load_settings(MODELS).version_policies == VersionPolicies(VersionPolicy(1))
    flags = load_settings([*MODELS, "--versions", "latest:2", "--versions", "a=1", "--versions", "a=3"])
    file = tmp_path / "serve.toml"
    file.write_text('models = "m"\nversions = ["latest:2", "a=1", "a=3"]\n')
    in_file = load_settings(["--config", str(file)])
    monkeypatch.setenv("CONVVAE_SERVE_VERSIONS", "latest:2, a=1, a=3")
    expected = VersionPolicies(VersionPolicy(2), {"a": VersionPolicy(None, frozenset({1, 3}))})
    assert flags.version_policies == in_file.version_policies == expected
    assert load_settings(MODELS).version_policies == expected


def test_precision_is_repeated_as_a_flag_and_comma_separated_in_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Flags, environment and file, as a list or a string, give the same policies, and the default is auto."""
    assert load_settings(MODELS).precision_policies == PrecisionPolicies(None)
    expected = PrecisionPolicies("fp16", {"a": "int8", "b": None})
    assert load_settings([*MODELS, "--precision", "int8"]).precision_policies == PrecisionPolicies("int8")
    flags = [*MODELS, "--precision", "fp16", "--precision", "a=int8,b=auto"]
    assert load_settings(flags).precision_policies == expected
    for number, value in enumerate(('["fp16", "a=int8", "b=auto"]', '"fp16, a=int8, b=auto"')):
        file = tmp_path / f"{number}.toml"
        file.write_text(f'models = "m"\nprecision = {value}\n')
        assert load_settings(["--config", str(file)]).precision_policies == expected
    monkeypatch.setenv("CONVVAE_SERVE_PRECISION", "a=int8, fp16, b=auto")
    assert load_settings(MODELS).precision_policies == expected


def test_settings_are_frozen() -> None:
    """Nothing changes a setting after the start."""
    settings = load_settings(MODELS)
    with pytest.raises(ValueError, match="frozen"):
        settings.lanes = 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--models is required"),
        ([*MODELS, "--lanes", "-1"], "--lanes is '-1': it must be 0 to 64"),
        ([*MODELS, "--lanes", "two"], "--lanes is 'two': it must be a whole number, 0 to 64"),
        ([*MODELS, "--address", "localhost"], "--address: 'localhost' is not HOST:PORT"),
        ([*MODELS, "--address", "localhost:99999"], "--address: 'localhost:99999' is not HOST:PORT"),
        ([*MODELS, "--address", "off"], "--address: 'off' is not HOST:PORT"),
        ([*MODELS, "--metrics-address", "9464"], "--metrics-address: '9464' is not HOST:PORT"),
        ([*MODELS, "--max-pixels-per-file", "9" * 20], "it must be 64 to 178000000"),
        ([*MODELS, "--serve", "mnist"], "--serve: 'mnist' is not MODEL=VERSION, as in mnist=2"),
        ([*MODELS, "--serve", "mnist=0"], "--serve: 'mnist=0' is not MODEL=VERSION"),
        ([*MODELS, "--serve", "m=1", "--serve", "m=2"], "--serve: a model is named twice"),
        ([*MODELS, "--versions", "newest"], "--versions: 'newest' is not latest:N, all or VERSION"),
        ([*MODELS, "--versions", "all,2"], "--versions: '2' contradicts an earlier word for all models"),
        (
            [*MODELS, "--precision", "fp64"],
            "--precision: 'fp64' is not auto, fp32, fp16 or int8, nor MODEL=",
        ),
        ([*MODELS, "--precision", "fp16,int8"], "--precision: 'int8' is a second word for all models"),
        (
            [*MODELS, "--precision", "m=fp16,m=auto"],
            "--precision: 'm=auto' is a second word for m: give only",
        ),
        ([*MODELS, "--watch-interval-s", "0"], "--watch-interval-s is '0': it must be 0.05 to 86400"),
        ([*MODELS, "--arena", "none"], "--arena is 'none': it must be keep or off"),
        (
            [*MODELS, "--max-message-bytes", "9"],
            "--max-message-bytes is '9': it must be 65536 (64 KiB) to 1073741824 (1 GiB)",
        ),
        ([*MODELS, "--max-call-s", "0"], "--max-call-s is '0': it must be more than 0, at most 86400"),
        ([*MODELS, "--device", "gpu"], "--device: 'gpu' is not auto, cpu, cuda or cuda:N"),
        (
            [*MODELS, "--max-queued-rows", "10"],
            "--max-queued-rows (10) must be at least --max-rows-per-call (1024)",
        ),
        (
            [*MODELS, "--max-pending-bytes", "65536"],
            "--max-pending-bytes (65536) must be at least 4 x --max-message-bytes",
        ),
        ([*MODELS, "--config", "/no/such/file"], "config file '/no/such/file' cannot be read: No such file"),
    ],
)
def test_bad_values_say_what_is_wrong(flags: list[str], message: str) -> None:
    """Each message names the flag, the value and the valid form."""
    with pytest.raises(StartupError) as caught:
        load_settings(flags)
    assert message in str(caught.value)


def test_unknown_flags_are_refused() -> None:
    """A misspelt or abbreviated flag, and one without its value, are errors of one line."""
    for words, message in (
        (["--lane", "1"], "convvae-serve run has no option --lane: did you mean --lanes?"),
        (["--max-batch=1"], "convvae-serve run has no option --max-batch: did you mean --max-batch-rows?"),
        (["--lanes"], "--lanes needs a value"),
        (["--config"], "--config needs a value"),
        (["models"], "convvae-serve run takes no further words: models"),
    ):
        with pytest.raises(StartupError) as caught:
            load_settings([*MODELS, *words])
        assert str(caught.value) == f"{message}; convvae-serve run -h explains the options"


def test_unknown_variables_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt variable is refused, and the message suggests the right one."""
    monkeypatch.setenv("CONVVAE_SERVE_MAX_BATCH_ROW", "3")
    with pytest.raises(
        StartupError, match="unknown environment variable CONVVAE_SERVE_MAX_BATCH_ROW: did you mean"
    ):
        load_settings(MODELS)


def test_variables_of_kubernetes_are_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kubernetes' variables for a service named `convvae-serve` do not stop its pods."""
    links = {
        "CONVVAE_SERVE_SERVICE_HOST": "10.0.0.1",
        "CONVVAE_SERVE_SERVICE_PORT": "50051",
        "CONVVAE_SERVE_SERVICE_PORT_GRPC": "50051",
        "CONVVAE_SERVE_PORT": "tcp://10.0.0.1:50051",
        "CONVVAE_SERVE_PORT_50051_TCP_PROTO": "tcp",
        "CONVVAE_SERVE_PORT_50051_TCP": "tcp://10.0.0.1:50051",
        "CONVVAE_SERVE_PORT_50051_TCP_ADDR": "10.0.0.1",
    }
    for name, value in links.items():
        monkeypatch.setenv(name, value)
    assert load_settings(MODELS).lanes == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [("CONVVAE_SERVE_PORT", "8080"), ("convvae_serve_lanse", "1"), ("CONVVAE_SERVE_SERVICE_PORT", "grpc")],
)
def test_what_only_looks_like_kubernetes_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """Variables that only resemble service links are refused, in upper and lower case."""
    monkeypatch.setenv(name, value)
    with pytest.raises(StartupError, match=f"unknown environment variable {name}"):
        load_settings(MODELS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[serve]\ntiny = 1\n", '--serve: must be a list, as in serve = ["mnist=2"]'),
        ("[precision]\ntiny = 'int8'\n", '--precision: must be a list, as in precision = ["mnist=int8"]'),
        ("lane = 1\n", "has the unknown key 'lane': did you mean lanes?"),
        ("lanes = [\n", "is not TOML"),
        ('lanes = "many"\n', "--lanes is 'many': it must be a whole number, 0 to 64"),
    ],
)
def test_bad_files_say_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    """A file with unknown keys, bad syntax or bad values is refused by name."""
    file = tmp_path / "serve.toml"
    file.write_text(text)
    with pytest.raises(StartupError) as caught:
        load_settings([*MODELS, "--config", str(file)])
    assert message in str(caught.value)


def test_every_setting_is_described() -> None:
    """Each setting has a description."""
    assert all(field.description for field in ServeSettings.model_fields.values())


def test_the_file_may_be_a_pipe(tmp_path: Path) -> None:
    """A shell's `<(command)` gives a pipe, which can be read once."""
    file = tmp_path / "pipe"
    os.mkfifo(file)
    writer = threading.Thread(target=file.write_text, args=("lanes = 3\n",))
    writer.start()
    assert load_settings([*MODELS, "--config", str(file)]).lanes == 3
    writer.join()


@pytest.mark.parametrize(
    "address", ["::1:50051", "[::1:50051", "::1]:50051", "[localhost]:1", "a:b:1", "[]:1"]
)
def test_an_ipv6_address_stands_in_brackets(address: str) -> None:
    """Otherwise its port could be a part of it."""
    with pytest.raises(StartupError) as caught:
        load_settings([*MODELS, "--address", address])
    wanted = f"--address: {address!r} is not HOST:PORT: an IPv6 address stands in brackets, as in [::1]:50051"
    assert str(caught.value) == wanted
    assert load_settings([*MODELS, "--address", "[fe80::1%eth0]:50051"]).address == ("[fe80::1%eth0]:50051",)
