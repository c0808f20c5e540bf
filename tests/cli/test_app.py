"""`app`: the pages, from any folder."""

import importlib.util
import os
import runpy
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from benchmarks.app_server import serving
from csreft_core.cli import main
from csreft_core.config import PROJECT
from tests.repository import ROOT
from tests.served_app import handshake

APP = (sys.executable, "-m", "csreft_core", "app", "--headless", "--port")


@pytest.fixture
def streamlit_called(monkeypatch) -> list[list[str]]:
    """The command lines with which Streamlit is run, in place of running it."""
    calls: list[list[str]] = []
    monkeypatch.setattr(runpy, "run_module", lambda *_, **__: calls.append(sys.argv))
    monkeypatch.setattr(sys, "argv", sys.argv)
    return calls


def test_the_options_are_those_of_streamlit(streamlit_called):
    assert main(["app", "--port", "9000", "--address", "0.0.0.0", "--allow", "192.168.1.20"]) == 0
    ((program, run, script, *options),) = streamlit_called
    assert (program, run, Path(script)) == ("streamlit", "run", PROJECT / "app.py")
    assert options == [
        "--server.port=9000",
        "--server.address=0.0.0.0",
        "--server.allowedHosts=localhost",
        "--server.allowedHosts=192.168.1.20",
    ]


def test_without_more_it_is_open_to_this_machine_alone(streamlit_called):
    assert main(["app"]) == 0
    assert streamlit_called[0][3:] == ["--server.port=8501"]


@pytest.mark.usefixtures("streamlit_called")
def test_the_runs_lie_where_it_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv("CSREFT_RUNS", "before")
    assert main(["app", "--runs", str(tmp_path)]) == 0
    assert os.environ["CSREFT_RUNS"] == str(tmp_path)


def test_without_streamlit_it_says_what_to_install(streamlit_called, monkeypatch, capsys):
    monkeypatch.setattr("csreft_core.cli.app.find_spec", lambda _: None)
    assert importlib.util.find_spec("streamlit") is not None
    assert main(["app"]) == 2
    assert "csreft[app]" in capsys.readouterr().err
    assert streamlit_called == []


def test_it_serves_from_another_folder_under_the_shipped_settings(tmp_path):
    with serving(tmp_path, APP, tmp_path, PYTHONPATH=str(ROOT)) as (address, _):
        # `allowedHosts` stands in the shipped settings alone: Streamlit lets all pass.
        assert handshake(address, urlsplit(address).netloc) == 101
        assert handshake(address, "evil.example") == 403
