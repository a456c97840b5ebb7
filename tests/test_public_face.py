"""The built wheel in a clean environment: the console script, and scripts with unlucky names."""

import json
import os
import subprocess
import sys
import sysconfig
import textwrap
from pathlib import Path

import pytest

import pbft

ROOT = Path(__file__).resolve().parent.parent
NAMES = sorted(pbft.__all__)


def run(*command: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTHON")
    }
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def succeed(*command: object, cwd: Path) -> str:
    result = run(*command, cwd=cwd)
    assert result.returncode == 0, result.stderr + result.stdout
    return result.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a clean environment with our wheel; dependencies come from this one."""
    folder = tmp_path_factory.mktemp("installed")
    succeed(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    (wheel,) = folder.glob("*.whl")
    succeed(sys.executable, "-m", "venv", "--without-pip", folder / "venv", cwd=folder)
    python = folder / "venv" / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python)
    succeed(*pip, "install", "--quiet", "--no-index", "--no-deps", wheel, cwd=folder)
    purelib = succeed(
        python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder
    )
    dependencies = {sysconfig.get_path("purelib"): None, sysconfig.get_path("platlib"): None}
    (Path(purelib.strip()) / "dependencies.pth").write_text("\n".join(dependencies))
    return python.parent


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder whose modules have the names of ours."""
    for name in ("crypto", "network"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the stranger was imported')\n")
    return tmp_path


def test_the_console_script_runs(installed: Path, tmp_path: Path) -> None:
    assert succeed(installed / "pbft", "--version", cwd=tmp_path) == "pbft, version 0.1.0\n"
    succeed(installed / "pbft", "keygen", "--out", tmp_path / "keys", cwd=tmp_path)
    assert (tmp_path / "keys" / "cluster.toml").exists()


def test_the_module_runs_among_strangers(installed: Path, hostile: Path) -> None:
    (hostile / "client.py").write_text("raise SystemExit('the stranger was imported')\n")
    succeed(installed / "python", "-m", "pbft.cli.main", "keygen", "--out", "keys", cwd=hostile)
    assert (hostile / "keys" / "cluster.toml").exists()


def test_a_script_called_client_runs_among_strangers(installed: Path, hostile: Path) -> None:
    script = """
        import json, sys
        from pbft import Client, KV, StateMachine
        import pbft
        import pbft.node.turn, client.session, crypto.signing, network.framing
        places = {n: sys.modules[n].__file__ for n in ("crypto", "network", "client", "pbft")}
        print(json.dumps([places, [getattr(pbft, name).__name__ for name in pbft.__all__]]))
    """
    (hostile / "client.py").write_text(textwrap.dedent(script))
    places, names = json.loads(succeed(installed / "python", "client.py", cwd=hostile))
    assert sorted(names) == NAMES
    for name, place in places.items():
        assert Path(place).parent.name == name
        assert Path(place).is_relative_to(installed.parent)


def test_a_stranger_that_is_loaded_already_is_named(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "crypto.py").write_text("")
    (tmp_path / "mine.py").write_text("import crypto\nimport pbft\n")
    result = run(installed / "python", "mine.py", cwd=tmp_path)
    assert result.returncode == 1
    sentence = result.stderr.strip().splitlines()[-1]
    assert sentence.startswith("ImportError: pbft needs its own package 'crypto', but another")
    assert str(tmp_path / "crypto.py") in sentence


def test_our_own_package_may_be_loaded_first(installed: Path, tmp_path: Path) -> None:
    succeed(installed / "python", "-c", "import crypto.digests, client, pbft", cwd=tmp_path)


def test_a_package_that_is_missing_is_named(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "pbft").mkdir()
    (tmp_path / "pbft" / "__init__.py").write_text(Path(pbft.__file__).read_text())
    result = run(installed / "python", "-c", "import pbft", cwd=tmp_path)
    sentence = result.stderr.strip().splitlines()[-1]
    assert (
        sentence == f"ImportError: pbft is not installed whole: {tmp_path} has no package 'crypto'"
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_is_the_class_of_its_room(name: str) -> None:
    value = getattr(pbft, name)
    assert isinstance(value, type)
    assert value.__name__ == name
    assert name in dir(pbft)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'pbft' has no attribute 'Nonsense'"):
        _ = pbft.Nonsense  # type: ignore[attr-defined]


def test_importing_pbft_imports_neither_client_nor_application(tmp_path: Path) -> None:
    code = "import sys, pbft; print('client.client' in sys.modules, 'msgspec' in sys.modules)"
    assert succeed(sys.executable, "-c", code, cwd=ROOT) == "False False\n"
