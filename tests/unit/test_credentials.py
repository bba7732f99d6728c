"""Settings that the service manager hands over as files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from workerd import config
from workerd.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("directory")

URL = "postgresql://app:hunter22@db/shop"


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    folder = tmp_path / "secrets"
    folder.mkdir()
    return folder


def test_a_credential_is_a_setting_whatever_the_case_of_its_name(secrets: Path) -> None:
    (secrets / "database_url").write_text(f"{URL}\n")
    (secrets / "OPENAI_API_KEY").write_text("sk-1234")
    loaded = config.load(environ={"CREDENTIALS_DIRECTORY": str(secrets)})
    assert (loaded.settings.database_url, loaded.settings.openai_api_key) == (URL, "sk-1234")
    assert loaded.sources["database_url"] == "DATABASE_URL in the credentials"
    assert "hunter22" not in loaded.shown("database_url")


def test_the_environment_counts_before_a_credential_and_a_credential_before_the_file(
    secrets: Path, directory: Path
) -> None:
    (secrets / "database_url").write_text(URL)
    (secrets / "api_token").write_text("from-a-credential")
    (directory / ".env").write_text("API_TOKEN=from-the-file\n")
    environ = {"CREDENTIALS_DIRECTORY": str(secrets), "DATABASE_URL": "postgresql://elsewhere/shop"}
    settings = config.load(environ=environ).settings
    assert (settings.database_url, settings.api_token) == ("postgresql://elsewhere/shop", "from-a-credential")


def test_other_files_there_and_a_directory_that_is_missing_are_nothing_to_complain_of(secrets: Path) -> None:
    (secrets / "tls.key").write_bytes(b"\xff\xfe")
    assert config.load(environ={"CREDENTIALS_DIRECTORY": str(secrets)}).warnings == []
    assert config.load(environ={"CREDENTIALS_DIRECTORY": str(secrets / "none")}).settings.database_url is None


def test_a_credential_that_cannot_be_read_is_one_clear_line(secrets: Path) -> None:
    (secrets / "database_url").mkdir()
    with pytest.raises(ConfigError, match=r"a credential in .*secrets \(CREDENTIALS_DIRECTORY\) cannot be read"):
        config.load(environ={"CREDENTIALS_DIRECTORY": str(secrets)})
